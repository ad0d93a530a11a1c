"""The limit of infinite width of a sweep: the estimator on samples whose limit is known, and what it takes and refuses."""

import importlib
import json
import re
import shutil

import numpy as np
import pytest
import xarray as xr

import gnflow as gn
from gnflow.cli import main
from gnflow.theory import infinite_width
from gnflow.theory._width_fit import fit_widths

WIDTHS = np.array([50.0, 100.0, 200.0, 400.0])
TABLE = {
    "name": "widths",
    "problem_seed": 0,
    "model_seeds": [0, 1, 2, 3],
    "problem": {"kind": "teacher_student", "n_train": 4, "n_test": 3, "input_dim": 2},
    "model": {"kind": "mean_field"},
    "flows": {
        "descent": {"kind": "gradient"},
        "newton": {"kind": "gauss_newton", "damping": {"kind": "constant", "value": 1.0}},
    },
    "integration": {"method": "iterate", "step_size": 0.5, "num_steps": 4},
    "axes": {"width": {"values": {"model.width": [4, 8, 16], "flows.newton.damping.value": [4e-2, 2e-2, 1e-2]}}},
}


def samples(seeds, points, *, nested, curvature=0.0, widths=WIDTHS, number=3):
    """L = 1, beta = 5, with fluctuations M^(-1/2) and a second order as they are in theory; (S, k, n)."""
    rng = np.random.default_rng(number)
    added = np.diff([0.0, *widths])
    shape = (seeds, len(widths), points)
    if nested:  # networks of one seed share their particles
        noise = np.cumsum(rng.normal(size=shape) * np.sqrt(added)[:, None], axis=1) / widths[:, None]
    else:
        noise = rng.normal(size=shape) / np.sqrt(widths)[:, None]
    second = 2 * (rng.normal(size=shape) ** 2 - 1) / widths[:, None]
    return 1.0 + (5.0 / widths + curvature / widths**2)[:, None] + noise + second


def curves_of(values, times, widths=WIDTHS):
    """The data set that holds samples (S, k, n)."""
    dims = ("seed", "width", "save")
    saved = np.broadcast_to(times, values.shape).copy()
    coords = {"width": widths, "seed": np.arange(len(values))}
    return xr.Dataset({"train_loss": (dims, values), "flow_time": (dims, saved)}, coords=coords)


class TestEstimator:
    @pytest.mark.parametrize("nested", [False, True])
    @pytest.mark.parametrize("seeds", [3, 12])
    def test_the_interval_covers_the_limit_as_often_as_it_says(self, seeds, nested):
        fit = fit_widths(WIDTHS, samples(seeds, 1500, nested=nested), 0.9)
        covered = np.mean(np.abs(fit.limit - 1) <= fit.quantile * fit.limit_error)
        assert covered == pytest.approx(0.9, abs=0.025)  # three standard errors of 1500 trials
        slopes = np.mean(np.abs(fit.slope - 5) <= fit.quantile * fit.slope_error)
        assert slopes == pytest.approx(0.9, abs=0.025)
        assert np.mean(fit.limit) == pytest.approx(1, abs=4 * np.std(fit.limit) / np.sqrt(1500))

    @pytest.mark.parametrize("seeds", [3, 12])
    def test_a_law_that_holds_is_denied_as_seldom_as_it_should_be(self, seeds):
        fit = fit_widths(WIDTHS, samples(seeds, 1500, nested=True), 0.9)
        assert np.mean(fit.p_value < 0.1) == pytest.approx(0.1, abs=0.025)

    def test_another_law_is_denied(self):
        fit = fit_widths(WIDTHS, samples(12, 200, nested=True, curvature=3000.0), 0.9)
        assert np.mean(fit.p_value < 1e-3) > 0.95

    def test_the_fit_is_weighted_least_squares_of_each_seed(self):
        values = samples(5, 1, nested=True)
        fit = fit_widths(WIDTHS, values, 0.95)
        variances = np.var(values[:, :, 0], axis=0, ddof=1)
        weights = (4 + 20) / (4 * variances + 20 * np.mean(variances * WIDTHS) / WIDTHS)
        design = np.stack([np.ones(4), 1 / WIDTHS], axis=1) * np.sqrt(weights)[:, None]
        of_seeds = np.linalg.lstsq(design, (values[:, :, 0] * np.sqrt(weights)).T)[0]
        np.testing.assert_allclose([fit.limit[0], fit.slope[0]], of_seeds.mean(axis=1), rtol=1e-10)
        expected = of_seeds.std(axis=1, ddof=1) / np.sqrt(5)
        np.testing.assert_allclose([fit.limit_error[0], fit.slope_error[0]], expected, rtol=1e-10)
        np.testing.assert_allclose(fit.means[:, 0], values[:, :, 0].mean(axis=0), rtol=1e-14)

    def test_without_spread_the_line_is_exact_and_nothing_is_tested(self):
        values = np.broadcast_to((2.0 + 3.0 / WIDTHS)[:, None], (3, 4, 1))
        fit = fit_widths(WIDTHS, values, 0.95)
        np.testing.assert_allclose([fit.limit[0], fit.slope[0]], [2.0, 3.0], rtol=1e-9)
        assert np.isnan(fit.p_value[0])
        assert fit.limit_error[0] == pytest.approx(0, abs=1e-12)


class TestVerdict:
    def test_it_says_yes(self):
        found = infinite_width(curves_of(samples(10, 5, nested=True), np.arange(5.0)), axis="width")
        assert found.is_seen == {"": True}
        assert "agrees with all widths (p = " in str(found)

    def test_it_says_no_and_which_widths_to_leave_out(self):
        widths = np.array([5.0, 50.0, 100.0, 200.0, 400.0])
        values = samples(16, 3, nested=True, widths=widths)
        values[:, 0] += 4.0  # so narrow a network is not near the law
        found = infinite_width(curves_of(values, np.arange(3.0), widths), axis="width")
        assert found.is_seen == {"": False}
        text = " ".join(str(found).split())
        assert re.search(
            r"NOT SEEN on these widths \(p = \S+ over all times.*the 1 smallest it is, least_width = 50", text
        )
        without = infinite_width(curves_of(values, np.arange(3.0), widths), axis="width", least_width=50)
        assert without.is_seen == {"": True}
        assert without.data["width"].to_numpy().tolist() == [50, 100, 200, 400]
        assert np.all((without.data.lower < 1) & (without.data.upper > 1))
        assert not np.any((found.data.lower < 1) & (found.data.upper > 1))

    def test_a_law_that_holds_is_seldom_denied_over_many_times(self):
        # Times are dependent: 20 curves of 6 times that are nearly one, and 6 that are independent.
        denied = []
        for number in range(100):
            independent = samples(6, 6, nested=True, number=number)
            together = independent[:, :, :1] + 1e-3 * (independent - 1)
            for values in (independent, together):
                found = infinite_width(curves_of(values, np.arange(6.0)), axis="width")
                denied.append(not found.is_seen[""])
        assert np.mean(denied) <= 0.035  # 1%, with three standard errors of 200

    def test_two_widths_assume_the_law(self):
        found = infinite_width(curves_of(samples(6, 2, nested=True)[:, :2], np.arange(2.0), WIDTHS[:2]), axis="width")
        assert found.is_seen == {"": None}
        assert "a third width would test it" in str(found)


class TestTimes:
    def runs(self):
        """Runs that were saved at times of their own: L(t) = exp(-t) (1 + 1/M) times a factor of the seed."""
        values, times = np.zeros((3, 4, 40)), np.zeros((3, 4, 40))
        for seed, width in np.ndindex(3, 4):
            times[seed, width, 1:] = np.geomspace(0.01, 4.0 + 0.1 * width, 39) * (1 + 0.01 * seed)
            factor = (1 + (seed - 1) / WIDTHS[width]) * (1 + 1 / WIDTHS[width])
            values[seed, width] = np.exp(-times[seed, width]) * factor
        curves = curves_of(values, np.arange(40.0))
        return curves.assign(flow_time=(curves.train_loss.dims, times))

    def test_between_saved_times_curves_are_interpolated(self):
        found = infinite_width(self.runs(), axis="width", times=[0.5, 1.0, 3.0])
        np.testing.assert_allclose(found.data.limit, np.exp(-found.data.time), rtol=2e-4)
        assert "interpolated between saved times" in str(found)

    def test_without_common_times_they_are_asked_for(self):
        found = infinite_width(self.runs(), axis="width")
        assert found.data.time.to_numpy().tolist() == [0.0]
        with pytest.raises(gn.ConfigError, match=r"no time in common among \[100\.0\]; state t1 and saveat"):
            infinite_width(self.runs(), axis="width", times=[100.0])

    def test_times_that_were_saved_are_taken_as_they_are(self):
        curves = curves_of(samples(4, 6, nested=True), np.arange(6.0))
        every, some = infinite_width(curves, axis="width"), infinite_width(curves, axis="width", times=[2.0, 5.0])
        np.testing.assert_array_equal(some.data.limit, every.data.limit.sel(time=[2.0, 5.0]))
        assert "interpolated" not in str(some)

    def test_seeds_without_all_runs_are_left_out(self):
        values = samples(6, 3, nested=True)
        curves = curves_of(values, np.arange(3.0))
        missing = curves.where((curves.seed != 2) | (curves.width != 100))
        found = infinite_width(missing, axis="width")
        kept = infinite_width(curves.sel(seed=[0, 1, 3, 4, 5]), axis="width")
        np.testing.assert_array_equal(found.data.limit, kept.data.limit)
        assert "5 seeds; 1 seeds left out" in str(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("widths") / "out"
    gn.sweep(TABLE, place, engine="serial")
    return place


@pytest.fixture(scope="module")
def curves(folder):
    return gn.sweeps.load_curves(folder, ["train_loss", "test_loss"])


def changed(curves, **sections):
    """The same curves as if the sweep had had other sections."""
    return curves.assign_attrs(configuration=json.dumps({**TABLE, **sections}))


class TestSweeps:
    def test_folder_data_set_and_curves_give_the_same(self, folder, curves):
        found = infinite_width(curves)
        for sweep in (folder, gn.load(folder), str(folder)):
            xr.testing.assert_equal(infinite_width(sweep).data, found.data)
        assert found.data["flow"].to_numpy().tolist() == ["descent", "newton"]
        np.testing.assert_allclose(found.data["time"], [0, 0.5, 1.0, 1.5, 2.0])
        for flow in ("descent", "newton"):
            values = curves.train_loss.sel(flow=flow).transpose("seed", "width", "save").to_numpy()
            fit = fit_widths(np.array([4.0, 8.0, 16.0]), values, 0.95)
            np.testing.assert_array_equal(found.data.limit.sel(flow=flow), fit.limit)
            np.testing.assert_array_equal(found.data.upper.sel(flow=flow), fit.limit + fit.quantile * fit.limit_error)
            np.testing.assert_allclose(found.data["mean"].sel(flow=flow), fit.means, rtol=1e-14)

    def test_a_part_of_a_data_set_is_a_part_of_the_curves(self, folder, curves):
        part = infinite_width(gn.load(folder).sel(flow="newton", width=[4, 16]), "test_loss")
        expected = infinite_width(curves.sel(width=[4, 16]), "test_loss", flow="newton")
        xr.testing.assert_equal(part.data, expected.data)
        assert part.data["width"].to_numpy().tolist() == [4, 16]

    def test_the_text_fits_and_names_everything(self, curves):
        text = str(infinite_width(curves))
        assert max(map(len, text.splitlines())) <= 80
        for words in (
            "descent",
            "newton",
            "widths 4, 8, 16; 4 seeds",
            "speed of the outputs at the start",
            "damping relative",
        ):
            assert words in " ".join(text.split())

    def test_the_figure_shows_the_limit(self, curves):
        found = infinite_width(curves)
        upper, lower = found.plot(flow="descent").axes
        limit = upper.get_lines()[-1]
        np.testing.assert_allclose(limit.get_ydata()[1:], found.data.limit.sel(flow="descent")[1:])
        assert [text.get_text() for text in lower.get_legend().get_texts()] == ["t = 0.5", "t = 1", "t = 1.5", "t = 2"]
        with pytest.raises(gn.ConfigError, match=r"over flow too; draw one case, such as \.plot\(flow='descent'\)"):
            found.plot()

    def test_problems_of_the_seeds_are_told(self, curves):
        seeds = {key: entry for key, entry in TABLE.items() if key not in ("problem_seed", "model_seeds")}
        other = curves.assign_attrs(configuration=json.dumps({**seeds, "seeds": [0, 1, 2, 3]}))
        assert "each seed drew its own" in " ".join(str(infinite_width(other)).split())
        assert "each seed drew its own" not in str(infinite_width(curves))


class TestRefusals:
    def test_damping_that_outgrows_the_gram_matrix(self, curves):
        axes = {"width": {"path": "model.width", "values": [4, 8, 16]}}
        with pytest.raises(gn.ConfigError, match=r"damping of newton grows as M\^\S+ relative to A.*eps fall like 1/M"):
            infinite_width(changed(curves, axes=axes))
        # Relative to the eigenvalues it falls as they do; and far below all of them it does not count.
        for damping in ({"kind": "largest_eigenvalue", "factor": 0.1}, {"kind": "constant", "value": 1e-30}):
            flows = {**TABLE["flows"], "newton": {"kind": "gauss_newton", "damping": damping}}
            infinite_width(changed(curves, axes=axes, flows=flows), flow="newton")

    def test_a_clock_that_depends_on_the_width(self, curves):
        flows = {**TABLE["flows"], "descent": {"kind": "gradient", "mobility": 1.0}}
        with pytest.raises(
            gn.ConfigError, match=r"outputs of descent move with a speed that scales as M\^-\S+.*mobility"
        ):
            infinite_width(changed(curves, flows=flows))

    def test_a_problem_that_changes_along_the_axis(self, curves):
        values = {"model.width": [4, 8, 16], "problem.n_train": [4, 5, 6]}
        with pytest.raises(gn.ConfigError, match=r"axes\.width sets problem\.n_train beside the width"):
            infinite_width(changed(curves, axes={"width": {"values": values}}))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"variable": "train_los"}, "train_los"),
            ({"axis": "widht"}, r"there is no axis 'widht'; did you mean 'width'"),
            ({"least_width": 16}, r"the widths are \[16\.0\]; a limit takes at least two"),
            ({"seed": [1]}, r"1 of 1 seeds have runs at every width"),
            ({"confidence": 1.0}, r"confidence = 1\.0"),
            ({"times": [3.0]}, r"no time in common among \[3\.0\]"),
        ],
    )
    def test_what_is_wrong_is_named(self, curves, options, message):
        with pytest.raises(gn.ConfigError, match=message):
            infinite_width(curves, **options)

    def test_a_sweep_without_widths(self, curves):
        scales = curves.rename(width="tau0").assign_coords(tau0=[0.1, 1.0, 10.0])
        axes = {"tau0": {"path": "model.init_scale", "values": [0.1, 1.0, 10.0]}}
        with pytest.raises(gn.ConfigError, match=r"0 of the sweep's axes \['tau0'\] set model\.width"):
            infinite_width(changed(scales, axes=axes, model={"kind": "mean_field", "width": 5}))

    def test_final_values_that_do_not_say_where_they_are_from(self, folder):
        data = gn.load(folder)
        data.encoding = {}
        with pytest.raises(gn.ConfigError, match="does not say from which folder it is; pass the folder"):
            infinite_width(data)


def test_gnflow_plot_draws_the_limits(folder, capsys, tmp_path, monkeypatch):
    place = shutil.copytree(folder, tmp_path / "out")
    monkeypatch.setattr(importlib.import_module("gnflow.cli._draw"), "draw_figures", lambda *_, **__: [])
    assert main(["plot", str(place), "--curves"]) == 0
    written = {path.rpartition("/")[2] for path in capsys.readouterr().out.splitlines()}
    ends = (".png", ".csv", "-widths.csv")
    assert written == {f"infinite-width-{flow}{end}" for flow in ("descent", "newton") for end in ends}
    rows = np.genfromtxt(place / "figures" / "infinite-width-newton.csv", delimiter=",", names=True)
    found = infinite_width(folder, flow="newton").data
    np.testing.assert_array_equal(rows["limit"], found.limit)
    np.testing.assert_array_equal(rows["time"], found.time)
