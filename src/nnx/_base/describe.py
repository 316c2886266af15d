"""`Described`: gives layers, losses, optimizers and accuracies ``repr`` and ``get_config``."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from nnx._base import config


class Described:
    """Base of the built-in classes. It holds no state, so subclasses need not call its constructor."""

    #: The constructor's arguments, each kept in an attribute of its name.
    _arguments: ClassVar[tuple[str, ...]] = ()

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments that make an object like this one, ready for JSON.

        Model files hold them. A custom class that can be saved defines its own ``get_config``. When the file is loaded,
        its constructor gets the returned arguments.
        """
        return {name: _plain(getattr(self, name)) for name in self._arguments}

    def _shown(self) -> dict[str, Any]:
        """Return the constructor's arguments as ``repr`` shows them: objects in place of their descriptions."""
        return self.get_config()

    def __repr__(self) -> str:
        return self._text()

    def _text(self, without: tuple[str, ...] = ()) -> str:
        """Return the constructor's call, without some of its arguments."""
        import inspect

        parameters = inspect.signature(type(self)).parameters
        shown = []
        for name, value in self._shown().items():
            if name in without:
                continue
            default = parameters[name].default if name in parameters else inspect.Parameter.empty
            if name in parameters and default is inspect.Parameter.empty:
                shown.append(repr(value))
            elif value != default and not (name == "dtype" and value == config.get_default_dtype().name):
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def text_without(thing: Any, without: tuple[str, ...]) -> str:
    """Return an object's ``repr``, without some of its constructor's arguments where it is the one of `Described`."""
    is_own = not isinstance(thing, Described) or type(thing).__repr__ is not Described.__repr__
    return repr(thing) if is_own else thing._text(without)


def _plain(value: Any) -> Any:
    """Return an argument in a form for JSON, with lists and numbers instead of NumPy's. Users may have assigned it."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


#: A layer with more edges is shown without them.
MAX_SHOWN = 12


class _Count:
    """The number of edges, shown if all edges would be too long."""

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts

    def __repr__(self) -> str:
        columns = "column" if len(self.counts) == 1 else "columns"
        return f"<{sum(self.counts):,} edges of {len(self.counts)} {columns}>"


def with_few_edges(config: dict[str, Any]) -> dict[str, Any]:
    """Return a layer's arguments as ``repr`` shows them. The number of edges replaces long lists of edges."""
    counts = list(map(len, config["edges"]))
    return config if sum(counts) <= MAX_SHOWN else {**config, "edges": _Count(counts)}
