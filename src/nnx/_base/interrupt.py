"""What keeps a model consistent when its training is interrupted: Ctrl-C between steps, and changes made at once."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType, TracebackType
from typing import Any, ClassVar

#: The functions without the enumerations that `signal` puts around them, which cost more than a small network's step.
_signal = importlib.import_module("_signal" if "_signal" in sys.builtin_module_names else "signal")
SIGINT = int(_signal.SIGINT)


def at_once(calls: Iterable[partial[Any]]) -> None:
    """Make calls of functions that are not written in Python, with no interruption between them.

    The interpreter runs signal handlers, and raises what another thread has asked for, between two instructions of
    Python code. This is one instruction.
    """
    deque(map(partial.__call__, calls), maxlen=0)


_of_thread = threading.local()


@contextmanager
def stopped_by(event: threading.Event) -> Iterator[None]:
    """Let an event do in this thread, within the block, what Ctrl-C does in the main thread."""
    _of_thread.event = event
    try:
        yield
    finally:
        _of_thread.event = None


class Interrupt:
    """While entered, Ctrl-C waits for the next call of `check`, so that no step stops half-way.

    Only Python's own reaction to Ctrl-C is put off; where a program has set another handler, or in a thread, which
    Ctrl-C does not reach, nothing is done. There `stopped_by` takes its place. A second Ctrl-C does not wait, so that
    a step that hangs can be left.
    """

    #: Those that are entered in the main thread, the innermost last.
    entered: ClassVar[list[Interrupt]] = []

    #: Whether `check` has raised: then no step has stopped half-way.
    stopped = False

    def __enter__(self) -> Interrupt:
        self._pending = False
        self._event: threading.Event | None = getattr(_of_thread, "event", None)
        _of_thread.event = None  # only the outermost one answers: what a callback trains meanwhile is not left half-way
        self._thread = threading.get_ident()
        self._is_main = self._thread == threading.main_thread().ident
        self._installed = self._is_main and _signal.getsignal(SIGINT) is _signal.default_int_handler
        self._calls = [partial(_signal.signal, SIGINT, _signal.default_int_handler)] if self._installed else []
        if self._is_main:
            self._calls.append(partial(self.entered.remove, self))
        try:
            if self._is_main:
                self.entered.append(self)
            if self._installed:
                _signal.signal(SIGINT, self._put_off)
            return self
        except BaseException:  # of another signal's handler
            self._leave()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        at_once(self._calls)
        if self._event is not None:
            _of_thread.event = self._event
        if kind is None:
            self.check()

    def _leave(self) -> None:
        """Put Python's own reaction back in force, however far `__enter__` has come."""
        at_once(self._calls if self in self.entered else self._calls[:-1])

    def check(self) -> None:
        """Raise the KeyboardInterrupt that has been waiting, if one has."""
        if self._pending or (self._event is not None and self._event.is_set()):
            self._pending = False
            self.stopped = True
            raise KeyboardInterrupt

    @classmethod
    def request(cls, number: int, frame: FrameType | None) -> None:
        """Stop as Ctrl-C does: a handler of other signals, for programs, where Ctrl-C itself may be switched off."""
        if not cls.entered:
            raise KeyboardInterrupt
        cls.entered[-1]._put_off(number, frame)

    def _put_off(self, number: int, frame: FrameType | None) -> None:
        if self._pending:
            raise KeyboardInterrupt
        self._pending = True


def _forget_other_threads() -> None:
    """After a fork: what the main thread has put off there is no longer this process's, unless it is that thread's."""
    for interrupt in Interrupt.entered[:]:
        if interrupt._thread != threading.get_ident():
            interrupt._leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)
