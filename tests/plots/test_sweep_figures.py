"""Figures of sweeps, compared by what they draw: arrays, hatched cells, boundaries, scales, labels, and the CSV beside them."""

import csv

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle
from oracles.sweep_data import FLOWS, SIZES, TAU0, fail, grid_dataset, lose
from PIL import Image

from gnflow import ConfigError
from gnflow.plots import (
    boundary_figure,
    curves_figure,
    draw_figures,
    heat_map_figure,
    regime_map_figure,
    seed_band_figure,
)
from gnflow.regimes import boundary, order_parameters, summarise_seeds


@pytest.fixture(scope="module")
def complete():
    return order_parameters(grid_dataset())


@pytest.fixture(scope="module")
def holed(complete):
    data = fail(complete, tau0=0.01, n_train=100, flow="gauss_newton")
    data = fail(data, tau0=100.0, n_train=500, flow="gradient_flow", seed=1)
    return lose(data, tau0=5.0, n_train=1000, flow="random_features")


@pytest.fixture(scope="module")
def one_size(holed):
    return holed.sel(n_train=500, drop=True)


def panels(figure):
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>" and axes.axison]


def mesh(axes):
    return next(thing for thing in axes.collections if isinstance(thing, QuadMesh))


def hatched(axes):
    """The centre of each hatched rectangle (in the coordinates of the edges), with its hatch and whether it is opaque."""
    found = []
    for patch in axes.patches:
        if isinstance(patch, Rectangle) and patch.get_hatch():
            found.append((*patch.get_xy(), patch.get_hatch(), patch.get_facecolor()[3] > 0))
    return found


def legend_texts(figure):
    return (
        [text.get_text() for text in figure.legends[0].get_texts() if text.get_text().strip()] if figure.legends else []
    )


def named(axes, name):
    return [line for line in axes.get_lines() if line.get_label() == "_" + name]


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestHeatMap:
    def test_colours_are_the_medians_at_their_cells(self, complete):
        drawn = heat_map_figure(complete, "test_loss", x="tau0", y="n_train", over="flow")
        expected = complete["test_loss"].median("seed")
        for axes, flow in zip(panels(drawn.figure), FLOWS, strict=True):
            np.testing.assert_allclose(mesh(axes).get_array(), expected.sel(flow=flow).transpose("n_train", "tau0"))
            assert axes.get_title() == flow.replace("_", " ")

    def test_cells_surround_their_values_on_their_own_scale(self, complete):
        axes = panels(heat_map_figure(complete, "test_loss", x="tau0", y="n_train", over="flow").figure)[0]
        corners = mesh(axes).get_coordinates()
        horizontal, vertical = corners[0, :, 0], corners[:, 0, 1]
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
        np.testing.assert_allclose(horizontal[1:-1], np.sqrt(np.multiply(TAU0[1:], TAU0[:-1])))
        np.testing.assert_allclose(vertical, [-100, 300, 750, 1250])
        np.testing.assert_allclose(axes.get_xlim(), horizontal[[0, -1]])
        assert axes.get_xticks().tolist() == list(TAU0)

    def test_all_panels_share_one_scale(self, complete):
        figure = heat_map_figure(complete, "test_loss", x="tau0", y="n_train", over="flow").figure
        norms = [mesh(axes).norm for axes in panels(figure)]
        medians = complete["test_loss"].median("seed")
        assert {(norm.vmin, norm.vmax) for norm in norms} == {(float(medians.min()), float(medians.max()))}
        assert all(isinstance(norm, LogNorm) for norm in norms)

    def test_a_ratio_has_one_in_the_middle(self, complete):
        figure = heat_map_figure(complete, "test_loss_ratio", x="tau0", y="n_train", over="flow").figure
        norm, colours = mesh(panels(figure)[0]).norm, mesh(panels(figure)[0]).cmap
        assert norm(1.0) == pytest.approx(0.5)
        assert norm.vmax == pytest.approx(float(complete["test_loss_ratio"].median("seed").max()))
        assert colours.name == "RdBu_r"

    def test_the_axis_and_the_cells_are_sorted_together(self, complete):
        shuffled = complete.isel(tau0=[3, 0, 6, 1, 5, 2, 4], n_train=[2, 0, 1])
        first, second = (
            mesh(panels(heat_map_figure(data, "test_loss", x="tau0", y="n_train", over="flow").figure)[1])
            for data in (complete, shuffled)
        )
        np.testing.assert_array_equal(first.get_array(), second.get_array())
        np.testing.assert_array_equal(first.get_coordinates(), second.get_coordinates())

    def test_zeros_and_rounding_are_drawn_at_the_foot_of_the_scale(self, complete):
        data = complete.copy(deep=True)
        data["kernel_distance"].loc[{"flow": "random_features"}] = 1e-33
        for shown in (complete, data):
            figure = heat_map_figure(shown, "kernel_distance", x="tau0", y="n_train", over="flow").figure
            colours = mesh(panels(figure)[2])
            assert not np.ma.getmaskarray(colours.get_array()).any()
            assert np.all(colours.get_array() == colours.norm.vmin)
            assert colours.norm.vmin > 1e-6
            assert colours.colorbar is None or colours.colorbar.extend == "min"

    def test_cells_without_a_value_are_hatched_by_their_reason(self, holed):
        drawn = heat_map_figure(holed, "test_loss", x="tau0", y="n_train", over="flow")
        descent, newton, features = (hatched(axes) for axes in panels(drawn.figure))
        ((x, y, hatch, opaque),) = newton
        assert (x < 0.01, y < 100, "/" in hatch, opaque) == (True, True, True, True)
        ((x, y, hatch, opaque),) = features
        assert (1 < x < 5, 500 < y < 1000, "." in hatch, opaque) == (True, True, True, True)
        # Two of its three seeds have a value, and their median keeps its colour under the hatches.
        ((x, y, hatch, opaque),) = descent
        assert (10 < x < 100, 100 < y < 500, "/" in hatch, opaque) == (True, True, True, False)
        masked = np.ma.getmaskarray(mesh(panels(drawn.figure)[0]).get_array())
        assert not masked.any()
        assert {"failed", "some seeds failed", "not computed"} <= set(legend_texts(drawn.figure))
        state = drawn.tables[""]["state"]
        assert state.sel(tau0=0.01, n_train=100, flow="gauss_newton") == "failed"

    def test_no_cell_is_blank(self, holed):
        figure = heat_map_figure(holed, "test_loss", x="tau0", y="n_train", over="flow").figure
        for axes in panels(figure):
            blank = np.count_nonzero(np.ma.getmaskarray(mesh(axes).get_array()))
            assert blank == sum(opaque for *_, opaque in hatched(axes))

    def test_a_target_that_was_not_reached(self, complete):
        data = complete.isel(target=-1, drop=True)
        figure = heat_map_figure(data, "time_to_target", x="tau0", y="n_train", over="flow").figure
        assert len(hatched(panels(figure)[0])) == len(TAU0) * len(SIZES)
        assert "not reached" in legend_texts(figure)

    def test_what_would_be_hidden_is_refused(self, complete):
        with pytest.raises(ConfigError, match=r"also varies along \{'flow': 3\}"):
            heat_map_figure(complete, "test_loss", x="tau0", y="n_train")
        with pytest.raises(ConfigError, match="twice"):
            heat_map_figure(complete, "test_loss", x="tau0", y="tau0", over="flow")
        with pytest.raises(ConfigError, match="did you mean 'test_loss'"):
            heat_map_figure(complete, "test_los", x="tau0", y="n_train", over="flow")
        with pytest.raises(ConfigError, match="seeds are summarised"):
            heat_map_figure(complete, "test_loss", x="tau0", y="seed", over="flow")


class TestBoundaryOnAMap:
    def test_contours_pass_through_the_crossings_of_each_row(self, complete):
        """Contours of the grid cross its rows where `boundary` says, for the median and for each seed."""
        drawn = heat_map_figure(complete, "test_loss", x="tau0", y="n_train", over="flow")
        vertices = drawn.tables["boundary"]
        for threshold in (0.1, 0.5):
            found = boundary(complete, threshold=threshold, along="tau0")
            for flow in ("gradient_flow", "gauss_newton"):
                for size in SIZES:
                    own = found.sel(flow=flow, n_train=size)
                    for name, position in [("0", own["position"][0]), ("2", own["position"][2])]:
                        at = (
                            (vertices["flow"] == flow) & (vertices["threshold"] == threshold) & (vertices["of"] == name)
                        )
                        row = vertices["x"].to_numpy()[(at & np.isclose(vertices["y"], size)).to_numpy()]
                        np.testing.assert_allclose(row, [position], rtol=1e-9)

    def test_the_lines_drawn_are_the_table(self, complete):
        drawn = heat_map_figure(complete, "test_loss", x="tau0", y="n_train", over="flow")
        axes = panels(drawn.figure)[0]
        table = drawn.tables["boundary"]
        for name, width in (("median", 1.3), ("1", 0.5)):
            lines = named(axes, name)
            assert [line.get_linewidth() for line in lines] == [width] * 2
            own = table.isel(vertex=((table["flow"] == "gradient_flow") & (table["of"] == name)).to_numpy())
            np.testing.assert_array_equal(np.concatenate([line.get_xdata() for line in lines]), own["x"])
        assert len({line.get_linestyle() for line in named(axes, "median")}) == 2
        assert named(panels(drawn.figure)[2], "median") == []
        assert set(legend_texts(drawn.figure)) == {"kernel distance = 0.1", "kernel distance = 0.5", "each seed"}

    def test_rows_of_names_have_uprights(self, one_size):
        drawn = heat_map_figure(one_size, "test_loss", x="tau0", y="flow")
        (axes,) = panels(drawn.figure)
        found = boundary(one_size, threshold=0.1, along="tau0")
        upright = named(axes, "median")[0]
        np.testing.assert_allclose(upright.get_xdata(), [found["median"].sel(flow="gradient_flow")] * 2)
        np.testing.assert_allclose(sorted(upright.get_ydata()), [-0.5, 0.5])
        bar = named(axes, "range")[0]
        own = found.sel(flow="gradient_flow")
        np.testing.assert_allclose(bar.get_xdata(), [own["lower"], own["upper"]])
        assert [tick.get_text() for tick in axes.get_yticklabels()] == [flow.replace("_", " ") for flow in FLOWS]
        assert axes.get_ylim() == (2.5, -0.5)  # the first flow on top

    def test_without_the_movement_there_is_no_boundary(self, complete):
        drawn = heat_map_figure(complete.drop_vars("kernel_distance"), "test_loss", x="tau0", y="n_train", over="flow")
        assert set(drawn.tables) == {""}
        assert legend_texts(drawn.figure) == []


class TestRegimeMap:
    def test_a_cell_is_divided_as_its_seeds_are(self, holed):
        drawn = regime_map_figure(holed, x="tau0", y="n_train", over="flow")
        counts = drawn.tables[""]["num_seeds"]
        assert np.all(counts.sum("regime") == 3)
        axes = panels(drawn.figure)[0]
        left, right = np.sqrt([0.1 * 0.5, 0.5 * 1.0])
        own = counts.sel(tau0=0.5, n_train=100, flow="gradient_flow")
        assert own.sel(regime="intermediate") > 0  # the seeds disagree here, or the test would show nothing
        assert own.sel(regime="feature learning") > 0
        widths = {
            patch.get_label(): np.log((patch.get_x() + patch.get_width()) / patch.get_x())
            for patch in axes.patches
            if left * 0.99 < patch.get_x() < right * 0.99 and patch.get_y() < 0
        }
        for name in ("intermediate", "feature learning"):
            assert widths[name] / np.log(right / left) == pytest.approx(float(own.sel(regime=name)) / 3)

    def test_thresholds_and_holes_are_in_the_legend(self, holed):
        texts = legend_texts(regime_map_figure(holed, x="tau0", y="n_train", over="flow", kernel=0.2).figure)
        assert "kernel (≤ 0.2)" in texts
        assert {"failed", "not computed", "regime by kernel distance:"} <= set(texts)


class TestSeedBands:
    def test_lines_are_medians_and_bands_the_range(self, complete):
        data = complete.sel(n_train=500, drop=True)
        drawn = seed_band_figure(data, ["test_loss", "kernel_distance"], x="tau0")
        upper = panels(drawn.figure)[0]
        values = data["test_loss"].sel(flow="gradient_flow")
        line = upper.get_lines()[0]
        np.testing.assert_array_equal(line.get_xdata(), TAU0)
        np.testing.assert_allclose(line.get_ydata(), values.median("seed"))
        band = upper.collections[0].get_paths()[0].vertices
        for index, tau0 in enumerate(TAU0):
            at = band[np.isclose(band[:, 0], tau0), 1]
            assert (at.min(), at.max()) == (values[index].min(), values[index].max())
        assert (upper.get_xscale(), upper.get_yscale()) == ("log", "log")
        assert "range of 3 seeds" in legend_texts(drawn.figure)
        assert set(drawn.tables) == {"test_loss", "kernel_distance"}

    def test_points_without_a_value_are_marked_at_the_foot(self, holed):
        drawn = seed_band_figure(holed, "test_loss", x="tau0", over="n_train")
        by_title = {axes.get_title(): axes for axes in panels(drawn.figure)}
        for heading, marker, position in (("$N$ = 100", "x", 0.01), ("$N$ = 1000", "|", 5.0)):
            marks = [line for line in by_title[heading].get_lines() if line.get_marker() == marker]
            assert [line.get_xdata()[0] for line in marks] == [position]
        assert {"failed", "not computed", "some seeds failed"} <= set(legend_texts(drawn.figure))
        hollow = [line for line in by_title["$N$ = 500"].get_lines() if line.get_markerfacecolor() == "white"]
        assert [x for line in hollow for x in line.get_xdata()] == [100.0]
        whole = [line for line in by_title["$N$ = 100"].get_lines() if line.get_linestyle() == "-"]
        assert np.isnan(whole[1].get_ydata()).tolist() == [True] + [False] * 6

    def test_the_legend_says_why_seeds_are_left_out(self, complete):
        data = complete.sel(n_train=500, drop=True)
        some = {"tau0": 1.0, "seed": 1}
        data["result"] = xr.full_like(data["test_loss"], "t1_reached", dtype=object)
        data["result"].loc[some] = "missing"
        assert "some seeds not computed" in legend_texts(seed_band_figure(data, "test_loss", x="tau0").figure)
        data["failed"] = xr.zeros_like(data["test_loss"], dtype=bool)
        data["failed"].loc[{**some, "seed": 2}] = True
        texts = legend_texts(seed_band_figure(data, "test_loss", x="tau0").figure)
        assert "some seeds failed or not computed" in texts

    def test_a_ratio_without_a_value_may_be_the_reference_s_fault(self, complete):
        data = complete.sel(n_train=500, drop=True)
        data["failed"] = xr.zeros_like(data["test_loss"], dtype=bool)
        data["failed"].loc[{"tau0": 1.0, "flow": "gradient_flow"}] = True
        data["test_loss"] = data["test_loss"].where(~data["failed"])
        ratios = order_parameters(data, "gradient_flow")
        meaning = "no value (here or in the reference)"
        assert meaning in legend_texts(seed_band_figure(ratios, "test_loss_ratio", x="tau0").figure)
        assert meaning in legend_texts(heat_map_figure(ratios, "test_loss_ratio", x="tau0", y="flow").figure)

    def test_zeros_are_marked_as_below_the_axis(self, one_size):
        drawn = seed_band_figure(one_size, "kernel_distance", x="tau0")
        marks = [line for line in panels(drawn.figure)[0].get_lines() if line.get_marker() == "v"]
        assert len(marks) == len(TAU0)
        assert "below the axis" in legend_texts(drawn.figure)

    def test_panels_share_their_scale(self, complete):
        figure = seed_band_figure(complete, "test_loss", x="tau0", over="n_train").figure
        assert len({axes.get_ylim() for axes in panels(figure)}) == 1

    def test_a_narrower_interval(self, complete):
        data = grid_dataset(sizes=None, seeds=tuple(range(11)))
        found = seed_band_figure(data, "test_loss", x="tau0", interval=0.8).tables[""]
        assert found["lower"].identical(summarise_seeds(data, "test_loss", 0.8)["lower"].transpose("flow", "tau0"))


class TestBoundaryFigure:
    def test_points_bars_and_arrows(self, complete):
        drawn = boundary_figure(complete, along="tau0", x="n_train")
        (axes,) = panels(drawn.figure)
        found = boundary(complete, threshold=0.1, along="tau0")
        line = axes.get_lines()[0]
        np.testing.assert_allclose(line.get_ydata(), found["median"].sel(flow="gradient_flow"))
        np.testing.assert_allclose(line.get_xdata(), SIZES, atol=0.02 * 900)
        segments = axes.collections[0].get_segments()
        np.testing.assert_allclose([segment[0][1] for segment in segments], found["lower"].sel(flow="gradient_flow"))
        arrows = [mark for mark in axes.get_lines() if mark.get_marker() == "v"]
        assert len(arrows) == 2 * len(SIZES)  # random features: below the range, at both thresholds
        assert axes.get_yscale() == "log"

    def test_a_hidden_axis_is_refused(self, complete):
        data = complete.expand_dims(width=[1, 2])
        with pytest.raises(ConfigError, match="also varies along"):
            boundary_figure(data, along="tau0", x="n_train")

    def test_more_thresholds_than_can_be_told_apart_are_refused(self, complete):
        with pytest.raises(ConfigError, match="at most 4"):
            boundary_figure(complete, along="tau0", x="n_train", thresholds=[0.1, 0.2, 0.3, 0.4, 0.5])


def decay(num_saves=(20, 20, 14)):
    """Losses rate exp(-rate t) / rate of two flows and three seeds; the last seed ends earlier."""
    shape = (2, 3, max(num_saves))
    time, loss = np.full(shape, np.nan), np.full(shape, np.nan)
    for flow, seed in np.ndindex(2, 3):
        own = np.concatenate([[0.0], np.geomspace(0.01, 10, 19)])[: num_saves[seed]]
        time[flow, seed, : own.size] = own
        loss[flow, seed, : own.size] = (1 + seed) * np.exp(-(1 + flow) * own)
    dims = ("flow", "seed", "save")
    return xr.Dataset(
        {
            "train_loss": (dims, loss, {"long_name": "training loss", "units": "1"}),
            "flow_time": (dims, time, {"units": "flow time"}),
        },
        coords={"flow": ["slow", "fast"], "seed": [0, 1, 2]},
    )


class TestCurves:
    def test_each_seed_the_median_and_the_band(self):
        data = decay()
        drawn = curves_figure(data, "train_loss")
        (axes,) = panels(drawn.figure)
        lines = axes.get_lines()
        np.testing.assert_array_equal(lines[0].get_ydata(), data["train_loss"][0, 0, 1:])
        median = drawn.tables["median"].sel(flow="slow")
        # Logarithms of the losses are interpolated in log t; at saved times nothing is, and seed 1 is the median.
        np.testing.assert_allclose(lines[3].get_ydata(), median["median"])
        np.testing.assert_allclose(median["median"][[0, -1]], 2 * np.exp(-median["time"][[0, -1]]), rtol=1e-9)
        np.testing.assert_allclose(median["upper"][0], 3 * np.exp(-0.01), rtol=1e-9)
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")

    def test_the_band_ends_where_the_first_seed_ends(self):
        data = decay()
        median = curves_figure(data, "train_loss").tables["median"]
        assert float(median["time"].max()) == float(data["flow_time"].sel(seed=2).max())

    def test_a_flow_whose_runs_are_missing(self):
        data = decay()
        data["train_loss"][1] = np.nan
        drawn = curves_figure(data, "train_loss")
        assert np.isnan(drawn.tables["median"]["median"].sel(flow="fast")).all()


class TestAllFigures:
    def test_names_and_data_beside_every_figure(self, holed, tmp_path):
        data = holed.drop_vars(["hidden_learning_gain", "test_loss_ratio"])
        written = draw_figures(data, tmp_path / "figures", variables=["test_loss", "test_loss_ratio"])
        names = sorted(path.name for path in written)
        assert names == sorted(path.name for path in (tmp_path / "figures").iterdir())
        assert [name for name in names if name.endswith(".png")] == [
            "boundary.png",
            "lines.png",
            "map-test_loss.png",
            "map-test_loss_ratio.png",
            "regimes.png",
        ]
        rows = rows_of(tmp_path / "figures" / "map-test_loss.csv")
        assert len(rows) == len(TAU0) * len(SIZES) * len(FLOWS)
        expected = summarise_seeds(holed, "test_loss")
        for row in rows:
            where = {"tau0": float(row["tau0"]), "n_train": int(row["n_train"]), "flow": row["flow"]}
            cell = expected.sel(where)
            assert row["state"] == cell["state"].item()
            np.testing.assert_array_equal(float(row["median"]), cell["median"])  # to the last digit
            assert int(row["num_failed"]) == cell["num_failed"]
        for name in ("map-test_loss-boundary.csv", "regimes.csv", "lines-test_loss.csv", "boundary-seeds.csv"):
            assert rows_of(tmp_path / "figures" / name)
        with Image.open(tmp_path / "figures" / "map-test_loss.png") as image:
            assert image.width == pytest.approx(3.4 * image.info["dpi"][0], abs=1)

    def test_an_axis_that_is_not_shown_gives_a_figure_for_each_value(self, complete, tmp_path):
        data = complete.sel(n_train=[100, 500])
        written = draw_figures(data, tmp_path, x="tau0", y="flow", variables=["test_loss"])
        maps = sorted(path.name for path in written if path.name.startswith("map") and path.suffix == ".png")
        assert maps == ["map-test_loss-n_train=100.png", "map-test_loss-n_train=500.png"]
        rows = rows_of(tmp_path / "map-test_loss-n_train=100.csv")
        assert float(rows[0]["median"]) == float(data["test_loss"].isel(tau0=0, n_train=0, flow=0).median())

    def test_one_axis_is_drawn_against_the_flows(self, one_size, tmp_path):
        names = {path.name for path in draw_figures(one_size, tmp_path, variables=["test_loss"])}
        assert {"map-test_loss.png", "regimes.png", "lines.png"} <= names
        assert {row["flow"] for row in rows_of(tmp_path / "map-test_loss.csv")} == set(FLOWS)

    def test_one_flow_has_a_boundary_too(self, complete, tmp_path):
        one = complete.sel(flow=["gauss_newton"], n_train=[100, 500])
        names = {path.name for path in draw_figures(one, tmp_path, variables=["kernel_distance"])}
        assert {"map-kernel_distance.png", "boundary.png", "boundary.csv"} <= names
        found = boundary(one, threshold=0.1, along="tau0")["median"].squeeze("flow")
        rows = [row for row in rows_of(tmp_path / "boundary.csv") if float(row["threshold"]) == 0.1]
        assert [float(row["median"]) for row in rows] == found.to_numpy().tolist()

    def test_the_time_to_the_smallest_target_that_half_of_the_runs_reached(self, one_size, tmp_path):
        draw_figures(one_size, tmp_path, variables=["time_to_target"])
        rows = rows_of(tmp_path / "map-time_to_target.csv")
        assert {float(row["median"]) for row in rows} == {10.0 * (1 + index) for index in range(7)}

    def test_few_variables_and_curves(self, one_size, tmp_path):
        few = one_size[["test_loss"]].sel(flow=["gradient_flow", "gauss_newton"], tau0=[0.1, 1.0])
        curves = decay().assign_coords(flow=["gradient_flow", "gauss_newton"]).expand_dims(tau0=[0.1, 1.0])
        names = {path.name for path in draw_figures(few, tmp_path, curves=curves)}
        assert {"map-test_loss.png", "map-test_loss_ratio.png", "lines.png", "curves-train_loss.png"} <= names
        assert "regimes.png" not in names
        rows = rows_of(tmp_path / "curves-train_loss.csv")
        assert len(rows) == 2 * 2 * 3 * 20

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"x": "tau"}, "did you mean 'tau0'"),
            ({"x": "tau0", "y": "tau0"}, "must differ"),
            ({"variables": ["loss"]}, "unknown variable"),
            ({"reference": "newton"}, "flow of reference"),
        ],
    )
    def test_bad_names_are_refused_before_anything_is_drawn(self, complete, options, message, tmp_path):
        with pytest.raises(ConfigError, match=message):
            draw_figures(complete, tmp_path / "figures", **options)
        assert not (tmp_path / "figures").exists()
