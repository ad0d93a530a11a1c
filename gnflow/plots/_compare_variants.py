"""The last states of runs over the variants of a grid."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from .._core import ResultCode
from ._regime import regime_figure
from ._run_figures import Run

VARIANT = "variant"
_LABELS = {
    "model.init_scale": r"initialisation scale $\tau_0$",
    "model.width": "width $M$",
    "problem.n_train": "samples $N$",
}
_STOPPED = (ResultCode.STOP_RULE_MET, ResultCode.STOP_RULE_MET_AT_START)


def compare_variants(dataset: xr.Dataset, runs: Mapping[str, Run]) -> Figure | None:
    """The `regime_figure` of the variants, over the number in which they differ if there is exactly one.

    **Arguments:**

    - `dataset`: a grid over variant, flow and seed. Other axes have one value each.
    - `runs`: the runs by content hash.
    """
    cells = dataset["cell"]
    cells = cells.squeeze([dim for dim in cells.dims if dim not in (VARIANT, "flow", "seed")])
    ends = {
        str(flow): {
            str(variant): [
                _end(runs[key]) for key in cells.sel(variant=variant, flow=flow).values.tolist() if key in runs
            ]
            for variant in dataset[VARIANT].to_numpy()
        }
        for flow in dataset["flow"].to_numpy()
    }
    setting = str(dataset[VARIANT].attrs.get("long_name", VARIANT))
    return regime_figure(ends, _positions(dataset), _LABELS.get(setting, setting))


def _end(run: Run) -> xr.Dataset:
    return run.data.assign_attrs(converged=run.result.code in _STOPPED)


def _positions(dataset: xr.Dataset) -> dict[str, float] | None:
    """The value of the only numeric setting for each variant; None if there is no such setting, or values repeat."""
    beside: list[Any] = [
        dataset[name] for name in dataset.coords if name != VARIANT and dataset[name].dims == (VARIANT,)
    ]
    if len(beside) != 1 or beside[0].dtype.kind not in "fiu" or np.unique(beside[0]).size < beside[0].size:
        return None
    return {str(name): float(value) for name, value in zip(dataset[VARIANT].to_numpy(), beside[0], strict=True)}
