"""``nnx serve``."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import socket
from functools import partial
from typing import Any

from nnx.cli.arguments import UNKNOWN, Parser, Whole

#: What is not installed without the extra.
EXTRA = "Install it with: python -m pip install 'nnx-core[serve]'"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: Parser = commands.add_parser(
        "serve",
        help="serve a model's predictions over HTTP",
        description="Serve a model's predictions over HTTP. POST /predict takes rows as JSON or CSV.\n"
        "/ describes the service to people, /openapi.json to programs; /health and\n"
        "/metrics are for monitoring. SIGTERM or Ctrl-C stops the server after it has\n"
        "answered all accepted requests. It needs the extra nnx-core[serve].",
        epilog="example: nnx serve rents.safetensors\n"
        "example: nnx serve rents.safetensors --host 0.0.0.0 --port 80  # reachable from other machines",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("model", metavar="MODEL", help="what nnx train saved, or a predictor")
    option("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, for this machine only)")
    option(
        "--port",
        type=Whole(0, 65535),
        default=8000,
        metavar="N",
        help="port to listen at, 0 for any free one (default: 8000)",
    )
    option(
        "--threads",
        type=Whole(1, 1024),
        default=1,
        metavar="N",
        help="threads for predictions of many rows (default: 1)",
    )
    option("--max-body", type=Whole(1), default=16, metavar="MB", help="largest request in megabytes (default: 16)")
    option(
        "--max-concurrency",
        type=Whole(1, 100_000),
        default=256,
        metavar="N",
        help="requests that are answered at the same time; others get status 503 (default: 256)",
    )
    option(
        "--unknown",
        choices=("error", "missing"),
        default="error",
        help=UNKNOWN.format("requests"),
    )
    parser.set_defaults(run=_run, parser=parser)


def _run(chosen: argparse.Namespace) -> int:
    parser: Parser = chosen.parser
    try:
        from nnx.serve.app import create_app
        from nnx.serve.server import serve
        from nnx.serve.service import Service
    except ModuleNotFoundError as error:
        parser.refuse(f"{error.name} is not installed. {EXTRA}")
    with parser.refusing_model(chosen.model):
        service = Service(chosen.model, threads=chosen.threads, unknown=chosen.unknown)
    max_body = chosen.max_body << 20
    app = create_app(service, max_body=max_body, max_concurrency=chosen.max_concurrency)
    bound = _bound(parser, chosen.host, chosen.port)
    host, port = bound.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    line = f"{service.name} at http://{shown}:{port} (Ctrl-C stops it)"
    serve(app, bound, max_body, partial(print, line, flush=True))
    return 0


def _bound(parser: Parser, host: str, port: int) -> socket.socket:
    """Return a socket bound to an address, or refuse one that cannot be; it does not listen yet."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        with contextlib.ExitStack() as closing:
            bound = closing.enter_context(socket.socket(family, kind))
            if os.name == "posix":  # elsewhere it would let two services have one port
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            closing.pop_all()
            return bound
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            parser.refuse(f"port {port} of {host} is in use. Choose another --port, or 0 for a free one")
        said = error.strerror if isinstance(error, OSError) else "not a host name"
        parser.refuse(f"cannot listen at {host!r}, port {port} ({said})")
