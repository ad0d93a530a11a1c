"""Change one entry of a specification by its dotted path: `--set model.width=200`, or the lines of a variant."""

import copy
import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from .._core import ConfigError
from ._plain import require_plain, shown
from ._toml import NotTomlError, parse_toml

Override = tuple[tuple[str, ...], Any]
_MOST_PARTS = 16
_EXPECTED = {"--set": "path.to.key=value, such as model.width=200"}


def parse_assignment(text: str, flag: str = "--set") -> Override:
    """The path and the value of "path.to.key=value".

    The value is read as TOML (a number, true, [1, 2], {kind = "constant", value = 0.1}, "text"); what is not TOML is
    text as it stands, so that quotes may be left out: model.activation=relu.

    **Arguments:** `text`; `flag`: the option of the command line that it was given with, for the message.

    **Raises:** `ConfigError` if there is no "=" or the path is no TOML key.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"{flag} {shown(text)}; expected {_EXPECTED.get(flag, 'key=value')}.")
    where, what = parse_path(path), value.strip()
    try:
        parsed = parse_toml(f"value = {value}")
    except NotTomlError:
        parsed = {}
    # More than one key means that the text went on past the value. Dates and times no entry takes: they are meant as text.
    if parsed.keys() == {"value"} and not isinstance(parsed["value"], datetime.date | datetime.time):
        what = parsed["value"]
    require_plain(what, f"{flag} {shown(path.strip())[1:-1]}")
    return where, what


def parse_path(path: str) -> tuple[str, ...]:
    """The parts of a dotted TOML key; a part with a dot in it stands in quotes.

    **Raises:** `ConfigError` if it is none.
    """
    try:
        table: Any = parse_toml(f"{path} = 0")
        parts = []
        while isinstance(table, dict):
            ((part, table),) = table.items()  # a text of several lines may state several
            parts.append(part)
    except (NotTomlError, ValueError) as error:
        raise ConfigError(f"{shown(path)} is not a dotted key such as model.width.") from error
    if len(parts) > _MOST_PARTS or not all(parts):
        raise ConfigError(f"{shown(path)} is not a dotted key of at most {_MOST_PARTS} names, none of them empty.")
    return tuple(parts)


def flatten_overrides(table: Mapping[str, Any]) -> list[Override]:
    """The overrides a variant's table holds: "model.init_scale" = 0.1 and model = { init_scale = 0.1 } are the same.

    A table that names a `kind` is a value, which replaces what stands there; any other table only leads to its entries.
    """
    overrides: list[Override] = []
    for key, value in table.items():
        path = parse_path(key) if "." in key else (key,)
        if isinstance(value, Mapping) and "kind" not in value:
            overrides += [((*path, *rest), item) for rest, item in flatten_overrides(value)]
        else:
            overrides.append((path, value))
    return overrides


def apply_overrides(table: Mapping[str, Any], overrides: Iterable[Override]) -> dict[str, Any]:
    """A copy of `table` with every override's entry set; tables that a path needs are made.

    **Raises:** `ConfigError` where a path leads through something that is no table.
    """
    changed = copy.deepcopy(dict(table))
    for path, value in overrides:
        inner = changed
        for depth, part in enumerate(path[:-1]):
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(
                    f"cannot set {'.'.join(path)}: {'.'.join(path[: depth + 1])} is {shown(inner)}, which is not a table."
                )
        inner[path[-1]] = value
    return changed
