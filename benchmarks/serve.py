"""Requests a second of `nnx serve`, and of the same service around ONNX Runtime.

    python benchmarks/serve.py            # 32-64-64-8, a row a request, on 1, 16 and 64 connections
    python benchmarks/serve.py --rounds 9 --seconds 3 --only nnx onnxruntime

The server has one core and the client another. All take turns in each round. Of each figure the best round is printed,
as other programs only make it worse. Processor time is what a request costs the server's process. Services:

- nnx: what `nnx serve` runs. onnxruntime: the same application, server and options, with a session's `run` in place of
  the predictor. Both form batches.
- granian: nnx's application on another server. fastapi: nnx's predictor behind FastAPI on uvicorn, with models of
  pydantic for rows and answers and a batch a request, as tutorials write it.

It needs the extra serve; onnxruntime and onnx, granian and fastapi if they are asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import machine

for name in machine.POOLS:
    os.environ[name] = "1"

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "trust"))
from services import answer, request, save_number_model

WIDTHS = (32, 64, 64, 8)
CONNECTIONS = (1, 16, 64)
SERVICES = ("nnx", "onnxruntime", "granian", "fastapi")
HOST, HEADER = "127.0.0.1", "Content-Type: application/json"


# Servers


def onnx_session(model: Any) -> Any:
    """Return what predicts with a model's network in ONNX Runtime, on one thread."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, values = [], [], "X"
    parameters = model.get_parameters()
    for i, (weights, biases) in enumerate(parameters):
        constants += [numpy_helper.from_array(weights, f"W{i}"), numpy_helper.from_array(biases, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [values, f"W{i}", f"b{i}"], [f"dense{i}"]))
        last = i == len(parameters) - 1
        values = "output" if last else f"relu{i}"
        kind, settings = ("Softmax", {"axis": 1}) if last else ("Relu", {})
        nodes.append(helper.make_node(kind, [f"dense{i}"], [values], **settings))
    shapes = [("X", WIDTHS[0]), ("output", WIDTHS[-1])]
    ends = [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["n", width]) for each, width in shapes]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    run, names = session.run, ["output"]
    return lambda X: run(names, {"X": X})[0]


def application(kind: str, path: str) -> Any:
    """Return the application of a service."""
    import nnx

    if kind == "fastapi":
        import fastapi
        import pydantic

        Request = pydantic.create_model("Request", rows=(list[list[float]], ...))
        Answer = pydantic.create_model("Answer", predictions=(list[list[float]], ...))
        predictor, app = nnx.Model.load(path).predictor(), fastapi.FastAPI()

        async def predict(asked: Any) -> Any:
            return Answer(predictions=predictor(asked.rows).tolist())

        predict.__annotations__ = {"asked": Request, "return": Answer}
        app.post("/predict")(predict)
        return app
    from nnx.serve import Service, create_app

    service = Service(path)
    if kind == "onnxruntime":
        service._predict = onnx_session(service.model)
    return create_app(service)


def made_for_granian() -> Any:
    """Return the application that granian's process runs."""
    return application("nnx", os.environ["SERVED"])


def run_server(kind: str, path: str, port: int) -> None:
    """Be a server, on the first processor."""
    if kind == "fastapi":
        import uvicorn

        uvicorn.run(application(kind, path), host=HOST, port=port, log_level="error", access_log=False, ws="none")
        return
    from nnx.serve.server import serve

    bound = socket.create_server((HOST, port))
    serve(application(kind, path), bound, 16 << 20, lambda: None)


def command(kind: str, path: str, port: int) -> list[str]:
    """Return how a server is started."""
    if kind != "granian":
        return [sys.executable, __file__, "--serve", kind, path, str(port)]
    options = ["--interface", "asginl", "--factory", "--workers", "1", "--loop", "uvloop", "--no-ws", "--host", HOST]
    return [sys.executable, "-m", "granian", *options, "--port", str(port), "serve:made_for_granian"]


class Served:
    """A server's processes."""

    def __init__(self, kind: str, path: str, core: int) -> None:
        with socket.create_server((HOST, 0)) as free:
            self.port = free.getsockname()[1]
        here = str(Path(__file__).parent)
        environment = {**os.environ, "SERVED": path, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), here])}
        self.process = subprocess.Popen(
            command(kind, path, self.port),
            env=environment,
            cwd=here,
            preexec_fn=lambda: os.sched_setaffinity(0, [core]),
        )
        for _ in range(200):
            try:
                socket.create_connection((HOST, self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"{kind} does not listen")

    def seconds(self) -> float:
        """Return the processor time that the server and its children have taken."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ticks = 0
        for pid in [self.process.pid, *map(int, children)]:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Stop it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


# The client


class Asking(asyncio.Protocol):
    """Asks the same again and again on one connection."""

    def __init__(self, content: bytes, seconds: list[float], until: float) -> None:
        self.content, self.seconds, self.until = content, seconds, until
        self.received = b""
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.began = time.perf_counter()
        self.transport.write(self.content)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, content = self.received.partition(b"\r\n\r\n")
        place = head.lower().find(b"content-length:")
        if not end or len(content) < int(head[place + 15 :].split(b"\r\n", 1)[0]):
            return
        now = time.perf_counter()
        self.seconds.append(now - self.began)
        if not head.startswith(b"HTTP/1.1 200 "):
            self.ended.set_exception(RuntimeError(self.received.decode()))
        self.received = b""
        if now < self.until:
            self.ask()
        elif not self.ended.done():
            self.transport.close()
            self.ended.set_result(None)


class Load(NamedTuple):
    """What one load came to."""

    per_second: float
    p50: float
    p99: float
    cpu: float


async def load(served: Served, content: bytes, connections: int, seconds: float) -> Load:
    """Ask on some connections at once."""
    loop, took = asyncio.get_running_loop(), list[float]()
    cpu, began = served.seconds(), time.perf_counter()
    made = [
        (await loop.create_connection(lambda: Asking(content, took, began + seconds), HOST, served.port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(each.ended for each in made))
    passed = time.perf_counter() - began
    p50, p99 = np.quantile(took, (0.5, 0.99)).tolist()
    return Load(len(took) / passed, p50 * 1e3, p99 * 1e3, (served.seconds() - cpu) / len(took) * 1e6)


def check(served: Served, content: bytes, expected: np.ndarray) -> None:
    """Refuse a service that computes something else."""
    with socket.create_connection((HOST, served.port), 10) as connection:
        connection.sendall(content)
        status, _, found = answer(connection)
    if status != 200:
        raise RuntimeError(f"status {status}: {found!r}")
    np.testing.assert_allclose(json.loads(found)["predictions"], expected, rtol=1e-5, atol=1e-7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a load")
    parser.add_argument("--only", nargs="+", choices=SERVICES, default=SERVICES)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        run_server(chosen.serve[0], chosen.serve[1], int(chosen.serve[2]))
        return
    import uvloop

    import nnx

    cores = machine.processors(2)
    machine.pin(cores[:1])
    rows = np.random.default_rng(0).normal(size=(1, WIDTHS[0])).round(4)
    content = request(json.dumps({"rows": rows.tolist()}).encode(), HEADER)
    found: dict[tuple[str, int], list[Load]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "numbers.safetensors")
        save_number_model(Path(path), WIDTHS)
        expected = nnx.Model.load(path).predict(rows)
        for _ in range(chosen.rounds):
            for kind in chosen.only:
                served = Served(kind, path, cores[1])
                check(served, content, expected)
                uvloop.run(load(served, content, 8, 0.2))  # warm
                for connections in CONNECTIONS:
                    measured = uvloop.run(load(served, content, connections, chosen.seconds))
                    found.setdefault((kind, connections), []).append(measured)
                served.stop()
    print("| service | connections | requests a second | p50, ms | p99, ms | processor time of a request, µs |")
    print("|---|---:|---:|---:|---:|---:|")
    for (kind, connections), loads in sorted(found.items(), key=lambda each: (SERVICES.index(each[0][0]), each[0][1])):
        rates, *others = zip(*loads, strict=True)
        p50, p99, cpu = map(min, others)
        print(f"| {kind} | {connections} | {max(rates):,.0f} | {p50:.2f} | {p99:.2f} | {cpu:.0f} |")


if __name__ == "__main__":
    main()
