"""The distance to the linearised run: bounds that hold, hypotheses that fail, bounds and ends that were changed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import make_problem, mean_field
from jax.flatten_util import ravel_pytree
from theory.runs import run, single_sample, tampered

import gnflow as gn
from gnflow.flows import Frozen, GaussNewtonFlow, GradientFlow, SpectralFlow
from gnflow.geometry.damping import Constant, Exponential, SmallestEigenvalue
from gnflow.geometry.directions import ConjugateGradients
from gnflow.theory import Evidence, Verdict, _linearised_distance as module, _movement
from gnflow.theory._convolution import mode_bound, movement_bound
from gnflow.theory._linearised_distance import LinearisedDistance
from gnflow.theory._movement import gain, has_gain

pytestmark = pytest.mark.slow  # runs of its own, many of them


def certify(trajectory):
    return LinearisedDistance().certify(Evidence(trajectory))


def nudged(trajectory, size):
    """The run with an end moved by `size` along the gradient of the outputs' sum."""
    system = trajectory.flow.system(trajectory.problem, trajectory.model)
    weights = system.weights(trajectory.model)
    tangent = system.tangent(weights)
    change = tangent.vjp(jnp.ones_like(tangent.outputs))
    length = jnp.linalg.norm(tangent.jvp(change))
    moved = jax.tree.map(lambda w, d: w + size / length * d, weights, change)
    return dataclasses.replace(trajectory, model=system.model(moved))


@pytest.fixture(scope="module")
def features_move():
    return run(GradientFlow(), model=mean_field(width=16), rtol=1e-6, solver="tsit5")


@pytest.fixture(scope="module")
def one_sample():
    """One sample with one output, and a kernel that grows: the bound is the distance itself."""
    return run(GradientFlow(), problem=single_sample(), model=mean_field(2, num_outputs=1), rtol=1e-6, solver="tsit5")


def test_it_holds_where_features_move(features_move):
    certificate = certify(features_move)
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    constants = certificate.constants
    assert constants["largest ||B_t - B_0||/||B_0||"] > 1
    assert constants["largest ||f_t - f^lin_t||/||f_0 - y||"] > 0.1
    # Mode by mode the bound is nearly attained, so a smaller one would be noticed.
    assert 0.8 < constants["largest distance over its bound mode by mode"] < 1.05
    assert len(certificate.claims) == 2


def test_with_one_sample_the_bound_is_attained(one_sample):
    certificate = certify(one_sample)
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    np.testing.assert_allclose(
        certificate.constants["largest distance over its bound by the kernel's movement"], 1, rtol=0.05
    )


@pytest.mark.parametrize("name", ["movement_bound", "mode_bound"])
def test_a_bound_that_is_halved_is_violated(one_sample, monkeypatch, name):
    true = getattr(module, name)

    def halved(*arguments):
        integral = true(*arguments)
        changes = {name: getattr(integral, name) / 2 for name in ("low", "high", "value", "estimate")}
        return dataclasses.replace(integral, **changes)

    monkeypatch.setattr(module, name, halved)
    certificate = certify(one_sample)
    assert certificate.verdict == Verdict.VIOLATED
    which = {"movement_bound": "kernel's movement", "mode_bound": "mode by mode"}[name]
    assert [which in claim.name for claim in certificate.claims if claim.verdict == Verdict.VIOLATED] == [True]


def test_an_end_that_was_moved_is_violated(features_move):
    """The flow's own end, as the rerun has it."""
    evidence = Evidence(features_move)
    again = _movement.movement_run(evidence)
    residual = again.data.movement_residual.to_numpy().copy()
    residual[-1] += 30 * np.linalg.norm(residual[-1]) * np.ones(residual.shape[1]) / residual.shape[1] ** 0.5
    evidence._kept["movement"] = tampered(again, movement_residual=residual)
    certificate = LinearisedDistance().certify(evidence)
    assert certificate.verdict == Verdict.VIOLATED
    assert f"at t = {float(features_move.data.time[-1]):.4g}" in certificate.reason


@pytest.mark.parametrize("error_norm", ["function", "weights"])
def test_a_record_whose_end_was_moved_is_violated(features_move, error_norm):
    """Whatever it says that its steps were judged by."""
    settings = features_move.settings | {"error_norm": error_norm}
    residual = np.sqrt(2 * 4 * float(features_move.data.train_loss[-1]))
    certificate = certify(dataclasses.replace(nudged(features_move, 30 * residual), settings=settings))
    assert certificate.verdict == Verdict.VIOLATED, str(certificate)
    assert "the training loss is that of the stored weights" in certificate.reason


def test_too_few_times_to_bound_the_integral(one_sample, monkeypatch):
    monkeypatch.setattr(_movement, "_NUM_TIMES", 3)
    certificate = certify(one_sample)
    assert certificate.verdict == Verdict.UNDECIDED, str(certificate)


def test_undamped_gauss_newton_trains_as_its_linearisation():
    """B = I however the kernel moves, so that the bound is rounding; and the distance the integration's error."""
    flow = GaussNewtonFlow("identity", Constant(0.0))
    certificate = certify(run(flow, model=mean_field(width=16), rtol=1e-6, solver="tsit5"))
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert all(claim.bound < 1e-12 for claim in certificate.claims)
    assert certificate.constants["largest ||f_t - f^lin_t||/||f_0 - y||"] < 1e-5


def test_what_is_refused(one_sample):
    """The run's parts are exchanged afterwards: hypotheses about them are checked before anything is run."""
    problem = one_sample.problem
    huber = gn.Problem(problem.x_train, problem.y_train, loss=gn.losses.HuberLoss())
    refusals = {
        "squared loss": {"problem": huber},
        "does not depend on time": {"flow": GaussNewtonFlow("identity", Exponential(1e-2, 1.0))},
        "direct solver": {"flow": GaussNewtonFlow("identity", Constant(1e-2), ConjugateGradients())},
    }
    for reason, parts in refusals.items():
        certificate = certify(dataclasses.replace(one_sample, **parts))
        assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
        assert reason in certificate.reason
        assert certificate.claims == ()
    steps = gn.iterate(problem, mean_field(num_outputs=1), GradientFlow(), step_size=0.1, num_steps=2)
    assert "continuous" in certify(steps).reason


FLOWS = {
    "gradient": GradientFlow(),
    "gauss-newton, smallest eigenvalue": GaussNewtonFlow("identity", SmallestEigenvalue(1.0, floor=1e-7)),
    "gauss-newton, hessian": GaussNewtonFlow("hessian", Constant(1e-2)),
    "gauss-newton, undamped": GaussNewtonFlow("fisher", Constant(0.0)),
    "spectral": SpectralFlow(0.4, Constant(1e-2)),
    "frozen": Frozen(SpectralFlow(1.0, SmallestEigenvalue(0.5))),
}


@pytest.mark.parametrize("name", FLOWS)
def test_the_gain_is_that_of_the_flow(name):
    """f' = J w' = -(1/N) B (f - y), with the velocity that the solvers integrate."""
    flow, problem, model = FLOWS[name], make_problem(), mean_field(width=16)
    system = flow.system(problem, model)
    weights = system.weights(model)
    tangent = system.tangent(weights)
    assert has_gain(flow.dynamics, system)
    gains, vectors, matrix = gain(flow.dynamics, system, tangent.gram(), jnp.zeros(()))
    expected = tangent.jvp(flow.velocity(0.0, weights, system)).reshape(-1)
    found = -matrix @ (tangent.outputs - problem.y_train).reshape(-1) / problem.num_train
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(
        np.asarray(vectors) @ np.diag(gains) @ np.asarray(vectors).T, matrix, rtol=0, atol=1e-12 * np.abs(gains).max()
    )


@pytest.mark.parametrize("seed", range(3))
def test_integrals_lie_between_their_bounds(seed):
    """Against a fine Riemann sum, for rates over four decades and an integrand that rises and falls."""
    rng = np.random.default_rng(seed)
    rates, decay = 10 ** rng.uniform(-2, 2, 3), 10 ** rng.uniform(-1, 0.5, 3)
    scale = rng.normal(size=3)
    times = np.concatenate([[0.0], np.geomspace(1e-3, 5, 40)])

    def drive(s):
        return scale * s[:, None] / (1 + s[:, None]) * np.exp(-decay * s[:, None])

    fine = np.linspace(0, times[-1], 400_001)
    middle = (fine[1:] + fine[:-1]) / 2
    exact = np.linalg.norm(
        np.sum(np.exp(-rates * (times[-1] - middle[:, None])) * np.abs(drive(middle)), axis=0) * fine[1]
    )
    integral = mode_bound(times, drive(times), rates)
    assert integral.low[-1] <= exact <= integral.high[-1]
    assert abs(integral.value[-1] - exact) <= integral.estimate[-1] <= 0.1 * exact
    assert np.all(integral.low <= integral.value * (1 + 1e-12))
    assert np.all(integral.value <= integral.high * (1 + 1e-12))

    size = np.exp(-decay[0] * times)
    movement = times / (1 + times)
    integrand = np.exp(-rates[0] * (times[-1] - middle)) * middle / (1 + middle) * np.exp(-decay[0] * middle)
    exact = np.sum(integrand) * fine[1]
    integral = movement_bound(times, movement, size, np.full(len(times), decay[0]), rates[0])
    assert integral.low[-1] <= exact <= integral.high[-1] <= 1.3 * exact
    assert abs(integral.value[-1] - exact) <= integral.estimate[-1]


def test_a_record_with_few_times_is_filled_in(one_sample):
    evidence = Evidence(one_sample)
    times = _movement.measured_times(evidence)
    assert len(times) == 40
    assert np.all(np.diff(times) > 0)
    assert np.isin(evidence.recorded_times, times).all()


def test_the_nudge_moves_the_end(features_move):
    """The tampering above is what it says."""
    moved = nudged(features_move, 0.1)
    system = features_move.flow.system(features_move.problem, features_move.model)
    ends = [ravel_pytree(system.outputs(system.weights(t.model)))[0] for t in (features_move, moved)]
    np.testing.assert_allclose(np.linalg.norm(ends[1] - ends[0]), 0.1, rtol=0.2)
