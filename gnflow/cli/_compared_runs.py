"""Read the runs of several folders that are to be compared, and group those that differ in their seed alone."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .._core import ConfigError, GnflowError, RunFolderError, as_path, settings_of
from ..config import RunSpec
from ..simulate import RUN_FILE, RunDescription, describe, read_data, read_description
from ..sweeps import KeptRun, SweepStore, flow_times, kept_run_in

FLOW_TIME, STEPS_OF_SIZE, STEPS = "flow time", "step*size", "steps"
_MOST_GROUPS = 40  # rows of a table, and lines in a figure, that people can tell apart
_NAMELESS = ("variant", "flow_name", "seed")  # entries of a run's table that are its name and its seed


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """One run.

    **Attributes:**

    - `parts`: the folder, the variant and the flow, which name the run.
    - `seed`: its seed; None for a run that a script saved.
    - `data`: what was measured along it.
    - `failure`: why it failed; None if it did not.
    - `stats`: the stats of the run.
    - `spec`: its specification; None for a run that a script saved.
    - `description`: its settings and the checksum of its problem. Of a cell it describes the problem alone.
    """

    parts: tuple[str, ...]
    seed: int | None
    data: xr.Dataset
    failure: str | None
    stats: dict[str, Any]
    spec: RunSpec | None
    description: RunDescription

    @property
    def name(self) -> str:
        """The whole name, without the seed."""
        return "/".join(self.parts)

    @property
    def times(self) -> np.ndarray:
        """The clock's reading at each saved time."""
        return flow_times(self.data).to_numpy()

    @property
    def clock(self) -> str:
        """What the run counts time in."""
        if "time" in self.data.coords:
            return FLOW_TIME
        return STEPS if flow_times(self.data).attrs.get("units") == "steps" else STEPS_OF_SIZE

    @property
    def settings(self) -> dict[str, Any]:
        """The options of problem, model, flow and method, with their defaults. For a cell these are made."""
        if self.spec is None or "flow" in self.description.settings:
            return dict(self.description.settings)
        made = self.spec.prepare()
        arguments = {"kind": self.spec.integration["method"], **made.settings}
        return describe(made.problem, made.model, made.flow, arguments).settings

    @property
    def run_seconds(self) -> float:
        """The wall time without compiling."""
        wall, compiling = (float(self.stats.get(f"{name}_seconds") or 0.0) for name in ("wall", "compile"))
        return wall - compiling


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    **Attributes:**

    - `number`: its number in tables and figures.
    - `name`: what distinguishes it from the other groups.
    - `runs`: its runs, by ascending seed.
    """

    number: int
    name: str
    runs: tuple[ComparedRun, ...]

    @property
    def problems(self) -> frozenset[str]:
        """The checksums of the problems of its runs."""
        return frozenset(run.description.problem for run in self.runs)


def read_groups(folders: Sequence[str], only: str | None) -> list[Group]:
    """The runs of all folders, in groups.

    **Arguments:**

    - `folders`: folders of `gnflow run`, `gnflow sweep` or `Trajectory.save`.
    - `only`: a text that the names of the runs must contain; None for all runs.

    **Raises:** `RunFolderError` for a folder without runs; `ConfigError` for a run that is given twice, and for fewer than two
    groups or too many.
    """
    places = [as_path(folder, "the folder", RunFolderError) for folder in folders]
    # A run of a grid is named as it is in its grid.
    singles = [kept_run_in(place) if (place / RUN_FILE).is_file() else None for place in places]
    roots = [place.resolve() if single is None else single[0] for place, single in zip(places, singles, strict=True)]
    names = dict(zip(dict.fromkeys(roots), _short_names(list(dict.fromkeys(roots))), strict=True))
    runs: dict[tuple[str, ...], list[ComparedRun]] = {}
    left_out = 0
    for place, root, single in zip(places, roots, singles, strict=True):
        found, unread = _runs_in(place, names[root]) if single is None else ([_run_of_grid(single[1], names[root])], 0)
        left_out += unread
        for run in found:
            several = runs.setdefault(run.parts, [])
            if any(run.seed == other.seed for other in several):
                raise ConfigError(
                    f"the run {run.name}, seed {run.seed}, is given twice; {place} is one of its folders."
                )
            several.append(run)
    if only is not None:
        runs = {parts: several for parts, several in runs.items() if only in several[0].name}
    if not 2 <= len(runs) <= _MOST_GROUPS:
        what = f" with {only!r} in their name" if only is not None else ""
        what += f" ({left_out} are left out for the reasons above)" if left_out else ""
        remedy = "name another folder" if len(runs) < 2 else "choose by --only TEXT, or name the folders of single runs"
        raise ConfigError(
            f"runs to compare{what}: {len(runs)}, in {', '.join(map(str, places)) or 'no folder'}; expected 2 to "
            f"{_MOST_GROUPS}, where runs that differ in their seed alone count as one. To compare, {remedy}."
        )
    labels = _without_common_parts(list(runs))
    return [
        Group(number, label, tuple(sorted(several, key=lambda run: -1 if run.seed is None else run.seed)))
        for number, (label, several) in enumerate(zip(labels, runs.values(), strict=True), start=1)
    ]


def _runs_in(place: Path, name: str) -> tuple[list[ComparedRun], int]:
    """The runs in one folder, and the number of those that are left out, with the reason on the standard error output."""
    if (place / RUN_FILE).is_file():
        return [_saved_run(place, name)], 0
    store = SweepStore(place)
    spec = store.read_specification()
    records = store.finished(spec.hashes)
    if not records:
        raise RunFolderError(f"{place} holds no finished run; carry out {store.configuration.path} first.")
    kept = store.trajectories.finished()
    runs: list[ComparedRun] = []
    left_out = 0
    for content_hash, cell in zip(spec.hashes, spec.cells, strict=True):
        if content_hash not in records:
            continue
        try:
            if not records[content_hash]["finals"]:
                raise RunFolderError(records[content_hash]["message"])
            if content_hash in kept:
                runs.append(_run_of_grid(kept[content_hash], name))
            else:
                runs.append(_of_cell(store.read(content_hash), cell, name))
        except GnflowError as error:
            left_out += 1
            print(f"gnflow: {place}: {cell.label} is left out: {error}", file=sys.stderr)
    return runs, left_out


def _run_of_grid(kept: KeptRun, name: str) -> ComparedRun:
    return _of_run(kept.place, _parts(kept.spec, name), kept.spec)


def _saved_run(place: Path, name: str) -> ComparedRun:
    return _of_run(place, (name,), None)


def _of_run(place: Path, parts: tuple[str, ...], spec: RunSpec | None) -> ComparedRun:
    run = read_data(place)
    failure = run.result.message if run.result.failed else None
    seed = None if spec is None else spec.seed
    return ComparedRun(parts, seed, run.data, failure, run.stats, spec, read_description(place))


def _of_cell(data: xr.Dataset, cell: RunSpec, name: str) -> ComparedRun:
    failure = data.attrs["result_message"] if data.attrs["failed"] else None
    stats = json.loads(data.attrs.get("stats", "{}"))
    return ComparedRun(_parts(cell, name), cell.seed, data, failure, stats, cell, describe(cell.make_problem()))


def _parts(cell: RunSpec, name: str) -> tuple[str, ...]:
    return (name, *cell.label.rsplit("/", 2)[:-1])


def settings_by_group(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """The settings in which groups differ, by dotted path: for each group its value, None where it has no such entry.

    Runs of configurations are compared by their configurations. If there is also a run that a script saved, all of them are
    compared by the options of their objects, with the defaults.
    """
    runs = [run for group in groups for run in group.runs]
    of_configurations = all(run.spec is not None for run in runs)
    tables = [_stated(group) if of_configurations else group.runs[0].settings for group in groups]
    if not of_configurations and len(runs) == len(groups):
        for table, run in zip(tables, runs, strict=True):
            if run.description.start is not None:
                table["initial_model (checksum)"] = run.description.start[:8]
    names = sorted({name for table in tables for name in table})
    # Arguments of a run that has not been kept are known without their defaults, so that an absent one says nothing.
    names = [name for name in names if not name.startswith("settings.") or all(name in table for table in tables)]
    values = {name: [table.get(name) for table in tables] for name in names}
    return {name: several for name, several in values.items() if any(value != several[0] for value in several)}


def _stated(group: Group) -> dict[str, Any]:
    """The entries of the configuration, by dotted path."""
    specs = [run.spec for run in group.runs if run.spec is not None]
    table = {key: entry for key, entry in specs[0].to_dict().items() if key not in _NAMELESS and entry is not None}
    seeds = {spec.seed if spec.problem_seed is None else spec.problem_seed for spec in specs}
    return settings_of(table | {"problem_seed": seeds.pop() if len(seeds) == 1 else "that of the run"}, {})


def _short_names(places: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as distinguish it from the others."""
    depth = 1
    while True:
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(names):
            return names
        depth += 1


def _without_common_parts(labels: Sequence[tuple[str, ...]]) -> list[str]:
    """The names of groups without the parts that all of them share."""
    length = max(map(len, labels))
    padded = [(*label, *[""] * (length - len(label))) for label in labels]
    kept = [number for number in range(length) if len({label[number] for label in padded}) > 1]
    return ["/".join(label[number] for number in kept if label[number]) for label in padded]
