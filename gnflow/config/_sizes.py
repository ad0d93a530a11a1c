"""Named sizes of a configuration, which make the same experiment small or large."""

from collections.abc import Mapping
from typing import Any

from .._core import ConfigError, look_up
from ._overrides import apply_overrides, flatten_overrides
from ._plain import shown


def apply_size(table: Mapping[str, Any], size: str | None) -> dict[str, Any]:
    """`table` with the overrides of one of its [sizes] applied, and without the section [sizes].

    **Arguments:**

    - `table`: the configuration.
    - `size`: the name of the size. None uses the one in the entry `size`, if there is one.

    **Raises:** `ConfigError` for a name that [sizes] does not have.
    """
    sizes = table.get("sizes", {})
    if not isinstance(sizes, Mapping) or not all(isinstance(changes, Mapping) for changes in sizes.values()):
        raise ConfigError(f"sizes = {shown(sizes)}; expected a table for each: [sizes.NAME].")
    rest = {key: value for key, value in table.items() if key != "sizes"}
    if size is None and not sizes:
        return rest  # an entry `size` then only records the size that the table was made with
    size = table.get("size") if size is None else size
    if size is None:
        return rest
    if not sizes:
        raise ConfigError(f"size = {shown(size)}, but there are no [sizes]; leave it out or state [sizes.{size}].")
    overrides = flatten_overrides(look_up(size, sizes, "size"))
    for path, _ in overrides:
        if path[0] in ("size", "sizes"):
            raise ConfigError(f"sizes.{size} sets {'.'.join(path)!r}; a size cannot choose a size.")
    return {**apply_overrides(rest, overrides), "size": size}
