"""The trajectory that a run returns, and the errors that carry one."""

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import GnflowError, Result, ResultCode
from ..flows import AbstractFlow
from ..geometry import System
from ..metrics import Variable
from ..problems import AbstractProblem
from ._best import best_losses
from ._kept_weights import kept_time, on_device
from ._predict import predict
from ._store import write_run

if TYPE_CHECKING:
    import xarray  # takes half a second with pandas, so it is imported only where a data set is made


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A run: what was measured along it, where it ended and why.

    **Attributes:**

    - `data`: an `xarray.Dataset` over "time" (flow time; `simulate`) or "step" (`iterate`), from the state before any step to
      the end. It holds `train_loss`, `test_loss` and `validation_loss` if there are such data, and the variables of the
      metrics, each with `long_name`, `units` and `reference`. `iterate` adds `damping`, `rank` and `relative_residual` if the
      flow solves for its direction (in `simulate` the metric `DirectionDiagnostics` does that), and with mini-batches the
      losses of each batch over the dimension "batch".
    - `model`, `initial_model`: the model at the end and at the start.
    - `problem`, `flow`: the problem and the flow of the run.
    - `result`: how the run ended (`gnflow.Result`: code, message, time).
    - `stats`: the solver, the numbers of steps (taken, accepted, rejected) and velocity evaluations, the wall time in seconds,
      and how many of these were spent compiling. Of a flow that solves for its direction also how the last solve went, and how
      far damping makes the flow gradient flow: `largest_distance_to_gradient_flow` over the saved states, and the final one
      (docs/theory.md, Damping and gradient flow).
    - `settings`: the arguments of the run, for the record.
    - `kept_weights`: the trained weights at the times (or steps) of `saveat_weights`, by time, as trees of NumPy arrays.
      `model_at` makes models of them.
    """

    data: "xarray.Dataset"
    model: Any
    initial_model: Any
    problem: AbstractProblem
    flow: AbstractFlow
    result: Result
    stats: dict[str, Any]
    settings: dict[str, Any]
    kept_weights: Mapping[float | int, PyTree] = dataclasses.field(default_factory=dict)

    @property
    def system(self) -> System:
        """The problem joined with the structure of the model, as the flow trains it."""
        return self.flow.system(self.problem, self.initial_model)

    def model_at(self, time: float | int) -> Any:
        """The model at a flow time, or at a step of `iterate`.

        **Arguments:**

        - `time`: the start (0), the end, or one of the times that the run was asked to keep weights at
          (`saveat_weights=[...]`), up to rounding. Nothing is interpolated.

        **Raises:** `ConfigError` for any other time. The message names the times that were kept.
        """
        dim = "time" if "time" in self.data.dims else "step"
        end = self.data[dim].to_numpy()[-1].item()
        ends = {0.0: self.initial_model, end: self.model}
        known = sorted({*ends, *self.kept_weights})
        found = kept_time(time, known, "flow time" if dim == "time" else "step")
        if found in ends:
            return ends[found]
        return self.system.model(on_device(self.kept_weights[found]))

    def predict(self, x: Any, *, time: float | int | None = None) -> Float[Array, "samples outputs"]:
        """The outputs of the final model, or of the model at `time`, on new inputs.

        Inputs and outputs are in the units of the user's data: what the problem has standardised is converted here and back.
        They are computed in batches, so that the memory beside the outputs does not grow with n. For a classification they are
        the logits: `problem.loss.probabilities` and `problem.loss.classes` read them.

        **Arguments:**

        - `x`: inputs (n, d), in any form that `gnflow.Problem` takes.
        - `time`: a flow time (or a step) as for `model_at`. None is the end of the run.

        **Returns:** the outputs (n, C), in float64.

        **Raises:** `DataError` for inputs that are not finite numbers or not of the shape of the training inputs; `ConfigError`
        as `model_at`.
        """
        return predict(self.model if time is None else self.model_at(time), self.problem, x)

    @property
    def best_losses(self) -> dict[str, float]:
        """The lowest validation and test losses among the saved states, with their flow times.

        `best_validation_loss`, `best_validation_loss_time` and `test_loss_at_best_validation` if the problem has validation
        data; `best_test_loss`, which is selected on the test set and so is too low for other data, and `best_test_loss_time` if
        it has test data.
        """
        return best_losses(self.data)

    def save(self, folder: str | os.PathLike[str], *, beside: Mapping[str, str] | None = None) -> None:
        """Write the run as a folder: run.json, trajectory.nc, arrays.npz. Read it back with `gnflow.load(folder)`.

        The folder appears whole or not at all. Attributes of `data` for which netCDF has no type (None, booleans, lists,
        dictionaries, paths) are kept as JSON text.

        **Arguments:**

        - `folder`: the folder to write. A leading ~ is the home folder.
        - `beside`: further files in the folder, text by name.

        **Raises:** `RunFolderError` if `folder` exists and is not empty, because a run is never overwritten; also if it cannot
        be written (a full disk, a read-only folder). The message then names the folder in which the run is kept instead.
        """
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        write_run(folder, parts, beside or {})


class SimulationError(GnflowError, RuntimeError):
    """A run that failed. `trajectory` holds the run so far."""

    def __init__(self, trajectory: Trajectory):
        super().__init__(f"{trajectory.result} (the run so far is in this error's .trajectory; throw=False returns it)")
        self.trajectory = trajectory


class RunInterrupted(KeyboardInterrupt):
    """An interrupt during a run, by Ctrl-C or from a notebook. `trajectory` holds the run so far, with the code `interrupted`.

    It ends loops and programs like any `KeyboardInterrupt`. In a notebook the trajectory is then in
    `sys.last_value.trajectory`.
    """

    def __init__(self, trajectory: Trajectory):
        super().__init__(f"{trajectory.result} (in this exception's .trajectory)")
        self.trajectory = trajectory


def checked(trajectory: Trajectory, throw: bool) -> Trajectory:
    """The run, unless an error has to be raised for how it ended.

    **Raises:** `RunInterrupted` if it was interrupted; `SimulationError` if `throw` and it failed.
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
    """A labelled data set of arrays whose first axis is `dim`.

    **Arguments:**

    - `rows`: the arrays (rows, ...), by variable name.
    - `variables`: the descriptions of the variables, by name.
    - `dim`: the name of the first axis.
    - `index`: its coordinate (rows,).
    - `index_attrs`: the attributes of the coordinate.
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
    """The values of several times, stacked along a new first axis, by name."""
    host = jax.device_get(rows)
    return {name: np.stack([np.asarray(row[name]) for row in host]) for name in host[0]}
