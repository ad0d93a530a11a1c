"""One cell of a sweep: how it is computed, and kept as one self-describing netCDF file."""

import dataclasses
import functools
import hashlib
import json
import math
import time
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from .._core import RunFolderError, read_json
from ..config import RunSpec
from ..problems import OF_A_TEST
from ..simulate import RunData, Trajectory, best_losses, versions
from ._levels import time_to_level
from ._modules_file import modules_text
from ._netcdf import from_netcdf, to_netcdf
from ._record import ERROR as ERROR, WORKER_DIED as WORKER_DIED, has_failed as has_failed, require_record

CELL_FORMAT = 1
TARGETS = tuple(10.0**-k for k in range(1, 9))  # relative training losses whose times are kept
EXACT = "exact"  # the entry of a record for a direction that was not truncated
_LONGEST_TEXT = 20_000  # characters of a message or traceback; HDF5 holds up to 64 KiB in an attribute


@dataclasses.dataclass(frozen=True)
class CellOutcome:
    """How a cell ended.

    **Attributes:**

    - `content_hash`: the hash of the cell's configuration.
    - `payload`: the cell's file as bytes, in netCDF-4. It is empty if `kept` is given.
    - `record`: the entry of the cell in the store's index, in JSON types.
    - `kept`: a whole trajectory, which is kept in the place of the file.

    A record has these entries:

    - `hash`, `code`, `message`, `failed`: the content hash, and how the cell ended.
    - `time`: the flow time at the end.
    - `wall_seconds`, `num_steps`: wall time and number of steps; the latter is None if the run gave nothing.
    - `finals`: the last value of every variable that has one number for each time.
    - `errors`: those of them that are error functionals of the problem (`test` of a `ResidualProblem`).
    - `best`: the lowest validation and test losses along the run (`gnflow.simulate.BEST_LOSSES`).
    - `targets`: the flow times at which the relative training loss reached 1e-1 to 1e-8, by target.
    - `gnflow`: the version that computed the cell.
    - `size`, `sha256`: size and checksum of the payload.
    - `compile_seconds`: the time spent compiling, if known.
    - `direction`: whether the last direction was exact, for a flow that claims to be exact.
    - `distance_to_gradient_flow`: the largest along the run, for a flow with damping.

    Numbers that are not finite are the strings "nan", "inf" and "-inf", which `float` reads.
    """

    content_hash: str
    payload: bytes
    record: dict[str, Any]
    kept: "Kept | None" = None


@dataclasses.dataclass(frozen=True)
class Kept:
    """A run whose whole trajectory is to be kept.

    **Attributes:**

    - `spec`: the run's specification.
    - `trajectory`: its trajectory.
    - `data_digest`: a digest of the data files that it read; empty without files.
    """

    spec: RunSpec
    trajectory: Trajectory
    data_digest: str


def run_cell(spec: RunSpec) -> CellOutcome:
    """Run a cell. Any error becomes an outcome with the code "error"; only interrupts are passed on."""
    began = time.perf_counter()
    data_digest = spec.data_digest  # before the run, because the files may change while it lasts
    try:
        return outcome_of(spec, spec.run(), time.perf_counter() - began, data_digest=data_digest)
    except Exception as error:
        # Memory, an error of the backend, a configuration that cannot be prepared: the other cells should still be computed.
        return outcome_of_error(spec, error, time.perf_counter() - began)


def outcome_of(
    spec: RunSpec,
    trajectory: Trajectory,
    wall_seconds: float | None = None,
    *,
    data_digest: str | None = None,
    keep: bool = False,
) -> CellOutcome:
    """The outcome of a cell that has a trajectory, complete or not.

    **Arguments:**

    - `spec`: the cell.
    - `trajectory`: its trajectory.
    - `wall_seconds`: the wall time of the cell; by default that of the trajectory.
    - `data_digest`: a digest of the data files that it read, if they may have changed since.
    - `keep`: whether to keep the whole trajectory.
    """
    data_digest = spec.data_digest if data_digest is None else data_digest
    problem = trajectory.system.problem
    minimum = float(problem.loss.minimum(problem.y_train))
    measured = RunData(trajectory.data, trajectory.result, trajectory.stats, {}, json.loads(_versions()))
    cell = cell_of_run(spec, measured, minimum, data_digest, wall_seconds)
    if not keep:
        return _packed(cell)
    return CellOutcome(cell.attrs["content_hash"], b"", record_of(cell, b""), Kept(spec, trajectory, data_digest))


def cell_of_run(
    spec: RunSpec,
    run: RunData,
    loss_minimum: float,
    data_digest: str,
    wall_seconds: float | None = None,
    modules: str | None = None,
) -> xr.Dataset:
    """The data set of a cell that measured something. `wall_seconds` and `data_digest` are as in `outcome_of`.

    `modules` is the text of the modules of the user's that the run was made with, by default of those that are imported.
    """
    wall = run.stats["wall_seconds"] if wall_seconds is None else wall_seconds
    details = {"stats": _to_json(run.stats), "loss_minimum": loss_minimum, "versions": json.dumps(run.versions)}
    details |= {} if modules is None else {"modules": modules}
    result = run.result
    return _cell(spec, run.data, str(result.code), result.message, result.time, wall, details, data_digest)


def outcome_of_error(spec: RunSpec, error: BaseException, wall_seconds: float = 0.0) -> CellOutcome:
    """The outcome of a cell that raised `error`: code "error", message "Type: text", the traceback in the file."""
    trace = "".join(traceback.format_exception(error))
    message = f"{type(error).__name__}: {error}"
    details = {"traceback": trace[-_LONGEST_TEXT:]}
    return _packed(_cell(spec, xr.Dataset(), ERROR, message, math.nan, wall_seconds, details))


def outcome_of_code(spec: RunSpec, code: str, message: str, wall_seconds: float = 0.0) -> CellOutcome:
    """The outcome of a cell that gave nothing, for a reason other than an exception of its own (`WORKER_DIED`)."""
    return _packed(_cell(spec, xr.Dataset(), code, message, math.nan, wall_seconds, {}))


def read_cell(payload: bytes, content_hash: str) -> tuple[xr.Dataset, dict[str, Any]]:
    """The data set and the record in a cell's file, after all checks.

    **Arguments:**

    - `payload`: the bytes of the file.
    - `content_hash`: the cell that the file should hold.

    **Raises:** `RunFolderError` if the file is not netCDF, truncated, of another format, of another cell, or changed since it
    was written. `MemoryError`.
    """
    try:
        data = from_netcdf(payload)
    except MemoryError:
        raise  # it says nothing about the file
    except RunFolderError:
        raise
    except Exception as error:  # HDF5 raises many kinds of errors for bytes that are not a file of its own
        raise RunFolderError(f"it cannot be read as netCDF ({type(error).__name__}: {error})") from error
    try:
        return data, _checked_record(data, payload, content_hash)
    except (MemoryError, RunFolderError):
        raise
    except Exception as error:  # anybody may have written the file, with anything missing or added
        raise RunFolderError(f"it is damaged ({type(error).__name__}: {error})") from error


def _checked_record(data: xr.Dataset, payload: bytes, content_hash: str) -> dict[str, Any]:
    """The record of a cell's file.

    **Raises:** the errors of `read_cell`, and any error for attributes that gnflow does not write.
    """
    attrs = data.attrs
    if not _is(attrs.get("gnflow_cell_format"), CELL_FORMAT):
        raise RunFolderError(f"it is no cell of format {CELL_FORMAT}")
    kept = attrs["content_hash"]
    spec = RunSpec.from_dict(read_json(attrs["specification"], "its specification"))
    for other in (kept, spec.content_hash(attrs.get("data_digest", ""))):
        if not _is(other, content_hash):
            raise RunFolderError(f"it holds the cell {str(kept)[:40]}")
    if not _is(attrs["digest"], _digest(data)):
        raise RunFolderError("its content is not what was written")
    _require_series(data)
    return require_record(record_of(data, payload))


def _is(value: Any, expected: int | str) -> bool:
    """Whether `value` is a number or text equal to `expected`. An array, which `==` would compare entrywise, is not."""
    return isinstance(value, int | str) and value == expected


def _require_series(data: xr.Dataset) -> None:
    """Check that the data set is empty, or has losses and times along the run. **Raises:** `RunFolderError`."""
    if not data.variables:
        return
    if "train_loss" not in data or data["train_loss"].ndim != 1 or not data["train_loss"].size:
        raise RunFolderError("it has no training losses along a run")
    if not {"time", "flow_time"} & set(data.variables) or flow_times(data).dims != data["train_loss"].dims:
        raise RunFolderError("its training losses have no times")


def _cell(
    spec: RunSpec,
    data: xr.Dataset,
    code: str,
    message: str,
    end: float,
    wall_seconds: float,
    details: Mapping[str, Any],
    data_digest: str | None = None,
) -> xr.Dataset:
    """The data set of a cell. Its attributes say which cell it is and how it ended."""
    table, data_files = spec.to_dict(), spec.data_digest if data_digest is None else data_digest
    attrs = {
        "gnflow_cell_format": CELL_FORMAT,
        "content_hash": spec.content_hash(data_files),
        "data_digest": data_files,
        "specification": json.dumps(table),
        "result_code": code,
        "result_message": message[:_LONGEST_TEXT],
        "result_time": float(end),
        "failed": int(has_failed(code)),
        "wall_seconds": float(wall_seconds),
        "versions": _versions(),
        **({"modules": modules_text(spec.sources)} if spec.sources else {}),
        **details,
    }
    attrs = {name: _storable(value) if isinstance(value, str) else value for name, value in attrs.items()}
    data = data.assign_attrs(attrs)
    data.attrs["digest"] = _digest(data)
    return data


def _packed(cell: xr.Dataset) -> CellOutcome:
    payload = to_netcdf(cell)
    return CellOutcome(cell.attrs["content_hash"], payload, record_of(cell, payload))


@functools.cache
def _versions() -> str:
    return json.dumps(versions())


def record_of(data: xr.Dataset, payload: bytes) -> dict[str, Any]:
    """The record of a cell.

    **Arguments:**

    - `data`: the data set of the cell.
    - `payload`: the bytes of the file with the data.
    """
    attrs = data.attrs
    stats = read_json(attrs.get("stats", "{}"), "its stats")
    return {
        "hash": attrs["content_hash"],
        "code": attrs["result_code"],
        "message": attrs["result_message"],
        "failed": bool(attrs["failed"]),
        "time": _number(flow_times(data).to_numpy()[-1]) if data.sizes else "nan",
        "wall_seconds": _number(attrs["wall_seconds"]),
        "num_steps": stats.get("num_steps"),
        "finals": {name: _number(values[-1]) for name, values in _series(data).items()},
        "errors": {name: _number(values[-1]) for name, values in error_functionals(data).items()},
        "targets": _time_to_targets(data) if data.sizes else {},
        "best": {name: _number(value) for name, value in best_losses(data).items()},
        "compile_seconds": stats.get("compile_seconds"),
        "direction": _direction(stats),
        "distance_to_gradient_flow": stats.get("largest_distance_to_gradient_flow"),
        "gnflow": read_json(attrs["versions"], "its versions")["gnflow"],
        "size": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
    }


def _direction(stats: Mapping[str, Any]) -> str | None:
    """Whether the last direction was exact, as text; None for a flow that does not claim to be exact."""
    if "final_truncated" not in stats:
        return None
    if not stats["final_truncated"]:
        return EXACT
    # Folders of earlier versions have no damping of half-blocks.
    how = "damped" if float(stats.get("final_damping", 0.0)) > 0 else "truncated"
    return f"{how}, residual {float(stats['final_relative_residual']):.1e}"


def _series(data: xr.Dataset) -> dict[str, np.ndarray]:
    """The variables that have one number for each time."""
    along = data["train_loss"].dims if data.sizes else ()
    return {str(name): array.to_numpy() for name, array in data.data_vars.items() if array.dims == along}


def error_functionals(data: xr.Dataset) -> dict[str, np.ndarray]:
    """The error functionals of a residual problem along a run, by name, as far as they were recorded."""
    return {name: values for name, values in _series(data).items() if data[name].attrs.get("reference") == OF_A_TEST}


def flow_times(data: xr.Dataset) -> xr.DataArray:
    """The flow times of the saves along a run. In a run in steps they are a coordinate beside the number of the step."""
    return data["time" if "time" in data.coords else "flow_time"]


def _time_to_targets(data: xr.Dataset) -> dict[str, float | str]:
    """The flow time at which (L - L*) / (L_0 - L*) first reached each target; inf if it did not."""
    times, losses = flow_times(data).to_numpy(), data["train_loss"].to_numpy()
    with np.errstate(all="ignore"):  # a run may begin or end without a finite loss; it then reaches no target
        excess = np.maximum(losses - data.attrs["loss_minimum"], np.finfo(float).tiny)
        relative = np.maximum(excess / excess[0], np.finfo(float).tiny)
    if not np.isfinite(excess[0]):
        relative = np.full(losses.shape, math.nan)
    if math.isnan(data.attrs["loss_minimum"]):  # L* is unknown if the problem of a kept run cannot be rebuilt
        return {target_name(target): "nan" for target in TARGETS}
    return {target_name(target): _number(time_to_level(times, relative, target)) for target in TARGETS}


def target_name(target: float) -> str:
    """The name of a relative loss in a record: "1e-01"."""
    return f"{target:.0e}"


def _digest(data: xr.Dataset) -> str:
    """A checksum of everything in a data set. A single bit that flips on a disk changes it."""
    digest = hashlib.sha256()
    for name in sorted(map(str, data.variables)):
        variable = data.variables[name]
        values = np.ascontiguousarray(variable.to_numpy())
        head = [name, variable.dims, values.shape, values.dtype.str, _plain(variable.attrs)]
        digest.update(json.dumps(head, sort_keys=True).encode())
        digest.update(values.tobytes())
    attrs = {name: value for name, value in data.attrs.items() if name != "digest"}
    digest.update(json.dumps(_plain(attrs), sort_keys=True).encode())
    return digest.hexdigest()


def _plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes with Python's types in the place of NumPy's, which appear when a file is read."""
    return {
        str(name): value.item()
        if isinstance(value, np.generic)
        else value.tolist()
        if isinstance(value, np.ndarray)
        else value
        for name, value in attrs.items()
    }


def _number(value: Any) -> float | str:
    """`value` for JSON, with text for numbers that are not finite."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _to_json(table: Mapping[str, Any]) -> str:
    """The stats of a run as JSON, with text for anything that is not a number or text."""
    plain = _plain(table)
    return json.dumps(
        {name: _number(value) if isinstance(value, float) else value for name, value in plain.items()}, default=str
    )


def _storable(text: str) -> str:
    """`text` with escapes for characters that an HDF5 attribute cannot hold: NUL and lone surrogates."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
