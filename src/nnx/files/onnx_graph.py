"""What an ONNX graph is made with: nodes, constants, names. It needs the package onnx, which is imported late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx._base.typing import Array, FloatDType

#: The versions of operators and of the format: those of ONNX 1.12 (2022), so that older runtimes run the files.
OPSET, ML_OPSET, IR_VERSION = 17, 3, 8
#: The domain of operators for tables.
ML = "ai.onnx.ml"
#: A file cannot hold more bytes: protobuf counts them with a sign.
MAX_BYTES = (1 << 31) - (1 << 20)


def onnx_package(where: str) -> Any:
    """Return the package onnx, or refuse to go on without it."""
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError:
        raise ImportError(
            f"{where}: the package onnx is not installed. Install it with: python -m pip install 'nnx-core[onnx]'"
        ) from None
    return onnx


class Graph:
    """A graph that grows node by node. Values are known by their names.

    Attributes
    ----------
    dtype : dtype
        Of the network's numbers.
    scope : str
        What the names of nodes and values begin with from now on.
    """

    def __init__(self, onnx: Any, dtype: FloatDType, taken: Sequence[str] = ()) -> None:
        self._onnx, self.dtype, self.scope = onnx, dtype, ""
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._names = set(taken)
        self._scalars: dict[tuple[str, float], str] = {}
        self._n_bytes = 0

    def named(self, name: str) -> str:
        """Return a name that no other value has: this one, or with a number behind it."""
        found, number = name, 1
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found

    def constant(self, values: Any, name: str = "constant", dtype: Any = None) -> str:
        """Return the name of a constant: an array of numbers or texts, of the network's dtype unless told."""
        array = np.asarray(values) if dtype is None else np.asarray(values, dtype)
        if array.dtype == object:
            tensor = self._onnx.helper.make_tensor
            made = tensor(self._scoped(name), self._onnx.TensorProto.STRING, array.shape, [*map(_bytes, array.flat)])
        else:
            array = array.astype(self.dtype) if dtype is None and array.dtype.kind == "f" else array
            made = self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), self._scoped(name))
        self._n_bytes += made.ByteSize()
        self._constants.append(made)
        return str(made.name)

    def number(self, value: float, dtype: Any = None) -> str:
        """Return the name of a single number of the network's dtype, or of another one; it is in the file once."""
        dtype = np.dtype(dtype or self.dtype)
        key = dtype.name, float(value)
        if key not in self._scalars:
            scope, self.scope = self.scope, "numbers"
            self._scalars[key] = self.constant(np.array(value, dtype), f"{value:.9g}", dtype)
            self.scope = scope
        return self._scalars[key]

    def whole(self, values: Any, name: str = "places") -> str:
        """Return the name of a constant of whole numbers: places, shapes and codes."""
        return self.constant(np.asarray(values, np.int64), name, np.int64)

    def add(self, operator: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:
        """Add a node and return its output's name: ``output``, or one that says what made it."""
        name = self._scoped(operator)
        output = output or f"{name}.output"
        made = self._onnx.helper.make_node(operator, inputs, [output], name=name, domain=domain, **attributes)
        self._nodes.append(made)
        return output

    def cast(self, value: str, dtype: Any, output: str = "") -> str:
        """Return numbers as numbers of another type."""
        return self.add("Cast", value, to=self._type(dtype), output=output)

    def columns(self, value: str, places: Sequence[int] | Array) -> str:
        """Return some columns of a matrix."""
        return self.add("Gather", value, self.whole(places), axis=1)

    def input(self, name: str, dtype: Any, shape: Sequence[Any], about: str) -> str:
        """Declare an input. ``shape`` has a text where a size is free."""
        self._inputs.append(self._declared(name, dtype, shape, about))
        return name

    def output(self, value: str, name: str, dtype: Any, shape: Sequence[Any], about: str) -> str:
        """Declare an output of this name, or one like it, with a value."""
        made = self.named(name)
        self.scope = ""
        self.add("Identity", value, output=made)
        self._outputs.append(self._declared(made, dtype, shape, about))
        return made

    def model(self, where: str, name: str, about: str, version: str, metadata: dict[str, str]) -> Any:
        """Return the whole as a model that the checker has passed."""
        helper = self._onnx.helper
        if self._n_bytes > MAX_BYTES:
            raise ValueError(f"{where}: the parameters must take less than 2 GB, got {self._n_bytes:,} bytes.")
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._constants, doc_string=about)
        domains = {"": OPSET, **{node.domain: ML_OPSET for node in self._nodes if node.domain}}
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(*each) for each in domains.items()],
            ir_version=IR_VERSION,
            producer_name="nnx",
            producer_version=version,
            doc_string=about,
        )
        helper.set_model_props(model, metadata)
        self._onnx.checker.check_model(model, full_check=True)
        return model

    def _declared(self, name: str, dtype: Any, shape: Sequence[Any], about: str) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, self._type(dtype), list(shape), doc_string=about)

    def _type(self, dtype: Any) -> int:
        """Return the format's number for a NumPy dtype; ``str`` are texts."""
        if dtype is str:
            return int(self._onnx.TensorProto.STRING)
        return int(self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def _scoped(self, name: str) -> str:
        return self.named(f"{self.scope}.{name}" if self.scope else name)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
