"""Boundaries against the closed form: the kernel distance 1/(1 + (tau0/c)^2) is h at tau0 = c sqrt(1/h - 1)."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings, strategies as st
from oracles.sweep_data import SEEDS, SIZES, crossing, fail, grid_dataset, lose

from gnflow import ConfigError
from gnflow.regimes import boundary


def line(values, axis=(1.0, 2.0, 3.0), name="x"):
    """One line for each row of `values`, a seed each."""
    values = np.atleast_2d(np.asarray(values, dtype=float))
    return xr.Dataset({"v": (("seed", name), values)}, coords={"seed": np.arange(len(values)), name: list(axis)})


@pytest.fixture(scope="module")
def fine():
    return grid_dataset(tau0=tuple(np.geomspace(1e-3, 1e3, 121)))


class TestPosition:
    @pytest.mark.parametrize("threshold", [0.1, 0.5])
    def test_crossings_are_those_of_the_closed_form(self, fine, threshold):
        found = boundary(fine, threshold=threshold, along="tau0")
        assert (found.attrs["scale"], found.attrs["trend"]) == ("log", "falling")
        for flow in ("gradient_flow", "gauss_newton"):
            for size in SIZES:
                exact = [crossing(size, seed, flow) * np.sqrt(1 / threshold - 1) for seed in SEEDS]
                own = found.sel(flow=flow, n_train=size)
                # Linear interpolation in log-log coordinates is off by at most (h^2/8) |f''/f'|: h = 0.115, |f''/f'| < 1.2.
                np.testing.assert_allclose(own["position"], exact, rtol=2e-3)
                np.testing.assert_allclose([own["lower"], own["median"], own["upper"]], np.sort(exact), rtol=2e-3)
                assert np.all((own["from_value"] < own["position"]) & (own["position"] <= own["to_value"]))
                assert (own["num_crossed"].item(), own["median_status"].item()) == (3, "crossed")

    def test_a_power_law_is_interpolated_exactly_on_two_points(self):
        found = boundary(line([[4.0, 4e-4]], (0.1, 10.0)), "v", 0.4, along="x")
        assert found["position"].item() == pytest.approx(0.1 * 10**0.5)

    def test_a_straight_line_on_a_linear_axis_with_a_zero(self):
        found = boundary(line([[0.0, 1.0, 4.0]]), "v", 0.25, along="x")
        assert found["position"].item() == pytest.approx(1.25)
        assert found.attrs["scale"] == "linear"

    def test_the_order_of_the_axis_does_not_matter(self, fine):
        shuffled = fine.isel(tau0=np.random.default_rng(0).permutation(fine.sizes["tau0"]))
        assert boundary(shuffled, along="tau0").identical(boundary(fine, along="tau0"))

    def test_a_value_on_the_threshold_is_the_crossing(self):
        assert boundary(line([[1.0, 0.5, 0.1]]), "v", 0.5, along="x")["position"].item() == pytest.approx(2.0)

    def test_all_other_axes_are_kept(self, fine):
        found = boundary(fine, along="tau0")
        assert found["position"].dims == ("n_train", "flow", "seed")
        assert found["median"].dims == ("n_train", "flow")


class TestCensoring:
    def test_lines_without_a_crossing_lie_beyond_an_end(self):
        data = line([[3, 2, 1], [3, 3, 3], [0.2, 0.1, 0.0]])
        found = boundary(data, "v", 0.5, along="x")
        assert found["status"].to_numpy().tolist() == ["above the range", "above the range", "below the range"]
        assert found["position"].to_numpy().tolist() == [np.inf, np.inf, -np.inf]
        assert (found["num_above"].item(), found["num_below"].item()) == (2, 1)
        assert (found["median"].item(), found["median_status"].item()) == (np.inf, "above the range")

    def test_the_side_follows_the_trend(self):
        data = line([[3, 2, 1]])
        rising = boundary(data, "v", 0.5, along="x", trend="rising")
        assert rising["status"].item() == "below the range"
        assert boundary(data, "v", 5.0, along="x", trend="rising")["status"].item() == "above the range"
        assert boundary(data, "v", 5.0, along="x")["status"].item() == "below the range"

    def test_without_a_trend_the_side_is_said_to_be_unknown(self):
        found = boundary(line([[1, 1, 1]]), "v", 0.5, along="x")
        assert (found["status"].item(), found["median_status"].item()) == ("outside the range",) * 2
        assert found["num_undecided"].item() == 1

    def test_medians_over_crossed_and_censored_seeds(self):
        data = line([[0.9, 0.6, 0.1], [0.9, 0.8, 0.7], [0.9, 0.2, 0.1]])
        found = boundary(data, "v", 0.5, along="x")
        positions = np.sort(found["position"].to_numpy())
        assert found["median"].item() == positions[1]
        assert (found["lower"].item(), found["upper"].item()) == (positions[0], np.inf)
        assert found["num_crossed"].item() == 2

    def test_random_features_never_leave_the_kernel_regime(self, fine):
        found = boundary(fine, along="tau0").sel(flow="random_features")
        assert np.all(found["status"] == "below the range")


class TestHoles:
    def test_failed_and_missing_cells_are_stepped_over_and_counted(self):
        data = grid_dataset(sizes=None)
        before = boundary(data, along="tau0", threshold=0.5)
        holed = fail(data, tau0=0.01, flow="gradient_flow")
        holed = lose(holed, tau0=0.5, flow="gradient_flow", seed=1)
        found = boundary(holed, along="tau0", threshold=0.5)
        own = found.sel(flow="gradient_flow")
        assert own["num_without_value"].to_numpy().tolist() == [1, 2, 1]
        np.testing.assert_array_equal(own["position"].sel(seed=0), before["position"].sel(flow="gradient_flow", seed=0))
        assert own["from_value"].sel(seed=1) in (0.1, 1.0)

    def test_a_line_without_any_value_says_so(self):
        found = boundary(line([[np.nan] * 3, [0.9, 0.2, 0.1]]), "v", 0.5, along="x")
        assert found["status"].to_numpy().tolist() == ["no value", "crossed"]
        assert np.isfinite(found["median"])
        assert found["num_undecided"].item() == 1
        nothing = boundary(line([[np.nan] * 3]), "v", 0.5, along="x")
        assert nothing["median_status"].item() == "no value"

    def test_values_of_failed_runs_do_not_count(self):
        data = line([[0.9, 0.2, 0.1]])
        data["failed"] = (("seed", "x"), [[False, True, False]])
        assert boundary(data, "v", 0.5, along="x")["to_value"].item() == 3.0

    def test_an_infinite_value_is_on_its_side(self):
        found = boundary(line([[0.1, 0.2, np.inf]]), "v", 0.5, along="x")
        assert (found["status"].item(), found["position"].item()) == ("crossed", 2.0)


class TestNotMonotone:
    def test_crossings_are_counted(self):
        found = boundary(line([[0.9, 0.1, 0.9], [0.9, 0.6, 0.1]]), "v", 0.5, along="x", trend="falling")
        assert found["num_crossings"].to_numpy().tolist() == [2, 1]
        assert found["num_not_monotone"].item() == 1
        first, last = found["position"][0].item(), found["last_position"][0].item()
        assert 1 < first < 2 < last < 3
        assert found["position"][1] == found["last_position"][1]

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(values=st.lists(st.floats(0.001, 1.0), min_size=2, max_size=8), threshold=st.floats(0.01, 0.9))
    def test_a_crossing_lies_between_its_neighbours(self, values, threshold):
        axis = np.geomspace(1, 10 ** len(values), len(values))
        found = boundary(line([values], axis), "v", threshold, along="x", trend="falling")
        above = np.asarray(values) > threshold
        assert found["num_crossings"].item() == np.count_nonzero(above[1:] != above[:-1])
        if found["status"].item() == "crossed":
            first = int(np.flatnonzero(above[1:] != above[:-1])[0])
            assert axis[first] * (1 - 1e-12) <= found["position"].item() <= axis[first + 1] * (1 + 1e-12)
        else:
            assert found["position"].item() == (np.inf if above[0] else -np.inf)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"along": "tau"}, "did you mean 'tau0'"),
            ({"along": "flow"}, "finite numbers"),
            ({"along": "seed"}, "the seeds give its uncertainty"),
            ({"along": "tau0", "variable": "kernel"}, "unknown variable"),
            ({"along": "tau0", "threshold": np.nan}, "threshold = nan"),
            ({"along": "tau0", "interval": 2.0}, "share of the seeds"),
            ({"along": "tau0", "trend": "down"}, '"falling"'),
        ],
    )
    def test_it_is_refused(self, options, message):
        with pytest.raises(ConfigError, match=message):
            boundary(grid_dataset(), **options)

    def test_a_single_value_has_no_boundary(self):
        with pytest.raises(ConfigError, match="two or more"):
            boundary(grid_dataset(tau0=(1.0,)), along="tau0")
