"""The studies in steps: networks, data, methods with their grids of learning rates, and how a rate is chosen and reported.

A study is two sweeps. `select` runs every method at each rate of its grid on the selection seeds; the rate whose final training
loss has the smallest mean is chosen, and where it lies at the grid's edge the grid grows by one rate there. `report` runs
every method at its chosen rate on other seeds, with all that is measured.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import gnflow as gn

NUM_TEST = 397  # what 1400 training samples leave of the 1797 digits
SELECTION_SEEDS = (100, 101)
REPORT_SEEDS = (0, 1, 2, 3, 4)
MOST_EXTENSIONS = 3  # of a grid
_NEVER = 10**6
# The engine's estimate counts Gram matrices (NC x NC) that no method of these studies forms; a cell takes about 1 GiB.
_MEMORY_GIB = 64.0
WIDTH, BOTTLENECK, NUM_BLOCKS = 64, 1000, 2
GRID = (-2, -1, 0, 1, 2)  # powers of sqrt(10) about the middle, of every method


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to train and its grid of learning rates.

    **Attributes:** `flow`: the table of the flow; `optimiser`: that of the optimiser, without its learning rate, or None for
    plain steps along the flow; `middle`: the rate in the middle of the grid, whose neighbours are sqrt(10) apart.
    """

    flow: Mapping[str, Any]
    optimiser: Mapping[str, Any] | None
    middle: float

    def rate(self, power: int) -> float:
        """The rate so many places from the middle, in three digits."""
        return float(f"{self.middle * 10.0 ** (power / 2):.3g}")

    def table(self, rate: float) -> dict[str, Any]:
        """The flow's section of a specification, at one rate."""
        if self.optimiser is None:
            return {**self.flow, "integration": {"step_size": rate}}
        return {**self.flow, "integration": {"optimiser": {**self.optimiser, "learning_rate": rate}}}

    @property
    def path(self) -> str:
        """Where the rate stands in the flow's section."""
        return "integration.step_size" if self.optimiser is None else "integration.optimiser.learning_rate"


_GRADIENT = {"kind": "gradient", "mobility": 1.0}
_REVERSIBLE = {"kind": "reversible_gauss_newton"}
# Step sizes in units of the flow, where [B]'s learning rate r is L r = 2 r: 0.2, of its mini-batches, and 2, of its full
# batches, are on the grids.
METHODS = {
    "gauss_newton_truncated": Method({**_REVERSIBLE, "rtol": 1e-2}, None, 2.0),
    "gauss_newton": Method({**_REVERSIBLE, "rtol": 0.0}, None, 2.0),
    "adam": Method(_GRADIENT, {"kind": "adam"}, 10**-2.5),
    "sgd": Method(_GRADIENT, {"kind": "sgd"}, 10**-0.5),
    "sgd_momentum": Method(_GRADIENT, {"kind": "sgd", "momentum": 0.9}, 0.1),
}
FIRST_ORDER = ("adam", "sgd", "sgd_momentum")


def minimum_norm(batch_size: int) -> Method:
    """Dense minimum-norm Gauss-Newton in the unit of the reversible flow: its own moves outputs by the mean's gradient, which
    is `batch_size` times shorter."""
    undamped = {"kind": "gauss_newton", "metric": "identity", "damping": {"kind": "constant", "value": 0.0}}
    return Method(undamped, None, 2.0 * batch_size)


@dataclasses.dataclass(frozen=True)
class Study:
    """A training problem in steps, and the methods compared on it.

    **Attributes:** `n_train`; `integration`: the options that all methods share; `methods`: by name; `metrics`: of the
    reported runs; `fixed`: further reported runs at a rate that is given: (method, rate) by name.
    """

    name: str
    n_train: int
    integration: Mapping[str, Any]
    methods: Mapping[str, Method]
    metrics: tuple[Any, ...] = ("accuracy",)
    fixed: Mapping[str, tuple[str, float]] = dataclasses.field(default_factory=dict)
    bottleneck: int = BOTTLENECK

    def specification(self, flows: Mapping[str, Any], seeds: tuple[int, ...]) -> dict[str, Any]:
        """The table of a sweep."""
        return {
            "name": f"reversible_{self.name}",
            "seeds": list(seeds),
            "problem": {"kind": "digits", "n_train": self.n_train, "n_test": NUM_TEST},
            "model": {
                "kind": "reversible",
                "width": WIDTH,
                "bottleneck": self.bottleneck,
                "num_blocks": NUM_BLOCKS,
            },
            "integration": {"method": "iterate", **self.integration},
            "flows": dict(flows),
        }


def kernel_estimate(num_probes: int) -> dict[str, Any]:
    return {"kind": "kernel_distance_estimate", "num_probes": num_probes}


def named_studies() -> dict[str, Study]:
    """The studies of the page."""
    along = ("accuracy", "weight_change", "layer_alignment")
    small = 24  # the features of the linear block have rank 27 and 28 on all digits: some pixels are constant
    exact = {
        "gauss_newton": METHODS["gauss_newton"],
        "gauss_newton_truncated": METHODS["gauss_newton_truncated"],
        "minimum_norm": minimum_norm(small),
        "adam": METHODS["adam"],
    }
    studies = (
        Study(
            "full_batch",
            512,
            {"num_steps": 30, "save_every": 3},
            METHODS,
            (*along, kernel_estimate(8)),
            fixed={"gauss_newton_paper_rate": ("gauss_newton_truncated", 2.0)},
        ),
        Study(
            "mini_batch",
            1400,
            {"batch_size": 128, "num_epochs": 20, "save_every": 20},
            METHODS,
            (*along, kernel_estimate(4)),
            fixed={
                "gauss_newton_lower_rate": ("gauss_newton_truncated", 2.0),
                "gauss_newton_paper_rate": ("gauss_newton_truncated", 0.2),
            },
        ),
        Study("small_batch", 1400, {"batch_size": small, "num_epochs": 3, "save_every": 58}, exact, along),
        Study(
            "full_batch_long",
            512,
            {"num_steps": 150, "save_every": 5},
            {name: METHODS[name] for name in FIRST_ORDER},
        ),
    )
    return {study.name: study for study in studies}


def smoke(study: Study) -> Study:
    """The same at a size of seconds, to see that it works."""
    shorter = {"num_epochs": 1} if "num_epochs" in study.integration else {"num_steps": 6}
    size = {"batch_size": 24, "save_every": 1} if "batch_size" in study.integration else {"save_every": 3}
    return dataclasses.replace(study, n_train=48, integration={**study.integration, **shorter, **size}, bottleneck=50)


def select(
    study: Study, folder: Path, seeds: tuple[int, ...], workers: int | None
) -> tuple[dict[str, dict[float, float]], dict[str, float]]:
    """For each method the mean final training losses by rate (inf where a run failed), and the chosen rate."""
    grids: dict[str, list[int]] = {name: [*GRID] for name in study.methods}
    extensions = 0
    while True:
        losses = _losses(study, grids, folder, seeds, workers)
        best = {name: min(means, key=lambda power, means=means: means[power]) for name, means in losses.items()}
        at_edge = {name: power for name, power in best.items() if power in (min(grids[name]), max(grids[name]))}
        if not at_edge or extensions == MOST_EXTENSIONS:
            break
        extensions += 1
        for name, power in at_edge.items():
            grids[name].append(power + 1 if power == max(grids[name]) else power - 1)
    by_rate = {
        name: {study.methods[name].rate(power): mean for power, mean in sorted(means.items())}
        for name, means in losses.items()
    }
    return by_rate, {name: study.methods[name].rate(power) for name, power in best.items()}


def _losses(
    study: Study, grids: Mapping[str, list[int]], folder: Path, seeds: tuple[int, ...], workers: int | None
) -> dict[str, dict[int, float]]:
    """The mean final training loss of each method at each place of its grid."""
    length = max(map(len, grids.values()))
    # A method whose grid needs no more rates repeats its last one, which costs nothing: equal cells are computed once.
    columns = {
        f"flows.{name}.{study.methods[name].path}": [
            study.methods[name].rate(power) for power in [*powers, *[powers[-1]] * (length - len(powers))]
        ]
        for name, powers in grids.items()
    }
    table = study.specification({name: method.table(method.middle) for name, method in study.methods.items()}, seeds)
    # Nothing but the ends is looked at here.
    table["integration"] = {**table["integration"], "save_every": study.integration.get("num_steps", _NEVER)}
    table["axes"] = {"rate": {"values": columns, "labels": [str(position) for position in range(length)]}}
    data = gn.sweep(table, out=folder, workers=workers, memory_gib=_MEMORY_GIB)
    assert isinstance(data, xr.Dataset)
    losses = {}
    for name, powers in grids.items():
        ends = data["train_loss"].sel(flow=name).transpose("rate", "seed").to_numpy()[: len(powers)]
        means = np.where(np.isfinite(ends), ends, np.inf).mean(axis=1)
        losses[name] = dict(zip(powers, map(float, means), strict=True))
    return losses


def report(
    study: Study, chosen: Mapping[str, float], folder: Path, seeds: tuple[int, ...], workers: int | None
) -> xr.Dataset:
    """The runs at the chosen rates, on seeds that the choice has not seen."""
    flows = {name: method.table(chosen[name]) for name, method in study.methods.items()}
    flows |= {name: study.methods[method].table(rate) for name, (method, rate) in study.fixed.items()}
    table = {**study.specification(flows, seeds), "metrics": list(study.metrics)}
    data = gn.sweep(table, out=folder, workers=workers, memory_gib=_MEMORY_GIB)
    assert isinstance(data, xr.Dataset)
    return data
