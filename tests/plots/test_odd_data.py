"""Every figure is drawn, whatever the numbers: infinite, enormous, zero, constant, negative, none at all."""

import itertools
import types

import numpy as np
import pytest
import xarray as xr
from oracles.sweep_data import grid_dataset

from gnflow.plots import (
    boundary_figure,
    curves_figure,
    directions_figure,
    draw_figures,
    eigenvalue_figure,
    heat_map_figure,
    loss_figure,
    movement_figure,
    particle_motion,
    particle_stills_figure,
    regime_figure,
    regime_map_figure,
    seed_band_figure,
)
from gnflow.regimes import order_parameters

INF, NAN = np.inf, np.nan
ROWS = {
    "diverged": [1.0, 1e3, 1e100, 1e300, INF],
    "nan": [1.0, NAN, 0.1, NAN, NAN],
    "all nan": [NAN] * 5,
    "all inf": [INF] * 5,
    "minus inf": [1.0, -INF, 2.0, INF, 3.0],
    "zeros": [0.0] * 5,
    "constant": [0.3] * 5,
    "negative": [-1.0, -0.1, -3.0, -1e-5, -2.0],
    "both signs": [-1.0, 1.0, -1e300, 1e300, 0.0],
    "enormous": [1e300, 1e305, 1e308, 1.7e308, 1e300],
    "tiny": [5e-324, 1e-320, 1e-310, 1e-300, 5e-324],
    "everything": [5e-324, 1.7e308, 0.0, -1.7e308, NAN],
    "hundreds of decades": [1e-300, 1e-200, 1.0, 1e200, 1e300],
    "nearly equal": [1.0, 1.0 + 1e-16, 1.0, 1.0 + 2e-16, 1.0],
}
# Each alone where others would give the axes something to show.
ALONE = ("diverged", "all nan", "zeros", "negative", "enormous", "tiny", "everything")
TIMES = {
    "as usual": [0.0, 0.5, 1.0, 2.0, 4.0],
    "zero": [0.0] * 5,
    "enormous": [0.0, 1e200, 1e300, 1e305, 1.7e308],
    "tiny": [0.0, 5e-324, 1e-320, 1e-310, 1e-300],
    "not finite": [0.0, 1.0, INF, NAN, INF],
}
NAMES = (
    *("train_loss", "test_loss", "kernel_distance", "relative_ntk_change", "direction_distance_to_initial"),
    *("direction_distance_to_teacher", "ntk_smallest_eigenvalue", "ntk_largest_eigenvalue"),
)


def run(values, times=TIMES["as usual"], **attrs):
    return xr.Dataset({name: ("time", np.asarray(values, float)) for name in NAMES}, {"time": list(times)}, attrs)


def drawn(figure):
    """The figure with all that writing it would place."""
    if figure is not None:
        figure.draw_without_rendering()
    return figure


def texts(figure):
    return " ".join(text.get_text() for legend in figure.legends for text in legend.get_texts())


class TestRuns:
    FIGURES = (loss_figure, eigenvalue_figure, movement_figure)

    @pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
    @pytest.mark.parametrize("values", ALONE)
    def test_odd_values(self, figure, values):
        drawn(figure({"flow": [run(ROWS[values]), run(ROWS[values])]}))

    @pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
    def test_all_of_them_together(self, figure):
        drawn(figure({values: run(row) for values, row in ROWS.items()}))

    @pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
    @pytest.mark.parametrize("times", TIMES)
    def test_odd_times(self, figure, times):
        flows = {values: run(ROWS[values], TIMES[times]) for values in ("constant", "diverged", "zeros")}
        drawn(figure(flows))

    @pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
    @pytest.mark.parametrize("length", [0, 1, 2])
    def test_few_points(self, figure, length):
        times = TIMES["as usual"][:length]
        drawn(figure({values: run(ROWS[values][:length], times) for values in ("constant", "zeros", "diverged")}))
        drawn(figure({"flow": run(ROWS["zeros"][:length], times)}))

    def test_what_is_left_out_is_said(self):
        assert "not drawn" in texts(drawn(loss_figure({"flow": run(ROWS["diverged"])})))
        assert "not drawn" in texts(drawn(movement_figure({"flow": run(ROWS["nan"])})))
        assert "not drawn" not in texts(drawn(loss_figure({"flow": run(ROWS["constant"])})))
        # A state at time 0 has no place on a logarithmic axis, nor a loss of exactly zero, in any good run.
        assert "not drawn" not in texts(drawn(loss_figure({"flow": run([1.0, 0.1, 0.0, 0.0, 0.0])})))

    @pytest.mark.parametrize("values", ALONE)
    def test_regimes(self, values):
        ends = {
            flow: {
                variant: [run(row[-1:], [1.0]) for row in (ROWS[values], ROWS["constant"])] for variant in ("a", "b")
            }
            for flow in ("flow", "other")
        }
        drawn(regime_figure(ends))
        for positions in (
            {"a": 0.1, "b": 10.0},
            {"a": 1e-300, "b": 1e300},
            {"a": -1.0, "b": 0.0},
            {"a": 0.0, "b": 1e308},
        ):
            drawn(regime_figure(ends, positions))

    def test_regimes_of_nothing(self):
        drawn(regime_figure({"flow": {"a": [], "b": []}}))
        drawn(regime_figure({"flow": {"a": [run([], [])], "b": [run([1.0], [0.0])]}}))

    @pytest.mark.parametrize(
        ("fill", "shape"),
        [
            *((fill, (3, 2)) for fill in (0.0, 1e300, 1e-320, INF, NAN)),
            *((1.0, shape) for shape in ((1, 2), (0, 2), (4, 1))),
        ],
    )
    def test_directions(self, fill, shape):
        model = types.SimpleNamespace(hidden_weight=np.full(shape, fill), output_weight=np.full((shape[0], 1), -fill))
        drawn(directions_figure({"start": model, "flow": model}, model))


def sweep(values, x=(0.1, 1.0, 10.0), seeds=2):
    """A sweep whose every measured number is one of `values`."""
    data = grid_dataset(tau0=range(1, 1 + len(x)), sizes=(100, 500), flows=("descent", "newton"), seeds=range(seeds))
    data = data.assign_coords(tau0=list(x))
    data["direction_distance_to_initial"] = data["kernel_distance"]
    source = itertools.cycle(values)
    for name in data.data_vars:
        if data[name].dtype.kind == "f":
            data[name] = (
                data[name].dims,
                np.asarray([next(source) for _ in range(data[name].size)]).reshape(data[name].shape),
            )
    return data


class TestSweeps:
    @pytest.mark.parametrize("values", [*ALONE, "minus inf", "hundreds of decades"])
    def test_odd_values(self, values):
        data = order_parameters(sweep(ROWS[values]))
        drawn(heat_map_figure(data, "test_loss", x="tau0", y="n_train", over="flow").figure)
        drawn(heat_map_figure(data, "test_loss_ratio", x="tau0", y="flow", over="n_train").figure)
        drawn(regime_map_figure(data, x="tau0", y="n_train", over="flow").figure)
        drawn(boundary_figure(data, along="tau0", x="n_train").figure)
        drawn(seed_band_figure(data, ["test_loss", "kernel_distance"], x="tau0", over="n_train").figure)

    @pytest.mark.parametrize(
        "x",
        [
            (0.1,),
            (0.0, 1.0),
            (-1.0, 0.0, 1.0),
            (1e-300, 1.0, 1e300),
            (1e-320, 1e-310),
            (1e300, 1e308),
            (1.0, 1.0 + 1e-15),
        ],
        ids=str,
    )
    def test_odd_axes(self, x):
        data = order_parameters(sweep([0.3, 2.0, 1e-3, 0.7, 0.05], x))
        drawn(heat_map_figure(data, "test_loss", x="tau0", y="n_train", over="flow").figure)
        drawn(regime_map_figure(data, x="tau0", y="n_train", over="flow").figure)
        drawn(boundary_figure(data, along="n_train", x="tau0").figure)
        drawn(seed_band_figure(data, "test_loss", x="tau0", over="n_train").figure)

    @pytest.mark.parametrize(
        ("values", "times"), [*((name, "as usual") for name in ALONE), *(("diverged", name) for name in TIMES)]
    )
    def test_curves(self, values, times):
        shape = (2, 2, 2, 5)
        dims = ("tau0", "flow", "seed", "save")
        curves = xr.Dataset(
            {
                "train_loss": (dims, np.broadcast_to(ROWS[values], shape)),
                "flow_time": (dims, np.broadcast_to(TIMES[times], shape)),
            },
            {"tau0": [0.1, 10.0], "flow": ["descent", "newton"], "seed": [0, 1]},
        )
        drawn(curves_figure(curves, "train_loss", over="tau0").figure)

    def test_long_names_make_files(self, tmp_path):
        data = sweep([0.3, 2.0])
        data = data.assign_coords(n_train=["a/" + "x" * 400, "b\n\0" + "x" * 400])
        written = draw_figures(data, tmp_path, x="tau0", y="flow")
        assert len(set(written)) == len(written)
        assert all(path.is_file() for path in written)


class TestParticles:
    @pytest.mark.parametrize("values", ["diverged", "zeros", "tiny", "both signs"])
    @pytest.mark.parametrize("clock", ["path", "loss", "time"])
    def test_odd_values(self, values, clock):
        rows = np.asarray(ROWS[values])
        with np.errstate(all="ignore"):
            hidden = rows[:, None, None] * np.asarray([[1.0, 2.0], [3.0, -1.0], [0.0, 0.0]])
            hidden = np.where(np.isnan(hidden), rows[:, None, None], hidden)
        curves = xr.Dataset(
            {
                "particle_hidden_weight": (("save", "particle", "coordinate"), hidden),
                "particle_output_weight": (("save", "particle", "output"), np.ones((5, 3, 1))),
                "flow_time": ("save", np.asarray(TIMES["as usual"])),
                "train_loss": ("save", np.asarray([1.0, 0.5, 0.5, 1e-300, 0.1])),
            }
        )
        drawn(particle_stills_figure(particle_motion(curves, 4, clock)).figure)
