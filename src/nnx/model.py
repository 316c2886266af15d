"""`Model`: layers in a row, with the loss, optimizer and accuracy that train and judge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from nnx import _check, _report, training
from nnx._typing import Array, ArrayLike, Parameters, Path
from nnx.activations import Activation_Linear, Activation_ReLU, Activation_Sigmoid, Activation_Softmax
from nnx.history import History
from nnx.layers import Layer_Dense, Layer_Dropout, Layer_Input
from nnx.losses import (
    Activation_Softmax_Loss_CategoricalCrossentropy,
    Loss_BinaryCrossentropy,
    Loss_CategoricalCrossentropy,
    _Activation_Sigmoid_Loss_BinaryCrossentropy,
)

#: Built-in layers whose output has as many columns as their input.
KEEP_WIDTH = (Activation_Linear, Activation_ReLU, Activation_Sigmoid, Activation_Softmax, Layer_Dropout)

#: What `Model` calls on each.
LOSS_METHODS = ("calculate", "backward", "new_pass", "calculate_accumulated", "remember_trainable_layers")
OPTIMIZER_METHODS = ("pre_update_params", "update_params", "post_update_params")
ACCURACY_METHODS = ("init", "calculate", "new_pass", "calculate_accumulated")

AnyModel = TypeVar("AnyModel", bound="Model")


class Model:
    """A network: layers in the order in which they were added.

    Attributes
    ----------
    layers : list
        What was added.
    trainable_layers : list
        Those with ``weights``, after ``finalize``. A layer taken out of it keeps its parameters as they are.
    input_layer : Layer_Input
        After ``finalize``.
    output_layer_activation : layer
        The last layer, after ``finalize``; its ``predictions`` turn outputs into what the accuracy compares.
    loss, optimizer, accuracy
        What `set` was given.
    softmax_classifier_output : Activation_Softmax_Loss_CategoricalCrossentropy or None
        After ``finalize``: the combined gradient, where the last layer is exactly `Activation_Softmax` and the loss
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
    softmax_classifier_output: Activation_Softmax_Loss_CategoricalCrossentropy | None = None
    _sigmoid_classifier_output: _Activation_Sigmoid_Loss_BinaryCrossentropy | None = None
    history: History | None = None
    _finalized: bool = False
    _training: bool = False

    def __new__(cls: type[AnyModel], *args: Any, **kwargs: Any) -> AnyModel:
        """Make the list of layers here, not in ``__init__``, which a subclass need not call."""
        self = super().__new__(cls)
        self.layers = []
        return self

    # Building

    def add(self, layer: Any) -> None:
        """Append a layer: any object with ``forward(inputs, training)`` and ``backward(dvalues)``.

        Raises
        ------
        TypeError
            For a class in place of an object, and for what has no such methods.
        ValueError
            For a layer that the model has already.
        """
        _require_methods("Model.add", "layer", layer, "forward", "backward")
        if any(layer is known for known in self.layers):
            raise ValueError(f"Model.add: layer must be new to this model, got its {layer!r} again.")
        self.layers.append(layer)
        self._finalized = False

    def set(self, *, loss: Any = None, optimizer: Any = None, accuracy: Any = None) -> None:
        """Choose loss, optimizer and accuracy; what is None stays as it was.

        Raises
        ------
        TypeError
            For a class in place of an object, and for what lacks the methods of its kind.
        """
        if loss is not None:
            _require_methods("Model.set", "loss", loss, *LOSS_METHODS)
        if optimizer is not None:
            _require_methods("Model.set", "optimizer", optimizer, *OPTIMIZER_METHODS)
        if accuracy is not None:
            _require_methods("Model.set", "accuracy", accuracy, *ACCURACY_METHODS)
        self.loss = self.loss if loss is None else loss
        self.optimizer = self.optimizer if optimizer is None else optimizer
        self.accuracy = self.accuracy if accuracy is None else accuracy
        if self._finalized:
            self._connect_loss()

    def finalize(self) -> None:
        """Connect the layers, find the trainable ones, and choose the gradient of the output.

        Neither loss nor optimizer nor accuracy is needed for it; it may be called again at any time.

        Raises
        ------
        ValueError
            If there are no layers, or if neighbours do not fit each other in width or dtype.
        """
        if not self.layers:
            raise ValueError("Model.finalize: there are no layers. Call model.add(layer) first.")
        self._check_chain()
        self.input_layer = Layer_Input()
        chain = [self.input_layer, *self.layers]
        for before, after in zip(chain, self.layers, strict=False):
            after.prev, before.next = before, after
        self.output_layer_activation = self.layers[-1]
        self.trainable_layers = [layer for layer in self.layers if hasattr(layer, "weights")]
        self._connect_loss()
        self._finalized = True

    def _check_chain(self) -> None:
        """Refuse neighbours of different width, and two dtypes."""
        width: int | None = None
        for number, layer in enumerate(self.layers):
            if type(layer) is Layer_Dense and width not in (None, layer.n_inputs):
                raise ValueError(
                    f"Model.finalize: layer {number} must take the {width} outputs of what is before it, got {layer!r}."
                )
            width = _width_after(layer, width)
        dtypes = {layer._float_dtype().name for layer in self.layers if isinstance(layer, Layer_Dense)}
        if len(dtypes) > 1:
            raise ValueError(
                f"Model.finalize: all dense layers must have one dtype, got {' and '.join(sorted(dtypes))}."
            )

    def _connect_loss(self) -> None:
        """Tell the loss its layers, and choose the combined gradient where one is exact."""
        last, loss = self.layers[-1], self.loss
        last.next = loss
        if loss is not None:
            loss.remember_trainable_layers(self.trainable_layers)
        softmax = _is_plain(last, Activation_Softmax) and _is_plain(loss, Loss_CategoricalCrossentropy)
        self.softmax_classifier_output = Activation_Softmax_Loss_CategoricalCrossentropy() if softmax else None
        sigmoid = _is_plain(last, Activation_Sigmoid) and _is_plain(loss, Loss_BinaryCrossentropy)
        self._sigmoid_classifier_output = _Activation_Sigmoid_Loss_BinaryCrossentropy() if sigmoid else None

    # Training and using

    def train(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        print_every: int | None = 1,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        progress: bool = False,
        shuffle: bool = False,
        seed: int | None = None,
        check_finite: bool = True,
    ) -> History:
        """Train on samples ``X`` and what is to be predicted from them, ``y``.

        Ctrl-C takes effect between two steps: the model is as after the last whole step, ``history`` holds what was
        done, and the KeyboardInterrupt reaches the caller.

        Parameters
        ----------
        X : array (n, n_inputs)
            Cast once to the model's dtype.
        y : array
            As the loss takes it: class numbers (n,), one-hot rows (n, classes), or targets (n, outputs).
        epochs : int
            How often to go through the data.
        batch_size : int, optional
            Samples a step; all at once without it. The last batch may be smaller.
        print_every : int or None
            Print each step of an epoch that this number divides, the last step, and each epoch's figures. None prints
            nothing.
        validation_data : pair of arrays, optional
            Evaluated after each epoch.
        progress : bool
            Show a progress bar on stderr.
        shuffle : bool
            Draw a new order of the samples for each epoch.
        seed : int, optional
            Of the shuffling; without it, NumPy's global generator gives one.
        check_finite : bool
            Refuse NaN and infinity in X and y.

        Returns
        -------
        History
            Also kept as ``history``.

        Raises
        ------
        RuntimeError
            If something is missing (`set`, `finalize`), or if this model is being trained already.
        TypeError, ValueError
            If an argument is not what it must be; no weight has changed then.
        """
        where = "Model.train"
        self._require(where, "loss", "optimizer", "accuracy")
        epochs = _check.whole(where, "epochs", epochs)
        batch_size = _batch_size(where, batch_size)
        print_every = None if print_every is None else _check.whole(where, "print_every", print_every)
        order = training.Order(where, shuffle, seed)
        data = training.checked_data(self, where, ("X", "y"), X, y, check_finite)
        held_out = None if validation_data is None else training.checked_validation(self, where, validation_data)
        if self._training:
            raise RuntimeError(f"{where}: this model is being trained already.")
        self._training = True
        try:
            self._connect_loss()
            self.accuracy.init(y)
            n_steps = epochs * data.n_batches(batch_size)
            self.history = History()
            with _report.Report(print_every, progress, n_steps) as report:
                training.train(self, data, held_out, epochs, batch_size, order, self.history, report)
        finally:
            self._training = False
        return self.history

    def evaluate(
        self, X_val: ArrayLike, y_val: ArrayLike, *, batch_size: int | None = None, silent: bool = False
    ) -> dict[str, float]:
        """Print and return loss (without penalties) and accuracy on other data than was trained on.

        Parameters
        ----------
        X_val, y_val : arrays
            As in `train`.
        batch_size : int, optional
            Samples at a time; all at once without it.
        silent : bool
            Print nothing.

        Returns
        -------
        dict
            ``{"loss": float, "accuracy": float}``.
        """
        where = "Model.evaluate"
        self._require(where, "loss", "accuracy")
        batch_size = _batch_size(where, batch_size)
        data = training.checked_data(self, where, ("X_val", "y_val"), X_val, y_val, check_finite=False)
        self._connect_loss()
        untrained = getattr(self.accuracy, "precision", 0) is None
        try:
            if untrained:
                self.accuracy.init(y_val)
            figures = training.evaluate(self, data, batch_size)
        finally:
            if untrained:
                self.accuracy.precision = None
        if not silent:
            print(_report.validation_line(**figures))
        return figures

    def predict(self, X: ArrayLike, *, batch_size: int | None = None) -> Array:
        """Return the network's outputs, one row a sample.

        Parameters
        ----------
        X : array (n, n_inputs)
        batch_size : int, optional
            Samples at a time; all at once without it.

        Returns
        -------
        array (n, outputs)
            A new one. ``output_layer_activation.predictions`` turns it into classes.
        """
        where = "Model.predict"
        self._require(where)
        batch_size = _batch_size(where, batch_size)
        samples = training.checked_samples(self, where, "X", X)
        step = batch_size or max(1, len(samples))
        starts = range(0, max(1, len(samples)), step)
        return np.concatenate([self.forward(samples[i : i + step], training=False) for i in starts])

    def forward(self, X: ArrayLike, training: bool) -> Any:
        """Run the layers on ``X`` and return the last one's output."""
        self._require("Model.forward")
        self.input_layer.forward(X, training)
        output = self.input_layer.output
        for layer in self.layers:
            layer.forward(output, training)
            output = layer.output
        return output

    def backward(self, output: Any, y: Any) -> None:
        """Set all layers' gradients of the loss, given the ``output`` of `forward` and what it should have been."""
        self._require("Model.backward", "loss")
        combined = self.softmax_classifier_output or self._sigmoid_classifier_output
        if combined is None:
            rest = self.layers
            self.loss.backward(output, y)
            dvalues = self.loss.dinputs
        else:
            rest = self.layers[:-1]
            combined.backward(output, y)
            dvalues = self.layers[-1].dinputs = combined.dinputs
        for layer in reversed(rest):
            layer.backward(dvalues)
            dvalues = layer.dinputs

    # Parameters and files

    def get_parameters(self) -> Parameters:
        """Return each trainable layer's pair of live weights and biases."""
        self._require("Model.get_parameters")
        return [layer.get_parameters() for layer in self.trainable_layers]

    def set_parameters(self, parameters: Sequence[tuple[ArrayLike, ArrayLike]]) -> None:
        """Give each trainable layer its pair of weights and biases, as `get_parameters` returns them.

        Raises
        ------
        TypeError, ValueError
            If number, shape or kind do not fit; no layer has changed then.
        """
        where = "Model.set_parameters"
        self._require(where)
        pairs = [tuple(pair) for pair in parameters]
        if len(pairs) != len(self.trainable_layers) or any(len(pair) != 2 for pair in pairs):
            raise ValueError(
                f"{where}: parameters must be {len(self.trainable_layers)} pairs of weights and biases, "
                f"got {len(pairs)} items of length {sorted({len(pair) for pair in pairs})}."
            )
        for layer, pair in zip(self.trainable_layers, pairs, strict=True):
            if isinstance(layer, Layer_Dense):
                layer._fit(where, *pair)
        for layer, pair in zip(self.trainable_layers, pairs, strict=True):
            layer.set_parameters(*pair)

    def save_parameters(self, path: Path) -> None:
        """Write the parameters alone to a safetensors file, atomically.

        Parameters
        ----------
        path : str or path
            Any file name; an existing file is replaced.
        """
        from nnx import storage

        self._require("Model.save_parameters")
        storage.save_parameters(self, path)

    def load_parameters(self, path: Path) -> None:
        """Set the parameters from a file that `save_parameters` or `save` wrote.

        Raises
        ------
        ModelFileError
            If the file is none of ours, damaged, or for another network; nothing has changed then.
        """
        from nnx import storage

        self._require("Model.load_parameters")
        storage.load_parameters(self, path)

    def save(self, path: Path) -> None:
        """Write the whole model to a safetensors file, atomically: what `load` needs to predict and to go on training.

        Parameters
        ----------
        path : str or path
            Any file name; an existing file is replaced.

        Raises
        ------
        TypeError
            If the model holds an object of a class of your own that has no ``get_config``.
        """
        from nnx import storage

        self._require("Model.save")
        storage.save_model(self, path)

    @classmethod
    def load(cls: type[AnyModel], path: Path, custom_objects: Mapping[str, type] | None = None) -> AnyModel:
        """Return the finalized model that `save` wrote. Nothing in the file is executed.

        Parameters
        ----------
        path : str or path
        custom_objects : dict, optional
            Your own classes by name, for a model that holds objects of them.

        Raises
        ------
        ModelFileError
            If the file is none of ours or damaged, or names a class that is neither built in nor in custom_objects.
        """
        from nnx import storage

        model = cls.__new__(cls)
        storage.load_model(model, path, custom_objects or {})
        return model

    def summary(self) -> None:
        """Print a table of the layers with their output shapes, numbers of parameters and bytes."""
        width: int | None = None
        rows: list[tuple[str, ...]] = [("layer", "output", "parameters", "bytes")]
        sums = [0, 0]
        for layer in self.layers:
            width = _width_after(layer, width)
            arrays = [np.asarray(getattr(layer, name)) for name in ("weights", "biases") if hasattr(layer, name)]
            size, n_bytes = sum(array.size for array in arrays), sum(array.nbytes for array in arrays)
            sums = [sums[0] + size, sums[1] + n_bytes]
            rows.append((repr(layer), f"(n, {'?' if width is None else width})", f"{size:,}", f"{n_bytes:,}"))
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
        """Return how many columns the output has; None if only running a layer of one's own would tell."""
        width: int | None = None
        for layer in self.layers:
            width = _width_after(layer, width)
        return width

    def _require(self, where: str, *names: str) -> None:
        """Refuse to go on before `finalize`, or while one of loss, optimizer and accuracy is missing."""
        for name in names:
            if getattr(self, name) is None:
                raise RuntimeError(f"{where}: no {name} is set. Call model.set({name}=...) first.")
        if not self._finalized:
            raise RuntimeError(f"{where}: the model is not finalized. Call model.finalize() first.")


def _width_after(layer: Any, width: int | None) -> int | None:
    """Return how many columns a layer gives for ``width`` columns; None if only running it would tell."""
    if type(layer) is Layer_Dense:
        return layer.n_neurons
    return width if type(layer) in KEEP_WIDTH else None


def _is_plain(thing: object, kind: type) -> bool:
    """Return whether ``thing`` is exactly of a built-in class and has no ``backward`` of its own."""
    return type(thing) is kind and "backward" not in vars(thing)


def _require_methods(where: str, name: str, thing: Any, *methods: str) -> None:
    if isinstance(thing, type):
        raise TypeError(f"{where}: {name} must be an object, got a class. Write {thing.__name__}(...).")
    missing = [method for method in methods if not callable(getattr(thing, method, None))]
    if missing:
        raise TypeError(f"{where}: {name} must have the methods {', '.join(methods)}, got {thing!r}.")


def _batch_size(where: str, batch_size: int | None) -> int | None:
    return None if batch_size is None else _check.whole(where, "batch_size", batch_size)
