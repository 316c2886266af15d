"""`Ensemble`: networks that train together on the same rows, and then predict together."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx._base import check, printing, trainers
from nnx._base.config import checked_threads, get_num_threads
from nnx._base.helpers import share
from nnx._base.interrupt import Interrupt
from nnx._base.text import abridged
from nnx._base.typing import Array, ArrayLike, Path
from nnx.accuracy import Accuracy_Regression
from nnx.callbacks import EarlyStopping
from nnx.engine import layerwise
from nnx.engine.data_checks import checked_data, checked_samples, weighing
from nnx.engine.history import EPOCH, VALIDATION, History
from nnx.layers import walk
from nnx.many import Run, train_many
from nnx.members import (
    base_seed,
    called,
    check_alike,
    check_keywords,
    give_seeds,
    multiplied_by,
    refuse_shared,
    seeds_of,
    selection,
    shared_rows,
)
from nnx.model import Model
from nnx.noise import missing_seeds
from nnx.predictor import parts_of

if TYPE_CHECKING:
    from nnx.data.images import Images
    from nnx.data.tables import Table
    from nnx.files.model_files import Part
    from nnx.scoring.reports import Report

#: How often `select` draws by default.
DRAWS = 50
#: The most numbers that members predict before their mean is taken.
MOST_NUMBERS = 1 << 24
#: The number of multiply-adds that makes a second thread worth its start.
LEAST_NUMBERS = 20_000_000


class Ensemble:
    """Networks that train independently on the same rows. Their mean output is the prediction.

    Networks with different initial weights make different errors, so their mean is more accurate than most of them.

    Parameters
    ----------
    models : sequence of Model
        Finalized models of one dtype, with the same numbers of inputs and outputs, and with last layers and losses of
        the same classes. Everything else may differ: layers, optimizers, settings.

    Attributes
    ----------
    models : tuple of Model
        The members.
    counts : tuple of int
        How often each member counts in the mean: once, until `select` is called.
    weights : float64 array (k,)
        ``counts`` divided by their sum.
    layers, loss, optimizer, accuracy, output_layer_activation
        Those of the first member, for pictures and reports.
    table : Table or None
        Describes the columns of the file that the samples come from, as in a `Model`. All members have it.
    images : Images or None
        The same for samples that are images.
    preprocessor : Table, Images or None
        ``table`` or ``images``, whichever the ensemble has.

    Raises
    ------
    TypeError, ValueError
        If the models do not fit each other, or have an object in common that training changes.

    Notes
    -----
    Hansen and Salamon, "Neural network ensembles", 1990; Lakshminarayanan, Pritzel and Blundell, "Simple and scalable
    predictive uncertainty estimation using deep ensembles", 2017.

    Examples
    --------
    >>> import nnx
    >>> def build(rng):
    ...     model = nnx.Model()
    ...     n = int(rng.integers(16, 64))  # each member draws its own width
    ...     model.add(nnx.Layer_Dense(2, n))
    ...     model.add(nnx.Activation_ReLU())
    ...     model.add(nnx.Layer_Dense(n, 3))
    ...     model.add(nnx.Activation_Softmax())
    ...     model.set(
    ...         loss=nnx.Loss_CategoricalCrossentropy(),
    ...         optimizer=nnx.Optimizer_Adam(0.02),
    ...         accuracy=nnx.Accuracy_Categorical(),
    ...     )
    ...     model.finalize()
    ...     return model
    >>> ensemble = nnx.Ensemble.of(build, 4, seed=1)
    >>> X, y = nnx.spiral_data(samples=50, classes=3)
    >>> histories = ensemble.train(X, y, epochs=100, batch_size=32, shuffle=True, seed=2, validation_split=0.2)
    >>> ensemble.predict(X).shape, ensemble.predict(X, members=True).shape
    ((150, 3), (4, 150, 3))
    """

    models: tuple[Model, ...]
    counts: tuple[int, ...]
    #: An ensemble has no plan of its own. Pictures and reports ask each model for its plan.
    _plan: Any = None

    def __init__(self, models: Sequence[Model]) -> None:
        where = "Ensemble"
        if isinstance(models, Model) or not isinstance(models, Sequence) or not models:
            raise TypeError(f"{where}: models must be a sequence of at least one Model, got {abridged(models)}.")
        for number, model in enumerate(models):
            if not isinstance(model, Model):
                raise TypeError(f"{where}: models must be of the class Model, got {abridged(model)} at {number}.")
            model._require(where)
        check_alike(where, models)
        refuse_shared(where, models)
        self.models = tuple(models)
        self.counts = (1,) * len(models)

    @classmethod
    def of(cls, build: Callable[[np.random.Generator], Model], n_members: int, seed: int | None = 0) -> Ensemble:
        """Return an ensemble of members that a function builds, each with its own seed.

        A member depends only on ``seed`` and its number, not on the number of members.

        Parameters
        ----------
        build : function
            ``build(rng)`` returns a finalized `Model`. From ``rng``, a NumPy generator, it may draw what differs
            between members: widths, rates, kinds of layers. Initial weights and the seeds of dropout and noise differ
            too: they come from NumPy's global generator, which is seeded for each call and restored afterwards.
        n_members : int
        seed : int, optional
            If None, NumPy's global generator gives one.

        Raises
        ------
        TypeError, ValueError
            If ``build`` returns no such model, or members that do not fit each other.
        """
        where = "Ensemble.of"
        if not callable(build):
            raise TypeError(f"{where}: build must be a function that returns a Model, got {abridged(build)}.")
        n_members = check.whole(where, "n_members", n_members)
        base = base_seed(where, seed)
        models = []
        before = np.random.get_state(legacy=False)
        try:
            for number in range(n_members):
                np.random.seed(seeds_of(base, number, 0).generate_state(4))
                model = build(np.random.default_rng(seeds_of(base, number, 1)))
                if not isinstance(model, Model):
                    raise TypeError(f"{where}: build must return a Model, got {abridged(model)}.")
                models.append(model)
        finally:
            np.random.set_state(before)
        return cls(models)

    # What all members have in common

    @property
    def weights(self) -> Array:
        """The weight of each member in the mean, float64 (k,). The sum is 1."""
        counts = np.array(self.counts, np.float64)
        return np.asarray(counts / counts.sum())

    @property
    def layers(self) -> list[Any]:
        """The first member's layers, which show the form of a sample."""
        return self.models[0].layers

    @property
    def loss(self) -> Any:
        """The first member's loss."""
        return self.models[0].loss

    @property
    def optimizer(self) -> Any:
        """The first member's optimizer."""
        return self.models[0].optimizer

    @property
    def accuracy(self) -> Any:
        """The first member's accuracy."""
        return self.models[0].accuracy

    @property
    def output_layer_activation(self) -> Any:
        """The first member's last layer."""
        return self.models[0].output_layer_activation

    @property
    def table(self) -> Table | None:
        """The table: it describes the columns of the file that the samples come from."""
        return self.models[0].table

    @table.setter
    def table(self, table: Table) -> None:
        self.set(table=table)

    @property
    def images(self) -> Images | None:
        """The description of the images that the samples come from."""
        return self.models[0].images

    @property
    def preprocessor(self) -> Table | Images | None:
        """The table or images that turn raw files into inputs and outputs into answers; None without either."""
        return self.models[0].preprocessor

    def set(self, *, table: Table | None = None, images: Images | None = None) -> None:
        """Give all members a table, or images, as `Model.set` does."""
        for model in self.models:
            model.set(table=table, images=images)

    def output_width(self) -> int | None:
        """Return the number of columns of the output; None if only a forward pass would show it."""
        return self.models[0].output_width()

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.models)

    def __repr__(self) -> str:
        return f"Ensemble of {len(self)}, {self._counted()}the first member:\n{self.models[0]!r}"

    def _counted(self) -> str:
        """Return text about the members' weights in the mean; an empty text if they are all equal."""
        if set(self.counts) == {self.counts[0]}:
            return ""
        return f"weighted {_listed(self.counts)} in the mean; "

    def summary(self) -> None:
        """Print the number of members, their weights in the mean, and the layers of each kind of member.

        Seeds are left out: each member has its own.
        """
        print(f"ensemble of {len(self)}, {self._counted()}each member on its own:")
        kinds: dict[str, list[int]] = {}
        for number, model in enumerate(self.models):
            kinds.setdefault(_kind(model), []).append(number)
        for numbers in kinds.values():
            print(f"member{'s' if len(numbers) > 1 else ''} {_listed(numbers)}")
            self.models[numbers[0]]._print_summary(without=("seed",))

    # Training

    def train(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        restore_best: bool = True,
        patience: int | None = None,
        monitor: str = "validation_loss",
        seed: int | None = None,
        threads: int | None = None,
        progress: bool = False,
        together: bool = True,
        callbacks: Callable[[int], list[Any]] | None = None,
        check_finite: bool = True,
        validation_data: Any = None,
        validation_split: float | None = None,
        sample_weight: ArrayLike | None = None,
        **keywords: Any,
    ) -> list[History]:
        """Train all members on the same rows at the same time, one thread each, as `train_many` does.

        Samples are checked and cast once, and all members read the same memory. Ctrl-C stops all members between two
        steps, as `train_many` says.

        Parameters
        ----------
        X, y : arrays
            As in `Model.train`.
        restore_best : bool
            Whether each member ends with the parameters of its best epoch, if there are held-out rows.
        patience : int, optional
            Stop a member when it has not improved for this number of epochs. If None, all train to the end.
        monitor : str
            The metric that decides which epoch is the best, by its name in `History`.
        seed : int, optional
            Seed of the held-out rows, and of each member's order of rows, dropout and noise, which depend only on the
            seed and the member's number. If None, NumPy's global generator gives one.
        threads : int, optional
            The most members that train at once. If None, the number given to `nnx.set_num_threads`. The result is the
            same, bit for bit.
        progress : bool
            Whether to show a bar on stderr that counts the epochs of all members.
        together : bool
            Whether small members of one shape train in the lanes of a vector, where that is faster. Their results then
            differ in the last digits from those of a member that trains alone. See "Together" in
            docs/guide/many-models.md.
        callbacks : function, optional
            ``callbacks(number)`` returns a new list of callbacks for the member with this number.
        validation_data, validation_split, sample_weight, check_finite, **keywords
            Those of `Model.train`, for all members. All are validated on the same rows. Nothing is printed, and there
            are no checkpoints.

        Returns
        -------
        list of History
            In the order of the members.

        Raises
        ------
        TypeError, ValueError
            If an argument is not valid. No weight has changed then.
        Exception
            What `Model.train` raises. A note says which member it was; all others have stopped.
        """
        where = "Ensemble.train"
        check_keywords(where, keywords, Ensemble.train.__kwdefaults__ or ())
        check.flag(where, "restore_best", restore_best)
        check.flag(where, "check_finite", check_finite)
        check.one_of(where, "monitor", monitor, EPOCH)
        patience = None if patience is None else check.whole(where, "patience", patience, 1, check.MAX_COUNT)
        n_threads = get_num_threads() if threads is None else checked_threads(where, "threads", threads)
        base = base_seed(where, seed)
        rows = (X, y, sample_weight, validation_data, validation_split)
        shared = shared_rows(where, self.models[0], *rows, check_finite, base)
        stops = patience is not None or (restore_best and ("validation_data" in shared or monitor not in VALIDATION))
        runs = []
        for number, model in enumerate(self.models):
            own_callbacks = [] if callbacks is None else called(where, callbacks, number)
            if stops:
                own_callbacks.append(EarlyStopping(monitor, patience or check.MAX_COUNT, 0.0, restore_best))
            own: dict[str, Any] = {"callbacks": own_callbacks} if own_callbacks else {}
            if not callable(keywords.get("shuffle")):
                own["seed"] = int(seeds_of(base, number, 2).generate_state(1, np.uint64)[0])
            own["threads"] = max(1, n_threads // len(self))
            runs.append(Run(model, **shared, **keywords, **own, check_finite=False))
        unseeded = [layer for model in self.models for layer in walk(model.layers) if missing_seeds([layer])]
        for number, model in enumerate(self.models):
            give_seeds(model, seeds_of(base, number, 3))
        try:
            return train_many(runs, threads=n_threads, progress=progress, together=together)
        except BaseException:
            for layer in unseeded:
                if not layer.training_forwards:  # it has drawn no number
                    layer.seed = None
            raise

    def select(
        self,
        X: ArrayLike,
        y: ArrayLike,
        most: int | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        threads: int | None = None,
    ) -> tuple[int, ...]:
        """Keep the members whose mean is best on held-out rows, and choose their weights.

        `select` draws members one after the other. Each time it draws the member that gives the mean output the
        smallest loss. It may draw a member again. Of all these means it keeps the best. If several are equal, it keeps
        the one with the fewest draws. A member counts as often as it was drawn. Members that were not drawn leave the
        ensemble.

        Parameters
        ----------
        X, y : arrays
            Rows that no member was trained on, as in `Model.evaluate`. Afterwards, the ensemble's scores on these rows
            are better than on new ones.
        most : int, optional
            The most draws; 50 if None.
        sample_weight : array (n,), optional
            The weight of each row in the loss.
        threads : int, optional
            As in `predict`.

        Returns
        -------
        tuple of int
            How often each member of the ensemble before the call was drawn.

        Raises
        ------
        ValueError
            If no member's outputs are finite. Nothing has changed then.

        Notes
        -----
        Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble selection from libraries of models", 2004.
        """
        where = "Ensemble.select"
        most = DRAWS if most is None else check.whole(where, "most", most)
        first = self.models[0]
        first._require(where, "loss", "accuracy")
        data = checked_data(first, where, ("X", "y", "sample_weight"), X, y, True, sample_weight)
        weighing(first, where, "sample_weight", data)
        outputs = self._outputs(data.X, None, self._n_threads(where, threads))
        counts = selection(first.loss, outputs, data.y, data.weights, most)
        if not any(counts):
            raise ValueError(f"{where}: the outputs of at least one member must be finite numbers, got none.")
        kept = [number for number, n_drawn in enumerate(counts) if n_drawn]
        self.models, self.counts = tuple(self.models[i] for i in kept), tuple(counts[i] for i in kept)
        return tuple(counts)

    # Using

    def predict(
        self,
        X: ArrayLike,
        members: bool = False,
        *,
        batch_size: int | None = None,
        threads: int | None = None,
    ) -> Array:
        """Return the weighted mean of the members' outputs, one row per sample: probabilities or numbers.

        Parameters
        ----------
        X : array (n, n_inputs)
        members : bool
            Whether to return the outputs of each member instead. Their spread shows how certain the ensemble is: far
            from the training rows, members disagree.
        batch_size : int, optional
            Samples at a time, as in `Model.predict`.
        threads : int, optional
            The most threads to use. Each thread runs one member. If None, the number given to `nnx.set_num_threads`.
            The result is the same, bit for bit.

        Returns
        -------
        array (n, outputs)
            A new one; with ``members`` it has the shape (k, n, outputs), in the order of ``models``.
        """
        where = "Ensemble.predict"
        check.flag(where, "members", members)
        n_threads = self._n_threads(where, threads)
        if batch_size is not None:
            batch_size = check.whole(where, "batch_size", batch_size)
        samples = checked_samples(self.models[0], where, "X", X)
        if members:
            return self._outputs(samples, batch_size, n_threads)
        return self._mean(samples, batch_size, n_threads)

    def predict_classes(self, X: ArrayLike, *, batch_size: int | None = None) -> Array:
        """Return the classes that the mean outputs predict, as `Model.predict_classes` does."""
        return self._as_model().predict_classes(X, batch_size=batch_size)

    def evaluate(
        self,
        X_val: ArrayLike,
        y_val: ArrayLike,
        *,
        batch_size: int | None = None,
        silent: bool = False,
        sample_weight: ArrayLike | None = None,
        threads: int | None = None,
    ) -> dict[str, float]:
        """Print and return the loss, without penalties, and the accuracy of the mean outputs.

        It uses the loss and the accuracy of the first member.

        Parameters
        ----------
        X_val, y_val : arrays
            As in `Model.evaluate`.
        batch_size : int, optional
            Samples at a time, as in `predict`.
        silent : bool
            Whether to print nothing.
        sample_weight : array (n,), optional
            The weight of each sample.
        threads : int, optional
            As in `predict`.

        Returns
        -------
        dict
            ``{"loss": float, "accuracy": float}``.
        """
        where = "Ensemble.evaluate"
        n_threads = self._n_threads(where, threads)
        twin = self._as_model()
        twin._require(where, "loss", "accuracy")
        silent = check.flag(where, "silent", silent)
        if batch_size is not None:
            batch_size = check.whole(where, "batch_size", batch_size)
        names = ("X_val", "y_val", "sample_weight")
        data = weighing(
            twin, where, "sample_weight", checked_data(twin, where, names, X_val, y_val, False, sample_weight)
        )
        twin.loss, twin.accuracy = copy.copy(twin.loss), copy.copy(twin.accuracy)
        if isinstance(twin.accuracy, Accuracy_Regression) and twin.accuracy.precision is None:
            twin.accuracy.init(np.asarray(y_val))
        with Interrupt() as interrupt:
            layerwise.evaluate(twin, data, batch_size, interrupt, lambda _, X: self._mean(X, None, n_threads))
        figures = {
            "loss": float(twin.loss.calculate_accumulated()),
            "accuracy": float(twin.accuracy.calculate_accumulated()),
        }
        if not silent:
            print(printing.validation_line(**figures))
        return figures

    def score(
        self, X: ArrayLike, y: ArrayLike, *, batch_size: int | None = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return accuracy, or R², of the mean outputs, as `Model.score` does.

        Parameters
        ----------
        X, y : arrays
            Samples and targets, as in `Model.report`.
        batch_size : int, optional
            Samples at a time, as in `predict`.
        sample_weight : array (n,), optional
            The weight of each sample.
        """
        return self.report(X, y, batch_size=batch_size, sample_weight=sample_weight).score

    def report(
        self, X: ArrayLike, y: ArrayLike, *, batch_size: int | None = None, sample_weight: ArrayLike | None = None
    ) -> Report:
        """Return the usual metrics of the mean outputs, as `Model.report` does.

        Parameters
        ----------
        X, y : arrays
            Samples and targets, as in `Model.report`.
        batch_size : int, optional
            Samples at a time, as in `predict`.
        sample_weight : array (n,), optional
            The weight of each sample in the metrics and the baseline.

        Returns
        -------
        ClassificationReport or RegressionReport
            As of `Model.report`.
        """
        return self._as_model().report(X, y, batch_size=batch_size, sample_weight=sample_weight)

    def _as_model(self) -> Model:
        """Return a copy of the first member that predicts as the ensemble does."""
        twin = copy.copy(self.models[0])
        vars(twin)["predict"] = self.predict
        return twin

    def _n_threads(self, where: str, threads: int | None) -> int:
        return get_num_threads() if threads is None else checked_threads(where, "threads", threads)

    def _mean(self, samples: Array, batch_size: int | None, threads: int) -> Array:
        """Return the mean outputs for checked samples. Where all outputs would be large, take some rows at a time."""
        rows = max(1024, MOST_NUMBERS // (len(self) * (self.output_width() or 1)))
        found = []
        for start in range(0, max(1, len(samples)), rows):
            outputs = self._outputs(samples[start : start + rows], batch_size, threads)
            total = np.zeros(outputs.shape[1:], np.float64)
            for weight, own in zip(self.weights, outputs, strict=True):
                total += weight * own
            found.append(total.astype(outputs.dtype))
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _outputs(self, samples: Array, batch_size: int | None, threads: int) -> Array:
        """Return each member's outputs for checked samples: (k, n, outputs)."""
        left, found, errors = deque(range(len(self))), [np.empty(0)] * len(self), list[BaseException]()
        numbers = sum(array.size for model in self.models for array in multiplied_by(model))
        n_threads = min(threads, len(self)) if len(samples) * numbers >= LEAST_NUMBERS else 1

        def work() -> None:
            while not errors:
                try:
                    number = left.popleft()
                except IndexError:
                    return
                try:
                    found[number] = self.models[number].predict(
                        samples, batch_size=batch_size, threads=max(1, threads // len(self))
                    )
                except BaseException as error:  # the caller's thread raises it
                    errors.append(error)

        share(work, n_threads)
        if errors:
            raise errors[0]
        return np.stack(found)

    # Files

    def save(self, path: Path) -> None:
        """Write all members to one safetensors file, atomically. `load` can predict from it and continue the training.

        The file holds a table or images only once.

        Raises
        ------
        TypeError, ValueError
            As `Model.save`. An ensemble of about 1,500 members is too large for a file.
        RuntimeError
            While another thread trains a member.
        """
        from nnx.files import ensembles

        where = "Ensemble.save"
        for model in self.models:
            model._require(where)
            trainers.refuse_others(f"{where}: the ensemble must not be saved", model)
        ensembles.save(where, path, self.models, self.counts)

    def export_c(self, path: Path, *, int8: bool = False, name: str | None = None) -> None:
        """Write a C file that predicts as this ensemble does, with all members and their mean.

        Parameters
        ----------
        path : path-like
            It is replaced as a whole or not at all.
        int8, name
            As in `Model.export_c`.

        Raises
        ------
        ValueError, RuntimeError
            As `Model.export_c`.
        """
        from nnx.files import c_source

        where = "Ensemble.export_c"
        members = []
        for model in self.models:
            model._require(where)
            trainers.refuse_others(f"{where}: the members must not be exported", model)
            members.append(parts_of(where, model)[1])
        c_source.write(where, path, members, self.weights.tolist(), self.models[0], int8, name)

    def export_onnx(self, path: Path) -> None:
        """Write all members, and the mean of their outputs, to one ONNX file, as `Model.export_onnx` does.

        Raises
        ------
        ImportError, ValueError, RuntimeError
            As `Model.export_onnx`.
        """
        from nnx.files import onnx_export

        where = "Ensemble.export_onnx"
        members = []
        for model in self.models:
            model._require(where)
            trainers.refuse_others(f"{where}: the members must not be exported", model)
            members.append(parts_of(where, model))
        dtype = members[0][0]
        parts = [own for _, own in members]
        answering = onnx_export.answering(where, self.models[0])
        onnx_export.export(where, path, parts, dtype, weights=self.weights, **answering)

    @classmethod
    def load(cls, path: Path, custom_objects: Mapping[str, type] | None = None) -> Ensemble:
        """Return the ensemble that `save` wrote. Nothing in the file is executed.

        Parameters
        ----------
        path : str or path
        custom_objects : dict, optional
            Custom classes by name, for members that hold objects of them.

        Raises
        ------
        ModelFileError
            If the file is not from nnx, is damaged, or names a class that is neither built in nor in custom_objects.
        """
        from nnx.files import model_files

        where = "Ensemble.load"
        file = model_files.opened(where, check.path(where, "path", path))
        if file.kind != model_files.ENSEMBLE:
            file.refuse(model_files.READERS[file.kind])
        return cls._of_file(file, custom_objects or {})

    @classmethod
    def _of_file(cls, file: Part, custom_objects: Mapping[str, type]) -> Ensemble:
        """Return the ensemble that a file holds."""
        from nnx.files import ensembles

        counts: list[Any] = file.take(list, "counts")
        members = ensembles.members_of(file, Model, custom_objects, Model._restore)
        if len(counts) != len(members):
            file.refuse(f"is damaged: it counts {len(counts)} members, and holds {len(members)}")
        try:
            ensemble = cls(members)
            ensemble.counts = tuple(check.whole(file.where, "counts", each, 1, check.MAX_COUNT) for each in counts)
        except (TypeError, ValueError) as error:
            file.refuse(f"is damaged ({error})")
        return ensemble


def load_any(path: Path, custom_objects: Mapping[str, type] | None = None) -> Model | Ensemble:
    """Return the model, or the ensemble, that a file holds, as `Model.load` and `Ensemble.load` do."""
    from nnx.files import model_files

    where = "Model.load"
    file = model_files.opened(where, check.path(where, "path", path))
    if file.kind == model_files.ENSEMBLE:
        return Ensemble._of_file(file, custom_objects or {})
    return model_files.loaded_model(file, Model, custom_objects or {}, Model._restore)


def _listed(numbers: Sequence[int], most: int = 12) -> str:
    return ", ".join(map(str, numbers[:most])) + (", ..." if len(numbers) > most else "")


def _kind(model: Model) -> str:
    """Return what members of one kind share: everything except seeds and edges, which each member has of its own."""
    return repr(
        [
            (type(layer).__name__, _common(layer.get_config())) if hasattr(layer, "get_config") else repr(layer)
            for layer in model.layers
        ]
    )


def _common(config: Any) -> Any:
    """Return what describes a layer, and the layers within it, without what is each member's own."""
    if isinstance(config, dict):
        return {name: _common(value) for name, value in config.items() if name not in ("seed", "edges")}
    return [_common(each) for each in config] if isinstance(config, list) else config
