"""Variants: named positions of a grid, each of which sets whatever entries it names."""

from collections.abc import Mapping
from typing import Any

from .._core import ConfigError
from ._axes import COMMON, VARIANT, Axis, are_plain, short_names
from ._overrides import flatten_overrides
from ._plain import shown
from ._run import check_name


def read_variants(table: Any) -> tuple[Axis, ...]:
    """The axis "variant" that the section [variants] states; none for an empty section.

    Where all variants set one entry alone, to numbers or to texts, its values are a coordinate beside their names.

    **Raises:** `ConfigError` for what is no table of tables, a name that cannot name a folder, and an entry that is common to
    all variants.
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
    """The coordinate beside the names, if there is one, and what differs between the variants, in words."""
    paths = {path for overrides in changes for path, _ in overrides}
    if len(paths) != 1:
        return {}, VARIANT
    (path,) = paths
    # Of an entry that is set twice (in a size, by --set) the last holds.
    values = [overrides[-1][1] for overrides in changes if overrides]
    if len(values) < len(changes) or not are_plain(values):
        return {}, ".".join(path)
    (name,) = short_names((path,))
    return {name: tuple(values)}, ".".join(path)
