"""Named sizes of a sweep: the same question asked small or large, by one word."""

from collections.abc import Iterable, Mapping
from typing import Any

from .._core import ConfigError, look_up
from ..config._overrides import Override, apply_overrides, parse_path
from ..config._plain import shown
from ._axes import FORMS


def apply_size(table: Mapping[str, Any], size: str | None) -> dict[str, Any]:
    """`table` with the overrides of one of its [sizes] applied, and the section [sizes] left out.

    **Arguments:** `size`: its name; None for the one that the entry `size` names, or for none.

    **Raises:** `ConfigError` for a name that [sizes] does not have.
    """
    sizes = table.get("sizes", {})
    if not isinstance(sizes, Mapping) or not all(isinstance(changes, Mapping) for changes in sizes.values()):
        raise ConfigError(f"sizes = {shown(sizes)}; expected a table for each: [sizes.NAME].")
    rest = {key: value for key, value in table.items() if key != "sizes"}
    if size is None and not sizes:
        return rest  # an entry `size` then only says which size the table was made from
    size = table.get("size") if size is None else size
    if size is None:
        return rest
    if not sizes:
        raise ConfigError(f"size = {shown(size)}, but the sweep has no [sizes]; leave it out or state [sizes.{size}].")
    overrides = _flatten((), look_up(size, sizes, "size"))
    for path, _ in overrides:
        if path[0] in ("size", "sizes"):
            raise ConfigError(f"sizes.{size} sets {'.'.join(path)!r}; a size cannot choose a size.")
    return {**override(rest, overrides), "size": size}


def override(table: Mapping[str, Any], overrides: Iterable[Override]) -> dict[str, Any]:
    """`table` with entries set; an axis given values, logspace or linspace loses the other two."""
    for path, value in overrides:
        changed = apply_overrides(table, [(path, value)])
        if len(path) == 3 and path[0] == "axes" and path[2] in FORMS:
            for form in FORMS:
                if form != path[2]:
                    changed["axes"][path[1]].pop(form, None)
        table = changed
    return dict(table)


def _flatten(above: tuple[str, ...], changes: Mapping[str, Any]) -> list[Override]:
    """The overrides in nested or dotted form; a table that names a kind, and the values of an axis, are values."""
    overrides: list[Override] = []
    for key, value in changes.items():
        path = (*above, *(parse_path(key) if "." in key else (key,)))
        is_value = not isinstance(value, Mapping) or "kind" in value or (path[0] == "axes" and len(path) > 2)
        overrides += [(path, value)] if is_value else _flatten(path, value)
    return overrides
