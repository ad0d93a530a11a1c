"""Make the paths of data files in a configuration absolute, wherever they stand."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .._core import ConfigError, as_path

_ENTRY = ("problem", "path")
_DOTTED = ".".join(_ENTRY)


def with_absolute_paths(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`table` with absolute paths of data files (or their folder) in `problem`, variants and axes.

    **Arguments:**

    - `table`: the configuration.
    - `folder`: the folder that relative paths start from. A leading ~ is the home folder.

    **Raises:** `ConfigError` for a value that is not a path.
    """

    def absolute(value: Any) -> Any:
        if isinstance(value, list):  # the values of an axis
            return [absolute(item) for item in value]
        return _absolute_path(value, folder) if isinstance(value, str) else value

    changed = _with_own_path(table, absolute)
    for section, change in (("variants", _with_own_path), ("axes", _with_values)):
        if isinstance(table.get(section), Mapping):
            changed[section] = {name: change(entries, absolute) for name, entries in table[section].items()}
    return changed


def _with_own_path(table: Any, absolute: Callable[[Any], Any]) -> Any:
    if not isinstance(table, Mapping):
        return table
    changed = dict(table)
    if _DOTTED in table:
        changed[_DOTTED] = absolute(table[_DOTTED])
    problem = table.get(_ENTRY[0])
    if isinstance(problem, Mapping) and _ENTRY[1] in problem:
        changed[_ENTRY[0]] = {**problem, _ENTRY[1]: absolute(problem[_ENTRY[1]])}
    return changed


def _with_values(axis: Any, absolute: Callable[[Any], Any]) -> Any:
    if not isinstance(axis, Mapping) or "values" not in axis:
        return axis
    values = axis["values"]
    changed = absolute(values) if axis.get("path") == _DOTTED else _with_own_path(values, absolute)
    return {**axis, "values": changed}


def _absolute_path(text: str, folder: Path) -> str:
    try:
        return str((folder / as_path(text, _DOTTED, ConfigError)).resolve())
    except (OSError, RuntimeError) as error:  # links that lead in a circle
        raise ConfigError(f"{_DOTTED} = {text!r} leads nowhere: {error}.") from error
