"""How many columns layers take and give, as far as they tell."""

from __future__ import annotations

from typing import Any, TypeAlias

#: What a layer must do that does not fit what is before it; a class may say it more exactly as `_must`.
MUST = "take the {} outputs of what is before it"

#: What a layer takes and what it gives; None for any number of columns, and for as many as it takes.
Widths: TypeAlias = tuple[int | None, int | None]


def widths_of(layer: Any) -> Widths | None:
    """Return the columns that a layer takes and gives; None if only running it would tell.

    A built-in layer that does not say has no preference. A custom class that has another ``forward`` does not
    tell, whatever it is derived from.
    """
    forward = getattr(type(layer), "forward", None)
    module = getattr(forward, "__module__", None) or ""  # a function that was made by exec may have none
    if not module.startswith("nnx.") or "forward" in getattr(layer, "__dict__", {}):
        return None
    if not hasattr(layer, "_widths"):
        return None, None
    found: Widths | None = layer._widths()
    return found


def width_after(layer: Any, width: int | None) -> int | None:
    """Return how many columns a layer gives for ``width`` columns; None if only running it would tell."""
    found = widths_of(layer)
    if found is None:
        return None
    return width if found[1] is None else found[1]


def check_width(where: str, place: str, layer: Any, width: int | None) -> None:
    """Refuse a layer that takes another number of columns than there are; ``place`` says which layer it is."""
    found = widths_of(layer)
    if found is not None and width is not None and found[0] not in (None, width):
        must = getattr(layer, "_must", MUST).format(width)
        raise ValueError(f"{where}: {place} must {must}, got {layer!r}.")
