"""ONNX Runtime, which predicts: all graph optimizations, sequential, as many threads as there are cores.

"run" gives a NumPy array and gets one back, as `Model.predict` does. "binding" has both ends bound to fixed memory that
is filled beforehand, so that nothing is copied or allocated: the least that a call can cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from workloads import Candidate, Workload, initial_parameters, samples

VERSION = onnxruntime.__version__


def variants(workload: Workload, cores: int) -> Mapping[str, Callable[[], Candidate]]:
    """Return the ways to predict."""
    if workload.kind != "predict":
        return {}
    return {"run": partial(Running, workload, cores), "binding": partial(Binding, workload, cores)}


def graph(workload: Workload) -> bytes:
    """Return the network as an ONNX model."""
    nodes, constants, values = [], [], "X"
    for i, (weights, biases) in enumerate(initial_parameters(workload)):
        constants += [numpy_helper.from_array(weights, f"W{i}"), numpy_helper.from_array(biases, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [values, f"W{i}", f"b{i}"], [f"dense{i}"]))
        values = f"dense{i}"
        if i < len(workload.widths) - 2:
            nodes.append(helper.make_node("Relu", [values], [f"relu{i}"]))
            values = f"relu{i}"
    nodes.append(helper.make_node("Softmax", [values], ["output"], axis=1))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [workload.batch, width])
        for name, width in (("X", workload.widths[0]), ("output", workload.widths[-1]))
    ]
    whole = helper.make_graph(nodes, "network", ends[:1], ends[1:], constants)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


class Running:
    """A unit is a call."""

    steps = 1

    def __init__(self, workload: Workload, cores: int) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads, options.inter_op_num_threads = cores, 1
        self.session = onnxruntime.InferenceSession(graph(workload), options, providers=["CPUExecutionProvider"])
        self.X = samples(workload)[0]

    def reset(self) -> None:
        pass

    def run(self, units: int) -> None:
        run, names, inputs = self.session.run, ["output"], {"X": self.X}
        for _ in range(units):
            run(names, inputs)

    def results(self) -> list[np.ndarray]:
        return [self.session.run(["output"], {"X": self.X})[0]]


class Binding(Running):
    """A unit is a call."""

    def __init__(self, workload: Workload, cores: int) -> None:
        super().__init__(workload, cores)
        self.output = np.empty((workload.batch, workload.widths[-1]), np.float32)
        self.binding = self.session.io_binding()
        self.binding.bind_input("X", "cpu", 0, np.float32, self.X.shape, self.X.ctypes.data)
        self.binding.bind_output("output", "cpu", 0, np.float32, self.output.shape, self.output.ctypes.data)

    def run(self, units: int) -> None:
        run, binding = self.session.run_with_iobinding, self.binding
        for _ in range(units):
            run(binding)

    def results(self) -> list[np.ndarray]:
        self.run(1)
        return [self.output.copy()]
