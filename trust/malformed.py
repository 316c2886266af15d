"""Requests that no client should send: what a service makes of them.

As a script it starts services of its own and tries cases; a case's number and the seed make it again:

    python trust/malformed.py --cases 1000 --seed 1
"""

from __future__ import annotations

import atexit
import json
import random
import socket
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services import Service, answer, request, save_number_model, save_table_model
from worker import run

JSON, CSV = "Content-Type: application/json", "Content-Type: text/csv"
ROW = {"area": 70, "town": "Graz", "built": "2001-05-01"}
TABLE = "area,town,built\n70,Graz,2001-05-01\n80,Linz,1999-09-01\n"
ODD_VALUES = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e308", "1e-400", "-0.0", "9" * 400, "1" + "0" * 5000),
    *("null", "true", "false", "[]", "{}", '""', '"x"', '"\\ud800"', '"\\u0000"', '"\ufeff"', "[1]", '{"a":1}'),
    *("[" * 5000 + "]" * 5000, '{"a":' * 2000 + "1" + "}" * 2000, '"' + "y" * 100_000 + '"', "1.", ".5", "0x10"),
    *('"2001-99-99"', '"0000-01-01"', '"9999-12-31"', '"1e400"', '"$5"', '"12%"', "18446744073709551616", "'a'"),
)
TYPES = (
    *("application/json", "application/json; charset=utf-16", "application/json;charset=", "text/json", "text/csv"),
    *("text/csv; charset=utf-16", "text/csv; charset=latin-1", "text/csv; charset=idna", "text/csv; charset=zip"),
    *("text/csv; charset=punycode", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", ";"),
    *("application/octet-stream", "text/plain", "application/problem+json", "a" * 5000, "\udcff\udcfe", "*/*"),
)
HEADS = (
    *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Content-Encoding: gzip", "Expect: nothing"),
    *("Content-Encoding: br", "Accept: text/csv", "Accept: ,,;q=", "Accept: \udcff", "Connection: upgrade"),
    *("Upgrade: websocket", "Upgrade: h2c", "Content-Length: 5", "Content-Length: -1", "Content-Length: 1e9"),
    *(
        "Content-Length: 99999999999999999999",
        "X: " + "z" * 70_000,
        "X : y",
        "\udc80: y",
        "Host: a b",
        "Range: bytes=0-",
    ),
    *("Accept-Encoding: *", "Cookie: " + "a=b;" * 3000, ": empty", "no colon", "Expect: 100-continue"),
)
SOUND_HEADS = ("Expect: 100-continue", "Content-Encoding: gzip", "Accept: text/csv", "Accept: application/json")
PATHS = (
    *("/", "/predict/", "/predict?", "/predict?a=%ff", "/%70redict", "/%ff", "/%00", "//predict", "/../predict"),
    *("*", "http://other/predict", "/" + "a" * 5000, "/metrics?x", "/health", "/openapi.json", "/predict#a", "/\udce4"),
)
METHODS = ("GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "post", "BREW", "P\0ST", "", "PRI")
CHUNKS = (
    *(
        "5\r\nhello\r\n0\r\n\r\n",
        "zz\r\nhello\r\n",
        "-1\r\n\r\n",
        "ffffffffffffffffff\r\n",
        '5;x=y\r\n{"a":\r\n0\r\n\r\n',
    ),
    *("0\r\n\r\n", "0\r\nTrailer: x\r\n\r\n", "1\r\n{\r\n" * 300 + "0\r\n\r\n"),
)


def mutated(body: bytes, rng: random.Random) -> bytes:
    """Return a text with some bytes changed, removed, repeated or cut off."""
    found = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(found) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            found[at:at] = rng.choice((b"\0", b'"', b",", b"\n", b"\r", b"{", b"]", b"\xff", b"\\", b"-", b"e", b"9"))
        elif kind == 1:
            del found[at : at + rng.choice((1, 1, 3, 30))]
        elif kind == 2:
            found[at:at] = found[at : at + rng.randrange(40)]
        elif kind == 3 and at < len(found):
            found[at] = rng.randrange(256)
        elif len(found) > 2:
            del found[rng.randrange(len(found)) :]
    return bytes(found)


def odd_json(rng: random.Random) -> bytes:
    """Return JSON whose form or values are not those of rows."""
    value = rng.choice(ODD_VALUES)
    row: dict[str, Any] | list[Any] = dict(ROW) if rng.random() < 0.7 else [*ROW.values()]
    text = json.dumps({"rows": [ROW] * rng.randrange(2) + [row]})
    parts = ("70", '"Graz"', '"2001-05-01"', '"area"', json.dumps(row), '"rows"', text)
    part = rng.choice(parts)
    text = text.replace(part, value, rng.choice((1, -1)))
    if rng.random() < 0.2:
        text = '{"columns": ' + rng.choice(("null", "3", '["area"]', '["area", "area"]', value)) + ", " + text[1:]
    return text.encode("utf-8", "replace")


def odd_numbers(rng: random.Random) -> bytes:
    """Return JSON that is nearly rows of numbers."""
    values = ["0.5"] * rng.choice((0, 1, 31, 32, 32, 32, 33))
    for _ in range(rng.randrange(3)):
        if values:
            values[rng.randrange(len(values))] = rng.choice(ODD_VALUES)
    return f'{{"rows": [[{",".join(values)}]{rng.choice(("", ",[]", ",3", ",[0]", ",null"))}]}}'.encode()


def odd_csv(rng: random.Random) -> bytes:
    """Return CSV with odd cells or in an odd encoding."""
    text = TABLE.replace(rng.choice(("70", "Graz", "2001-05-01", "area", "\n", ",")), rng.choice(ODD_VALUES).strip('"'))
    if rng.random() < 0.2:
        text = (
            rng.choice(("sep=;\n", "sep=\0\n", 'sep="\n', "PAR1", "ARROW1", "PK\x03\x04", "\x1f\x8b", "\ufeff")) + text
        )
    return text.encode(rng.choice(("utf-8", "utf-8", "utf-16", "utf-32", "cp037")), "replace")


def raw(rng: random.Random) -> bytes:
    """Return bytes that are no sound HTTP."""
    whole = request(json.dumps({"rows": [ROW]}).encode(), JSON)
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 300))
    if kind == 1:
        return mutated(whole, rng)
    if kind == 2:
        head = f"{rng.choice(METHODS)} {rng.choice(PATHS)} HTTP/{rng.choice(('1.1', '1.0', '0.9', '2.0', '9', ''))}\r\n"
        return head.encode("utf-8", "surrogateescape") + b"Host: x\r\n\r\n"
    chunked = f"POST /predict HTTP/1.1\r\nHost: x\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n{rng.choice(CHUNKS)}"
    return chunked.encode()


class Malformed:
    """Asks services what nobody should, and looks at their answers."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.found = seed, Counter({"refused": 0, "answered": 0, "closed": 0})
        save_table_model(folder / "table.safetensors")
        save_number_model(folder / "numbers.safetensors")
        self.services = [
            Service(folder / name, "--max-body", "1") for name in ("table.safetensors", "numbers.safetensors")
        ]
        for service in self.services:
            atexit.register(service.stop)
        self.connections: list[socket.socket | None] = [None, None]

    def case(self, number: int) -> tuple[int, bytes, bool]:
        """Return which service is asked, the bytes, and whether they are a request that must be answered."""
        rng = random.Random(f"{self.seed} {number}")
        which = rng.randrange(2)
        bodies: list[Callable[[], tuple[bytes, str]]] = [
            lambda: (odd_json(rng), JSON),
            lambda: (odd_numbers(rng), JSON),
            lambda: (mutated(json.dumps({"rows": [ROW]}).encode(), rng), JSON),
            lambda: (odd_csv(rng), CSV),
            lambda: (mutated(TABLE.encode(), rng), CSV),
            lambda: (rng.randbytes(rng.randrange(2000)), rng.choice((JSON, CSV))),
            lambda: (TABLE.encode(), f"Content-Type: {rng.choice(TYPES)}"),
        ]
        kind = rng.randrange(10)
        if kind < 7:
            body, content_type = bodies[kind]()
            return (
                which,
                request(body, content_type, *rng.choices(SOUND_HEADS, k=rng.randrange(10) == 0)),
                True,
            )
        if kind == 7:
            return which, request(b"{}", JSON, *rng.choices(HEADS, k=2)), False
        if kind == 8:
            body = b"1" * rng.choice((1 << 20, (1 << 20) + 1, 3 << 20))
            return which, request(body, rng.choice((JSON, CSV))) if number % 20 == 8 else raw(rng), False
        return which, raw(rng), False

    def judge(self, number: int) -> str | None:
        """Try a case; return what is wrong with the answer."""
        which, content, complete = self.case(number)
        status, _, body = self._ask(which, content, complete)
        if status == 0:
            self.found["closed"] += 1
            if complete:
                return f"no answer to {content[:300]!r}"
        elif status < 400:
            self.found["answered"] += 1
        else:
            self.found["refused"] += 1
            if status >= 500:
                return f"status {status} to {content[:300]!r}: {body[:300]!r}"
            if complete and not self._is_sentence(body):
                return f"no sentence in {body[:300]!r} to {content[:300]!r}"
        if number % 100 == 0 and self._ask(which, request(b"", path="/health", method="GET"), True)[0] != 200:
            return "the service is no longer healthy"
        return None

    def _ask(self, which: int, content: bytes, complete: bool) -> tuple[int, dict[str, str], bytes]:
        connection = self.connections[which] if complete else None
        if connection is None:
            connection = self.services[which].connect()
        try:
            connection.sendall(content)
            if not complete:
                connection.shutdown(socket.SHUT_WR)  # else the service waits for what is missing
        except OSError:  # it has been refused, and the answer may be there
            pass
        found = answer(connection)
        keep = complete and found[0] != 0 and found[1].get("connection") != "close"
        self.connections[which] = connection if keep else None
        if not keep:
            connection.close()
        return found

    def _is_sentence(self, body: bytes) -> bool:
        try:
            said = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError):
            return False
        return isinstance(said, str) and len(said) > 10 and "Traceback" not in said and len(said) < 5000


if __name__ == "__main__":
    sys.exit(run(Malformed))
