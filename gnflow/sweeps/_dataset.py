"""Read the folder of a sweep as one labelled data set."""

import json
import math
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from .._core import ConfigError, RunFolderError, as_path, nearest_name
from ..config import Specification
from ..simulate import BEST_LOSSES, RUN_FILE, Trajectory, load as load_run
from ._cell import TARGETS, flow_times, target_name
from ._store import SweepStore
from ._versions import say_if_mixed, versions_in

_TIMES = "flow_time"
_BATCH = "batch"
MISSING = "missing"  # the code of a cell that is not finished
_OF_THE_END: dict[str, tuple[str, str]] = {
    "time": ("flow_time", "flow time at the end"),
    "num_steps": ("num_steps", "number of steps"),
    "wall_seconds": ("wall_seconds", "wall time"),
}
_OWN = frozenset({"target", "time_to_target", *BEST_LOSSES})  # names that are given after those of what was measured
_UNITS = {"flow_time": "flow time", "num_steps": "1", "wall_seconds": "s"}


def load(
    folder: str | os.PathLike[str], *, problem: Any = None, model: Any = None, flow: Any = None
) -> Trajectory | xr.Dataset:
    """Read back what was saved in a folder: one run, or a grid of them.

    A folder that `gnflow.sweep`, `gnflow sweep` or `gnflow run` wrote gives an `xarray.Dataset` over its axes ("variant" for
    variants), flow and seed, also while the sweep still runs (docs/sweeps.md). A folder that `Trajectory.save` wrote gives the
    `Trajectory`.

    **Arguments:**

    - `folder`: the folder.
    - `problem`, `model`, `flow`: for a run that used a class of the user's own, as in `gnflow.simulate.load`. They cannot be
      given for a grid.

    **Raises:** `RunFolderError` if the folder holds neither, or is damaged.
    """
    place = as_path(folder, "the folder", RunFolderError)
    if not (place / RUN_FILE).is_file() and SweepStore(place).configuration.exists():
        given = [name for name, part in (("problem", problem), ("model", model), ("flow", flow)) if part is not None]
        if given:
            raise RunFolderError(
                f"{folder} holds a grid of runs, whose data set needs no {' and no '.join(given)}; leave it out."
            )
        return load_sweep(folder)
    return load_run(folder, problem=problem, model=model, flow=flow)


def load_sweep(folder: str | os.PathLike[str]) -> xr.Dataset:
    """The data set of a sweep's folder.

    A damaged cell is set aside, named on the standard error output and marked "missing". A note is also printed there if cells
    are from several versions of gnflow.

    **Raises:** `RunFolderError` if the folder holds no sweep, or its configuration is damaged.
    """
    store = SweepStore(folder)
    spec = store.read_specification()
    records = store.finished(spec.hashes)
    say_if_mixed(versions_in(records.values()), store.folder)
    return dataset_in(store, spec, records)


def dataset_in(store: SweepStore, spec: Specification, records: Mapping[str, Mapping[str, Any]]) -> xr.Dataset:
    """`dataset_of` with the descriptions of the variables from cells of the store."""
    described: dict[str, dict[str, Any]] = {}
    for content_hash, record in records.items():
        if not record["finals"].keys() <= described.keys():
            try:
                data = store.read(content_hash)
            except RunFolderError:
                continue  # another cell may have the descriptions
            described |= {str(name): dict(data[name].attrs) for name in data.data_vars}
    dataset = dataset_of(spec, records, described)
    dataset.encoding["source"] = str(store.folder.absolute())  # as xarray does for what it reads from a file
    return dataset


def dataset_of(
    spec: Specification,
    records: Mapping[str, Mapping[str, Any]],
    described: Mapping[str, Mapping[str, Any]] | None = None,
) -> xr.Dataset:
    """The results of a sweep over (axes..., flow, seed).

    **Arguments:**

    - `spec`: the grid.
    - `records`: the records of the finished cells by content hash, as `SweepStore.finished` returns them.
    - `described`: attributes (`long_name`, `units`, `reference`) of measured variables, by name.

    **Returns:** a data set with these variables over the grid:

    - `result`: how the cell ended, as text: a code of `gnflow.ResultCode`, "error", "worker_died", or "missing" for a cell that
      is not finished.
    - `failed`: whether it failed; `message`: how it ended, in words; `cell`: its content hash.
    - The last value of every variable that the runs measured once for each saved time. It is nan if the cell failed or is
      missing, and otherwise only if the run itself ended with nan.
    - `best_validation_loss` and `best_test_loss` (selected on the test set) if there are such data, the lowest along each run,
      with `best_validation_loss_time`, `test_loss_at_best_validation` and `best_test_loss_time`; nan if the cell failed.
    - `flow_time`, `num_steps`, `wall_seconds`: at the end, also of failed cells; nan if there is none.
    - `time_to_target`, with the further dimension "target": the flow time at which the relative training loss first reached
      1e-1 to 1e-8. It is inf if the run ended before, and nan if it failed before or is missing.

    A measured variable with the name of a coordinate or of one of these gets the prefix "final_". The attributes are the
    name of the sweep, its configuration as JSON, and the versions of gnflow that computed its cells.
    """
    described = {} if described is None else described
    cells = [records.get(content_hash) for content_hash in spec.hashes]
    missing = np.array([cell is None for cell in cells])
    failed = np.array([cell is not None and bool(cell["failed"]) for cell in cells])
    coords = spec.coords()
    variables: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, Any]]] = {}

    def add(name: str, values: Any, long_name: str, attrs: Mapping[str, Any]) -> None:
        variables[name] = (spec.dims, np.asarray(values)[spec.grid], {"long_name": long_name, **attrs})

    add("result", [MISSING if cell is None else cell["code"] for cell in cells], "how the run ended", {})
    add("failed", failed, "whether the run failed", {})
    add("message", ["" if cell is None else cell["message"] for cell in cells], "how the run ended, in words", {})
    add("cell", spec.hashes, "content hash of the configuration", {})
    for key, (name, long_name) in _OF_THE_END.items():
        add(name, [_float(None if cell is None else cell[key]) for cell in cells], long_name, {"units": _UNITS[name]})
    good = [None if cell is None or cell["failed"] else cell["finals"] for cell in cells]
    for name in dict.fromkeys(name for cell in cells if cell is not None for name in cell["finals"]):
        values = [_float(None if finals is None else finals.get(name)) for finals in good]
        called = f"final_{name}" if name in coords or name in variables or name in _OWN else name
        add(called, values, name, described.get(name, {}))
    bests = [{} if cell is None or cell["failed"] else cell["best"] for cell in cells]
    for name, long_name in BEST_LOSSES.items():
        if any(name in best for best in bests):
            units = _UNITS["flow_time"] if name.endswith("_time") else "1"
            add(name, [_float(best.get(name)) for best in bests], long_name, {"units": units})
    times = np.array([_target_times(cell) for cell in cells])
    times[np.isinf(times) & (failed | missing)[:, None]] = math.nan
    attrs = {"long_name": "flow time to the relative training loss", "units": _UNITS["flow_time"]}
    variables["time_to_target"] = ((*spec.dims, "target"), times[spec.grid], attrs)
    target = ("target", np.asarray(TARGETS), {"long_name": "relative training loss", "units": "1"})
    return xr.Dataset(
        variables,
        coords={**coords, "target": target},
        attrs={
            "name": spec.name,
            "configuration": json.dumps(spec.to_dict()),
            "versions": ", ".join(versions_in(records.values())),
        },
    )


def load_curves(
    folder: str | os.PathLike[str],
    variables: Iterable[str] = ("train_loss",),
    *,
    optional: Iterable[str] = (),
    stats: Iterable[str] = (),
    **positions: Any,
) -> xr.Dataset:
    """What was measured along the runs of a sweep, over (axes..., flow, seed, save).

    Each run has its own saved times, which are in `flow_time` and counted by "save". Shorter runs are filled with nan at the
    end. What was recorded for each batch of a run in steps is over "batch" instead. Failed runs are included as far as they
    got, and missing ones are nan. A measured variable with the name of a coordinate (such as `damping` for an axis of that
    name) gets the prefix "measured_".

    **Arguments:**

    - `folder`: the folder of the sweep.
    - `variables`: the variables to read. Those that depend on more than time keep their further dimensions.
    - `optional`: further variables, which are left out if no run has them.
    - `stats`: numbers of the runs' stats to read, over the grid; nan for runs without them.
    - `positions`: values of axes, flow or seed, to read only these, as for `xarray.Dataset.sel`.

    **Raises:** `RunFolderError` if the folder holds no sweep; `ConfigError` for a variable that no run has, a position that is
    not on its axis, or a further dimension whose length differs between the chosen runs.
    """
    store = SweepStore(folder)
    spec = store.read_specification()
    records = store.finished(spec.hashes)
    places = xr.DataArray(spec.grid, dims=spec.dims, coords=spec.coords())
    try:
        places = places.sel(positions)
    except (KeyError, ValueError, TypeError) as error:
        known = {name: places[name].to_numpy().tolist() for name in spec.dims}
        raise ConfigError(f"there is no position {positions!r} in the sweep; its axes are {known}.") from error
    required = tuple(variables)
    wanted = tuple(dict.fromkeys((*required, *optional)))
    runs: dict[int, dict[str, xr.Variable]] = {}
    of_runs: dict[int, dict[str, Any]] = {}
    seen: set[str] = set()
    for place in np.unique(places.to_numpy()):
        record = records.get(spec.hashes[place])
        if record is None or not record["finals"]:
            continue
        data = store.read(spec.hashes[place])
        seen |= {str(name) for name in data.data_vars}
        of_runs[int(place)] = json.loads(data.attrs.get("stats", "{}"))
        runs[int(place)] = {name: data[name].variable for name in wanted if name in data.data_vars} | {
            _TIMES: flow_times(data).variable
        }
        for name, array in runs[int(place)].items():
            if not array.dims or set(array.dims[1:]) & set(places.dims):
                raise ConfigError(
                    f"{name!r} of the cell {spec.hashes[place]} is over {array.dims}, and cannot be put beside the axes "
                    f"{places.dims}; read that cell alone, with SweepStore(folder).read(...)."
                )
    for name in required:
        if runs and name not in seen:
            raise ConfigError(f"no run of the sweep in {folder} has {name!r}; {nearest_name(name, seen)}")
    lengths = {"save": 0, _BATCH: 0}
    for array in (array for run in runs.values() for array in run.values()):
        lengths[_along(array)] = max(lengths[_along(array)], len(array))
    curves = {name: _padded(name, places, runs, lengths) for name in (_TIMES, *wanted)}
    for name in stats:
        numbers = [_float(of_runs.get(place, {}).get(name)) for place in places.to_numpy().ravel().tolist()]
        curves[name] = places.copy(data=np.reshape(numbers, places.shape))
    found = xr.Dataset(
        {_beside(name, places.coords): array for name, array in curves.items() if array is not None},
        coords=places.coords,
        attrs={"name": spec.name, "configuration": json.dumps(spec.to_dict())},
    )
    found.encoding["source"] = str(store.folder.absolute())
    return found


def _beside(name: str, coords: Collection[Any]) -> str:
    """The name of a measured variable, different from those of coordinates."""
    return f"measured_{name}" if name in coords else name


def _along(array: xr.Variable) -> str:
    """The dimension along which a variable of a run was recorded."""
    return _BATCH if array.dims[0] == _BATCH else "save"


def _padded(
    name: str, places: xr.DataArray, runs: Mapping[int, Mapping[str, xr.Variable]], lengths: Mapping[str, int]
) -> xr.DataArray | None:
    """One variable of all runs, over the dimensions of `places`, "save" or "batch", and its own; None if no run has it.

    **Arguments:**

    - `name`: the variable.
    - `places`: for each position of the grid the index of its cell.
    - `runs`: the variables of each cell, by its index.
    - `lengths`: the lengths of "save" and "batch" in the longest run.
    """
    arrays = {place: run[name] for place, run in runs.items() if name in run}
    if not arrays:
        return None
    first = next(iter(arrays.values()))
    further = {array.dims[1:]: None for array in arrays.values()}
    shapes = {array.shape[1:]: None for array in arrays.values()}
    if len(further) > 1 or len(shapes) > 1:
        raise ConfigError(
            f"{name!r} has different shapes {list(shapes)} in the runs chosen; read those of one shape at a time, by giving "
            "the position on the axis that changes it, such as load_curves(folder, variables, width=100)."
        )
    along = _along(first)
    filled = np.full((*places.shape, lengths[along], *first.shape[1:]), math.nan)
    for index in np.ndindex(places.shape):
        array = arrays.get(int(places.to_numpy()[index]))
        if array is not None:
            filled[index][: len(array)] = array.to_numpy()
    return xr.DataArray(filled, dims=(*places.dims, along, *first.dims[1:]), attrs=first.attrs)


def _float(value: Any) -> float:
    """A number of a record as a float. None becomes nan, and text is read by `float`."""
    return math.nan if value is None else float(value)


def _target_times(cell: Mapping[str, Any] | None) -> list[float]:
    times = {} if cell is None else cell["targets"]
    return [float(times.get(target_name(target), math.inf)) for target in TARGETS]
