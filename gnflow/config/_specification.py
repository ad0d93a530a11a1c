"""A specification: the TOML file that states a grid of runs."""

import contextlib
import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._core import ConfigError, GnflowError, as_path
from ._axes import VARIANT, Axis, counts_of, read_axes
from ._data_paths import with_absolute_paths
from ._forms import INTEGER, TEXT, ListForm
from ._modules import Source, importing_from
from ._overrides import SEED_FORMS, Override, apply_overrides
from ._own_parts import sources_in
from ._plain import as_plain, require_few_runs, require_plain, shown
from ._run import PROBLEM_SEED, RunSpec, check_name, check_runs, check_table, require_sections
from ._sizes import apply_size
from ._toml import read_toml
from ._variants import read_variants

_OF_THE_GRID = ("name", "size", *SEED_FORMS, "variants", "axes")
_SEEDS = ListForm(INTEGER, tuple)
_SINGLE = "base"  # the variant's name if there are neither variants nor axes


@dataclasses.dataclass(frozen=True)
class Specification:
    """A grid of runs: variants times axes times flows times seeds.

    `Specification.from_dict` and `gnflow.read_sweep` make specifications and check every name and type. Equal content gives
    equal cells, however it is written: a cell's hash and its draws depend neither on the order of axes or values nor on the
    other values of an axis.

    **Attributes:**

    - `name`: the name of the grid.
    - `table`: the configuration as in TOML, with its size applied.
    - `axes`: the axes of the file in its order, after one called "variant" if it states variants.
    - `flows`, `seeds`: the last two dimensions.
    - `runs`: the run at every position, in the order of the grid, with the last dimension fastest.
    - `cells`: the runs that differ in content, each once.
    - `hashes`: their content hashes.
    - `grid`: an array of integers over (axes..., flow, seed): for each position its index in `cells`. Positions of equal
      content share a cell, so a flow that an axis does not change is computed only once along it.
    """

    name: str
    table: Mapping[str, Any]
    axes: tuple[Axis, ...] = dataclasses.field(repr=False)
    flows: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[RunSpec, ...] = dataclasses.field(repr=False)
    cells: tuple[RunSpec, ...] = dataclasses.field(repr=False)
    hashes: tuple[str, ...] = dataclasses.field(repr=False)
    grid: np.ndarray = dataclasses.field(repr=False, compare=False)

    @classmethod
    def from_dict(
        cls, table: Mapping[str, Any], size: str | None = None, name: str = "run", imports: bool = False
    ) -> "Specification":
        """The grid that a TOML table states.

        **Arguments:**

        - `table`: a table with `problem`, `model` and `flows`, and optionally `name`, `integration`, `stop`, `metrics`, `seeds`
          (default [0]) or `model_seeds`, `problem_seed`, `variants`, `axes`, `sizes` and `size` (the default size). NumPy's
          numbers and arrays count as Python's.
        - `size`: one of the names in `sizes`.
        - `name`: the name if the table has none.
        - `imports`: whether to import the modules of the user's that the table names, from the working directory or from what
          is installed. If not, the options of parts that are not imported yet are not checked, and runs with them cannot be
          made.

        **Raises:** `ConfigError` for the first error. It names the entry, its value and what was expected, and for an error at
        a single position of the grid also the position.
        """
        if imports:
            with importing_from(Path()):
                return cls.from_dict(table, size, name)
        table = as_plain(table)
        require_plain(table)
        table = apply_size(table, size)
        common = {key: value for key, value in table.items() if key not in _OF_THE_GRID}
        if "model_seeds" in table:
            common.setdefault(PROBLEM_SEED, 0)
        require_sections(common)
        flows = check_table(table.get("flows", {}), "flows")
        name = check_name(TEXT.check(table.get("name", name), "name"), "name")
        seeds = _check_seeds(table)
        axes = read_axes(table.get("axes", {}), flows, *read_variants(table.get("variants", {})))
        require_few_runs(*counts_of(axes), ("flows", len(flows)), ("seeds", len(seeds)))
        runs = _expand(common, axes, seeds)
        places: dict[str, int] = {}
        cells: list[RunSpec] = []
        grid: list[int] = []
        for run in runs:
            content_hash = run.content_hash()
            if content_hash not in places:
                places[content_hash] = len(cells)
                cells.append(run)
            grid.append(places[content_hash])
        shaped = np.asarray(grid).reshape((*map(len, axes), -1, len(seeds)))
        _require_axes_that_change_something(axes, shaped)
        return cls(
            name,
            {**table, "name": name},
            axes,
            tuple(map(str, flows)),
            seeds,
            runs,
            tuple(cells),
            tuple(places),
            shaped,
        )

    def to_dict(self) -> dict[str, Any]:
        """The table to write to TOML. `from_dict` makes an equal specification from it."""
        return dict(self.table)

    @property
    def sources(self) -> dict[str, Source]:
        """The modules of the user's that parts of the runs are from, by name, if they are imported here."""
        return sources_in([list(vars(cell).values()) for cell in self.cells])

    @property
    def dims(self) -> tuple[str, ...]:
        """The dimensions of the result: axes, flow, seed."""
        return (*(axis.name for axis in self.axes), "flow", "seed")

    def coords(self) -> dict[str, tuple[str, np.ndarray, dict[str, str]]]:
        """The coordinates of the result in xarray's form: (dimension, values, attributes) by name."""
        coords: dict[str, tuple[str, np.ndarray, dict[str, str]]] = {}
        for axis in self.axes:
            coords |= axis.coordinates()
        coords["flow"] = ("flow", np.asarray(self.flows), {"long_name": "flow"})
        coords["seed"] = ("seed", np.asarray(self.seeds), {"long_name": "seed", "units": "1"})
        return coords

    def check(self, pending: Iterable[RunSpec] | None = None, *, combinations: bool = False) -> None:
        """Make the objects of cells and throw them away, so that nothing starts if they cannot be made.

        Each different table of each section is tried once, on the first cell that has it, but not every combination. In a sweep
        of thousands of cells a combination that fails is recorded as a failed cell.

        **Arguments:**

        - `pending`: the cells to compute; all of them by default.
        - `combinations`: whether to try every combination, for one seed each.

        **Raises:** `ConfigError` for the first cell that cannot be made.
        """
        seen: set[str] = set()
        for cell in self.cells if pending is None else pending:
            sections = (cell.problem, cell.model, cell.metrics, (cell.flow, cell.integration, cell.stop))
            texts = {f"{number} {json.dumps(section)}" for number, section in enumerate(sections)}
            if combinations:
                texts = {json.dumps(sections)}
            if texts <= seen:
                continue
            seen |= texts
            try:
                cell.prepare()
            except GnflowError as error:
                raise ConfigError(f"{self._place_of(cell)}{error}") from error

    def _place_of(self, cell: RunSpec) -> str:
        """The beginning of a message that names the cell; empty if there is only one position."""
        if [axis.name for axis in self.axes] == [VARIANT]:
            return f"in variant {cell.variant!r}: "
        return f"in the cell {cell.label}: " if self.axes else ""


def read_sweep(
    path: str | os.PathLike[str], size: str | None = None, overrides: Iterable[Override] = (), imports: bool = True
) -> Specification:
    """The grid of runs that a TOML file states.

    Paths of data files in the file are relative to its folder, those in overrides to the working directory. The specification
    keeps absolute paths. Modules of the user's that it names (`kind = "my_module:MyFlow"`) are imported, which runs their code:
    from the folder of the file, or from the working directory, or from what is installed.

    **Arguments:**

    - `path`: the file.
    - `size`: one of the names in its [sizes].
    - `overrides`: entries to set after the size, as `gnflow.config.parse_assignment` reads them.
    - `imports`: whether to import modules, as in `Specification.from_dict`. Give False for a file that somebody else wrote.

    **Raises:** `ConfigError`, which names the file, if it cannot be read or contains an error; also for an override without any
    effect, because every variant or every value of an axis sets that entry.
    """
    path = as_path(path, "the configuration", ConfigError)
    table = read_toml(path)
    try:
        overrides = list(overrides)
        of_sizes = [(where, value) for where, value in overrides if where[0] in ("size", "sizes")]
        later = [change for change in overrides if change not in of_sizes]
        table = with_absolute_paths(apply_size(apply_overrides(table, of_sizes), size), path.parent)
        table = with_absolute_paths(apply_overrides(table, later), Path())
        with importing_from(path.parent, Path()) if imports else contextlib.nullcontext():
            specification = Specification.from_dict(table, name=path.stem)
        _require_overrides_that_change_something(later, specification)
        return specification
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _expand(common: Mapping[str, Any], axes: tuple[Axis, ...], seeds: tuple[int, ...]) -> tuple[RunSpec, ...]:
    """The run at every position of the grid."""
    memory: dict[tuple[str, str], Any] = {}
    runs: list[RunSpec] = []
    for positions in itertools.product(*(range(len(axis)) for axis in axes)):
        chosen = list(zip(axes, positions, strict=True))
        words = ",".join(axis.words(position) for axis, position in chosen)
        try:
            changes = (change for axis, position in chosen for change in axis.changes[position])
            runs += check_runs(apply_overrides(common, changes), words or _SINGLE, seeds, memory)
        except ConfigError as error:
            if not axes:
                raise
            place = f"in variant {words!r}" if [axis.name for axis in axes] == [VARIANT] else f"at {words}"
            raise ConfigError(f"{place}: {error}") from error
    return tuple(runs)


def _require_axes_that_change_something(axes: tuple[Axis, ...], grid: np.ndarray) -> None:
    """Check that cells differ along each axis other than the variants. **Raises:** `ConfigError`."""
    for number, axis in enumerate(axes):
        if axis.name != VARIANT and len(axis) > 1 and np.all(grid == grid.take([0], number)):
            raise ConfigError(
                f"axes.{axis.name} has no effect: {', '.join('.'.join(path) for path in axis.paths)} is replaced in every "
                "flow by an entry of its own; set that one."
            )


def _require_overrides_that_change_something(overrides: Iterable[Override], specification: Specification) -> None:
    """Check that no axis sets an overridden entry at all its positions, which would undo the override.

    **Raises:** `ConfigError`.
    """
    for path, _ in overrides:
        dotted = ".".join(path)
        for axis in specification.axes:
            if not axis.sets(path):
                continue
            if axis.name == VARIANT:
                why = "every variant sets it"
                remedy = f"set variants.{axis.coordinate[0]}.{dotted}, or variants={{}} to do without variants"
            else:
                why, remedy = f"axes.{axis.name} sets it", f"set axes.{axis.name}.values"
            raise ConfigError(f"setting {dotted} has no effect, because {why}; {remedy}.")


def _check_seeds(table: Mapping[str, Any]) -> tuple[int, ...]:
    """The entry `seeds` or `model_seeds`.

    **Raises:** `ConfigError` unless it holds one or more different integers of at least 0, or if both are given.
    """
    if all(form in table for form in SEED_FORMS):
        raise ConfigError(
            "seeds and model_seeds are both given; write model_seeds, if the problem shall be the same for all of them, or "
            "seeds, which draw a problem each."
        )
    name = "model_seeds" if "model_seeds" in table else "seeds"
    seeds = table.get(name, [0])
    if isinstance(seeds, list | tuple):
        require_few_runs((name, len(seeds)))
    checked = tuple(_SEEDS.check(seeds, name))
    if not checked or len(set(checked)) < len(checked) or min(checked) < 0:
        raise ConfigError(f"{name} = {shown(seeds)}; expected at least one integer of at least 0, each once.")
    return checked
