"""``nnx serve``."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import socket
from functools import partial
from typing import Any

from nnx.cli.arguments import Parser, Whole

#: What is not installed without the extra.
EXTRA = "Install it with: python -m pip install 'nnx-core[serve]'"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: Parser = commands.add_parser(
        "serve",
        help="answer rows over HTTP with a model's predictions",
        description="Answer rows over HTTP with a model's predictions: POST /predict takes JSON or\n"
        "CSV. / has a page about it, /openapi.json the same for programs, /health and\n"
        "/metrics are for those who watch over it. SIGTERM and Ctrl-C stop it when all\n"
        "accepted requests are answered. It needs the extra nnx-core[serve].",
        epilog="example: nnx serve rents.safetensors\n"
        "example: nnx serve rents.safetensors --host 0.0.0.0 --port 80  # for everybody who reaches this machine",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("model", metavar="MODEL", help="what nnx train saved, or a predictor")
    option("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine alone)")
    option("--port", type=Whole(0, 65535), default=8000, metavar="N", help="default: 8000; 0 takes a free one")
    option("--threads", type=Whole(1, 1024), default=1, metavar="N", help="for predictions of many rows (default: 1)")
    option("--max-body", type=Whole(1), default=16, metavar="MB", help="megabytes of a request (default: 16)")
    option(
        "--max-concurrency",
        type=Whole(1, 100_000),
        default=256,
        metavar="N",
        help="requests at the same time; more are told to come again later (default: 256)",
    )
    option(
        "--unknown",
        choices=("error", "missing"),
        default="error",
        help="what a text is that the training table lacks (default: error)",
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
    with parser.refusing():
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
        said = error.strerror if isinstance(error, OSError) else "no name of a host"
        parser.refuse(f"cannot listen at {host!r}, port {port} ({said})")
