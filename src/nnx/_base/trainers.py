"""The thread that trains a model: one at a time, and never one that a fork left in another process."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, NamedTuple

#: The attribute that a model has while a thread trains it. Compiled calls of one small step set it to their own object:
#: nothing else can run in their thread meanwhile.
MARK = "_training"

#: Objects that the training thread made for a model and uses.
MADE = ("_plan", "_segments", "_again", "_inference")

#: All models, by identity: a subclass may compare equal, or have no hash.
_models: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


class Trainer(NamedTuple):
    """Marks the thread that trains a model."""

    thread: int


def remember(model: Any) -> None:
    """Register a model for forked processes."""
    _models[id(model)] = model


def this_thread() -> Trainer:
    """Return a mark of the calling thread, for `begin` and, whatever comes between, for `end`."""
    return Trainer(threading.get_ident())


def begin(where: str, model: Any, trainer: Trainer) -> None:
    """Mark the model as trained by this thread. Refuse it if a thread already trains it."""
    if vars(model).setdefault(MARK, trainer) is not trainer:
        raise RuntimeError(f"{where}: this model is being trained already.")


def end(model: Any, trainer: Trainer) -> None:
    """Remove the mark, if it is this one."""
    if vars(model).get(MARK) is trainer:
        vars(model).pop(MARK, None)


def refuse_others(what: str, model: Any) -> None:
    """Refuse to read a model that another thread is training: its arrays do not belong to one step."""
    trainer = vars(model).get(MARK)
    if trainer is None or trainer == Trainer(threading.get_ident()):
        return
    raise RuntimeError(
        f"{what} while another thread trains it, because its arrays change during a step. Wait until training "
        f"ends, or let it write a file between two steps: train(..., checkpoint=path)."
    )


def _forget_other_threads() -> None:
    """After a fork: only the forking thread continues, so no other thread trains anything in the new process."""
    for model in list(_models.values()):
        trainer = vars(model).get(MARK)
        if trainer is not None and trainer != Trainer(threading.get_ident()):
            for name in (MARK, *MADE):
                vars(model).pop(name, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)
