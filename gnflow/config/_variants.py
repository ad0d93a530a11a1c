"""Variants: named positions of a grid. Each variant sets the entries that it lists."""

from collections.abc import Mapping
from typing import Any

from .._core import ConfigError
from ._axes import COMMON, VARIANT, Axis, are_plain, short_names
from ._overrides import flatten_overrides
from ._plain import shown
from ._run import check_name


def read_variants(table: Any) -> tuple[Axis, ...]:
    """The axis "variant" that the section [variants] states; no axis for an empty section.

    If all variants set a single entry, the same one, to numbers or to texts, its values become a further coordinate.

    **Raises:** `ConfigError` if the section is not a table of tables, a name cannot name a folder, or a variant sets an entry
    that all variants share.
    """
    if not isinstance(table, Mapping) or not all(isinstance(changes, Mapping) for changes in table.values()):
        raise ConfigError(f"variants = {shown(table)}; expected a table for each: [variants.NAME].")
    if not table:
        return ()
    changes = {check_name(name, "variants"): tuple(flatten_overrides(own)) for name, own in table.items()}
    for name, overrides in changes.items():
        for path, _ in overrides:
            if path[0] in COMMON:
                raise ConfigError(f"variants.{name} sets {'.'.join(path)!r}, which is common to all variants.")
    return (Axis(VARIANT, tuple(changes.values()), tuple(changes), *_setting(list(changes.values())), units="1"),)


def _setting(changes: list[tuple[Any, ...]]) -> tuple[dict[str, tuple[Any, ...]], str]:
    """The further coordinate, if there is one, and a label for what differs between the variants."""
    paths = {path for overrides in changes for path, _ in overrides}
    if len(paths) != 1:
        return {}, VARIANT
    (path,) = paths
    # If an entry is set twice (in a size, by --set), the last value counts.
    values = [overrides[-1][1] for overrides in changes if overrides]
    if len(values) < len(changes) or not are_plain(values):
        return {}, ".".join(path)
    (name,) = short_names((path,))
    return {name: tuple(values)}, ".".join(path)
