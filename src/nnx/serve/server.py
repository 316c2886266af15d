"""The server: uvicorn, with limits on what slow and endless requests take, and a stop that loses none.

uvicorn reads HTTP and runs the application. What is added here it leaves to a proxy in front of it: how long a request
may take to arrive, how long its head may be, and connections that are already made when the stop begins.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Seconds that a request may take to arrive, and that a client may take to read what it asked for.
SLOWEST = 30.0
#: Seconds that an idle connection may wait for its next request. While the service stops it may wait so long, and a
#: new connection so long for its first.
KEEP_ALIVE, LINGER, FIRST = 15, 0.5, 3.0
#: Bytes of a request's head. What a body takes beside its content (chunks, each with a length) may be some times that.
MAX_HEAD, FRAMING = 1 << 16, 8
#: Seconds that the service waits for requests which it has accepted when it is told to stop.
LONGEST_STOP = 60
#: Linux's filter of packets, by its number on nearly all processors, and the program of one instruction that drops all.
SO_ATTACH_FILTER, DROP = 26, struct.pack("HBBI", 0x06, 0, 0, 0)
#: Connections at the same time, at most.
MAX_CONNECTIONS = 4096


def serve(app: Any, bound: socket.socket, max_body: int, started: Callable[[], None]) -> None:
    """Run an application until SIGTERM or Ctrl-C; return when all accepted requests are answered.

    Parameters
    ----------
    app : ASGI application
    bound : socket
        Bound to the address where the service is; it is closed at the end.
    max_body : int
        The largest body that the application takes, in bytes.
    started : function
        Called when the service listens, and a signal stops it as is said above.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # every malformed request would be a line

    class Bounded(Connection):
        max_message = MAX_HEAD + FRAMING * max_body
        most = _most_connections()

    config = uvicorn.Config(
        app,
        http=Bounded,
        ws="none",
        lifespan="off",
        loop="auto",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=LONGEST_STOP,
        backlog=1024,
    )
    Server(config, bound, started).run(sockets=[bound])


def _admit_no_more(listening: socket.socket) -> None:
    """Let the system make no more connections. Those who come now try again, and then learn that nobody listens.

    Without this, connections made between the last `accept` and the end of the socket would be reset.
    """
    listening.listen(0)  # one may still wait
    if sys.platform == "linux":
        program = array.array("B", DROP)
        with contextlib.suppress(OSError):
            listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, program.buffer_info()[0]))


def _most_connections() -> int:
    """Return how many connections there may be: fewer where the system allows few open files."""
    try:
        import resource
    except ImportError:  # Windows
        return MAX_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files < 0 else max(16, min(MAX_CONNECTIONS, files - 64))


class Connection(HttpToolsProtocol):
    """A client's connection."""

    max_message, most = MAX_HEAD, MAX_CONNECTIONS

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        #: When the request began that has not arrived as a whole; None if all have.
        self._since: float | None = self.loop.time()
        self._received = 0
        self._reads_head = True
        self._unread_since: float | None = None
        self._stops = False

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request; refuse a connection beyond what the service has files for."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self.refuse(503, "Too many connections.")

    def data_received(self, data: bytes) -> None:
        """Read a part of a request, unless it is longer than any may be."""
        if self.parser is None or self.transport.is_closing():
            return
        if self._since is None:
            self._since, self._received = self.loop.time(), 0
        self._received += len(data)
        super().data_received(data)
        if self._since is None or self.transport.is_closing():
            return
        if self._reads_head and self._received > MAX_HEAD:
            self.refuse(431, "The head of the request is too long.")
        elif self._received > self.max_message:
            self.transport.close()  # the answer, if there is one, has been sent

    def on_message_begin(self) -> None:
        """Begin to read a request."""
        self._reads_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin to answer a request."""
        self._reads_head = False
        super().on_headers_complete()
        if self._stops:
            self._close_after_answer()

    def on_message_complete(self) -> None:
        """Note that a request is here."""
        self._since = None
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that it does."""
        self._unread_since = None
        super().resume_writing()

    def close_if_slow(self, now: float) -> None:
        """Close the connection of a client that sends or reads too slowly."""
        if self._unread_since is not None and now - self._unread_since > SLOWEST:
            self.transport.abort()
        elif self._since is not None and now - self._since > SLOWEST:
            self.refuse(408, "The request took too long to arrive.")

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self.refuse(400, msg)

    def refuse(self, status: int, sentence: str) -> None:
        """Answer what never became a request, and close; say nothing in the middle of another answer."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            phrases = {
                400: "Bad Request",
                408: "Request Timeout",
                431: "Request Header Fields Too Large",
                503: "Service Unavailable",
            }
            content = b'{"error":"%s"}' % sentence.encode()
            head = (
                f"HTTP/1.1 {status} {phrases[status]}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + content)
        self.transport.close()

    def shutdown(self) -> None:
        """Close after the next answer. An idle client may just have sent a request: it is waited for a little."""
        self._stops = True
        if self.cycle is None:
            self.loop.call_later(FIRST, self._close_if_idle)
        elif self.cycle.response_complete or self.cycle.response_started:  # its head has promised to go on
            self.loop.call_later(LINGER, self._close_if_idle)
        else:
            self._close_after_answer()

    def _close_after_answer(self) -> None:
        """Tell the client that the next answer is the last; uvicorn closes when it has sent this header."""
        self.cycle.default_headers = [*self.cycle.default_headers, (b"connection", b"close")]

    def _close_if_idle(self) -> None:
        begun = self._since is not None and self._received > 0
        if not begun and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server, which ends without the signal's exit code, and looks for slow clients every second."""

    def __init__(self, config: uvicorn.Config, bound: socket.socket, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started
        self._waiting = bound.dup()  # keeps the connections that wait for `accept` when uvicorn closes its own

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._started()

    async def on_tick(self, counter: int) -> bool:
        """Close what is too slow; return whether to stop."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.close_if_slow(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: accept what is already connected, answer all, and close."""
        for server in self.servers:
            server.close()
        await self._accept_the_rest()
        sweeping = asyncio.ensure_future(self._sweep())
        try:
            await super().shutdown(sockets)
        finally:
            sweeping.cancel()

    async def _accept_the_rest(self) -> None:
        """Take the connections that the system has made already, and then no more."""
        loop = asyncio.get_running_loop()
        self._waiting.setblocking(False)
        _admit_no_more(self._waiting)
        try:
            while True:
                accepted, _ = self._waiting.accept()
                accepted.setblocking(False)
                await loop.connect_accepted_socket(self._connection, accepted)
        except OSError:  # none is left
            pass
        finally:
            self._waiting.close()

    def _connection(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(self.config, self.server_state, self.lifespan.state)
        return made

    async def _sweep(self) -> None:
        """Go on closing what is too slow while others are waited for."""
        while True:
            await asyncio.sleep(1)
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.close_if_slow(now)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals as requests to stop; uvicorn's own raises them again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
