"""The numbers of columns that layers take and return, if they tell them."""

from __future__ import annotations

from typing import Any, TypeAlias

#: The message for a layer that does not fit the one before it. A class may have a more exact one as `_must`.
MUST = "take the {} outputs of what is before it"

#: The columns that a layer takes and returns. None means any number, or as many as it takes.
Widths: TypeAlias = tuple[int | None, int | None]


def widths_of(layer: Any) -> Widths | None:
    """Return the columns that a layer takes and returns; None if only a forward pass would show it.

    A built-in layer that names no number takes any. A custom class with another ``forward`` tells nothing, whatever its
    base class is.
    """
    forward = getattr(type(layer), "forward", None)
    module = getattr(forward, "__module__", None) or ""  # a function from exec may have none
    if not module.startswith("nnx.") or "forward" in getattr(layer, "__dict__", {}):
        return None
    if not hasattr(layer, "_widths"):
        return None, None
    found: Widths | None = layer._widths()
    return found


def width_after(layer: Any, width: int | None) -> int | None:
    """Return how many columns a layer returns for ``width`` columns; None if only a forward pass would show it."""
    found = widths_of(layer)
    if found is None:
        return None
    return width if found[1] is None else found[1]


def check_width(where: str, place: str, layer: Any, width: int | None) -> None:
    """Refuse a layer that takes another number of columns. ``place`` says which layer it is."""
    found = widths_of(layer)
    if found is not None and width is not None and found[0] not in (None, width):
        must = getattr(layer, "_must", MUST).format(width)
        raise ValueError(f"{where}: {place} must {must}, got {layer!r}.")
