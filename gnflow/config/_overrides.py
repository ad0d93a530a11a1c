"""Overrides, which change an entry of a specification by its dotted path: `--set model.width=200`, or lines of a variant."""

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from .._core import ConfigError
from ._plain import require_plain, shown
from ._toml import NotTomlError, parse_toml

Override = tuple[tuple[str, ...], Any]
AXIS_FORMS = ("values", "logspace", "linspace")  # ways to state the values of an axis
SEED_FORMS = ("seeds", "model_seeds")  # ways to state the seeds of a grid
_MOST_PARTS = 16
_EXPECTED = {"--set": "path.to.key=value, such as model.width=200"}


def parse_assignment(text: str, flag: str = "--set") -> Override:
    """The path and the value of "path.to.key=value".

    The value is read as TOML (a number, true, [1, 2], {kind = "constant", value = 0.1}, "text"). Anything else is taken as
    text, so that quotes may be left out: model.activation=relu.

    **Arguments:**

    - `text`: the assignment.
    - `flag`: its option on the command line, for messages.

    **Raises:** `ConfigError` if there is no "=" or the path is not a TOML key.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"{flag} {shown(text)}; expected {_EXPECTED.get(flag, 'key=value')}.")
    where, what = parse_path(path), value.strip()
    try:
        parsed = parse_toml(f"value = {value}")
    except NotTomlError:
        parsed = {}
    # More than one key means that the text went on past the value. No entry takes dates and times, so they are text, too.
    if parsed.keys() == {"value"} and not isinstance(parsed["value"], datetime.date | datetime.time):
        what = parsed["value"]
    require_plain(what, f"{flag} {shown(path.strip())[1:-1]}")
    return where, what


def parse_path(path: str) -> tuple[str, ...]:
    """The parts of a dotted TOML key. A part that contains a dot stands in quotes.

    **Raises:** `ConfigError` if `path` is not such a key.
    """
    try:
        table: Any = parse_toml(f"{path} = 0")
        parts = []
        while isinstance(table, dict):
            ((part, table),) = table.items()  # raises if a text of several lines states several keys
            parts.append(part)
    except (NotTomlError, ValueError) as error:
        raise ConfigError(f"{shown(path)} is not a dotted key such as model.width.") from error
    if len(parts) > _MOST_PARTS or not all(parts):
        raise ConfigError(f"{shown(path)} is not a dotted key of at most {_MOST_PARTS} names, none of them empty.")
    return tuple(parts)


def flatten_overrides(table: Mapping[str, Any], above: tuple[str, ...] = ()) -> list[Override]:
    """The overrides in a table. "model.init_scale" = 0.1 and model = { init_scale = 0.1 } are the same.

    A table that names a `kind` or states the values of an axis is a value, which replaces the former one. Any other table only
    leads to its entries.

    **Arguments:**

    - `table`: the table.
    - `above`: its own path.
    """
    overrides: list[Override] = []
    for key, value in table.items():
        path = (*above, *(parse_path(key) if "." in key else (key,)))
        is_value = not isinstance(value, Mapping) or "kind" in value or (path[0] == "axes" and len(path) > 2)
        overrides += [(path, value)] if is_value else flatten_overrides(value, path)
    return overrides


def apply_overrides(table: Mapping[str, Any], overrides: Iterable[Override]) -> dict[str, Any]:
    """A copy of `table` with the entries of all overrides set. Tables that a path needs are made.

    An axis that gets values, logspace or linspace loses the other two, and a table that gets model_seeds its seeds.

    **Raises:** `ConfigError` if a path leads through an entry that is not a table.
    """
    changed = dict(table)
    for path, value in overrides:
        if len(path) == 3 and path[0] == "axes" and path[2] in AXIS_FORMS:
            changed = _without_forms(changed, path[1])
        if len(path) == 1 and path[0] in SEED_FORMS:
            changed = {key: entry for key, entry in changed.items() if key not in SEED_FORMS}
        changed = _with(changed, path, value)
    return changed


def _with(table: Any, path: tuple[str, ...], value: Any, above: tuple[str, ...] = ()) -> dict[str, Any]:
    # Only the tables on the path are copied, because a grid sets entries of one table many thousand times.
    if not isinstance(table, Mapping):
        raise ConfigError(
            f"cannot set {'.'.join((*above, *path))}: {'.'.join(above)} is {shown(table)}, which is not a table."
        )
    first, *rest = path
    return {**table, first: _with(table.get(first, {}), tuple(rest), value, (*above, first)) if rest else value}


def _without_forms(table: dict[str, Any], axis: str) -> dict[str, Any]:
    """`table` without the values of an axis, in any of their forms."""
    axes = table.get("axes")
    if not isinstance(axes, Mapping) or not isinstance(axes.get(axis), Mapping):
        return table
    entries = {key: entry for key, entry in axes[axis].items() if key not in AXIS_FORMS}
    return {**table, "axes": {**axes, axis: entries}}
