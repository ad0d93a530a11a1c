"""Which rows a run has."""

import numpy as np
import pytest
from simulate.linear import Axes, Linear, flow_down

import gnflow as gn
from gnflow import RelativeLoss, ResultCode


@pytest.fixture(scope="module")
def saved():
    """saved(four flow times, **options): the run and its times."""

    def run(saveat, tolerance=1e-200, **options):
        trajectory = flow_down(Axes(), saveat=saveat, stop=RelativeLoss(tolerance), **options)
        assert np.all(np.isfinite(trajectory.data.train_loss))
        exact = [Axes().loss(t) for t in trajectory.data.time.values]
        np.testing.assert_allclose(trajectory.data.train_loss, exact, rtol=2e-3)
        return trajectory, trajectory.data.time.values.tolist()

    return run


def test_start_and_end_are_added(saved):
    assert saved([0.5, 1.0, 2.0, 2.5], t1=3.0)[1] == [0, 0.5, 1, 2, 2.5, 3]


def test_a_save_at_the_start_or_the_end_is_one_row(saved):
    assert saved([0.0, 1.0, 2.0, 3.0], t1=3.0)[1] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", [tuple, np.array, lambda times: [int(t) for t in times]])
def test_any_sequence_of_numbers_will_do(saved, kind):
    assert saved(kind([1.0, 2.0, 3.0, 5.0]), t1=5.0)[1] == [0, 1, 2, 3, 5]


def test_saves_after_the_stop_are_left_out(saved):
    trajectory, times = saved([0.5, 1.0, 50.0, 60.0], tolerance=np.exp(-2.0), t1=100.0, rtol=1e-7)
    assert times[:-1] == [0, 0.5, 1]
    np.testing.assert_allclose(times[-1], 2.0, rtol=1e-5)
    assert trajectory.result.code == ResultCode.STOP_RULE_MET


def test_a_stop_before_the_first_save_leaves_start_and_end(saved):
    _, times = saved([5.0, 6.0, 7.0, 8.0], tolerance=np.exp(-2.0), t1=8.0, rtol=1e-7)
    assert len(times) == 2
    np.testing.assert_allclose(times[-1], 2.0, rtol=1e-5)


def test_without_t1_the_run_goes_on_after_the_last_save_to_its_stop(saved):
    _, times = saved([0.5, 1.0, 2.0, 2.5], tolerance=np.exp(-9.0), rtol=1e-7)
    assert times[:-1] == [0, 0.5, 1, 2, 2.5]
    np.testing.assert_allclose(times[-1], 9.0, rtol=1e-5)


@pytest.mark.parametrize(
    "saveat",
    [
        [2.0, 1.0],
        [1.0, 1.0],
        [-1.0, 1.0],
        [0.0, float("nan")],
        [0.0, float("inf")],
        [[0.0, 1.0]],
        [],
    ],
    ids=["unsorted", "twice", "negative", "nan", "inf", "matrix", "empty"],
)
def test_times_that_are_no_times_are_refused(saveat):
    with pytest.raises(gn.ConfigError, match="saveat"):
        flow_down(saveat=saveat, t1=3.0)


def test_saves_beyond_the_end_are_refused():
    with pytest.raises(gn.ConfigError, match="after t1"):
        flow_down(saveat=[1.0, 4.0], t1=3.0)


def test_by_default_saves_are_dense_in_the_logarithm_of_time():
    trajectory = flow_down(Axes())
    time = trajectory.data.time.values[1:-1]
    # From a hundredth of (L - L*)/|dL/dt| = 1, ten a decade.
    np.testing.assert_allclose(time, 0.01 * 10 ** (np.arange(len(time)) / 10), rtol=1e-12)
    assert time[-1] * 10**0.1 >= trajectory.data.time.values[-1] > time[-1]
    assert len(time) == 33  # up to the stop at t = 8 ln 10 = 18.4


def test_the_data_set_says_what_it_holds():
    data = flow_down(Axes()).data
    assert list(data.dims) == ["time"]
    assert list(data.data_vars) == ["train_loss"]  # there is no test data, and gradient flow solves for nothing
    for variable in (data.time, data.train_loss):
        assert set(variable.attrs) == {"long_name", "units", "reference"}
    trajectory = flow_down(Axes(), model=Linear.at([1.0, 2.0]), t1=2.0)
    assert trajectory.settings["t1"] == 2.0
    assert trajectory.settings["stop"] == (RelativeLoss(1e-8),)
    assert trajectory.stats["num_steps"] == (
        trajectory.stats["num_accepted_steps"] + trajectory.stats["num_rejected_steps"]
    )
    # Tsit5 is FSAL, and the error of the run takes one more.
    assert trajectory.stats["num_velocity_evaluations"] == 7 * trajectory.stats["num_steps"] + 1
    assert trajectory.stats["wall_seconds"] > 0
    np.testing.assert_array_equal(trajectory.initial_model.w, [1, 2])
    assert trajectory.problem.num_train == 2
