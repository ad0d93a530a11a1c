import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnflow._core import ConfigError
from gnflow.geometry.damping import (
    AbstractDamping,
    Constant,
    Exponential,
    LargestEigenvalue,
    PredictedDecrease,
    Schedule,
    SmallestEigenvalue,
    Spectrum,
    Trace,
    damping_kinds,
)
from gnflow.geometry.directions import truncated_power

TIME, EIGENVALUES = jnp.asarray(2.0), jnp.asarray([0.3, 4.0, 50.0])


class MeanEigenvalue(AbstractDamping):
    """A rule of a user's: a share of the mean eigenvalue of H A."""

    factor: float = 0.5

    def __call__(self, time, spectrum):
        return self.factor * spectrum.trace / 3


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Constant(0.7), 0.7),
        (Constant(0.0), 0.0),
        (SmallestEigenvalue(), 0.3),
        (SmallestEigenvalue(factor=2.0, floor=1e-7), 0.6),
        (SmallestEigenvalue(factor=2.0, floor=0.8), 0.8),
        (SmallestEigenvalue(factor=0.0, floor=1e-7), 1e-7),
        (LargestEigenvalue(), 5e-3),
        (LargestEigenvalue(factor=0.1), 5.0),
        (LargestEigenvalue(factor=0.1, floor=7.0), 7.0),
        (Trace(), 5.43e-3),
        (Trace(factor=0.1), 5.43),
        (Trace(factor=0.1, floor=7.0), 7.0),
        (MeanEigenvalue(), 0.5 * 54.3 / 3),
        (Exponential(start=3.0, rate=0.5), 3 * np.exp(-1)),
        (Exponential(start=3.0, rate=0.5, floor=2.0), 2.0),
        (Schedule(lambda time: 1 / (1 + time)), 1 / 3),
        (Schedule(lambda time: 2), 2.0),
    ],
)
def test_the_value_of_each_rule(rule, expected):
    value = rule(TIME, Spectrum.of(EIGENVALUES))
    assert value.dtype == jnp.float64
    assert value.shape == ()
    np.testing.assert_allclose(value, expected, rtol=1e-15)


def test_only_what_a_rule_reads_is_computed():
    read = []

    def number(name):
        return lambda: read.append(name) or EIGENVALUES[0]

    def spectrum():
        return Spectrum(*map(number, ("smallest", "largest", "trace", "all")))

    for rule in (Constant(1.0), Exponential(1.0, 1.0), Schedule(lambda time: time)):
        rule(TIME, spectrum())
    assert not read
    for rule, name in (
        (SmallestEigenvalue(), "smallest"),
        (LargestEigenvalue(), "largest"),
        (Trace(), "trace"),
        (MeanEigenvalue(), "trace"),
    ):
        seen = spectrum()
        for _ in range(2):
            rule(TIME, seen)
        assert read.pop() == name
        assert not read  # once for both


def test_a_spectrum_is_not_negative():
    spectrum = Spectrum.of(jnp.asarray([-1e-17, 2.0]))
    assert float(spectrum.smallest) == 0.0
    assert spectrum.all.tolist() == [0.0, 2.0]


def test_only_a_floor_makes_damping_by_the_spectrum_positive():
    for rule in (SmallestEigenvalue, LargestEigenvalue, Trace):
        assert rule(1.0, floor=1e-9).is_positive
        assert not rule(1.0).is_positive


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(-1.0),
        lambda: Constant(float("nan")),
        lambda: Constant(float("inf")),
        lambda: SmallestEigenvalue(factor=-1.0),
        lambda: SmallestEigenvalue(floor=-1e-9),
        lambda: LargestEigenvalue(factor=-1.0),
        lambda: LargestEigenvalue(floor=-1e-9),
        lambda: Trace(factor=-1.0),
        lambda: Trace(floor=-1e-9),
        lambda: Exponential(-1.0, 1.0),
        lambda: Exponential(1.0, -1.0),
        lambda: Exponential(1.0, 1.0, floor=-1.0),
    ],
)
def test_negative_damping_is_refused(make):
    with pytest.raises(ConfigError, match="at least 0"):
        make()


def test_names_of_the_rules():
    assert damping_kinds == {
        "constant": Constant,
        "smallest_eigenvalue": SmallestEigenvalue,
        "largest_eigenvalue": LargestEigenvalue,
        "trace": Trace,
        "exponential": Exponential,
        "predicted_decrease": PredictedDecrease,
    }


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda time: 1.0 if time > 1 else 2.0, "jnp.where in place of if"),
        (lambda time: jnp.ones(3), "array of shape \\(3,\\)"),
    ],
)
def test_a_schedule_is_a_function_that_jax_can_trace(function, match):
    with pytest.raises(ConfigError, match=match):
        Schedule(function)


@pytest.mark.parametrize("bad", [-1.0, float("nan")])
def test_damping_that_is_no_damping_makes_the_direction_nan(bad):
    shift = Schedule(lambda time: bad * time)(TIME, Spectrum.of(EIGENVALUES))
    assert np.isnan(shift)
    assert np.all(np.isnan(truncated_power(jnp.asarray([0.0, 1.0]), shift, 1.0, jnp.asarray(1e-15))))
    assert list(truncated_power(jnp.asarray([0.0, 2.0]), jnp.asarray(0.0), 1.0, jnp.asarray(1e-15))) == [0.0, 0.5]


def ruled(function):
    """A rule of a user's with this function."""
    return type("Ruled", (AbstractDamping,), {"__call__": function})()


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda self, time, smallest, largest: largest, "missing 1 required positional argument"),
        (lambda self, spectrum: 1.0, "takes 2 positional arguments"),
        (lambda self, time, spectrum: spectrum.median, "no attribute 'median'"),
        (lambda self, time, spectrum: spectrum.all, r"gives array\("),
        (lambda self, time, spectrum: spectrum.trace > 0, r"gives array\(True\)"),
        (lambda self, time, spectrum: spectrum.trace * 1j, r"gives array\("),
        (lambda self, time, spectrum: None, "gives None"),
    ],
)
def test_a_users_rule_that_is_none_is_told_what_a_rule_is(function, match):
    expected = r"expected Ruled.__call__\(self, time, spectrum\) that gives a number of at least 0.*spectrum.smallest"
    with pytest.raises(ConfigError, match=f"the damping rule Ruled .*{match}.*{expected}"):
        ruled(function).shift(TIME, Spectrum.of(EIGENVALUES))


@pytest.mark.parametrize(("given", "expected"), [(2, 2.0), (np.float32(0.5), 0.5), (-1.0, np.nan), (np.nan, np.nan)])
def test_what_a_users_rule_gives(given, expected):
    shift = ruled(lambda self, time, spectrum: given).shift(TIME, Spectrum.of(EIGENVALUES))
    assert shift.dtype == jnp.float64
    np.testing.assert_equal(float(shift), expected)


@jax.jit
def _predicted(share, eigenvalues, energies):
    return PredictedDecrease(share)(TIME, Spectrum.of(eigenvalues, target_energies=lambda: energies))


class TestPredictedDecrease:
    EIGENVALUES, ENERGIES = jnp.asarray([0.0, 1e-9, 0.3, 4.0, 50.0]), jnp.asarray([7.0, 2.0, 1e-3, 3.0, 0.5])

    def rule(self, share, eigenvalues=EIGENVALUES, energies=ENERGIES):
        return _predicted(share, eigenvalues, energies)

    @pytest.mark.parametrize("share", [1e-6, 0.1, 0.5, 0.9, 1 - 1e-9])
    def test_keeps_the_share(self, share):
        eps, values, energies = float(self.rule(share)), self.EIGENVALUES[1:], self.ENERGIES[1:]
        assert eps > 0
        lost = np.sum((eps / (values + eps)) ** 2 * energies)
        np.testing.assert_allclose(lost, (1 - share) * np.sum(energies), rtol=1e-10)

    def test_one_mode_alone(self):
        # (eps/(lam + eps))^2 = 1/4.
        np.testing.assert_allclose(self.rule(0.75, jnp.asarray([0.0, 3.0]), jnp.ones(2)), 3.0, rtol=1e-14)

    def test_with_all_of_it_there_is_no_damping(self):
        assert self.rule(1.0) == 0
        assert PredictedDecrease(1.0).is_zero
        assert not PredictedDecrease(0.9).is_zero

    def test_scales_with_the_spectrum_and_not_with_the_targets(self):
        eps = self.rule(0.9)
        np.testing.assert_allclose(self.rule(0.9, 1e-3 * self.EIGENVALUES, 1e7 * self.ENERGIES), 1e-3 * eps, rtol=1e-12)

    def test_nothing_asked_or_nothing_there(self):
        assert np.isfinite(self.rule(0.9, energies=jnp.zeros(5)))
        assert self.rule(0.9, eigenvalues=jnp.zeros(5)) == 0
        assert np.isnan(self.rule(0.9, eigenvalues=jnp.full(5, jnp.nan)))

    def test_derivative(self):
        def eps(scale):
            return self.rule(0.5, self.EIGENVALUES * jnp.asarray([1, 1, 1, 1 + scale, 1.0]), self.ENERGIES)

        expected = (eps(1e-5) - eps(-1e-5)) / 2e-5
        assert expected > 1
        np.testing.assert_allclose(jax.grad(eps)(0.0), expected, rtol=1e-6)

    def test_eigenvalues_alone_are_refused(self):
        with pytest.raises(ConfigError, match="gives its damping rule the eigenvalues alone"):
            PredictedDecrease()(TIME, Spectrum.of(EIGENVALUES))
