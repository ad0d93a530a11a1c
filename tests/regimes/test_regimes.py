"""Order parameters, labels and summaries of a sweep whose values are known in closed form."""

import numpy as np
import pytest
from oracles.sweep_data import fail, grid_dataset, kernel_distance, lose

from gnflow import ConfigError
from gnflow.regimes import (
    axis_scale,
    cell_states,
    label_regimes,
    order_parameters,
    regime_counts,
    regime_names,
    summarise_seeds,
)
from gnflow.regimes._summary import median_and_interval


@pytest.fixture(scope="module")
def complete():
    return grid_dataset()


@pytest.fixture(scope="module")
def holed(complete):
    data = fail(complete, tau0=0.01, n_train=100, flow="gauss_newton")
    data = fail(data, "worker_died", tau0=1.0, n_train=500, flow="gradient_flow", seed=1)
    return lose(data, tau0=5.0, n_train=1000, flow="random_features", seed=2)


class TestAxisScale:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0.01, 0.1, 0.5, 1, 5, 10, 100], "log"),
            ([100, 500, 1000, 1500, 2000], "linear"),
            ([0.1, 100.0], "log"),
            ([100, 900], "linear"),
            ([0.0, 0.25, 0.5, 1.0], "linear"),
            ([-1.0, 100.0], "linear"),
            ([7], "linear"),
            (["silu", "relu"], "category"),
            ([True, False], "category"),
            ([1.0, np.inf], "category"),
        ],
    )
    def test_scale(self, values, expected):
        assert axis_scale(values) == expected
        assert axis_scale(values[::-1]) == expected


class TestOrderParameters:
    def test_ratios_are_those_of_the_losses(self, complete):
        found = order_parameters(complete, "gauss_newton")
        loss = complete["test_loss"]
        np.testing.assert_allclose(found["hidden_learning_gain"], loss / complete["refit_test_loss"])
        expected = loss.sel(flow="gradient_flow") / loss.sel(flow="gauss_newton")
        np.testing.assert_allclose(found["test_loss_ratio"].sel(flow="gradient_flow"), expected)
        assert np.all(found["test_loss_ratio"].sel(flow="gauss_newton") == 1)
        assert found["test_loss_ratio"].dims == loss.dims
        assert found.attrs["reference"] == "gauss_newton"
        assert "gauss newton" in found["test_loss_ratio"].attrs["long_name"]

    def test_the_first_flow_is_the_reference(self, complete):
        assert order_parameters(complete).attrs["reference"] == "gradient_flow"

    def test_what_was_measured_is_kept(self, complete):
        found = order_parameters(complete)
        for name in ("kernel_distance", "relative_weight_movement", "time_to_target", "result", "failed"):
            assert found[name].identical(complete[name])

    def test_without_the_measurements_there_is_nothing_to_derive(self, complete):
        found = order_parameters(complete.drop_vars(["refit_test_loss"]).isel(flow=[0]))
        assert not {"hidden_learning_gain", "test_loss_ratio"} & set(found.data_vars)
        assert "test_loss" not in order_parameters(complete.drop_vars("test_loss"))

    def test_equal_zeros_are_equal(self, complete):
        data = complete.copy(deep=True)
        data["test_loss"][:] = 0.0
        assert np.all(order_parameters(data)["test_loss_ratio"] == 1)

    def test_an_unknown_reference_is_answered_with_the_nearest(self, complete):
        with pytest.raises(ConfigError, match="did you mean 'gauss_newton'"):
            order_parameters(complete, "gaus_newton")
        with pytest.raises(ConfigError, match="no test_loss"):
            order_parameters(complete.drop_vars("test_loss"), "gauss_newton")


class TestStates:
    def test_every_cell_without_a_number_has_its_reason(self, holed):
        states = cell_states(holed, "test_loss")
        assert np.all(states.sel(tau0=0.01, n_train=100, flow="gauss_newton") == "failed")
        assert states.sel(tau0=1.0, n_train=500, flow="gradient_flow", seed=1) == "failed"
        assert states.sel(tau0=5.0, n_train=1000, flow="random_features", seed=2) == "missing"
        assert int((states != "finite").sum()) == 3 + 1 + 1

    def test_a_failed_run_counts_as_failed_whatever_it_left(self, complete):
        data = complete.copy(deep=True)
        data["failed"].loc[{"tau0": 1.0}] = True
        assert np.all(cell_states(data, "flow_time").sel(tau0=1.0) == "failed")

    def test_infinite_and_undefined(self, complete):
        data = complete.copy(deep=True)
        data["kernel_distance"].loc[{"flow": "random_features"}] = np.nan
        assert np.all(cell_states(data, "kernel_distance").sel(flow="random_features") == "undefined")
        assert np.all(cell_states(data, "time_to_target").isel(target=-1) == "infinite")

    def test_data_without_results(self, complete):
        assert np.all(cell_states(complete.drop_vars(["result", "failed"]), "test_loss") == "finite")


class TestLabels:
    def test_labels_follow_the_thresholds(self, holed):
        labels = label_regimes(holed, kernel=0.2, feature=0.7)
        for place in np.ndindex(labels.shape):
            cell = labels[place]
            distance = kernel_distance(*(cell[name].item() for name in ("tau0", "n_train", "seed", "flow")))
            expected = "kernel" if distance <= 0.2 else "feature learning" if distance >= 0.7 else "intermediate"
            assert cell.item() in (expected, "failed", "missing")
        assert int(labels.isin(["failed", "missing"]).sum()) == 5
        assert set(np.unique(labels.to_numpy().astype(str))) == set(regime_names) - {"undefined"}
        assert (labels.attrs["kernel"], labels.attrs["feature"]) == (0.2, 0.7)

    def test_a_value_on_a_threshold(self, complete):
        data = complete.isel(tau0=[0, 1], n_train=0, flow=0, seed=0).copy(deep=True)
        data["kernel_distance"][:] = [0.1, 0.5]
        assert label_regimes(data).to_numpy().tolist() == ["kernel", "feature learning"]
        assert label_regimes(data, kernel=0.5, feature=0.5).to_numpy().tolist() == ["kernel", "kernel"]

    def test_a_run_without_the_number_is_not_called_kernel(self, complete):
        data = complete.copy(deep=True)
        data["kernel_distance"].loc[{"flow": "random_features"}] = np.nan
        assert np.all(label_regimes(data).sel(flow="random_features") == "undefined")

    def test_counts_add_up_to_the_seeds(self, holed):
        labels = label_regimes(holed)
        counts = regime_counts(labels)
        assert np.all(counts.sum("regime") == 3)
        assert counts.sel(tau0=0.01, n_train=100, flow="gauss_newton", regime="failed") == 3
        assert regime_counts(labels.isel(seed=0)).sum() == labels.isel(seed=0).size

    def test_bad_input(self, complete):
        with pytest.raises(ConfigError, match="kernel <= feature"):
            label_regimes(complete, kernel=0.6, feature=0.5)
        with pytest.raises(ConfigError, match="did you mean 'kernel_distance'"):
            label_regimes(complete, "kernel_distanse")


class TestSummary:
    def test_median_and_range(self, complete):
        found = summarise_seeds(complete, "test_loss")
        values = complete["test_loss"]
        np.testing.assert_array_equal(found["median"], np.median(values, axis=-1))
        np.testing.assert_array_equal(found["lower"], values.min("seed"))
        np.testing.assert_array_equal(found["upper"], values.max("seed"))
        assert np.all(found["num_values"] == 3)
        assert found["median"].attrs["long_name"] == "test loss"

    def test_failed_and_missing_seeds_are_counted_and_left_out(self, holed):
        found = summarise_seeds(holed, "test_loss")
        some = found.sel(tau0=1.0, n_train=500, flow="gradient_flow")
        kept = holed["test_loss"].sel(tau0=1.0, n_train=500, flow="gradient_flow", seed=[0, 2])
        assert (some["state"].item(), some["num_values"].item(), some["num_failed"].item()) == ("finite", 2, 1)
        assert some["median"] == pytest.approx(float(kept.mean()))
        none = found.sel(tau0=0.01, n_train=100, flow="gauss_newton")
        assert (none["state"].item(), none["num_failed"].item()) == ("failed", 3)
        assert np.isnan(none["median"])
        assert found["num_missing"].sel(tau0=5.0, n_train=1000, flow="random_features") == 1

    def test_infinite_values_have_their_place_in_a_median(self, complete):
        data = complete.isel(tau0=[0, 1, 2], n_train=0, flow=0).copy(deep=True)
        data["test_loss"][:] = [[1.0, np.inf, 2.0], [np.inf, np.inf, 2.0], [np.inf, -np.inf, 2.0]]
        found = summarise_seeds(data, "test_loss")
        assert found["median"].to_numpy().tolist() == [2.0, np.inf, 2.0]
        assert found["state"].to_numpy().tolist() == ["finite", "infinite", "finite"]

    def test_between_minus_and_plus_infinity_there_is_no_median(self):
        median, lower, upper = median_and_interval(np.array([np.inf, -np.inf]), 1.0)
        assert np.isnan(median)
        assert (lower, upper) == (-np.inf, np.inf)
        assert median_and_interval(np.array([2.0, -np.inf]), 1.0)[0] == -np.inf

    def test_the_interval_is_a_central_share(self, complete):
        data = grid_dataset(tau0=(1.0,), sizes=None, flows=("gradient_flow",), seeds=tuple(range(11)))
        values = np.sort(data["test_loss"].to_numpy().ravel())
        found = summarise_seeds(data, "test_loss", interval=0.8)
        assert (found["lower"].item(), found["upper"].item()) == (values[1], values[9])
        for share in (0.0, 1.1, -1.0):
            with pytest.raises(ConfigError, match="share of the seeds"):
                summarise_seeds(complete, "test_loss", interval=share)

    def test_without_seeds(self, complete):
        one = complete.isel(seed=0, drop=True)
        np.testing.assert_array_equal(summarise_seeds(one, "test_loss")["median"], one["test_loss"])
