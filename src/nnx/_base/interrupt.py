"""Keeps a model consistent when its training is interrupted: Ctrl-C between steps, and changes made at once."""

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

#: The functions without the enumerations of `signal`, which cost more than a small network's step.
_signal = importlib.import_module("_signal" if "_signal" in sys.builtin_module_names else "signal")
SIGINT = int(_signal.SIGINT)


def at_once(calls: Iterable[partial[Any]]) -> None:
    """Make calls of functions that are not written in Python, without an interruption between them.

    The interpreter runs signal handlers, and raises exceptions that another thread has sent, between two instructions
    of Python code. This function is one instruction.
    """
    deque(map(partial.__call__, calls), maxlen=0)


_of_thread = threading.local()


@contextmanager
def stopped_by(event: threading.Event) -> Iterator[None]:
    """Let an event act in this thread, within the block, as Ctrl-C does in the main thread."""
    _of_thread.event = event
    try:
        yield
    finally:
        _of_thread.event = None


class Interrupt:
    """While entered, Ctrl-C waits for the next call of `check`, so that no step stops half-way.

    It delays only Python's own reaction to Ctrl-C. If a program has set another handler, it does nothing. Nor does it
    in other threads, which Ctrl-C does not reach: there `stopped_by` takes its place. A second Ctrl-C does not wait, so
    that a user can leave a step that hangs.
    """

    #: The objects entered in the main thread, the innermost last.
    entered: ClassVar[list[Interrupt]] = []

    #: Whether `check` has raised. If so, no step has stopped half-way.
    stopped = False

    def __enter__(self) -> Interrupt:
        self._pending = False
        self._event: threading.Event | None = getattr(_of_thread, "event", None)
        _of_thread.event = None  # only the outermost one reacts: a training within a callback never stops half-way
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
        """Restore Python's own reaction, however far `__enter__` has come."""
        at_once(self._calls if self in self.entered else self._calls[:-1])

    def check(self) -> None:
        """Raise the waiting KeyboardInterrupt, if there is one."""
        if self._pending or (self._event is not None and self._event.is_set()):
            self._pending = False
            self.stopped = True
            raise KeyboardInterrupt

    @classmethod
    def request(cls, number: int, frame: FrameType | None) -> None:
        """Stop as Ctrl-C does: programs use this as a handler of other signals, because Ctrl-C may be switched off."""
        if not cls.entered:
            raise KeyboardInterrupt
        cls.entered[-1]._put_off(number, frame)

    def _put_off(self, number: int, frame: FrameType | None) -> None:
        if self._pending:
            raise KeyboardInterrupt
        self._pending = True


def _forget_other_threads() -> None:
    """After a fork: forget what the old process's main thread has delayed, unless this is that thread."""
    for interrupt in Interrupt.entered[:]:
        if interrupt._thread != threading.get_ident():
            interrupt._leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)
