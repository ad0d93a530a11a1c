"""The mean-field limit's rates: a family where they hold, refusals, tampered observables, too few seeds; its statistics."""

import dataclasses
import itertools
import types

import jax.random as jr
import numpy as np
import pytest

import gnflow as gn
from gnflow.theory import MeanFieldLimit, Verdict, _mean_field_study as module, verify
from gnflow.theory._mean_field_study import LOSS, MOMENTS, OUTPUTS, Level
from gnflow.theory._power_law import fit_power_law
from gnflow.theory._wasserstein import SlicedDistance

# So short a time that even 4 particles are nearly in the asymptotic range.
END = 0.1
THEOREM = MeanFieldLimit(widths=(4, 16, 64, 256), seeds=32)


pytestmark = pytest.mark.slow  # runs of its own, many of them


@pytest.fixture(scope="module")
def run():
    key = jr.key(0)
    problem = gn.problems.teacher_student(n_train=5, n_test=5, input_dim=2, teacher_width=3, key=key)
    model = gn.models.MeanFieldNetwork(2, 16, key=key)
    return gn.simulate(problem, model, gn.flows.GradientFlow(), t1=END, stop=None, saveat=[END])


@pytest.fixture(scope="module", autouse=True)
def each_run_once():
    """The same networks are looked at by several tests; each is run by the first."""
    runs = {}

    def cached(problem, model, flow, **options):
        name = (np.asarray(model.hidden_weight).tobytes(), options["rtol"])
        if name not in runs:
            runs[name] = gn.simulate(problem, model, flow, **options)
        return runs[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "simulate_once", cached)
        yield


@pytest.fixture(scope="module")
def certificate(run):
    return verify(run, THEOREM)


def claim(certificate, start):
    (found,) = [c for c in certificate.claims if c.name.startswith(start)]
    return found


def test_rates_hold(certificate):
    assert certificate.verdict == Verdict.HOLDS
    assert len(certificate.claims) == 5
    for found in certificate.claims:
        assert found.verdict == Verdict.HOLDS
    assert abs(claim(certificate, "fluctuation of the outputs").observed + 0.5) < 0.15
    assert abs(claim(certificate, "bias").observed + 1) < 0.3
    assert certificate.constants["end time T"] == END
    assert certificate.constants["output_init_scale (rms of the run's start)"] == 0
    assert len(certificate.curves) == 5
    assert certificate.plot().axes


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("initial_model", gn.models.MeanFieldNetwork(2, 8, output_exponent=0.5, key=jr.key(0)), "output exponent"),
        ("initial_model", gn.models.MeanFieldNetwork(2, 8, activation="relu", key=jr.key(0)), "smooth"),
        ("initial_model", gn.models.MLP(2, 8, 2, key=jr.key(0)), "MeanFieldNetwork"),
        ("flow", gn.flows.GaussNewtonFlow(), "gradient flow"),
        ("flow", gn.flows.GradientFlow(mobility=16.0), "mobility"),
    ],
)
def test_other_scalings_and_flows_are_refused(run, part, value, reason):
    refused = verify(dataclasses.replace(run, **{part: value}), THEOREM)
    assert refused.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert reason in refused.reason
    assert not refused.claims


def test_discrete_runs_are_refused(run):
    steps = gn.iterate(run.problem, run.initial_model, run.flow, step_size=0.01, num_steps=2)
    assert "continuous" in verify(steps, THEOREM).reason


def test_slower_fluctuations_are_caught(run, monkeypatch):
    plain = module.observe

    def tampered(model, loss, inputs):
        return {name: model.width**0.25 * values for name, values in plain(model, loss, inputs).items()}

    monkeypatch.setattr(module, "observe", tampered)
    certificate = verify(run, THEOREM)
    assert certificate.verdict == Verdict.VIOLATED
    assert claim(certificate, "fluctuation of the outputs").verdict == Verdict.VIOLATED
    assert claim(certificate, "bias").verdict == Verdict.VIOLATED


def test_a_slower_bias_is_caught(run, monkeypatch):
    plain = module.observe

    def tampered(model, loss, inputs):
        return plain(model, loss + 0.01 / model.width**0.5, inputs)

    monkeypatch.setattr(module, "observe", tampered)
    certificate = verify(run, THEOREM)
    assert claim(certificate, "bias").verdict == Verdict.VIOLATED
    assert claim(certificate, "fluctuation of the train loss").verdict == Verdict.HOLDS


def test_particles_that_come_closer_too_slowly_are_caught(run, monkeypatch):
    plain = module.sliced_wasserstein2

    def tampered(first, second, num_directions, *, key):
        distance = plain(first, second, num_directions, key=key)
        return SlicedDistance(distance.value * len(first) ** 0.25, distance.standard_error)

    monkeypatch.setattr(module, "sliced_wasserstein2", tampered)
    assert claim(verify(run, THEOREM), "distance").verdict == Verdict.VIOLATED


def test_too_few_seeds_to_tell(run):
    certificate = verify(run, MeanFieldLimit(widths=(4, 16, 64), seeds=3))
    assert certificate.verdict == Verdict.UNDECIDED
    assert not [c for c in certificate.claims if c.verdict == Verdict.VIOLATED]


@pytest.mark.parametrize(
    "arguments",
    [
        {"widths": (50, 100)},
        {"widths": (50, 100, 100)},
        {"widths": (100, 50, 25)},
        {"widths": (50, 75, 150)},
        {"widths": (0, 50, 100)},
        {"seeds": 1},
        {"num_directions": 1},
        {"end_time": 0.0},
        {"init_scale": -1.0},
        {"rtol": 2.0},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(gn.ConfigError):
        MeanFieldLimit(**arguments)


def test_blocks_of_a_seed_are_the_next_width(run, monkeypatch):
    def nothing(problem, model, flow, **options):
        return types.SimpleNamespace(model=model, data={"train_loss": types.SimpleNamespace(to_numpy=lambda: [1.0])})

    monkeypatch.setattr(module, "simulate_once", nothing)
    study = dataclasses.replace(THEOREM, seeds=2)._study(gn.theory.Evidence(run))
    levels = [study.level(index) for index in range(4)]
    assert [level.values[MOMENTS].shape[:2] for level in levels] == [(2, 4), (2, 4), (2, 4), (2, 2)]
    for level, union in itertools.pairwise(levels):
        # Second moments are linear in the empirical measure, so the coupled difference has nothing left of them.
        np.testing.assert_allclose(module.coupled(level, union, MOMENTS), 0, atol=1e-14)
    assert np.all(levels[0].squared_distances > 0)
    assert not np.allclose(levels[0].values[MOMENTS][0], levels[0].values[MOMENTS][1])


def made_up_level(width, blocks, samples):
    values = dict.fromkeys((LOSS, OUTPUTS, MOMENTS), samples[..., None])
    assert samples.shape[1] == blocks
    return Level(width, values, values, np.ones(len(samples)))


@pytest.mark.parametrize("ratio", [2, 4])
def test_second_order_part_of_a_variance(ratio):
    # Psi = (mean of M standard normal numbers)^2 is of second order alone, Psi = mean of first order alone.
    numbers = np.random.default_rng(0).normal(size=(20000, ratio, 8))
    means, union = numbers.mean(axis=2), numbers.mean(axis=(1, 2))[:, None]
    for function, part in ((np.square, 1.0), (lambda m: m, 0.0)):
        levels = [made_up_level(8, ratio, function(means)), made_up_level(8 * ratio, 1, function(union))]
        parts = module.second_order_parts(levels, LOSS)
        assert abs(parts[0] - part) < 0.05
        np.testing.assert_allclose(parts[1], parts[0] / ratio)


def power_law(seed, seeds, exponent=-0.5):
    rng = np.random.default_rng(seed)
    widths = np.array([8.0, 16.0, 32.0, 64.0])
    samples = [width**exponent * rng.normal(size=(seeds, 2, 1)) for width in widths]
    return fit_power_law(widths, samples, module.spread, np.zeros(4), np.zeros(4), rng)


def test_interval_of_a_slope_covers_it():
    # 99% intervals of 60 fits: more than four misses have a probability below 1e-3.
    laws = [power_law(seed, 6) for seed in range(60)]
    assert sum(abs(law.slope + 0.5) > law.error.measured for law in laws) <= 4
    # No wider than what the interval is for: a standard error is that of the slopes.
    spread = np.std([law.slope for law in laws])
    assert 0.7 < np.mean([law.standard_error for law in laws]) / spread < 1.4


def test_slope_of_many_samples():
    law = power_law(0, 2000, exponent=-0.3)
    assert abs(law.slope + 0.3) < 3 * law.standard_error < 0.03
    np.testing.assert_allclose(law.constant, 1.0, rtol=0.1)
    assert law.error.measured < law.error.at_worst


def test_finite_sizes_and_noise_widen_the_interval():
    widths = np.array([8.0, 16.0, 32.0, 64.0])
    samples = [np.full((50, 1), width**-1.0) for width in widths]
    rng = np.random.default_rng(0)
    exact, noisy, shifted = (
        fit_power_law(widths, samples, module.mean, noise, shift, rng)
        for noise, shift in (
            (np.zeros(4), np.zeros(4)),
            (np.full(4, 0.1), np.zeros(4)),
            (np.zeros(4), 1 / widths),
        )
    )
    np.testing.assert_allclose(exact.slope, -1, rtol=1e-9)
    assert exact.error.measured < 1e-6
    assert noisy.error.measured > 0.05
    assert shifted.error.measured > 0.02
    np.testing.assert_allclose(shifted.error.at_worst, 2 * shifted.error.measured, rtol=1e-3)


def test_a_mean_whose_sign_is_open_has_no_slope():
    samples = [np.random.default_rng(0).normal(size=(20, 1)) for _ in range(3)]
    law = fit_power_law(
        np.array([8.0, 16.0, 32.0]), samples, module.mean, np.zeros(3), np.zeros(3), np.random.default_rng(0)
    )
    assert np.isnan(law.slope)
    assert law.error.measured == np.inf
