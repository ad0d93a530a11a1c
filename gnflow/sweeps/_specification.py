"""A sweep: the TOML file that states a grid of runs."""

import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._core import ConfigError, GnflowError, as_path, nearest_name
from ..config import RunSpec, read_toml
from ..config._forms import TEXT
from ..config._overrides import Override
from ..config._plain import MOST_RUNS, require_plain, shown
from ..config._run import SECTIONS, check_name, check_runs
from ..config._specification import absolute_path, absolute_paths, check_seeds, require_few_runs
from ._axes import Axis, read_axes
from ._sizes import apply_size, override

_OWN = ("name", "size", "seeds", "axes")
_DATA_FILE = ("problem", "path")
_NO_AXES = "base"
_LONGEST_LABEL = 80  # characters of a coordinate
_DEEPEST = 32  # levels, before the table is looked at


@dataclasses.dataclass(frozen=True)
class SweepSpec:
    """A grid of runs: axes times flows times seeds, stated once.

    Made by `SweepSpec.from_dict` or `read_sweep`, which check every name and type. Equal content gives equal cells, however
    it is written: neither the order of axes or values nor the other values of an axis changes a cell's hash or its draws.

    **Attributes:** `name`; `table`: the sweep as TOML holds it, its size applied; `axes`; `flows`, `seeds`: the last two
    dimensions; `cells`: every run that has to be carried out, once, in the order of the grid; `hashes`: their content
    hashes; `grid`: an array of integers over (axes..., flow, seed), the place in `cells` of each position. Positions of
    equal content share a cell: a flow that an axis does not touch is computed once along it.
    """

    name: str
    table: Mapping[str, Any]
    axes: tuple[Axis, ...] = dataclasses.field(repr=False)
    flows: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[RunSpec, ...] = dataclasses.field(repr=False)
    hashes: tuple[str, ...] = dataclasses.field(repr=False)
    grid: np.ndarray = dataclasses.field(repr=False, compare=False)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], size: str | None = None, name: str = "sweep") -> "SweepSpec":
        """The sweep that a TOML table states.

        **Arguments:** `table`: the sections of a run specification (`problem`, `model`, `flows`, and optionally `name`,
        `integration`, `stop`, `metrics`, `seeds`), `axes`, and optionally `sizes` and `size` (the one of them to take unless
        another is asked for); NumPy's numbers and arrays are read as Python's. `size`: one of the names in `sizes`; `name`:
        used where the table has none.

        **Raises:** `ConfigError` that names the entry, its value and what was expected, for the first thing that is wrong;
        where it is wrong only at a position of the grid, the message says which.
        """
        table = _plain(table)
        require_plain(table)
        table = apply_size(table, size)
        if "variants" in table:
            raise ConfigError("a sweep has no variants; state what varies as [axes.NAME].")
        for key in table:
            if key not in (*SECTIONS, *_OWN):
                raise ConfigError(
                    f"unknown section {shown(key)}; {nearest_name(key[:80], (*SECTIONS, *_OWN, 'sizes'))}"
                )
        if not isinstance(table.get("flows"), Mapping):
            raise ConfigError("there is no [flows.NAME] section; a sweep needs at least one flow.")
        name = check_name(TEXT.check(table.get("name", name), "name"), "name")
        seeds = check_seeds(table.get("seeds", [0]))
        axes = read_axes(table.get("axes", {}), table["flows"])
        common = {key: value for key, value in table.items() if key not in _OWN}
        counts = ((axis.name, len(axis)) for axis in axes)
        require_few_runs(*counts, ("flows", len(table["flows"])), ("seeds", len(seeds)))
        cells, hashes, grid = _expand(common, axes, seeds)
        for number, axis in enumerate(axes):
            if len(axis) > 1 and np.all(grid == grid.take([0], number)):
                raise ConfigError(
                    f"axes.{axis.name} has no effect: {', '.join('.'.join(path) for path in axis.paths)} is replaced in every "
                    "flow by an entry of its own; set that one."
                )
        flows = tuple(map(str, table["flows"]))
        return cls(name, {**table, "name": name}, axes, flows, seeds, cells, hashes, grid)

    def to_dict(self) -> dict[str, Any]:
        """The table to write to TOML; `from_dict` makes an equal sweep of it."""
        return dict(self.table)

    @property
    def dims(self) -> tuple[str, ...]:
        """The dimensions of the result: axes, flow, seed."""
        return (*(axis.name for axis in self.axes), "flow", "seed")

    def coords(self) -> dict[str, tuple[str, np.ndarray, dict[str, str]]]:
        """The coordinates of the result as xarray takes them: (dimension, values, attributes) by name."""
        coords: dict[str, tuple[str, np.ndarray, dict[str, str]]] = {}
        for axis in self.axes:
            coords |= axis.coordinates()
        coords["flow"] = ("flow", np.asarray(self.flows), {"long_name": "flow"})
        coords["seed"] = ("seed", np.asarray(self.seeds), {"long_name": "seed", "units": "1"})
        return coords

    def check(self, pending: Iterable[RunSpec] | None = None) -> None:
        """Make the objects of cells and throw them away, so that no sweep starts if they cannot be made.

        Each different table of each section is tried once, on the first of the cells that has it, not each combination: a
        combination that fails is recorded as a cell that failed.

        **Arguments:** `pending`: the cells that are to be carried out; all of them by default.

        **Raises:** `ConfigError` for the first that cannot be made.
        """
        seen: set[str] = set()
        for cell in self.cells if pending is None else pending:
            sections = (cell.problem, cell.model, cell.metrics, (cell.flow, cell.integration, cell.stop))
            texts = {f"{number} {json.dumps(section)}" for number, section in enumerate(sections)}
            if texts <= seen:
                continue
            seen |= texts
            try:
                cell.prepare()
            except GnflowError as error:
                raise ConfigError(f"in the cell {cell.label}: {error}") from error


def read_sweep(path: str | os.PathLike[str], size: str | None = None, overrides: Iterable[Override] = ()) -> SweepSpec:
    """The sweep that a TOML file states.

    Paths of data files in the file are relative to its folder, those in overrides to the working directory; the sweep keeps
    them absolute.

    **Arguments:** `size`: one of the names in its [sizes]; `overrides`: entries to set after that, as
    `gnflow.config.parse_assignment` reads them.

    **Raises:** `ConfigError`, naming the file, for a file that cannot be read or whatever is wrong in it.
    """
    path = as_path(path, "the configuration", ConfigError)
    table = read_toml(path)
    try:
        overrides = list(overrides)
        of_sizes = [(where, value) for where, value in overrides if where[0] in ("size", "sizes")]
        table = _absolute(apply_size(override(table, of_sizes), size), path.parent)
        later = [change for change in overrides if change not in of_sizes]
        return SweepSpec.from_dict(_absolute(override(table, later), Path()), name=path.stem)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _expand(
    common: Mapping[str, Any], axes: tuple[Axis, ...], seeds: tuple[int, ...]
) -> tuple[tuple[RunSpec, ...], tuple[str, ...], np.ndarray]:
    """Cells, their hashes and the grid."""
    memory: dict[tuple[str, str], Any] = {}
    places: dict[str, int] = {}
    cells: list[RunSpec] = []
    grid: list[int] = []
    for positions in itertools.product(*(range(len(axis)) for axis in axes)):
        chosen = list(zip(axes, positions, strict=True))
        variant = (
            ",".join(f"{axis.name}={_in_words(axis.coordinate[position])}" for axis, position in chosen) or _NO_AXES
        )
        try:
            table = common
            for axis, position in chosen:
                for path, value in axis.overrides(position):
                    table = _with(table, path, value)
            runs = check_runs(table, variant, seeds, memory)
        except ConfigError as error:
            if not axes:
                raise
            raise ConfigError(f"at {variant}: {error}") from error
        for run in runs:
            content_hash = run.content_hash()
            place = places.setdefault(content_hash, len(cells))
            if place == len(cells):
                cells.append(run)
            grid.append(place)
    shape = (*map(len, axes), -1, len(seeds))
    return tuple(cells), tuple(places), np.asarray(grid).reshape(shape)


def _in_words(coordinate: Any) -> str:
    """A coordinate as a part of one line."""
    text = str(coordinate)
    return text if text.isprintable() and len(text) <= _LONGEST_LABEL else shown(coordinate)


def _with(table: Any, path: tuple[str, ...], value: Any, above: str = "") -> dict[str, Any]:
    """`table` with one entry set; only the tables on its path are copied.

    **Raises:** `ConfigError` where the path leads through something that is no table.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"cannot set {above}.{'.'.join(path)}: {above} is {shown(table)}, which is not a table.")
    if len(path) == 1:
        return {**table, path[0]: value}
    here = f"{above}.{path[0]}" if above else path[0]
    return {**table, path[0]: _with(table.get(path[0], {}), path[1:], value, here)}


def _absolute(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`table` with the data files of `problem`, also those on an axis, as absolute paths."""
    changed = absolute_paths(dict(table), folder)
    axes = table.get("axes")
    if isinstance(axes, Mapping):
        changed["axes"] = {name: _absolute_axis(entries, folder) for name, entries in axes.items()}
    return changed


def _absolute_axis(entries: Any, folder: Path) -> Any:
    dotted = ".".join(_DATA_FILE)
    if not isinstance(entries, Mapping):
        return entries
    values = entries.get("values")
    if entries.get("path") == dotted and isinstance(values, list):
        return {**entries, "values": _absolute_files(values, folder)}
    if isinstance(values, Mapping) and isinstance(values.get(dotted), list):
        return {**entries, "values": {**values, dotted: _absolute_files(values[dotted], folder)}}
    return entries


def _absolute_files(files: list[Any], folder: Path) -> list[Any]:
    what = ".".join(_DATA_FILE)
    return [absolute_path(file, folder, what) if isinstance(file, str) else file for file in files]


def _plain(value: Any, depth: int = 1) -> Any:
    """`value` with NumPy's numbers and arrays, and tuples, as TOML's. **Raises:** `ConfigError` for too many levels."""
    if depth > _DEEPEST:
        raise ConfigError(f"the table of the sweep is nested more than {_DEEPEST} levels deep; write it flatter.")
    if isinstance(value, Mapping | list | tuple) and len(value) > MOST_RUNS:
        raise ConfigError(f"an entry of the sweep has {len(value)} values; expected at most {MOST_RUNS}.")
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value
