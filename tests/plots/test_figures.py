import types

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex
from PIL import Image

from gnflow.plots import directions_figure, eigenvalue_figure, loss_figure, movement_figure, regime_figure, save
from gnflow.regimes import label_regimes

VARIABLES = {
    "train_loss": ("training loss", "1"),
    "test_loss": ("test loss", "1"),
    "ntk_smallest_eigenvalue": ("smallest eigenvalue of the NTK", "outputs^2/weights^2"),
    "ntk_largest_eigenvalue": ("largest eigenvalue of the NTK", "outputs^2/weights^2"),
    "kernel_distance": ("kernel distance to the start", "1"),
    "direction_distance_to_initial": ("direction distance to the initial particles", "1"),
}


def dataset(time, names=tuple(VARIABLES), scale=1.0, **attrs):
    """A run whose every variable falls or grows in a way of its own."""
    time = np.asarray(time, dtype=float)
    rows = {
        "train_loss": scale * np.exp(-time),
        "test_loss": scale * (np.exp(-time) + 0.1),
        "ntk_smallest_eigenvalue": scale * 1e-3 * (1 + time),
        "ntk_largest_eigenvalue": scale * (2 + time),
        "kernel_distance": scale * 0.1 * time,
        "direction_distance_to_initial": scale * 0.2 * time,
    }
    described = {
        name: ("time", rows[name], {"long_name": VARIABLES[name][0], "units": VARIABLES[name][1]}) for name in names
    }
    return xr.Dataset(described, coords={"time": time}, attrs=attrs)


def stepped(num_steps, step_size, units="flow time"):
    data = dataset(np.arange(num_steps + 1) * step_size).rename(time="step")
    flow_time = ("step", data["step"].to_numpy(), {"units": units})
    return data.assign_coords(step=np.arange(num_steps + 1), flow_time=flow_time)


def network(hidden, output):
    return types.SimpleNamespace(hidden_weight=np.asarray(hidden, float), output_weight=np.asarray(output, float))


TIMES = [0.0, 0.5, 1.0, 2.0, 4.0]
GRADIENT, NEWTON = dataset(TIMES), dataset([0.0, 10.0, 20.0], scale=3.0)


def lines(axes):
    return [line for line in axes.get_lines() if len(line.get_xdata()) > 1]


class TestLoss:
    def test_lines_are_the_data_in_both_panels(self):
        upper, lower = loss_figure({"gradient": GRADIENT, "newton": [NEWTON]}).axes
        drawn = lines(upper)
        assert len(drawn) == 4
        for line, (data, name) in zip(
            drawn,
            [(GRADIENT, "train_loss"), (NEWTON, "train_loss"), (GRADIENT, "test_loss"), (NEWTON, "test_loss")],
            strict=True,
        ):
            np.testing.assert_array_equal(line.get_ydata(), data[name])
            # The start has no place on a logarithmic time axis, and leaves a gap there.
            np.testing.assert_array_equal(line.get_xdata(), np.where(data["time"] > 0, data["time"], np.nan))
            assert line.get_linestyle() == ("-" if name == "train_loss" else "--")
        np.testing.assert_array_equal(lines(lower)[1].get_xdata(), [0, 0.5, 1])
        assert (upper.get_xscale(), upper.get_yscale()) == ("log", "log")
        assert (lower.get_xscale(), lower.get_yscale()) == ("linear", "log")

    def test_a_flow_keeps_its_colour_when_another_has_no_run(self):
        alone = loss_figure({"gradient": [], "newton": NEWTON}).axes[0]
        both = loss_figure({"gradient": GRADIENT, "newton": NEWTON}).axes[0]
        assert lines(alone)[0].get_color() == lines(both)[1].get_color() != lines(both)[0].get_color()

    def test_seeds_share_the_look(self):
        drawn = lines(loss_figure({"gradient": [GRADIENT, dataset(TIMES, scale=2.0)]}).axes[0])
        assert len(drawn) == 4
        assert len({line.get_color() for line in drawn}) == 1

    def test_steps_are_drawn_at_their_flow_time(self):
        line = lines(loss_figure({"descent": stepped(3, 10.0)}).axes[0])[0]
        np.testing.assert_array_equal(line.get_xdata(), [np.nan, 10, 20, 30])

    @pytest.mark.parametrize("draw", [loss_figure, eigenvalue_figure, movement_figure])
    def test_the_axis_says_what_the_time_is(self, draw):
        adam, own = stepped(3, 1.0, "steps"), "flow time (in each flow's own unit)"
        runs = {"flow": GRADIENT, "adam": [adam]}
        panel = 0 if draw is loss_figure else -1
        assert draw({"flow": GRADIENT, "newton": stepped(3, 1.0)}).axes[panel].get_xlabel() == own
        assert draw(runs).axes[panel].get_xlabel() == f"{own} or steps"
        assert draw({"adam": adam}).axes[panel].get_xlabel() == "steps"

    def test_a_run_that_stopped_at_the_start(self, tmp_path):
        figure = loss_figure({"gradient": dataset([0.0])})
        assert [len(axes.get_lines()) for axes in figure.axes] == [0, 2]
        save(figure, tmp_path / "loss.png")

    @pytest.mark.parametrize("value", [0.0, np.inf, np.nan])
    def test_values_without_a_place_leave_a_gap(self, value, tmp_path):
        data = dataset(TIMES)
        data["train_loss"][2] = value
        data["test_loss"][1:] = value
        figure = loss_figure({"gradient": data})
        np.testing.assert_array_equal(
            np.isnan(lines(figure.axes[0])[0].get_ydata()), [False, False, True, False, False]
        )
        save(figure, tmp_path / "loss.png")

    def test_without_test_data_only_the_training_loss(self):
        figure = loss_figure({"gradient": dataset(TIMES, ("train_loss",))})
        assert len(lines(figure.axes[0])) == 1
        assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == [
            "gradient",
            "train",
            "",
            "",
            "",
            "",
        ]


class TestMeasured:
    def test_eigenvalues(self):
        axes = eigenvalue_figure({"gradient": GRADIENT}).axes[0]
        largest, smallest = lines(axes)
        np.testing.assert_array_equal(largest.get_ydata(), GRADIENT["ntk_largest_eigenvalue"])
        np.testing.assert_array_equal(smallest.get_ydata(), GRADIENT["ntk_smallest_eigenvalue"])
        assert smallest.get_linestyle() == "--"
        assert "outputs²/weights²" in axes.get_ylabel()

    def test_movement(self):
        first, second = movement_figure({"gradient": GRADIENT}).axes
        np.testing.assert_array_equal(lines(first)[0].get_ydata(), GRADIENT["kernel_distance"])
        np.testing.assert_array_equal(lines(second)[0].get_ydata(), GRADIENT["direction_distance_to_initial"])
        assert " ".join(second.get_ylabel().split()) == "direction distance to the initial particles"

    def test_only_what_was_measured(self):
        data = dataset(TIMES, ("train_loss", "direction_distance_to_initial"))
        assert eigenvalue_figure({"gradient": data}) is None
        assert len(movement_figure({"gradient": data}).axes) == 1
        assert movement_figure({"gradient": dataset(TIMES, ("train_loss",))}) is None


class TestDirections:
    HIDDEN = ((3.0, 0.0, 0.0), (0.0, -0.5, 0.0), (0.0, 0.0, 2.0))
    TEACHER = network([[2.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0]], [[1.0], [1.0], [1.0]])

    def test_points_are_unit_directions_in_the_teachers_plane(self):
        model = network(self.HIDDEN, [[1.0], [-4.0], [0.0]])
        panel = directions_figure({"start": model, "end": model}, self.TEACHER).axes[1]
        (points,) = panel.collections
        # In the order of |v||u|, so that the larger lie above. The teacher's plane is that of the first two axes.
        np.testing.assert_allclose(np.abs(points.get_offsets()), [[0, 0], [0, 1], [1, 0]], atol=1e-12)
        assert [to_hex(colour).upper() for colour in points.get_facecolors()] == ["#999999", "#D55E00", "#0072B2"]
        areas = points.get_sizes()
        np.testing.assert_allclose((areas - areas[0]) / (areas[2] - areas[0]), [0, 2 / 3, 1])

    def test_the_teacher_is_marked(self):
        panel = directions_figure({"end": network(self.HIDDEN, np.ones((3, 1)))}, self.TEACHER).axes[0]
        marks = panel.get_lines()[0]
        np.testing.assert_allclose(np.hypot(*marks.get_data()), [1, 1, 1])
        assert marks.get_marker() == "x"

    def test_without_a_teacher_the_plane_is_that_of_the_heaviest_particles(self):
        panel = directions_figure({"end": network(self.HIDDEN, np.ones((3, 2)))}).axes[0]
        np.testing.assert_allclose(np.hypot(*panel.collections[0].get_offsets().T), [0, 1, 1], atol=1e-12)
        assert "particles" in panel.get_figure().get_supxlabel()

    def test_weights_of_a_diverging_run(self):
        model = network(np.asarray(self.HIDDEN) * 1e200, np.full((3, 1), -1e200))
        figure = directions_figure({"end": model}, self.TEACHER)
        same = directions_figure({"end": network(self.HIDDEN, -np.ones((3, 1)))}, self.TEACHER)
        areas, expected = (f.axes[0].collections[0].get_sizes() for f in (figure, same))
        np.testing.assert_allclose(areas, expected)

    def test_a_start_with_all_outputs_zero(self, tmp_path):
        save(directions_figure({"start": network(self.HIDDEN, np.zeros((3, 1)))}), tmp_path / "d.png")

    @pytest.mark.parametrize(
        "model",
        [
            network([[np.nan, 1.0], [2.0, 1.0]], [[1.0], [1.0]]),
            types.SimpleNamespace(layers=()),
            network([[1.0], [2.0]], [[1.0], [1.0]]),
            network([1.0], [1.0]),
        ],
    )
    def test_models_without_directions_have_no_figure(self, model):
        assert directions_figure({"start": model}) is None


class TestRegimes:
    POSITIONS = {"small": 0.1, "middle": 1.0, "large": 10.0}  # noqa: RUF012

    def ends(self, **scales):
        return {
            "gradient": {name: [dataset(TIMES, scale=scales[name] * seed) for seed in (1, 2, 4)] for name in scales},
            "newton": {name: [dataset(TIMES, scale=scales[name])] for name in scales},
        }

    def test_points_are_the_last_values(self):
        figure = regime_figure(self.ends(small=1.0, middle=0.1, large=0.01), self.POSITIONS, "tau")
        panels = figure.axes
        assert [" ".join(panel.get_ylabel().split()) for panel in panels] == [
            "final test loss",
            "kernel distance to the start",
            "direction distance to the initial particles",
        ]
        last = float(GRADIENT["test_loss"][-1])
        gradient, newton = lines(panels[0])[0], lines(panels[0])[-1]
        np.testing.assert_allclose(gradient.get_ydata(), [2 * last, 0.2 * last, 0.02 * last])
        np.testing.assert_allclose(gradient.get_xdata(), [0.1, 1, 10], rtol=0.1)
        np.testing.assert_allclose(newton.get_ydata(), [last, 0.1 * last, 0.01 * last])
        assert panels[2].get_xscale() == "log"
        assert [tick.get_text() for tick in panels[2].get_xticklabels()] == ["0.1", "1", "10"]
        assert panels[2].get_xlabel() == "tau"

    def test_bars_are_the_range_of_the_seeds(self):
        panel = regime_figure(self.ends(small=1.0, large=0.01), {"small": 0.1, "large": 10.0}).axes[0]
        (bar, *_) = panel.collections[0].get_segments()
        last = float(GRADIENT["test_loss"][-1])
        np.testing.assert_allclose(bar[:, 1], [last, 4 * last])

    # The gradient flow's kernel moves most: by 0.8 times the scale, the median over its seeds.
    @pytest.mark.parametrize(
        ("small", "large"), [(1.0, 0.1), (0.1, 1.0), (1.0, 0.5), (0.2, 0.1), (0.01, 0.1), (1.0, 0.7), (0.5, 0.2)]
    )
    def test_regimes_are_named_by_the_rule_of_label_regimes(self, small, large):
        panel = regime_figure(self.ends(small=small, large=large), {"small": 0.1, "large": 10.0}).axes[0]
        regimes = label_regimes(xr.Dataset({"kernel_distance": ("end", [0.8 * small, 0.8 * large])})).to_numpy()
        expected = [f"{regime} regime" for regime in regimes] if regimes[0] != regimes[1] else []
        assert [text.get_text() for text in panel.texts] == expected

    def test_regimes_are_not_named_without_a_kernel_distance(self):
        ends = {
            "gradient": {
                name: [dataset(TIMES, ("train_loss", "test_loss", "direction_distance_to_initial"))]
                for name in ("small", "large")
            }
        }
        assert len(regime_figure(ends, {"small": 0.1, "large": 10.0}).axes[0].texts) == 0

    def test_a_run_that_did_not_converge_is_hollow(self):
        ends = self.ends(small=1.0, large=0.1)
        ends["newton"]["small"] = [dataset(TIMES, converged=False)]
        figure = regime_figure(ends, {"small": 0.1, "large": 10.0})
        points = [
            line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 1 and line.get_marker() == "s"
        ]
        assert [line.get_markerfacecolor() for line in points] == ["white", points[1].get_color()]
        assert "stop rule not met" in [text.get_text() for text in figure.legends[0].get_texts()]

    def test_variants_without_positions_are_named(self):
        figure = regime_figure({"gradient": {"wide_net": [GRADIENT], "deep_net": [GRADIENT]}})
        assert [tick.get_text() for tick in figure.axes[-1].get_xticklabels()] == ["wide net", "deep net"]

    def test_one_variant_or_a_missing_flow(self, tmp_path):
        assert regime_figure({"gradient": {"base": [GRADIENT]}}) is None
        diverged = dataset(TIMES)
        diverged["test_loss"][-1] = np.inf
        ends = {"gradient": {"a": [], "b": []}, "newton": {"a": [NEWTON], "b": [diverged]}}
        figure = regime_figure(ends)
        assert len(lines(figure.axes[0])) == 0
        assert len([line for line in figure.axes[0].get_lines() if np.isfinite(line.get_ydata()).any()]) == 2
        save(figure, tmp_path / "regimes.png")


def test_figures_fit_a_column_and_leave_no_setting_behind(tmp_path):
    before = dict(matplotlib.rcParams)
    figure = loss_figure({"gradient": GRADIENT})
    assert dict(matplotlib.rcParams) == before
    path = save(figure, tmp_path / "new" / "loss.png")
    with Image.open(path) as image:
        assert image.width == pytest.approx(3.4 * image.info["dpi"][0], abs=1)
    texts = [
        label for axes in figure.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label)
    ]
    assert min(text.get_fontsize() for text in [*texts, *figure.legends[0].get_texts()]) >= 7
