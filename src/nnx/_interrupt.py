"""Ctrl-C between steps: what keeps a model consistent when its training is interrupted."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from types import FrameType, TracebackType

SIGINT = int(signal.SIGINT)
#: The functions without the enumerations that `signal` puts around them, which cost more than a small network's step.
_signal = importlib.import_module("_signal" if "_signal" in sys.builtin_module_names else "signal")


class Interrupt:
    """While entered, Ctrl-C waits for the next call of `check`, so that no step stops half-way.

    Only Python's own reaction to Ctrl-C is put off; where a program has set another handler, or in a thread, which
    Ctrl-C does not reach, nothing is done. A second Ctrl-C does not wait, so that a step that hangs can be left.
    """

    #: Whether `check` has raised: then no step has stopped half-way.
    stopped = False

    def __enter__(self) -> Interrupt:
        self._pending = False
        self._installed = (
            threading.get_ident() == threading.main_thread().ident
            and _signal.getsignal(SIGINT) is signal.default_int_handler
        )
        if self._installed:
            _signal.signal(SIGINT, self._put_off)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._installed:
            _signal.signal(SIGINT, signal.default_int_handler)
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raise the KeyboardInterrupt that has been waiting, if one has."""
        if self._pending:
            self._pending = False
            self.stopped = True
            raise KeyboardInterrupt

    def _put_off(self, number: int, frame: FrameType | None) -> None:
        if self._pending:
            raise KeyboardInterrupt
        self._pending = True
