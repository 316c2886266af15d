"""`Predictor`: the predictions of a model with its present parameters. Later changes to the model do not affect it.

It holds no layers. It holds a `Part` for each layer: a name and the numbers that kernels need. Pickles hold them too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np

from nnx import _kernels
from nnx._base import check, config, trainers
from nnx._base.network import Network
from nnx._base.precision import checked_precision
from nnx._base.text import abridged
from nnx._base.typing import Array, ArrayLike, FloatDType, Path
from nnx.embedding import check_categories, columns_of_categories
from nnx.engine import program
from nnx.member_layers import mean_of_members, own_products, repeated, scaled

__all__ = ["Predictor", "get_include"]


#: The functions that compute the outputs of the members' layers, by their kinds.
OF_MEMBERS: dict[str, Callable[..., Array]] = {
    "members": repeated,
    "member_scale": scaled,
    "member_dense": own_products,
}


class Part(NamedTuple):
    """A layer, as kernels see it."""

    kind: str
    #: Parameters and the fixed values beside them (see `_values`), or the settings of an activation.
    values: tuple[Any, ...]
    n_in: int
    n_out: int


class Predictor(_kernels.DirectCall):
    """A model's predictions with the parameters that it had when `Model.predictor` made this.

    Call it with samples: ``predictor(X)`` returns a new array (n, n_outputs). It has the bits of ``model.predict(X)``,
    unless the predictor multiplies in bfloat16. ``predictor(X, out=out)`` writes into ``out`` and returns it. ``out``
    must have the same shape, C order and the predictor's dtype. Samples of the other float type cost no extra time.

    Later training of the model and assignments to its layers do not change the predictor. It copies the parameters and
    packs them once, so a call costs less than one of ``predict``. Its attributes cannot be assigned, and any number of
    threads may share it. `save` and `load` keep it in a file, and it can be pickled; a copy of it is the same object.

    Attributes
    ----------
    n_inputs, n_outputs : int
        Columns of the samples and of the outputs.
    dtype : dtype
        The dtype of parameters, samples and results.
    precision : str
        The precision in which dense layers multiply: the name of the dtype, or "bfloat16".
    threads : int
        The most threads that a call with many rows uses.

    Examples
    --------
    >>> import nnx
    >>> model = nnx.Model()
    >>> model.add(nnx.Layer_Dense(1, 1))
    >>> model.add(nnx.Activation_ReLU())
    >>> model.finalize()
    >>> model.set_parameters([([[2.0]], [[1.0]])])
    >>> predictor = model.predictor()
    >>> model.set_parameters([([[5.0]], [[5.0]])])
    >>> predictor([[-1], [3]])
    array([[0.],
           [7.]], dtype=float32)
    >>> predictor
    <Predictor 1-1, relu, float32>
    """

    __slots__ = ("__weakref__", "_categories", "_parts", "dtype", "n_inputs", "n_outputs", "precision")

    n_inputs: int
    n_outputs: int
    dtype: FloatDType
    precision: str
    _parts: tuple[Part, ...]
    #: The number of categories of each column of the inputs, 0 for a numeric column. None if all columns are numeric.
    _categories: tuple[int, ...] | None

    def __init__(self, *_: object, **__: object) -> None:
        raise TypeError("Predictor: it must be made by a model, got a call of the class. Call model.predictor().")

    def _predict(self, X: ArrayLike, out: Array | None) -> Array:
        """Return the outputs if the compiled predictor cannot, or refuse wrong arguments."""
        samples = check.rows("Predictor", "X", X, self.n_inputs, self.dtype)
        counts = self._counts()
        if counts is not None:
            check_categories("Predictor", "X", samples, counts - np.int32(1), counts)
        target = None if out is None else _checked_out(out, (len(samples), self.n_outputs), self.dtype)
        native = self._in_force()
        found = None if native is None else native.predict(samples, target, self.threads)
        if found is None:
            found = self._by_kernels(samples, target)
        return found if out is None else out

    def _in_force(self) -> Any:
        """Return the compiled predictor of the current backend, a new one if there is none yet; None for NumPy."""
        native = self._native
        if native is None or not native.holds():
            kind = getattr(_kernels.backend, "Predictor", None)
            rounds = self.precision == "bfloat16"
            native = None if kind is None else kind(self.dtype, self._parts, _kernels, rounds, self._counts())
            object.__setattr__(self, "_native", native)
        return native

    def _counts(self) -> Array | None:
        """Return the number of categories of each column of the inputs, as kernels take it."""
        return None if self._categories is None else np.array(self._categories, np.int32)

    def _by_kernels(self, samples: Array, out: Array | None) -> Array:
        """Run one kernel after the other, as layers do."""
        values = samples
        open_forks: list[Array] = []
        for part in self._parts:
            if part.kind == "fork":
                open_forks.append(values)
            elif part.kind == "join":
                with np.errstate(all="ignore"):
                    values = values + open_forks.pop()
            else:
                values = _outputs(part, values, self.precision == "bfloat16")
        begun = [part.values[0] for part in self._parts if part.kind == "members"]
        if begun:
            values = mean_of_members(values, len(begun[0]))
        if out is None:
            return values
        out[...] = values
        return out

    def capsule(self) -> object:
        """Return a capsule with which C and Cython code predicts, without Python code and without the GIL.

        See ``nnx_predict.h`` for how to use it; for Cython, see ``predictor_in`` of ``nnx.predict``. The capsule stays
        valid when this predictor is deleted.

        Raises
        ------
        RuntimeError
            If the NumPy backend is in use.
        """
        native = self._in_force()
        if native is None:
            raise RuntimeError(
                "Predictor.capsule: the backend must be a compiled one, got numpy. Install nnx where a C compiler "
                "works, or unset NNX_BACKEND."
            )
        capsule: object = native.capsule()
        return capsule

    # Files

    def save(self, path: Path) -> None:
        """Write the predictor to a safetensors file: only its parameters, and nothing for training.

        Parameters
        ----------
        path : path-like
            The file. It is replaced as a whole or not at all.
        """
        from nnx.files import predictors

        predictors.save("Predictor.save", path, self._parts, self.precision, self._categories)

    @staticmethod
    def load(path: Path, *, threads: int = 1) -> Predictor:
        """Return the predictor that `save` wrote. Nothing in the file is executed.

        Parameters
        ----------
        path : path-like
        threads : int
            As in `Model.predictor`. The file does not hold this number.

        Raises
        ------
        ModelFileError
            If the file holds no predictor, or is damaged. For a model's file, the message says how to make a predictor.
        """
        from nnx.files import predictors

        where = "Predictor.load"
        n_threads = config.checked_threads(where, "threads", threads)
        return made(*predictors.load(where, path), n_threads)

    def export_onnx(self, path: Path) -> None:
        """Write the predictor to an ONNX file, as `Model.export_onnx` does.

        Raises
        ------
        ImportError
            Without the package onnx (the extra ``nnx-core[onnx]``).
        ValueError
            For a predictor that multiplies in bfloat16, because ONNX cannot express that.
        """
        from nnx.files import onnx_export

        where = "Predictor.export_onnx"
        if self.precision == "bfloat16":
            raise ValueError(f"{where}: precision must be {self.dtype.name}, got bfloat16. Export the model.")
        onnx_export.export(where, path, [self._parts], self.dtype)

    def export_c(self, path: Path, *, int8: bool = False, name: str | None = None) -> None:
        """Write a C file that predicts as this predictor does.

        Parameters
        ----------
        path : path-like
            It is replaced as a whole or not at all.
        int8, name
            As in `Model.export_c`.

        Raises
        ------
        ValueError
            For a predictor that multiplies in bfloat16. Also as `Model.export_c`.
        """
        from nnx.files import c_source

        where = "Predictor.export_c"
        if self.precision == "bfloat16":
            raise ValueError(f"{where}: precision must be {self.dtype.name}, got bfloat16. Export the model.")
        c_source.write(where, path, [self._parts], [1.0], None, int8, name)

    def __repr__(self) -> str:
        parts = []
        for part in self._parts:
            settings = "" if part.kind in program.WITH_DTYPE or not part.values else str(list(part.values))
            parts.append(f"{part.n_in}-{part.n_out}" if part.kind == "dense" else part.kind + settings)
        rounded = ", products in bfloat16" if self.precision == "bfloat16" else ""
        return f"<Predictor {', '.join(parts)}, {self.dtype.name}{rounded}>"

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        self._refuse(name)

    def __delattr__(self, name: str) -> NoReturn:
        self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        raise AttributeError(f"Predictor: {abridged(name)} cannot be changed. Make a new predictor: model.predictor().")

    def __copy__(self) -> Predictor:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Predictor:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return made, (tuple(map(tuple, self._parts)), self.precision, self._categories, self.threads)


def get_include() -> str:
    """Return the folder of ``nnx_predict.h``, for compilers: ``include_dirs=[nnx.get_include()]``."""
    return os.path.join(os.path.dirname(__file__), "include")


def freeze(model: Network, precision: str | None, threads: int) -> Predictor:
    """Return a predictor with a finalized model's present parameters."""
    where = "Model.predictor"
    n_threads = config.checked_threads(where, "threads", threads)
    trainers.refuse_others(f"{where}: the model must not be frozen", model)
    try:
        dtype, parts = parts_of(where, model)
    except ValueError as error:
        raise ValueError(f"{error} Use predict.") from None
    chosen = checked_precision(where, precision, dtype) or dtype.name
    categories = columns_of_categories(model.layers)
    counts = None if categories is None else tuple(categories[1].tolist())
    return made(parts, chosen, counts, n_threads)


def parts_of(where: str, model: Network) -> tuple[FloatDType, tuple[Part, ...]]:
    """Return the dtype of a finalized model, and its layers with the parameters that `predict` uses, not copied.

    Layers that act only in training are left out.

    Raises
    ------
    ValueError
        For a model with a layer, or a method, that is not built in.
    """
    try:
        chain = program.lower_forward(model)
    except program.Obstacle as obstacle:
        raise ValueError(f"{where}: the model must have only built-in parts, but {obstacle}.") from None
    stages = [stage for stage in chain.stages if stage.kind not in program.RANDOM]
    return chain.dtype, tuple(Part(each.kind, _values(where, each), each.n_in, each.n_out) for each in stages)


def made(
    parts: tuple[Any, ...], precision: str, categories: tuple[int, ...] | None = None, threads: int = 1
) -> Predictor:
    """Return a predictor of these parts, with copies of their arrays. Pickles use it, too.

    ``categories`` is the number of categories of each column, 0 for a numeric column. It is None if all are numeric.
    """
    rounds = precision == "bfloat16"
    frozen = tuple(Part(kind, _frozen(kind, values, rounds), n_in, n_out) for kind, values, n_in, n_out in parts)
    predictor = Predictor.__new__(Predictor)
    chosen = {
        "dtype": config.FLOAT32 if rounds else np.dtype(precision),
        "precision": precision,
        "n_inputs": frozen[0].n_in,
        "n_outputs": frozen[-1].n_out,
        "_parts": frozen,
        "_categories": categories,
        "_native": None,
        "threads": threads,
    }
    for name, value in chosen.items():
        object.__setattr__(predictor, name, value)
    predictor._in_force()
    return predictor


def _values(where: str, stage: program.Stage) -> tuple[Any, ...]:
    """Return what a kernel needs of a layer: the parameters that `predict` uses and other fixed values, or settings.

    The other fixed values are, for a batch norm, running mean, running variance and epsilon; for a layer norm, epsilon;
    for an embedding, places; for a spline, columns, first places, edges and degree; for waves, their columns. An
    encoding has columns, offsets and edges. Combinations have factors instead of edges.
    """
    owner, kind = stage.owner, stage.kind
    if kind in program.PARAMETERS:
        found = tuple(owner._parameters_in_use(where))
        if kind == "batch_norm":
            return (*found, *owner._statistics(where, writing=False), owner._settings(where)[1])
        if kind == "embedding":
            return (*found, owner._layout(where).places)
        if kind == "spline":
            return (*found, *owner._layout(where))
        if kind == "periodic":
            return (*found, owner._places)
        return (*found, *owner._settings(where)) if kind == "layer_norm" else found
    if kind in program.WITH_DTYPE:
        return tuple(owner._layout(where))
    return () if kind in (*program.RANDOM, "fork", "join") else tuple(owner._settings())


def _frozen(kind: str, values: tuple[Any, ...], rounds: bool) -> tuple[Any, ...]:
    """Return settings, or read-only copies of arrays. If ``rounds``, a dense layer's weights are rounded."""
    if kind not in program.WITH_DTYPE:
        return values
    copies = [np.array(value, order="C") if isinstance(value, np.ndarray) else value for value in values]
    if rounds and kind == "dense":
        _kernels.backend.round_bfloat16(copies[0], copies[0])
    for copy in copies:
        if isinstance(copy, np.ndarray):
            copy.flags.writeable = False
    return tuple(copies)


def _outputs(part: Part, inputs: Array, rounds: bool) -> Array:
    """Return the outputs of a part for its inputs."""
    backend = _kernels.backend
    if part.kind in OF_MEMBERS:
        return OF_MEMBERS[part.kind](inputs, *part.values)
    output = _kernels.empty(len(inputs), part.n_out, inputs.dtype)
    if part.kind == "dense":
        if rounds:
            rounded = _kernels.empty_like(inputs)
            backend.round_bfloat16(inputs, rounded)
            inputs = rounded
        weights, biases = part.values
        backend.dense_forward(inputs, weights, biases, output)
    elif part.kind in ("prelu", "scale"):
        getattr(backend, f"{part.kind}_forward")(inputs, part.values[0], output)
    elif part.kind == "batch_norm":
        weights, biases, mean, variance, epsilon = part.values
        backend.batch_norm_forward(inputs, mean, variance, weights, biases, epsilon, output)
    elif part.kind == "layer_norm":
        weights, biases, epsilon = part.values
        backend.layer_norm_forward(inputs, weights, biases, epsilon, output)
    elif part.kind == "embedding":
        weights, places = part.values
        backend.embedding_forward(inputs, places, weights, output)
    elif part.kind == "spline":
        weights, biases, columns, first, edges, degree = part.values
        bins = np.empty((len(inputs), len(columns)), np.int32)
        parts = _kernels.empty(len(inputs), len(columns), inputs.dtype)
        backend.spline_places(inputs, columns, first, edges, int(degree), bins, parts)
        backend.spline_forward(inputs, bins, parts, first, int(degree), weights, biases, output)
    elif part.kind == "periodic":
        weights, columns = part.values
        backend.periodic_forward(inputs, columns, weights, output)
    elif part.kind in program.WITH_DTYPE:
        getattr(backend, f"{part.kind}_forward")(inputs, *part.values, output)
    else:
        backend.activation_forward(part.kind, inputs, output, part.values)
    return output


def _checked_out(out: Any, shape: tuple[int, int], dtype: FloatDType) -> Array:
    """Return the array to write into, as a plain array over the same memory."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"Predictor: out must be an array, got {type(out).__name__}.")
    if out.dtype != dtype or out.shape != shape:
        raise ValueError(
            f"Predictor: out must be of dtype {dtype.name} and shape {shape}, got {out.dtype.name} and {out.shape}."
        )
    if not (out.flags.writeable and out.flags.c_contiguous and out.flags.aligned):
        kind = "one that is read-only" if not out.flags.writeable else "one in another order"
        raise ValueError(f"Predictor: out must be a writable array in C order, got {kind}.")
    return np.asarray(out)
