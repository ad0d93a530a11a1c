"""Rates read off curves: exact ones, sums of exponentials, noise, windows, bad input."""

import numpy as np
import pytest

from gnflow import GnflowError
from gnflow.theory import fit_rate
from gnflow.theory._rate import rate_error

UNIFORM, GEOMETRIC = np.linspace(0, 2, 20), np.concatenate([[0.0], np.logspace(-3, 0, 20)])


@pytest.mark.parametrize("times", [UNIFORM, GEOMETRIC], ids=["uniform", "geometric"])
@pytest.mark.parametrize("rate", [1e-6, 3.0, 20.0])
def test_one_exponential(times, rate):
    fit = fit_rate(times, 7e-5 * np.exp(-rate * times))
    np.testing.assert_allclose([fit.rate, *fit.interval], rate, rtol=1e-9, atol=1e-13)
    assert fit.interval[0] <= fit.rate <= fit.interval[1]
    assert fit.r_squared > 1 - 1e-9 or rate < 1e-5
    assert fit.slope_change < 1e-6
    assert fit.is_linear
    assert fit.num_points == len(times)
    assert fit.window == (times[0], times[-1])
    assert "not exponential" not in str(fit)


def test_a_sum_of_exponentials_is_flagged():
    """And its last part, where one is left, is not."""
    times = np.linspace(0, 10, 50)
    excess = np.exp(-5 * times) + 0.01 * np.exp(-0.5 * times)
    whole = fit_rate(times, excess)
    assert not whole.is_linear
    assert "not exponential" in str(whole)
    tail = fit_rate(times, excess, window=(4.0, 10.0))
    assert tail.is_linear
    np.testing.assert_allclose(tail.rate, 0.5, rtol=1e-6)
    assert tail.window[0] >= 4.0
    assert tail.num_points == np.sum(times >= 4)


def test_the_flag_compares_the_slopes_of_the_halves():
    times = np.linspace(0, 2, 21)
    logs = np.where(times <= 1, -times, -1 - 1.2 * (times - 1))
    fit = fit_rate(times, np.exp(logs), linearity=0.15)
    np.testing.assert_allclose(fit.slope_change, 0.2 / fit.rate, rtol=1e-9)
    assert not fit.is_linear
    assert fit_rate(times, np.exp(logs), linearity=0.25).is_linear


def test_few_points_in_a_half():
    """All points but the last are in the first half of the time."""
    times = np.array([0.0, 1e-3, 1e-2, 0.1, 1.0])
    assert fit_rate(times, np.exp(-times)).is_linear
    assert not fit_rate(times, np.exp(-np.sqrt(times))).is_linear


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(
    "times",
    [np.linspace(0, 1, 8), UNIFORM, GEOMETRIC, np.concatenate([[0.0], np.logspace(-6, 0, 60)])],
    ids=["eight", "uniform", "geometric", "six decades"],
)
def test_the_interval_covers_the_true_rate_as_often_as_it_says(times, confidence):
    """Counted over noise; five times the counts' own scatter is allowed, and one and a half points above: with unequal weights
    Student's distribution is not exact."""
    rng, count = np.random.default_rng(0), 1500
    covered = 0
    for _ in range(count):
        low, high = fit_rate(times, np.exp(-3 * times + 0.05 * rng.normal(size=len(times))), None, confidence).interval
        covered += low <= 3 <= high
    scatter = 5 * np.sqrt(confidence * (1 - confidence) / count)
    assert confidence - scatter <= covered / count <= confidence + scatter + 0.015


def test_the_slope_is_the_weighted_least_squares_slope():
    rng = np.random.default_rng(1)
    logs = rng.normal(size=len(GEOMETRIC))
    weights = np.array([np.ptp(GEOMETRIC[max(i - 1, 0) : i + 2]) for i in range(len(GEOMETRIC))]) / 2
    expected = np.polyfit(GEOMETRIC, logs, 1, w=np.sqrt(weights))[0]
    fit = fit_rate(GEOMETRIC, np.exp(logs))
    np.testing.assert_allclose(fit.rate, -expected, rtol=1e-9)
    mean = np.average(logs, weights=weights)
    line = np.polyval(np.polyfit(GEOMETRIC, logs, 1, w=np.sqrt(weights)), GEOMETRIC)
    expected = 1 - np.average((logs - line) ** 2, weights=weights) / np.average((logs - mean) ** 2, weights=weights)
    np.testing.assert_allclose(fit.r_squared, expected, rtol=1e-9)


def test_the_error_of_the_points_bounds_that_of_the_rate():
    errors = np.linspace(0.1, 0.3, len(GEOMETRIC))
    bound = rate_error(GEOMETRIC, errors)
    rng = np.random.default_rng(2)
    # Errors of either sign at every point: the worst is attained by the slope's own signs.
    found = [fit_rate(GEOMETRIC, np.exp(rng.choice([-1, 1], len(errors)) * errors)).rate for _ in range(200)]
    assert np.abs(found).max() <= bound
    unit = np.eye(len(errors))
    signs = np.sign([fit_rate(GEOMETRIC, np.exp(row)).rate for row in unit])
    np.testing.assert_allclose(fit_rate(GEOMETRIC, np.exp(signs * errors)).rate, bound, rtol=1e-9)


def test_points_without_a_logarithm_are_left_out():
    excess = np.exp(-UNIFORM)
    excess[[3, 5, 7]] = 0.0, -1e-20, np.nan
    fit = fit_rate(UNIFORM, excess)
    np.testing.assert_allclose(fit.rate, 1.0, rtol=1e-9)
    assert fit.num_points == len(UNIFORM) - 3


@pytest.mark.parametrize(
    ("times", "excess", "options", "message"),
    [
        (UNIFORM, UNIFORM[1:], {}, "one length"),
        (UNIFORM[::-1], UNIFORM, {}, "ascending"),
        (np.zeros(6), np.ones(6), {}, "ascending"),
        (np.append(UNIFORM, np.inf), np.ones(21), {}, "finite"),
        ([], [], {}, "at least two"),
        (UNIFORM[None], UNIFORM[None], {}, "vector"),
        (UNIFORM, np.exp(-UNIFORM), {"confidence": 1.0}, "between 0 and 1"),
        (UNIFORM, np.exp(-UNIFORM), {"window": (0.0, 0.3)}, "widen the window"),
        (UNIFORM, np.zeros(20), {}, "0 points"),
    ],
)
def test_what_cannot_be_fitted_is_refused(times, excess, options, message):
    with pytest.raises(GnflowError, match=message):
        fit_rate(times, excess, **options)
