"""Data sets of the shape that a sweep has, with values known in closed form, and cells that failed or are missing."""

import numpy as np
import xarray as xr

TAU0 = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 100.0)
SIZES = (100, 500, 1000)
FLOWS = ("gradient_flow", "gauss_newton", "random_features")
SEEDS = (0, 1, 2)

DESCRIPTIONS = {
    "train_loss": ("training loss", "1"),
    "test_loss": ("test loss", "1"),
    "refit_test_loss": ("test loss after refitting the output layer", "1"),
    "kernel_distance": ("kernel distance to the start", "1"),
    "relative_weight_movement": ("relative movement of the weights", "1"),
    "flow_time": ("flow time", "flow time"),
}


def crossing(size, seed, flow):
    """The tau0 at which the kernel distance of this cell's line is 1/2: it grows with N and differs from seed to seed."""
    return 0.8 * (size / 500) ** 0.5 * (1 + 0.25 * seed) * {"gradient_flow": 1.0, "gauss_newton": 2.0}.get(flow, 0.0)


def kernel_distance(tau0, size, seed, flow):
    """1 / (1 + (tau0 / crossing)^2): it is h at tau0 = crossing sqrt(1/h - 1). Zero for random features."""
    middle = crossing(size, seed, flow)
    return 1 / (1 + (tau0 / middle) ** 2) if middle else 0.0


def test_loss(tau0, size, seed, flow):
    """Grows from the feature-learning to the kernel regime, differently for each flow."""
    share = kernel_distance(tau0, size, seed, "gradient_flow")
    return (500 / size) * 10 ** (
        -5 * share * {"gradient_flow": 1.0, "gauss_newton": 0.4}.get(flow, 0.0) - 1 - 0.1 * seed
    )


test_loss.__test__ = False


def grid_dataset(tau0=TAU0, sizes=SIZES, flows=FLOWS, seeds=SEEDS):
    """A complete sweep over (tau0, n_train, flow, seed); `sizes=None` leaves n_train out."""
    kept = (500,) if sizes is None else sizes
    shape = (len(tau0), len(kept), len(flows), len(seeds))
    arrays = {name: np.empty(shape) for name in DESCRIPTIONS}
    for index in np.ndindex(*shape):
        cell = (tau0[index[0]], kept[index[1]], seeds[index[3]], flows[index[2]])
        distance, loss = kernel_distance(*cell), test_loss(*cell)
        values = {
            "train_loss": 1e-7,
            "test_loss": loss,
            "refit_test_loss": loss / (1 + 100 * distance),
            "kernel_distance": distance,
            "relative_weight_movement": 3 * distance + 1e-3,
            "flow_time": 10.0 * (1 + index[0]),
        }
        for name, value in values.items():
            arrays[name][index] = value
    dims = ("tau0", "n_train", "flow", "seed")
    data = xr.Dataset(
        {
            name: (dims, array, {"long_name": DESCRIPTIONS[name][0], "units": DESCRIPTIONS[name][1]})
            for name, array in arrays.items()
        },
        coords={
            "tau0": ("tau0", list(tau0), {"long_name": "initialisation scale tau0"}),
            "n_train": ("n_train", list(kept), {"long_name": "training samples N"}),
            "flow": list(flows),
            "seed": list(seeds),
        },
        attrs={"name": "synthetic"},
    )
    data["result"] = (dims, np.full(shape, "stop_rule_met", dtype=object))
    data["failed"] = (dims, np.zeros(shape, dtype=bool))
    targets = [1e-1, 1e-4, 1e-8]
    times = np.stack([data["flow_time"].to_numpy() / 4, data["flow_time"].to_numpy(), np.full(shape, np.inf)], axis=-1)
    data["time_to_target"] = (
        (*dims, "target"),
        times,
        {"long_name": "flow time to the relative loss", "units": "flow time"},
    )
    data = data.assign_coords(target=targets)
    return data.isel(n_train=0, drop=True) if sizes is None else data


def fail(data, code="non_finite", **where):
    """The data with these cells failed: the code, no values."""
    return _emptied(data, code, True, where)


def lose(data, **where):
    """The data with these cells not computed."""
    return _emptied(data, "missing", False, where)


def _emptied(data, code, failed, where):
    data = data.copy(deep=True)
    for name in data.data_vars:
        variable = data[name]
        empty = {"result": code, "failed": failed}.get(str(name), np.nan)
        variable.loc[{key: value for key, value in where.items() if key in variable.dims}] = empty
    return data
