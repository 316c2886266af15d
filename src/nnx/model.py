"""`Model`: layers in sequence, with the loss, optimizer and accuracy that train and evaluate them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nnx._base import check, printing, random, trainers
from nnx._base.config import checked_threads, get_num_threads
from nnx._base.describe import text_without
from nnx._base.files import refuse
from nnx._base.interrupt import Interrupt, at_once
from nnx._base.parameters import AVERAGED, Parameterized, WithWeights
from nnx._base.precision import checked_precision, of_products, warn_of_refused_units
from nnx._base.random import Order, Sampler
from nnx._base.typing import Array, ArrayLike, Parameters, Path
from nnx._base.vocabulary import BUILT_IN, is_built_in
from nnx._base.weights import checked_weights, weighted_gradient
from nnx._base.widths import width_after
from nnx.accuracy import Accuracy_Regression
from nnx.activations import Activation_Softmax
from nnx.embedding import check_order
from nnx.engine import plan, program  # what only training needs is imported by `train` and `evaluate`
from nnx.engine.classes import ClassWeight, checked_split, classes_of_rows, held_out_rows, weighed_by_class
from nnx.engine.data_checks import (
    check_backward,
    checked_data,
    checked_samples,
    checked_validation,
    dtype_of,
    keeps,
    warn_of_sorted_rows,
    weighing,
)
from nnx.engine.history import History
from nnx.engine.job import Data, Job, Split
from nnx.layers import Layer_Dense, Layer_Input, Layer_Members, Layer_Residual, walk
from nnx.losses import Activation_Softmax_Loss_CategoricalCrossentropy, Loss, Loss_CategoricalCrossentropy
from nnx.noise import missing_seeds
from nnx.optimizers import forgetting_averages
from nnx.predictor import Predictor, freeze, parts_of
from nnx.residual import check_members, check_widths, members_of, refuse_twice

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

    from nnx.data.images import Images
    from nnx.data.streams import Blocks
    from nnx.data.tables import Table
    from nnx.scoring.reports import Report

#: Losses that take probabilities, and the built-in layer that computes them.
PAIRS: dict[type, type] = {kind: kind._pair for kind in BUILT_IN["loss"] if kind._needs_pair}

#: The attributes that a copy of a model does not take over.
PRIVATE = (trainers.MARK, *trainers.MADE)

#: The most layers of a model. A file can hold this number of layers of any kind.
MAX_LAYERS = 10_000

#: The number of members' rows that `predict` runs through the layers at a time.
MEMBER_ROWS = 1 << 15

AnyModel = TypeVar("AnyModel", bound="Model")


class Model:
    """A network: layers in the order in which they were added.

    Attributes
    ----------
    layers : list
        The layers, in the order of the calls of `add`.
    trainable_layers : list
        Those with ``weights``, after ``finalize``, also within a `Layer_Residual`: in the order of `nnx.layers.walk`.
        Remove a layer from this list to freeze it.
    input_layer : Layer_Input
        After ``finalize``.
    output_layer_activation : layer
        The last layer, after ``finalize``; its ``predictions`` turn outputs into what the accuracy compares.
    loss, optimizer, accuracy
        What `set` was given.
    table : Table or None
        Describes the columns of the file that the samples come from, if `set` was given it. The model's file keeps it.
        Use it as ``model.table.decode(model.predict(model.table.read_inputs(path)))``; `train` and `predict` do not.
    images : Images or None
        The same for samples that are images: their size, how pixels are scaled, the names of the classes.
    preprocessor : Table, Images or None
        ``table`` or ``images``, whichever the model has.
    softmax_classifier_output : Activation_Softmax_Loss_CategoricalCrossentropy or None
        After ``finalize``: the combined gradient, if the last layer is exactly `Activation_Softmax` and the loss
        exactly `Loss_CategoricalCrossentropy`.
    history : History or None
        Of the latest `train`.

    Notes
    -----
    Chapters 18 to 22 of the book.

    Examples
    --------
    >>> import nnx
    >>> X, y = nnx.spiral_data(samples=100, classes=3)
    >>> model = nnx.Model()
    >>> model.add(nnx.Layer_Dense(2, 64))
    >>> model.add(nnx.Activation_ReLU())
    >>> model.add(nnx.Layer_Dense(64, 3))
    >>> model.add(nnx.Activation_Softmax())
    >>> model.set(
    ...     loss=nnx.Loss_CategoricalCrossentropy(),
    ...     optimizer=nnx.Optimizer_Adam(learning_rate=0.05, decay=5e-7),
    ...     accuracy=nnx.Accuracy_Categorical(),
    ... )
    >>> model.finalize()
    >>> history = model.train(X, y, epochs=10, print_every=None)
    >>> model.predict(X).shape
    (300, 3)
    """

    layers: list[Any]
    trainable_layers: list[Any]
    input_layer: Layer_Input
    output_layer_activation: Any
    loss: Any = None
    optimizer: Any = None
    accuracy: Any = None
    table: Table | None = None
    images: Images | None = None
    softmax_classifier_output: Activation_Softmax_Loss_CategoricalCrossentropy | None = None
    history: History | None = None
    #: The layers at the time of `finalize`; empty before it.
    _chain: tuple[Any, ...] = ()
    #: Set while the model is trained.
    _training: Any = None
    #: The plan from the last time that the model was trained or used: see `nnx.engine.plan`.
    _plan: Any = None
    _segments: Any = None
    _again: Any = None
    _inference: Any = None

    def __new__(cls: type[AnyModel], *args: Any, **kwargs: Any) -> AnyModel:
        """Make the list of layers here, not in ``__init__``, which a subclass need not call."""
        self = super().__new__(cls)
        self.layers = []
        trainers.remember(self)
        return self

    def __init__(self) -> None:
        pass

    # Building

    def add(self, layer: Any) -> None:
        """Append a layer.

        Parameters
        ----------
        layer : any object with ``forward(inputs, training)`` and ``backward(dvalues)``

        Raises
        ------
        TypeError
            For a class instead of an object, for a loss, and for an object without these methods.
        ValueError
            For a layer that the model has already.
        """
        check.role("Model.add", "layer", layer)
        if isinstance(layer, Loss):  # it has both methods, with other arguments
            raise TypeError(f"Model.add: layer must not be a loss, got {layer!r}. Call model.set(loss=...).")
        known = {id(each) for each in walk(self.layers)}
        twice = next((each for each in walk([layer]) if id(each) in known), None)
        if twice is not None:
            raise ValueError(f"Model.add: layer must be new to this model, got its {twice!r} again.")
        self.layers.append(layer)

    def set(
        self,
        *,
        loss: Any = None,
        optimizer: Any = None,
        accuracy: Any = None,
        table: Table | None = None,
        images: Images | None = None,
    ) -> None:
        """Choose loss, optimizer, accuracy, and table or images. An argument that is None changes nothing.

        A table replaces images, and images replace a table.

        Parameters
        ----------
        loss : loss, optional
            Such as `Loss_CategoricalCrossentropy`, or a custom class derived from `Loss`.
        optimizer : optimizer, optional
            Such as `Optimizer_Adam`, or an object with its methods.
        accuracy : accuracy, optional
            `Accuracy_Categorical`, `Accuracy_Regression`, or a custom class derived from `Accuracy`.
        table : Table, optional
            Describes the columns that the samples come from.
        images : Images, optional
            The same for samples that are images.

        Raises
        ------
        TypeError
            For a class instead of an object, and for an object that lacks the methods of its kind.
        ValueError
            For both a table and images. After `finalize`, also for a loss that does not fit the last layer, as
            `finalize` says.
        """
        if table is not None or images is not None:
            _check_preprocessors(table, images)
        if table is not None and images is not None:
            raise ValueError("Model.set: table must not be given together with images: samples come from one of them.")
        if table is not None:
            from nnx.files import model_files

            model_files.packed("Model.set", "table", table)  # refuses one that no file could hold
        given = {"loss": loss, "optimizer": optimizer, "accuracy": accuracy}
        chosen = {name: thing for name, thing in given.items() if thing is not None}
        for name, thing in chosen.items():
            check.role("Model.set", name, thing)
        if self._chain:
            self._check_output("Model.set", loss)
        vars(self).update(chosen)
        if table is not None or images is not None:
            self.table, self.images = table, images
        if self._chain:
            self._connect_loss()

    @property
    def preprocessor(self) -> Table | Images | None:
        """The table or images that turn raw files into inputs and outputs into answers; None without either."""
        return self.images if self.table is None else self.table

    def finalize(self) -> None:
        """Connect the layers, find the trainable ones, and choose the gradient of the output.

        It needs no loss, optimizer or accuracy. You may call it again at any time.

        Raises
        ------
        ValueError
            If there are no layers, or more than 10,000, counting those within residuals. If a layer occurs twice. If
            neighbours do not fit each other in width or dtype. If an embedding comes after a layer that is not an
            embedding. If a loss of probabilities follows a built-in layer that does not compute them:
            `Loss_CategoricalCrossentropy` needs `Activation_Softmax`, and `Loss_BinaryCrossentropy` needs
            `Activation_Sigmoid`. Layers and losses of custom classes are not checked for this.
        """
        if not self.layers:
            raise ValueError("Model.finalize: there are no layers. Call model.add(layer) first.")
        every = list(walk(self.layers))
        if len(every) > MAX_LAYERS:
            raise ValueError(f"Model.finalize: layers must be at most {MAX_LAYERS:,}, got {len(every):,}.")
        refuse_twice("Model.finalize", self.layers)
        self._check_chain()
        self._check_output("Model.finalize", self.loss)
        self.input_layer = Layer_Input()
        _connect(self.input_layer, self.layers)
        self.output_layer_activation = self.layers[-1]
        self.trainable_layers = [layer for layer in every if hasattr(layer, "weights")]
        self._chain = tuple(self.layers)
        self._connect_loss()

    def _check_chain(self) -> None:
        """Refuse neighbours of different width, and two dtypes."""
        check_widths("Model.finalize", self.layers)
        check_order("Model.finalize", self.layers)
        check_members("Model.finalize", self.layers)
        with_dtype = [layer for layer in walk(self.layers) if isinstance(layer, Parameterized)]
        dtypes = {layer._float_dtype().name for layer in with_dtype}
        if len(dtypes) > 1:
            which = "dense layers" if all(isinstance(layer, Layer_Dense) for layer in with_dtype) else "parameters"
            raise ValueError(f"Model.finalize: all {which} must have one dtype, got {' and '.join(sorted(dtypes))}.")

    def _check_output(self, where: str, loss: Any) -> None:
        """Refuse a built-in loss of probabilities after a built-in layer that computes something else."""
        misfit = self._misfit(loss)
        if misfit:
            pair = type(self.layers[-1])
            others = "".join(f", or set the loss to {kind.__name__}()" for kind in PAIRS if PAIRS[kind] is pair)
            raise ValueError(f"{where}: {misfit}. Add {PAIRS[type(loss)].__name__}() as the last layer{others}.")

    def _misfit(self, loss: Any) -> str:
        """Return why the last layer does not fit a loss; an empty text if it does."""
        needed = PAIRS.get(type(loss))
        if needed is None or not self.layers or type(self.layers[-1]) is needed:
            return ""
        last = self.layers[-1]
        if not is_built_in("layer", last) or not _is_built_in(last) or not _is_built_in(loss):
            return ""
        return f"the last layer must be {needed.__name__} for {type(loss).__name__}, got {last!r}"

    def _connect_loss(self) -> None:
        """Give the loss its layers, and make the combined gradient if there is an exact one."""
        self._chain[-1].next = self.loss
        if self.loss is not None:
            self.loss.remember_trainable_layers(self.trainable_layers)
        softmax = self._ends_in(Activation_Softmax, Loss_CategoricalCrossentropy)
        self.softmax_classifier_output = Activation_Softmax_Loss_CategoricalCrossentropy() if softmax else None

    def _ends_in(self, activation: type, loss: type) -> bool:
        """Return whether last layer and loss are exactly of these classes, with no ``backward`` of their own."""
        pair = ((self.layers[-1], activation), (self.loss, loss))
        return all(type(thing) is kind and "backward" not in vars(thing) for thing, kind in pair)

    def _has_pair_gradient(self) -> bool:
        """Return whether last layer and loss are a built-in pair. Their common gradient is simpler than two in turn."""
        if not is_built_in("loss", self.loss) or self.loss._pair is None:
            return False
        if not self._ends_in(self.loss._pair, type(self.loss)):
            return False
        # For softmax, `finalize` makes an object, which users may replace.
        return self.loss._pair is not Activation_Softmax or self.softmax_classifier_output is not None

    # Training and using

    def train(
        self,
        X: ArrayLike | Blocks | Iterable[Any] | Callable[[], Iterable[Any]],
        y: ArrayLike | None = None,
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        print_every: int | None = 1,
        validation_data: tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
        progress: bool = False,
        shuffle: bool | Sampler = False,
        seed: int | None = None,
        check_finite: bool = True,
        threads: int | None = None,
        on_nonfinite: str = "raise",
        checkpoint: Path | None = None,
        checkpoint_every: int | str = "60s",
        resume: Path | None = None,
        precision: str | None = None,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
        validation_split: float | None = None,
        callbacks: Sequence[Any] | None = None,
        checkpoint_steps: bool = True,
        penalty_per_sample: bool = False,
        comm: Intracomm | None = None,
    ) -> History:
        """Train on samples ``X`` and their targets ``y``.

        Ctrl-C takes effect between two steps. The model is then as it was after the last whole step, and ``history``
        holds the steps until then. With ``checkpoint``, `train` writes a last one. The KeyboardInterrupt reaches the
        caller.

        Parameters
        ----------
        X : array (n, n_inputs), Blocks, or iterable of pairs (X, y)
            Cast once to the model's dtype. Some sources are read block by block, ahead of the steps, and never all at
            once: `Blocks`, an iterable of pairs or of triples (X, y, weights), and a function that returns such an
            iterable. With a ``batch_size``, so are arrays in chunks, as of h5py or Zarr. So is a ``numpy.memmap`` that
            would need more than half of the memory that this process may use. docs/guide/streams.md says what differs.
        y : array
            Targets, as the loss takes them: class numbers (n,), one-hot rows (n, classes), or numbers (n, outputs).
            Leave it out if X yields blocks, which hold it.
        epochs : int
            Passes through the data.
        batch_size : int, optional
            Samples per step; all samples if None. The last batch may be smaller.
        print_every : int or None
            Counts the steps of an epoch, not the epochs: print the epoch's number, each of its steps that this number
            divides, its last step, and the epoch's figures. A run that would print more than 300 lines prints fewer
            steps of each epoch, then only some of the epochs, and says so in its first line. None prints nothing.
        validation_data : pair of arrays, optional
            Samples and targets on which the model is evaluated after each epoch. A third array, (n,), holds the weights
            of these samples.
        progress : bool
            Show a progress bar on stderr, with the loss and, unless it is a regression, the accuracy.
        shuffle : bool or function
            True: draw a new order of the samples for each epoch. A function ``shuffle(epoch, n_samples)`` gives the
            order itself: numbers of samples from 0 to n_samples − 1, an integer array (n_samples,). It may leave
            samples out and repeat others. It is called once an epoch, right before that one, with epochs counted from
            1, and never for an epoch that is not run. Held-out rows are not among the samples.
        seed : int, optional
            Seed of the shuffling. If None, NumPy's global generator gives one. Each call counts epochs from 1, so calls
            with the same seed go through the samples in the same orders. With a function as ``shuffle``, pass a seed
            only together with ``validation_split``, whose rows it then draws.
        check_finite : bool
            Whether to refuse NaN and infinity in X and y.
        threads : int, optional
            The most threads to use. If None, the number given to `nnx.set_num_threads`. The result is the same, bit for
            bit.
        on_nonfinite : "raise" or "ignore"
            What to do when the loss, or in the end a parameter, is NaN or infinite.
        checkpoint : str or path, optional
            A file that `train` writes at intervals, after Ctrl-C and at the end. ``resume`` and `Model.load` read it.
        checkpoint_every : int or str
            The interval between two checkpoints: a number of epochs, or seconds, as in ``"30s"``.
        resume : str or path, optional
            Continue the run that wrote this checkpoint, with the same model and arguments. Only ``epochs``, which may
            grow, ``threads`` and the printing arguments may differ. If the model has only built-in classes and the
            backend is the same, the result equals that of an uninterrupted run, to the bit. A function given as
            ``shuffle`` is called from the epoch in which the run continues, not for earlier ones. If it draws from a
            generator, put the generator into the state of that epoch first.
        precision : "bfloat16", optional
            Let dense layers round inputs, weights and dvalues to the nearest bfloat16 before they multiply them. A
            bfloat16 has 8 bits of precision, a float32 24. Sums and parameters stay float32; validation, `evaluate` and
            `predict` use float32. This works for float32 models only. It is faster on processors with matrix units;
            `explain` says whether yours has them. If None, or the name of the model's dtype, layers multiply in that
            dtype.
        sample_weight : array (n,), optional
            The weight of each sample: 0, or a number from 1e-30 to 1e30. A batch's loss is Σ w·loss / Σ w; accuracy and
            other metrics are weighted means too. Penalties do not change, unless ``penalty_per_sample`` is set. A
            sample of weight 0 has no effect. If all weights of a batch are 0, its loss and gradient are 0.
        class_weight : "balanced", dict, or sequence, optional
            The weight of each class in training, by class number; a class that a dict lacks has weight 1. It is
            multiplied by ``sample_weight``. "balanced" stands for n / (number of classes · samples of the class).
            Targets must be class numbers, one-hot rows, or zeros and ones of a single output. Validation does not use
            it.
        validation_split : float, optional
            Hold out this fraction of the rows, above 0 and below 1, and evaluate the model on them after each epoch.
            The rows are drawn at random, the same fraction of each class to within one row. ``seed`` decides which; if
            it is None, NumPy's global generator gives one. Weights go with their rows.
        callbacks : list of callbacks and functions, optional
            Called in this order at the end of each epoch, after its validation and before a checkpoint: objects such as
            `EarlyStopping` (all are in `nnx.callbacks`), and functions of one argument, a `TrainingRun`.
        checkpoint_steps : bool
            Whether checkpoints hold the metrics of all steps, 40 bytes each. If not, a resumed run has NaN in its
            history for the steps before the checkpoint. Checkpoints always hold the metrics of epochs.
        penalty_per_sample : bool
            Divide the L1 and L2 penalties of layers, in loss and gradient, by the number of samples of each batch, or
            by the sum of their weights. If all weights of a batch are 0, there is no penalty. λ2 = alpha / 2 then
            matches scikit-learn's alpha, and an epoch's ``regularization_loss`` is the mean over its samples of the
            penalties in their steps.
        comm : mpi4py.MPI.Intracomm, optional
            Train together with the other processes of this communicator. Each process makes the same call with the
            same data, and takes its rows of every batch. The result is that of one process, to rounding. See
            docs/guide/machines.md.

        Returns
        -------
        History
            The metrics of the run, also kept as ``history``. For a resumed run, they begin at its first epoch.

        Raises
        ------
        RuntimeError
            If `set` or `finalize` has not been called, or if another thread trains this model.
        TypeError, ValueError
            If an argument is not valid. No weight has changed then.
        RankError
            If another process of ``comm`` has failed; it says why.
        DivergenceError
            With ``on_nonfinite="raise"``, if the training diverges. It names epoch, step and layer. A step whose loss
            is not finite updates nothing.
        UserWarning
            If the rows are sorted by class, batches do not hold all rows, and ``shuffle`` is False. Once per process,
            if ``precision="bfloat16"`` would be faster on matrix units, but the system does not let nnx use them.
        ImportError
            If a callback needs a package that is not installed.
        ModelFileError
            If ``resume`` is not a checkpoint, is damaged, or belongs to another model. Nothing has changed then.
        OSError
            If a checkpoint cannot be written. The checkpoint before it and the model do not change.

        Examples
        --------
        A custom order: each of two classes is drawn as often as the other, though one has nine times as many
        samples.

        >>> import numpy as np, nnx
        >>> generator = np.random.default_rng(0)
        >>> y = (np.arange(200) % 10 == 0).astype(np.intp)
        >>> X = generator.normal(size=(200, 2)) + y[:, None]
        >>> probabilities = 1 / (2 * np.bincount(y)[y])  # for each sample
        >>> shares = []
        >>> def balanced(epoch, n_samples):
        ...     order = generator.choice(n_samples, n_samples, p=probabilities)
        ...     shares.append(float(y[order].mean()))
        ...     return order
        >>> model = nnx.Model()
        >>> model.add(nnx.Layer_Dense(2, 2))
        >>> model.add(nnx.Activation_Softmax())
        >>> model.set(
        ...     loss=nnx.Loss_CategoricalCrossentropy(),
        ...     optimizer=nnx.Optimizer_Adam(0.01),
        ...     accuracy=nnx.Accuracy_Categorical(),
        ... )
        >>> model.finalize()
        >>> history = model.train(X, y, epochs=20, batch_size=50, shuffle=balanced, print_every=None)
        >>> len(shares), round(sum(shares) / 20, 1)
        (20, 0.5)
        """
        options = (
            *(epochs, batch_size, print_every, validation_data, progress, shuffle, seed, check_finite, threads),
            *(on_nonfinite, checkpoint, checkpoint_every, resume, precision),
            *(sample_weight, class_weight, validation_split, callbacks, checkpoint_steps, penalty_per_sample),
        )
        if comm is not None:
            from nnx.engine import ranks

            return ranks.train(self, partial(self._train, X, y), options, comm)
        again = self._again
        if again is not None:
            history: History | None = again.step(self, X, y, options)
            if history is not None:
                return history
        return self._train(X, y, options)

    def _train(
        self,
        X: Any,
        y: Any,
        options: tuple[Any, ...],
        starts: bool = True,
        warns: bool = True,
        do_steps: Callable[[Job, printing.Printer], None] | None = None,
    ) -> History:
        """Check the arguments of `train`, its keywords in their order, then train and return the history.

        ``do_steps`` is called after all checks, in place of `training.train`. If the training is not to start, draw the
        missing seeds, in the same order as a training would.
        """
        from nnx.engine import minimizing, training

        self._again = None
        epochs, batch_size, print_every, validation_data, progress, shuffle, seed, check_finite, threads = options[:9]
        on_nonfinite, checkpoint, checkpoint_every, resume, precision = options[9:14]
        sample_weight, class_weight, validation_split, callbacks, checkpoint_steps, penalty_per_sample = options[14:]
        where = "Model.train"
        self._require(where, "loss", "optimizer", "accuracy")
        self._check_output(where, self.loss)  # which may have been assigned
        epochs = check.whole(where, "epochs", epochs)
        batch_size = _batch_size(where, batch_size)
        print_every = None if print_every is None else check.whole(where, "print_every", print_every)
        check.flag(where, "progress", progress)
        order = Order(where, shuffle, seed)
        if order.asks and seed is not None and validation_split is None:
            raise ValueError(f"{where}: seed must not be given together with a function as shuffle, got {order.seed}.")
        check_finite = check.flag(where, "check_finite", check_finite)
        n_threads = get_num_threads() if threads is None else checked_threads(where, "threads", threads)
        for layer in self.trainable_layers:
            if isinstance(layer, Parameterized):
                layer.get_parameters()  # refuses what cannot be trained, such as read-only arrays
        stream = None
        if y is None or (not isinstance(X, list) and type(X) is not np.ndarray):
            from nnx.engine import streaming

            stream = streaming.stream_of(where, self, X, y, sample_weight, batch_size)
        if stream is not None:
            stream.check_arguments(order, check_finite, class_weight, validation_split, starts and do_steps is None)
            data = stream.first
        else:
            data = checked_data(self, where, ("X", "y", "sample_weight"), X, y, check_finite, sample_weight)
        if minimizing.is_minimized(self):
            minimizing.check_arguments(where, self, len(data.X), batch_size, order.shuffles, precision)
        held_out = None if validation_data is None else checked_validation(self, where, validation_data)
        stops = check.one_of(where, "on_nonfinite", on_nonfinite, ("raise", "ignore")) == "raise"
        checkpoint_steps = check.flag(where, "checkpoint_steps", checkpoint_steps)
        penalty_per_sample = check.flag(where, "penalty_per_sample", penalty_per_sample)
        precision = checked_precision(where, precision, dtype_of(self))
        if precision == "bfloat16":
            warn_of_refused_units(where)
        targets, split = np.asarray(y) if stream is None else stream.targets(), None
        if validation_split is not None:
            if held_out is not None:
                raise ValueError(f"{where}: validation_split must not be given together with validation_data.")
            split = self._split(where, validation_split, order.seed, resume, len(data.X))
            is_held_out = held_out_rows(split, classes_of_rows(self, data), len(data.X))
            held_out = weighing(self, where, "sample_weight of the held-out rows", data.rows(is_held_out))
            data, targets = data.rows(~is_held_out), targets[~is_held_out]
        if stream is None:
            data = self._weighed(where, data, class_weight)
        if stream is None and warns and batch_size is not None and not order.shuffles and resume is None:
            warn_of_sorted_rows(where, self, data, batch_size)
        trainer = trainers.this_thread()
        try:
            trainers.begin(where, self, trainer)
            history = History(isinstance(self.accuracy, Accuracy_Regression))
            job = Job(self, data, held_out, epochs, batch_size, order, n_threads, stops, precision, history)
            job.split, job.penalty_per_sample = split, penalty_per_sample
            if stream is not None:
                stream.begin(job, checkpoint is not None or resume is not None)
            if minimizing.is_minimized(self):
                job.memory = minimizing.new_memory(self)
            if callbacks is not None:
                from nnx.engine import calling

                called = calling.Called(where, job, callbacks)
                job.callbacks = called if called.callbacks else None
            resumed = None
            if checkpoint is not None or resume is not None or checkpoint_every != "60s":
                from nnx.engine import checkpoints

                resumed = checkpoints.prepare(where, job, checkpoint, checkpoint_every, checkpoint_steps, resume)
            if not starts:
                if job.done == 0:
                    order.take_seed()
                    random.draw_seeds(missing_seeds(walk(self.layers)))
                return history
            self.loss.remember_trainable_layers(self.trainable_layers)
            self.accuracy.init(targets)
            if resumed is not None:
                with Interrupt():
                    resumed.restore(job)
            self.history = job.history
            with self._printer(job, print_every, progress) as report:
                (do_steps or training.train)(job, report)
            again = self._again
            if again is not None and checkpoint is None and resume is None and callbacks is None:  # a list may grow
                again.remember(options, check_finite)
        finally:
            trainers.end(self, trainer)
        return job.history

    def _split(self, where: str, validation_split: float, seed: int | None, resume: Path | None, n_rows: int) -> Split:
        """Return how held-out rows are drawn: by the seed, or as the run that is resumed drew them."""
        if seed is None and resume is not None:
            from nnx.engine import checkpoints

            seed = checkpoints.seed_of_split(where, resume)
        return checked_split(where, validation_split, seed, n_rows)

    def _weighed(self, where: str, data: Data, class_weight: ClassWeight | None) -> Data:
        """Return data with checked class weights, if the model is to be trained with weights."""
        name = "sample_weight"
        if class_weight is not None:
            name = "class_weight" if data.weights is None else "sample_weight times class_weight"
            data = weighed_by_class(where, self, data, class_weight)
        if data.weights is not None:
            check_backward(self, where)
        return weighing(self, where, name, data)

    def _printer(self, job: Job, print_every: int | None, progress: bool) -> printing.Printer:
        """Return the object that prints a training and moves its progress bar."""
        shows_accuracy = not isinstance(self.accuracy, Accuracy_Regression)
        validated = job.held_out is not None
        counts = (job.epochs, job.n_batches, job.done)
        return printing.Printer(print_every, progress, *counts, validated=validated, shows_accuracy=shows_accuracy)

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
        """Print and return the loss, without penalties, and the accuracy on other data than the training data.

        Parameters
        ----------
        X_val, y_val : arrays
            As in `train`.
        batch_size : int, optional
            Samples at a time; all samples if None.
        silent : bool
            Whether to print nothing.
        sample_weight : array (n,), optional
            As in `train`.
        threads : int, optional
            As in `predict`.

        Returns
        -------
        dict
            ``{"loss": float, "accuracy": float}``.
        """
        from nnx.engine import training

        where = "Model.evaluate"
        self._require(where, "loss", "accuracy")
        self._check_output(where, self.loss)
        batch_size = _batch_size(where, batch_size)
        silent = check.flag(where, "silent", silent)
        n_threads = get_num_threads() if threads is None else checked_threads(where, "threads", threads)
        names = ("X_val", "y_val", "sample_weight")
        data = checked_data(self, where, names, X_val, y_val, False, sample_weight)
        weighing(self, where, "sample_weight", data)
        untrained = isinstance(self.accuracy, Accuracy_Regression) and self.accuracy.precision is None
        try:
            if untrained:
                self.accuracy.init(np.asarray(y_val))
            figures = training.evaluate(self, data, batch_size, n_threads)
        finally:
            if untrained:
                self.accuracy.precision = None
        if not silent:
            print(printing.validation_line(**figures))
        return figures

    def score(
        self, X: ArrayLike, y: ArrayLike, *, batch_size: int | None = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return one score of the model: accuracy if it predicts classes, R² if it predicts numbers.

        `report` says how it decides between the two. It has the same parameters and errors.

        Parameters
        ----------
        X, y : arrays
            Samples and targets, as in `report`.
        batch_size : int, optional
            Samples at a time; all samples if None.
        sample_weight : array (n,), optional
            The weight of each sample.

        Returns
        -------
        float
            Accuracy from 0 to 1, or R² of at most 1. R² is NaN if all targets are the same.

        Examples
        --------
        >>> import nnx
        >>> model = nnx.Model()
        >>> model.add(nnx.Layer_Dense(1, 1))
        >>> model.set(accuracy=nnx.Accuracy_Regression())
        >>> model.finalize()
        >>> model.set_parameters([([[2.0]], [[0.0]])])
        >>> model.score([[1.0], [2.0], [3.0]], [2.0, 4.0, 7.0])
        0.9210526315789473
        """
        where = "Model.score"
        self._require(where)
        from nnx.scoring import evaluation

        return evaluation.report(self, where, X, y, _batch_size(where, batch_size), sample_weight).score

    def report(
        self, X: ArrayLike, y: ArrayLike, *, batch_size: int | None = None, sample_weight: ArrayLike | None = None
    ) -> Report:
        """Return the usual metrics of the model's predictions, each beside that of a baseline.

        It needs no loss and no optimizer. ``table``, or else the accuracy, the loss or the last layer says whether the
        model predicts classes or numbers.

        Parameters
        ----------
        X : array (n, n_inputs)
        y : array
            Class numbers (n,), one-hot rows (n, classes), zeros and ones (n, outputs) for sigmoid outputs, or numbers
            (n, outputs). With a ``table`` whose target is numeric: standardized numbers, as the table gives them.
        batch_size : int, optional
            Samples at a time; all samples if None.
        sample_weight : array (n,), optional
            The weight of each sample in the metrics and the baseline, as in `train`.

        Returns
        -------
        ClassificationReport or RegressionReport
            Of `nnx.scoring.reports`. ``print`` shows it, its attributes hold the metrics, and `to_dict` returns them
            for JSON. The baseline always predicts the largest class, or the mean, of ``y``.

        Raises
        ------
        ValueError
            If X and y do not fit each other or the model, or if an output or a target is NaN or infinite.
        TypeError
            If nothing says whether classes or numbers are predicted.

        Examples
        --------
        >>> import nnx
        >>> model = nnx.Model()
        >>> model.add(nnx.Layer_Dense(1, 2))
        >>> model.add(nnx.Activation_Softmax())
        >>> model.finalize()
        >>> model.set_parameters([([[-1.0, 1.0]], [[0.0, 0.0]])])
        >>> print(model.report([[-2.0], [-1.0], [1.0], [2.0]], [0, 0, 0, 1]))
        accuracy           0.750  no better than the baseline 0.750 (always predicting '0')
        balanced accuracy  0.833  baseline 0.500
        log loss           0.573  baseline 0.562
        AUC                1.000  baseline 0.500
        mean F1            0.733
        calibration error  0.259
        samples                4
        <BLANKLINE>
        class  recall  precision     F1  samples
        0       0.667      1.000  0.800        3
        1       1.000      0.500  0.667        1
        """
        where = "Model.report"
        self._require(where)
        from nnx.scoring import evaluation

        return evaluation.report(self, where, X, y, _batch_size(where, batch_size), sample_weight)

    def predict(
        self,
        X: ArrayLike,
        members: bool = False,
        *,
        batch_size: int | None = None,
        threads: int | None = None,
    ) -> Array:
        """Return the network's outputs, one row per sample. With a `Layer_Members`, they are the mean over its members.

        Parameters
        ----------
        X : array (n, n_inputs)
        members : bool
            Whether to return the outputs of each member instead, for a model with a `Layer_Members`. Their spread shows
            how certain the model is.
        batch_size : int, optional
            Samples at a time; all samples if None.
        threads : int, optional
            The most threads to use; if None, the number given to `nnx.set_num_threads`. The result is the same, bit for
            bit. Calls of less than about a millisecond use one thread, and so do models with custom parts.

        Returns
        -------
        array (n, outputs)
            A new one. ``output_layer_activation.predictions`` turns it into classes. With ``members`` it has the shape
            (n_members, n, outputs).
        """
        where = "Model.predict"
        if threads is not None:
            threads = checked_threads(where, "threads", threads)
        if members is not False and check.flag(where, "members", members):  # this check takes a tenth of a call
            return self._predict_members(where, X, batch_size, threads)
        if batch_size is None and self._inference is not None:
            output: Array | None = self._inference.predict(self, X, threads)
            if output is not None:
                return output
        self._require(where)
        batch_size = _batch_size(where, batch_size)
        samples = checked_samples(self, where, "X", X)
        planned = plan.predict(self, samples, threads)
        if planned is not None:
            return planned
        step = batch_size or max(1, len(samples))
        starts = range(0, max(1, len(samples)), step)
        with of_products(None):  # also if the caller is a layer in a model in training
            from nnx.engine import segments

            return np.concatenate([segments.forward(self, samples[i : i + step]) for i in starts])

    def _predict_members(self, where: str, X: ArrayLike, batch_size: int | None, threads: int | None) -> Array:
        """Return the outputs of each member: (members, n, outputs)."""
        self._require(where)
        if not any(isinstance(layer, Layer_Members) for layer in self.layers):
            raise ValueError(f"{where}: members must be False for a model without a Layer_Members, got True.")
        n_members = members_of(self.layers)
        step = _batch_size(where, batch_size) or max(1, MEMBER_ROWS // n_members)
        samples = checked_samples(self, where, "X", X)
        outputs = plan.predict(self, samples, threads, apart=True)
        if outputs is None:
            starts = range(0, max(1, len(samples)), step)
            with of_products(None):
                made = [np.asarray(self.forward(samples[i : i + step], training=False)) for i in starts]
            outputs = np.concatenate(made)
        rows = outputs.reshape(len(samples) * n_members, -1) if len(samples) else outputs
        return np.ascontiguousarray(rows.reshape(len(samples), n_members, *rows.shape[1:]).swapaxes(0, 1))

    def predict_classes(self, X: ArrayLike, *, batch_size: int | None = None) -> Array:
        """Return the classes that the network predicts, as numbers.

        A softmax gives the number of the largest output. A sigmoid gives 1 if its output is above 0.5, else 0. With
        `Loss_Hinge`, an output above 0 gives 1, else 0.

        Parameters
        ----------
        X : array (n, n_inputs)
        batch_size : int, optional
            Samples at a time; all samples if None.

        Returns
        -------
        intp array
            Class numbers, shape (n,). For sigmoid outputs, for a single output, and for outputs that a binary accuracy
            compares one by one: zeros and ones, shape (n, outputs). For the names of a model with a ``table`` or
            ``images``, call ``model.preprocessor.decode(model.predict(X))``.

        Raises
        ------
        TypeError
            If the model predicts numbers, or if nothing says what it predicts.

        Examples
        --------
        >>> import nnx
        >>> model = nnx.Model()
        >>> model.add(nnx.Layer_Dense(1, 2))
        >>> model.add(nnx.Activation_Softmax())
        >>> model.finalize()
        >>> model.set_parameters([([[-1.0, 1.0]], [[0.0, 0.0]])])
        >>> model.predict_classes([[-2.0], [3.0]]).tolist()
        [0, 1]
        """
        where = "Model.predict_classes"
        self._require(where)
        from nnx.scoring import evaluation

        return evaluation.classes(self, where, X, _batch_size(where, batch_size))

    def predictor(self, precision: str | None = None, *, threads: int = 1) -> Predictor:
        """Return a function that predicts with the present parameters. Later changes to this model do not affect it.

        ``model.predictor()(X)`` has the bits of ``model.predict(X)``. Like `predict`, it uses the averages of an
        optimizer with ``average``. It does not hold ``table`` or ``images``.

        Parameters
        ----------
        precision : str, optional
            The precision in which dense layers multiply: the model's dtype, or "bfloat16" for a float32 model. With
            "bfloat16", each dense layer rounds its inputs and weights to the nearest bfloat16 and sums in float32.
        threads : int
            The most threads for a call of more than about a millisecond. The default is one, independent of
            `nnx.set_num_threads`, because a service has its own threads. The result is the same, bit for bit.

        Returns
        -------
        Predictor
            Call it with an array (n, n_inputs), from any number of threads.

        Raises
        ------
        ValueError
            For a model with a layer, or a method, that is not built in, and for another precision.
        RuntimeError
            While another thread trains the model.
        """
        self._require("Model.predictor")
        return freeze(self, precision, threads)

    def export_c(self, path: Path, *, int8: bool = False, name: str | None = None) -> None:
        """Write a C file that predicts as this model does, for programs without Python and for microcontrollers.

        The file is C99, needs only ``math.h``, and computes in float32. For a ``table``, it has a function that turns a
        row into inputs. For a ``table`` or ``images``, it has a function that says what outputs mean. A comment at its
        head says how to call them and how much memory they take. docs/guide/c-source.md says how exact its answers are.

        Parameters
        ----------
        path : path-like
            It is replaced as a whole or not at all.
        int8 : bool
            Store the weights of dense and spline layers in 8 bits, a quarter of the memory. Each column of weights has
            a scale, its largest magnitude divided by 127. Biases stay float32.
        name : str, optional
            The prefix of all names in the file, so that several models can be linked; if None, the file's name.

        Raises
        ------
        ValueError
            For a model with a layer, or a method, that is not built in; for parameters that are not finite; for another
            name.
        RuntimeError
            While another thread trains the model.
        """
        from nnx.files import c_source

        where = "Model.export_c"
        self._require(where)
        trainers.refuse_others(f"{where}: the model must not be exported", self)
        c_source.write(where, path, [parts_of(where, self)[1]], [1.0], self, int8, name)

    def forward(self, X: ArrayLike, training: bool) -> Any:
        """Run the layers and return the last one's output. With a `Layer_Members`, each member has a row.

        Parameters
        ----------
        X : array (n, n_inputs)
        training : bool
            Whether dropout and noise are active.
        """
        self._require("Model.forward")
        self.input_layer.forward(X, training)
        output = self.input_layer.output
        for layer in self.layers:
            layer.forward(output, training)
            output = layer.output
        return output

    def backward(self, output: Any, y: Any, *, sample_weight: ArrayLike | None = None) -> None:
        """Set all layers' gradients of the loss.

        After a `Layer_Members`, ``y`` and ``sample_weight`` need an entry for each row of the output:
        ``np.repeat(y, n_members, axis=0)``.

        Parameters
        ----------
        output : array (n, n_outputs)
            What `forward` returned.
        y : array
            The targets.
        sample_weight : array (n,), optional
            The weight of each row in the mean loss.
        """
        self._require("Model.backward", "loss")
        weights = None
        if sample_weight is not None:
            weights = checked_weights("Model.backward", "sample_weight", sample_weight, len(output))
        dvalues, is_combined = self._loss_gradient(output, y, weights)
        for layer in reversed(self.layers[:-1] if is_combined else self.layers):
            layer.backward(dvalues)
            dvalues = layer.dinputs

    def _loss_gradient(self, output: Any, y: Any, weights: Array | None = None) -> tuple[Any, bool]:
        """Return the loss's gradient, and whether it is by the inputs of the last layer instead of its output."""
        where = f"{type(self.loss).__name__}.backward"
        softmax = self.softmax_classifier_output
        if not self._has_pair_gradient():
            self.loss.backward(output, y)
            if weights is not None:
                self.loss.dinputs = weighted_gradient(where, self.loss.dinputs, weights)
            return self.loss.dinputs, False
        if softmax is not None:
            softmax.loss = self.loss
            softmax.backward(output, y)
            if weights is not None:
                softmax.dinputs = weighted_gradient("Model.backward", softmax.dinputs, weights)
            dvalues = softmax.dinputs
        else:
            dvalues = self.loss._pair_gradient(where, output, y)
            if weights is not None:
                dvalues = weighted_gradient(where, dvalues, weights)
        self.layers[-1].dinputs = dvalues
        return dvalues, True

    # Parameters and files

    def get_parameters(self) -> Parameters:
        """Return each trainable layer's live parameters: a pair of weights and biases, or weights alone.

        These are the trained parameters, not their averages.
        """
        self._require("Model.get_parameters")
        for layer in self.trainable_layers:
            check.role("Model.get_parameters", "trainable layer", layer)
        return [layer.get_parameters() for layer in self.trainable_layers]

    def set_parameters(self, parameters: Sequence[tuple[ArrayLike, ...]]) -> None:
        """Give each trainable layer its weights and biases, or weights alone, as `get_parameters` returns them.

        It drops the averages of an optimizer with ``average``, because they belong to the old values.

        Raises
        ------
        TypeError, ValueError
            If number, shape or kind do not fit. No layer has changed then.
        """
        where = "Model.set_parameters"
        self._require(where)
        try:
            groups = [tuple(group) for group in parameters]
        except TypeError:
            groups = []
        if len(groups) != len(self.trainable_layers):
            raise ValueError(
                f"{where}: parameters must be a list of {len(self.trainable_layers)} pairs of weights and biases, "
                f"got {len(groups)} of them."
            )
        for layer, group in zip(self.trainable_layers, groups, strict=True):
            check.role(where, "trainable layer", layer)
            if isinstance(layer, Parameterized):
                layer._cast(where, *_group(where, layer, group))
        kept = self.get_parameters()
        owns = [getattr(layer, "__dict__", {}) for layer in self.trainable_layers]
        averages = [{name: own[name] for name in AVERAGED if name in own} for own in owns]
        try:
            for layer, group in zip(self.trainable_layers, groups, strict=True):
                layer.set_parameters(*group)
        except BaseException:  # of a custom layer
            for layer, group in zip(self.trainable_layers, kept, strict=True):
                layer.set_parameters(*group)
            for own, found in zip(owns, averages, strict=True):
                own.update(found)
            raise
        for layer in self.trainable_layers:
            at_once(forgetting_averages(layer))

    def save_parameters(self, path: Path) -> None:
        """Write only the parameters to a safetensors file, atomically: those that `predict` uses.

        With the averages of an optimizer with ``average``, it writes the averages.

        Parameters
        ----------
        path : str or path
            Any file name; an existing file is replaced.

        Raises
        ------
        RuntimeError
            While another thread trains the model, or changes its arrays.
        """
        from nnx.files import model_files

        self._require("Model.save_parameters")
        trainers.refuse_others("Model.save_parameters: the model must not be saved", self)
        model_files.save_parameters(self, path)

    def load_parameters(self, path: Path) -> None:
        """Set the parameters from a file that `save_parameters` or `save` wrote.

        They are the parameters that `predict` used there. For a model with averages, these are the averages. To
        continue its training, use `load`: it returns a model that has both.

        Raises
        ------
        ModelFileError
            If the file is not from nnx, is damaged, or is for another network. Nothing has changed then.
        """
        from nnx.files import model_files

        self._require("Model.load_parameters")
        model_files.load_parameters(self, path)

    def save(self, path: Path) -> None:
        """Write the whole model to a safetensors file, atomically. `load` can use it and continue its training.

        Parameters
        ----------
        path : str or path
            Any file name; an existing file is replaced.

        Raises
        ------
        TypeError
            If the model holds an object of a custom class that has no ``get_config``.
        ValueError
            If a layer occurs twice, or if arrays share memory in a way that a file cannot store.
        RuntimeError
            While another thread trains the model, or changes its arrays.
        """
        from nnx.files import model_files

        self._require("Model.save")
        trainers.refuse_others("Model.save: the model must not be saved", self)
        model_files.save_model(self, path)

    def export_onnx(self, path: Path) -> None:
        """Write what `predict` computes to an ONNX file, which ONNX Runtime and other programs run.

        Without a table, the graph has the input ``inputs`` (batch, n_inputs) and the output ``outputs``. With a table,
        it takes raw rows: each column of the table is an input of its name, (batch, 1). A numeric column is float64,
        with NaN for missing values. A column of text has "" for them. A date is the number of days since 1970-01-01,
        with the time of day as a fraction. Outputs are then ``label`` and ``probabilities``, or ``prediction`` in the
        target's units and ``outputs``. With images, the input is ``pixels``, uint8 (batch, height, width), or (batch,
        height, width, 3) in colour.

        Parameters
        ----------
        path : str or path
            An existing file is replaced.

        Raises
        ------
        ImportError
            Without the package onnx (the extra ``nnx-core[onnx]``).
        ValueError
            For a model with a layer, or a method, that is not built in, and for a table that does not fit it.
        RuntimeError
            While another thread trains the model.
        """
        from nnx.files import onnx_export

        where = "Model.export_onnx"
        self._require(where)
        trainers.refuse_others(f"{where}: the model must not be exported", self)
        dtype, parts = parts_of(where, self)
        onnx_export.export(where, path, [parts], dtype, **onnx_export.answering(where, self))

    def to_torch(self, *, tensors: bool = False) -> dict[str, Any]:
        """Return the parameters that `predict` uses under PyTorch's names: a state dict.

        It is that of an ``nn.Sequential`` with a module for each layer: "0.weight" is (outputs, inputs), the transpose
        of a dense layer's ``weights``. The layers within a residual at index 2 are "2.0.weight" and so on.
        `nnx.from_torch` makes the same model from it, with the same bytes.

        Parameters
        ----------
        tensors : bool
            Whether to return tensors instead of NumPy arrays; PyTorch must be installed.

        Returns
        -------
        dict of arrays or tensors
            Copies.

        Raises
        ------
        ValueError
            For a layer without a counterpart in torch.nn, such as `Layer_Spline`.
        ImportError
            For ``tensors`` without PyTorch.

        Examples
        --------
        >>> import nnx
        >>> model = nnx.Model()
        >>> model.add(nnx.Layer_Dense(4, 3))
        >>> model.finalize()
        >>> {name: array.shape for name, array in model.to_torch().items()}
        {'0.weight': (3, 4), '0.bias': (3,)}
        """
        from nnx.files import torch_weights

        where = "Model.to_torch"
        self._require(where)
        check.flag(where, "tensors", tensors)
        trainers.refuse_others(f"{where}: the parameters must not be taken", self)
        state = torch_weights.state_of(where, self.layers)
        if not tensors:
            return state
        try:
            import torch
        except ImportError:
            raise ImportError(f"{where}: PyTorch is not installed. Call to_torch() for NumPy arrays.") from None
        return {name: torch.from_numpy(array) for name, array in state.items()}

    def export_torch(self, path: Path) -> None:
        """Write what `to_torch` returns to a safetensors file, which ``safetensors.torch.load_file(path)`` reads.

        Parameters
        ----------
        path : str or path
            An existing file is replaced.

        Raises
        ------
        ValueError
            As `to_torch`.
        """
        from nnx.files import torch_files, torch_weights

        where = "Model.export_torch"
        self._require(where)
        trainers.refuse_others(f"{where}: the model must not be exported", self)
        torch_files.write(where, check.path(where, "path", path), torch_weights.state_of(where, self.layers))

    @classmethod
    def load(cls: type[AnyModel], path: Path, custom_objects: Mapping[str, type] | None = None) -> AnyModel:
        """Return the finalized model that `save` wrote. Nothing in the file is executed.

        Parameters
        ----------
        path : str or path
        custom_objects : dict, optional
            Custom classes by name, for a model that holds objects of them.

        Raises
        ------
        ModelFileError
            If the file is not from nnx, is damaged, or names a class that is neither built in nor in custom_objects.
        """
        from nnx.files import model_files

        return model_files.load_model(cls, path, custom_objects or {}, cls._restore)

    @classmethod
    def from_onnx(cls: type[AnyModel], path: Path, *, output: str | None = None) -> AnyModel:
        """Return the finalized model of a dense network in an ONNX file, such as PyTorch, Keras and skl2onnx write.

        It has no loss and no optimizer; add them with `set`. `from_onnx` knows Gemm and MatMul, additions and products
        by column, BatchNormalization, LayerNormalization, Softmax, Dropout, additions of a block's inputs to its
        outputs, and all activations of nnx, whatever operators they consist of. An addition or a product by column that
        does not belong to a dense layer becomes a `Layer_Scale`, or a `Layer_BatchNorm` with equivalent running
        statistics.

        Parameters
        ----------
        path : str or path
        output : str, optional
            The name of the network's output in the file. If None, the file's only numeric output.

        Raises
        ------
        ImportError
            Without the package onnx (the extra ``nnx-core[onnx]``).
        ModelFileError
            If the file is damaged, keeps data in other files, or holds more than a dense network. The message names the
            first operator that does not belong to a dense network. Nothing in a file is executed.
        """
        from nnx.files import onnx_import

        where = "Model.from_onnx"
        if output is not None:
            check.text(where, "output", output)
        path = check.path(where, "path", path)
        model = cls()
        model.layers = onnx_import.load(where, path, output)
        try:
            model.finalize()
        except (RecursionError, ValueError) as error:
            refuse(where, path, f"describes no possible model ({error})")
        return model

    def _restore(self, layers: list[Any], parts: dict[str, Any], trainable: list[int]) -> str:
        """Become the model of these parts. Return why nnx no longer trains such a model; an empty text if it does.

        Raises
        ------
        ValueError
            As `finalize`.
        """
        self.layers = layers
        for name, part in parts.items():
            setattr(self, name, part)
        misfit = self._misfit(self.loss)
        if not misfit:
            self.finalize()
            every = list(walk(layers))
            self.trainable_layers = [every[number] for number in trainable]
            self._connect_loss()
        return misfit

    def explain(self, precision: str | None = None) -> str:
        """Say whether this model trains as a plan, many steps in one compiled call, and if not, why.

        A model with custom parts trains in segments: built-in layers that follow each other run compiled, one call for
        several. All ways compute the same formulas. Their results differ by rounding, because they sum in different
        orders. A plan is several times as fast as training layer by layer. ``print(nnx.engine.program.lower(model))``
        shows what a plan does in a step.

        Parameters
        ----------
        precision : str, optional
            As in `train`. With "bfloat16", also say whether the processor's matrix units compute products in bfloat16.
        """
        from nnx.engine import training

        where = "Model.explain"
        self._require(where, "loss", "optimizer", "accuracy")
        bfloat16 = precision is not None and checked_precision(where, precision, dtype_of(self)) == "bfloat16"
        return training.explain(self, bfloat16)

    def summary(self) -> None:
        """Print a table of the layers with their output shapes, numbers of parameters and bytes."""
        self._print_summary()

    def _print_summary(self, without: tuple[str, ...] = ()) -> None:
        """Print the table of `summary`, the layers without some of their arguments."""
        rows: list[tuple[str, ...]] = [("layer", "output", "parameters", "bytes")]
        _summarize(self.layers, None, "", rows, without)
        arrays = [array for layer in walk(self.layers) for array in _parameter_arrays(layer)]
        sums = sum(array.size for array in arrays), sum(array.nbytes for array in arrays)
        rows.append(("total", "", f"{sums[0]:,}", f"{sums[1]:,}"))
        wide = [max(len(row[i]) for row in rows) for i in range(4)]
        for row in rows:
            print(f"{row[0]:<{wide[0]}}  {row[1]:<{wide[1]}}  {row[2]:>{wide[2]}}  {row[3]:>{wide[3]}}")

    def __repr__(self) -> str:
        parts = [repr(layer) for layer in self.layers]
        parts += [f"{name}={vars(self)[name]!r}" for name in ("loss", "optimizer", "accuracy") if vars(self).get(name)]
        inside = "".join(f"\n  {part}," for part in parts)
        return f"{type(self).__name__}({inside}\n)" if parts else f"{type(self).__name__}()"

    def output_width(self) -> int | None:
        """Return the number of columns of the output; None if only a forward pass would show it."""
        width: int | None = None
        if not keeps(self, "forward", __name__):
            return None
        for layer in self.layers:
            width = width_after(layer, width)
        return width

    def _require(self, where: str, *names: str) -> None:
        """Raise an error before `finalize`, or if a loss, optimizer or accuracy is missing."""
        for name in names:
            if getattr(self, name) is None:
                raise RuntimeError(f"{where}: no {name} is set. Call model.set({name}=...) first.")
        if not self._chain:
            raise RuntimeError(f"{where}: the model is not finalized. Call model.finalize() first.")
        if len(self._chain) != len(self.layers) or not all(map(operator.is_, self._chain, self.layers)):
            raise RuntimeError(f"{where}: the layers have changed. Call model.finalize() again.")

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles take: everything except the mark of a training, and plans."""
        own = vars(self).copy()  # another thread may be adding attributes
        return {name: value for name, value in own.items() if name not in PRIVATE}

    def __copy__(self: AnyModel) -> AnyModel:
        """Return another model with the same objects, also while a thread trains this one."""
        reduced: Any = super().__reduce_ex__(4)
        make, arguments, state = reduced[:3]
        twin: AnyModel = make(*arguments)
        if hasattr(twin, "__setstate__"):
            twin.__setstate__(state)
        else:
            vars(twin).update(state)
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Let a model be copied with its arrays, or pickled, unless another thread changes them meanwhile."""
        trainers.refuse_others("Model: the model must not be copied deeply or pickled", self)
        return super().__reduce_ex__(protocol)


program.stand_for(Model, ("forward", "backward"))


def _connect(before: Any, layers: Sequence[Any]) -> None:
    """Set ``prev`` and ``next`` of neighbours, within residuals too.

    The layer before a residual is also before the first layer in it. The residual itself comes after its last layer.
    """
    for layer in layers:
        if isinstance(layer, Layer_Residual):
            inner = layer.layers
            _connect(before, inner)
            if inner:
                inner[-1].next = layer
        layer.prev, before.next = before, layer
        before = layer


def _summarize(
    layers: Sequence[Any], width: int | None, indent: str, rows: list[tuple[str, ...]], without: tuple[str, ...]
) -> None:
    """Add a row of `Model.summary` for each layer; those in a residual follow it, indented."""
    for layer in layers:
        before, width = width, width_after(layer, width)
        holds_layers = isinstance(layer, Layer_Residual)
        shown = type(layer).__name__ if holds_layers else text_without(layer, without)
        arrays = _parameter_arrays(layer)
        size, n_bytes = sum(array.size for array in arrays), sum(array.nbytes for array in arrays)
        columns = "?" if width is None else width
        rows.append((indent + shown, f"(n, {columns})", f"{size:,}", f"{n_bytes:,}"))
        if holds_layers:
            _summarize(layer.layers, before, indent + "  ", rows, without)


def _parameter_arrays(layer: Any) -> list[Array]:
    """Return a layer's weights and biases, if it has any."""
    return [np.asarray(getattr(layer, name)) for name in ("weights", "biases") if hasattr(layer, name)]


def _check_preprocessors(table: Any, images: Any) -> None:
    """Refuse anything that is not a table, or not images."""
    from nnx.data.images import Images
    from nnx.data.tables import Table

    for name, value, kind in (("table", table, Table), ("images", images, Images)):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"Model.set: {name} must be of the class {kind.__name__}, got {type(value).__name__}.")


def _is_built_in(thing: Any) -> bool:
    """Return whether an object of a built-in class computes what that class does, with no ``forward`` of its own."""
    return keeps(thing, "forward", type(thing).__module__)


def _group(where: str, layer: Parameterized, group: tuple[ArrayLike, ...]) -> tuple[ArrayLike, ...]:
    """Return the arrays for a layer, one for each of its parameters."""
    if len(group) != len(layer._parameters):
        kind = f"weights alone for {layer!r}" if isinstance(layer, WithWeights) else "pairs of weights and biases"
        raise ValueError(f"{where}: parameters must be {kind}, got {len(group)} in one.")
    return group


def _batch_size(where: str, batch_size: int | None) -> int | None:
    return None if batch_size is None else check.whole(where, "batch_size", batch_size)
