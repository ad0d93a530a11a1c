"""The one account of errors, and the records of what reruns measure."""

import dataclasses

import numpy as np
import pytest
from facts.recording import mean_field
from theory.runs import run

import gnflow as gn
from gnflow.flows import GradientFlow
from gnflow.theory import Evidence, RateBand
from gnflow.theory._movement import Movement


@pytest.fixture(scope="module")
def evidence():
    return Evidence(run(GradientFlow(), model=mean_field(width=16), stop=gn.RelativeLoss(1e-2)))


@pytest.fixture(scope="module")
def accuracy(evidence):
    return evidence.accuracy


def test_a_promise_that_is_fine_enough_is_the_error(accuracy):
    error = accuracy.agreement(difference=0.5, deviation=0.5, promised=0.01, resolution=0.02)
    assert (error.measured, error.at_worst) == (0.01, 0.5)


def test_a_theorem_that_is_false_is_not_excused_by_its_distance(accuracy):
    """Where the promise says nothing: the difference of both runs or, where that is smaller, the distance to the value."""
    shared = 4 * accuracy.rtol
    for difference, deviation in ((0.1, 5.0), (5.0, 0.1)):
        error = accuracy.agreement(difference, deviation, promised=10.0, resolution=0.02)
        assert error.measured == pytest.approx(0.2)
        assert error.at_worst == 10.0
    # Two runs that agree by chance may share the errors of a few steps.
    assert accuracy.agreement(0.0, 0.0, promised=10.0, resolution=0.02).measured == pytest.approx(shared)
    # No more than the solver promises.
    assert accuracy.agreement(0.1, 0.1, promised=0.05, resolution=0.02).measured == 0.05


def test_relative_errors_of_steps_add_up(accuracy):
    small, whole = accuracy.accumulated(np.array([1e-6, 1.0]))
    assert small == pytest.approx(1e-6 * accuracy.steps, rel=1e-5)
    assert whole == np.inf


def test_errors_reach_ahead(accuracy):
    """A difference that is seen late counts up to ten times earlier, and never less from then on."""
    index, _ = accuracy.common
    values = np.zeros(len(index))
    values[-5] = 1.0
    growing = accuracy.growing(values)
    times, seen = accuracy.times, accuracy.times[index[-5]]
    assert np.all(growing[10 * times >= seen] == 1)
    assert np.all(growing[: index[-5]][10 * times[: index[-5]] < accuracy.times[index[-6]]] == 0)


def test_without_a_second_run_nothing_is_known(accuracy):
    alone = dataclasses.replace(accuracy, other=None)
    assert np.all(np.isinf(alone.between))
    assert np.all(np.isinf(alone.loss.at_worst))


def test_a_record_made_elsewhere(accuracy):
    error = accuracy.elsewhere(0.1, is_like=True)
    assert error.measured == pytest.approx(0.2)
    assert error.at_worst == pytest.approx(0.5)
    assert accuracy.elsewhere(0.1, is_like=False).at_worst == np.inf


def test_the_error_of_the_loss_is_ordered_and_grows(accuracy):
    loss = accuracy.loss
    assert np.all(loss.measured <= loss.at_worst)
    assert np.all(loss.measured > 0)
    assert np.all(np.diff(loss.measured - accuracy.rounding) >= 0)


def test_the_band_is_read_as_a_record(evidence):
    band, data = evidence.band, evidence.reference.data
    np.testing.assert_array_equal(band.lower, data["band_lower"].to_numpy())
    np.testing.assert_array_equal(band.times, evidence.times)
    assert np.all(band.lower <= band.rate * (1 + 1e-9))
    assert np.all(band.rate <= band.upper * (1 + 1e-9))
    assert RateBand.is_of(evidence.reference)
    assert not RateBand.is_of(evidence.trajectory)
    with pytest.raises(dataclasses.FrozenInstanceError):
        band.lower = band.upper


def test_a_record_declares_its_variables():
    variables = {variable.name: variable for variable in Movement.variables()}
    assert list(variables) == ["movement_gain", "movement_residual", "movement_drive"]
    assert [variable.dims for variable in variables.values()] == [(), ("kernel_mode",), ("kernel_mode",)]
    assert variables["movement_gain"].units == "N/flow time"
