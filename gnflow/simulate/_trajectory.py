"""What a run gives back."""

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .._core import GnflowError, Result, ResultCode
from ..flows import AbstractFlow
from ..metrics import Variable
from ..problems import Problem
from ._store import write_run

if TYPE_CHECKING:
    import xarray  # half a second with pandas: loaded where a data set is made


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A run: what was measured along it, where it ended and why.

    **Attributes:**

    - `data`: an `xarray.Dataset` over "time" (flow time; `simulate`) or "step" (`iterate`), first the state before any step,
      last the end; `train_loss`, `test_loss` where there is test data, and the variables of the metrics; `iterate` adds
      `damping`, `rank` and `relative_residual` where the flow solves for its direction (in `simulate` the metric
      `DirectionDiagnostics` does), and in mini-batches the losses of each over the dimension "batch"; each with `long_name`,
      `units` and `reference`.
    - `model`, `initial_model`: at the end and at the start.
    - `problem`, `flow`: what was run.
    - `result`: how it ended (`gnflow.Result`: code, message, time).
    - `stats`: solver, steps taken, accepted and rejected, velocity evaluations, wall seconds, and how many of
      them were compiling.
    - `settings`: the arguments of the run, for the record.
    """

    data: "xarray.Dataset"
    model: Any
    initial_model: Any
    problem: Problem
    flow: AbstractFlow
    result: Result
    stats: dict[str, Any]
    settings: dict[str, Any]

    def save(self, folder: str | os.PathLike[str], *, beside: Mapping[str, str] | None = None) -> None:
        """Write the run as a folder: run.json, trajectory.nc, arrays.npz. Read it back with `gnflow.load(folder)`.

        The folder appears whole or not at all; a leading ~ is the home folder. Attributes of `data` that netCDF has no type for
        (None, booleans, lists, dictionaries, paths) are kept as JSON text.

        **Arguments:** `beside`: further files in the folder, text by name.

        **Raises:** `RunFolderError` if `folder` exists and is not empty: a run is never overwritten; and if it cannot be
        written (a full disk, a read-only folder): the message names the folder in which it is kept instead.
        """
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        write_run(folder, parts, beside or {})


class SimulationError(GnflowError, RuntimeError):
    """A run that failed, with what it got to in `trajectory`."""

    def __init__(self, trajectory: Trajectory):
        super().__init__(f"{trajectory.result} (the run so far is in this error's .trajectory; throw=False returns it)")
        self.trajectory = trajectory


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C, or a notebook's interrupt, during a run, with what it got to in `trajectory` (its code is `interrupted`).

    It ends loops and programs as any `KeyboardInterrupt` does. In a notebook the trajectory is afterwards in
    `sys.last_value.trajectory`.
    """

    def __init__(self, trajectory: Trajectory):
        super().__init__(f"{trajectory.result} (in this exception's .trajectory)")
        self.trajectory = trajectory


def checked(trajectory: Trajectory, throw: bool) -> Trajectory:
    """The run, if nothing is to be raised for how it ended.

    **Raises:** `RunInterrupted`; `SimulationError` if `throw` and it failed.
    """
    if trajectory.result.code == ResultCode.INTERRUPTED:
        raise RunInterrupted(trajectory)
    if throw and trajectory.result.failed:
        raise SimulationError(trajectory)
    return trajectory


def make_dataset(
    rows: dict[str, np.ndarray],
    variables: dict[str, Variable],
    dim: str,
    index: np.ndarray,
    index_attrs: dict[str, str],
) -> "xarray.Dataset":
    """Rows of values, first axis `dim`, as a labelled data set.

    **Arguments:** `rows`: arrays (rows, ...) by variable; `variables`: their descriptions; `index`: the coordinate.
    """
    import xarray as xr

    arrays = {
        name: xr.DataArray(
            values,
            dims=(dim, *variables[name].dims),
            attrs={
                "long_name": variables[name].long_name,
                "units": variables[name].units,
                "reference": variables[name].reference,
            },
        )
        for name, values in rows.items()
    }
    return xr.Dataset(arrays, coords={dim: xr.DataArray(index, dims=(dim,), attrs=index_attrs)})


def stack_rows(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Values of single times, by name, stacked along a first axis."""
    host = jax.device_get(rows)
    return {name: np.stack([np.asarray(row[name]) for row in host]) for name in host[0]}
