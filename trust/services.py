"""Services of models that `nnx serve` runs as processes, and how they are asked over a plain socket."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

import nnx

STARTED = re.compile(r"at http://127\.0\.0\.1:(\d+) ")
#: Longer than any answer takes.
PATIENCE = 30


def save_table_model(path: Path) -> None:
    """Save a small classifier of a table with numbers, texts and dates."""
    rng = np.random.default_rng(0)
    n = 60
    flats = {
        "area": rng.integers(20, 200, n).tolist(),
        "town": rng.choice(["Graz", "Linz", "Wels"], n).tolist(),
        "built": [f"{year}-{month:02}-01" for year, month in zip(range(1950, 1950 + n), [1, 5, 9] * n, strict=False)],
        "kind": rng.choice(["let", "sold"], n).tolist(),
    }
    table = nnx.Table.learn(flats, "kind")
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(table.n_inputs, 8), nnx.Activation_ReLU(), nnx.Layer_Dense(8, 2)):
        model.add(layer)
    model.add(nnx.Activation_Softmax())
    model.set(loss=nnx.Loss_CategoricalCrossentropy(), accuracy=nnx.Accuracy_Categorical(), table=table)
    model.finalize()
    model.save(path)


def save_number_model(path: Path, sizes: Sequence[int] = (32, 64, 64, 8)) -> None:
    """Save a network of numbers that knows no table."""
    model = nnx.Model()
    for n_in, n_out in pairwise(sizes):
        model.add(nnx.Layer_Dense(n_in, n_out))
        model.add(nnx.Activation_ReLU())
    model.layers[-1] = nnx.Activation_Softmax()
    model.finalize()
    model.save(path)


class Service:
    """A process of `nnx serve` on a free port of this machine."""

    def __init__(self, path: Path, *options: str) -> None:
        command = [sys.executable, "-m", "nnx", "serve", str(path), "--port", "0", *options]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        started = STARTED.search(self.line)
        if started is None:
            raise RuntimeError(f"the service did not start: {self.line}{self.stop()[1]}")
        self.port = int(started[1])

    def connect(self) -> socket.socket:
        """Return a new connection."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def stop(self) -> tuple[int, str]:
        """Send SIGTERM, wait, and return the exit code and what stood on standard error."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors


def request(body: bytes, *headers: str, path: str = "/predict", method: str = "POST") -> bytes:
    """Return a request as it goes over the wire."""
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode("utf-8", "surrogateescape") + body


def answer(connection: socket.socket, received: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Return the status, the headers and the content of an answer; status 0 where the connection ended before.

    ``received`` is what has been read of it already.
    """
    while b"\r\n\r\n" not in received:
        received += _more(connection)
        if received.endswith(b"\0END"):
            return 0, {}, received[:-4]
    head, _, content = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    status = int(lines[0].split(" ")[1])
    if status == 100:
        return answer(connection, content)
    while len(content) < int(headers.get("content-length", 0)):
        more = _more(connection)
        if more == b"\0END":
            return 0, headers, content
        content += more
    return status, headers, content


def _more(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16) or b"\0END"
    except (ConnectionError, TimeoutError):
        return b"\0END"


# Stopping under load


def stopped(cases: int, n_clients: int = 16) -> tuple[int, list[str]]:
    """Send SIGTERM to a service that clients ask as fast as they can; return the cases, and what was lost."""
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "numbers.safetensors")
        save_number_model(path)
        for case in range(cases):
            service = Service(path)
            clients = [Client(service.port, keeps=number % 2 == 0) for number in range(n_clients)]
            for client in clients:
                client.start()
            time.sleep(0.3 + 0.01 * (case % 10))
            code, errors = service.stop()
            for client in clients:
                client.join(PATIENCE)
            lost = [problem for client in clients for problem in client.problems]
            if code != 0 or errors:
                lost.append(f"exit code {code}, {errors[-300:]}")
            if min(client.n_answered for client in clients) == 0:
                lost.append("a client was never answered")
            failures += [f"case {case}: {problem}" for problem in lost]
    return cases, failures


class Client(threading.Thread):
    """Asks until nobody listens any more, on one connection or on a new one each time."""

    def __init__(self, port: int, keeps: bool) -> None:
        super().__init__(daemon=True)
        self.port, self.keeps = port, keeps
        self.n_answered = 0
        self.problems: list[str] = []

    def run(self) -> None:
        headers = ["Content-Type: application/json"] + ["Connection: close"] * (not self.keeps)
        content = request(b'{"rows": [[' + b",".join([b"0.25"] * 32) + b"]]}", *headers)
        while not self.problems:
            try:
                connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
            except OSError:  # nobody listens any more
                return
            with connection:
                self._ask_on(connection, content)

    def _ask_on(self, connection: socket.socket, content: bytes) -> None:
        """Ask on a connection until an answer says that it is the last."""
        headers: dict[str, str] = {}
        while headers.get("connection") != "close":
            began = time.monotonic()
            try:
                connection.sendall(content)
                status, headers, _ = answer(connection)
            except OSError:
                status = 0
            if status != 200:
                kind, took = "an old" if self.keeps else "a new", time.monotonic() - began
                told = f"status {status} on {kind} connection after {took:.3f} s"
                self.problems.append(f"after {self.n_answered} answers: {told}")
                return
            self.n_answered += 1
