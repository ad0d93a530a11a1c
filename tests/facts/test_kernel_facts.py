"""docs/theory.md, exact facts 2 and 3: closed forms where the tangent kernel does not change."""

import functools

import numpy as np
import pytest
from facts.recording import NUM_TRAIN, jacobian, make_problem, mean_field, mlp, record, residuals, steps

from gnflow.flows import Frozen, GaussNewtonFlow, GradientFlow, SpectralFlow
from gnflow.geometry.damping import Constant
from gnflow.models import Linearised, RandomFeatures


class Kernel:
    """A_0, K(x, X) and the residual at the start, from the whole Jacobian of `model`; `rows` selects weights."""

    def __init__(self, model, problem, rows=slice(None)):
        train, test = (jacobian(model, x)[:, rows] for x in (problem.x_train, problem.x_test))
        self.gram, self.cross = train @ train.T, test @ train.T
        self.eigenvalues, self.vectors = np.linalg.eigh(self.gram)

    def residuals(self, rate, time, start):
        """Q exp(-rate(lam) t / N) Q^T (f_0 - y) at each time."""
        decay = np.exp(-np.outer(time, rate(self.eigenvalues)) / NUM_TRAIN)
        return (decay * (self.vectors.T @ start)) @ self.vectors.T

    def test_outputs(self, train_change, start):
        """f_0(x) + K(x, X) A_0^-1 (f_t - f_0)."""
        return start + np.linalg.solve(self.gram, train_change.T).T @ self.cross.T


def assert_kernel_dynamics(trajectory, kernel, rate, tolerance=1e-8):
    """Train and test outputs follow the closed form."""
    found = residuals(trajectory)
    expected = kernel.residuals(rate, trajectory.data.time.values, found[0])
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(found[0]).max())
    test = trajectory.data.test_outputs.values.reshape(len(found), -1)
    expected_test = kernel.test_outputs(expected - expected[0], test[0])
    np.testing.assert_allclose(test, expected_test, rtol=0, atol=10 * tolerance * np.abs(test).max())


@functools.cache
def linearised_mlp(seed):
    base, problem = mlp(seed), make_problem(seed)
    return Linearised(base), problem, Kernel(base, problem)


@pytest.mark.parametrize("seed", [0, 1])
def test_gradient_flow(seed):
    base, problem = mean_field(seed), make_problem(seed)
    trajectory = record(problem, Linearised(base), GradientFlow())
    assert_kernel_dynamics(trajectory, Kernel(base, problem), lambda lam: base.mobility * lam)


# (power, damping): gradient flow, in between, with damping, Gauss-Newton; in one compiled program.
@pytest.mark.parametrize(("power", "damping"), [(0.0, 0.0), (0.4, 0.0), (0.5, 0.3), (1.0, 0.0), (1.0, 0.1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_spectral_family(power, damping, seed):
    model, problem, kernel = linearised_mlp(seed)
    trajectory = record(problem, model, SpectralFlow(power, Constant(damping)))
    assert_kernel_dynamics(trajectory, kernel, lambda lam: lam * (lam + damping) ** -power)
    # Another power is another curve: the check would see a wrong one.
    with pytest.raises(AssertionError):
        assert_kernel_dynamics(trajectory, kernel, lambda lam: lam * (lam + damping) ** -(power - 0.01))


def test_gradient_flow_and_gauss_newton_have_the_same_limit():
    model, problem, kernel = linearised_mlp(0)
    assert kernel.eigenvalues[-1] / kernel.eigenvalues[0] < 1e4  # else an explicit solver does not get there
    slowest = 22 * NUM_TRAIN / kernel.eigenvalues[0]
    gradient = record(problem, model, SpectralFlow(0.0), np.array([0.1, 0.5, 1]) * slowest, rtol=1e-6)
    gauss_newton = record(problem, model, SpectralFlow(1.0), np.array([0.1, 0.5, 1]) * 22 * NUM_TRAIN, rtol=1e-6)
    start = gradient.data.test_outputs.values[0].reshape(-1)
    interpolator = kernel.test_outputs(-residuals(gradient)[:1], start)[0]
    for trajectory in (gradient, gauss_newton):
        end = trajectory.data.test_outputs.values[-1].reshape(-1)
        np.testing.assert_allclose(end, interpolator, rtol=0, atol=1e-7 * np.abs(interpolator).max())


def test_where_features_move_the_limits_differ():
    problem, model = make_problem(), mean_field()
    ends = [
        record(problem, model, flow, (1.0, 10.0, 400.0), rtol=1e-6)
        for flow in (GradientFlow(), GaussNewtonFlow("hessian", Constant(0.0)))
    ]
    assert max(float(end.data.train_loss[-1]) for end in ends) < 1e-6
    gradient, gauss_newton = (end.data.test_outputs.values[-1] for end in ends)
    assert np.abs(gradient - gauss_newton).max() > 1e-2


def test_a_network_is_not_its_linearisation():
    problem, model = make_problem(), mean_field()
    kernel = Kernel(model, problem)
    found = residuals(record(problem, model, GradientFlow()))
    expected = kernel.residuals(lambda lam: model.mobility * lam, [0.0, 0.3, 1.0, 2.5], found[0])
    assert np.abs(found - expected).max() > 1e-2 * np.abs(found[0]).max()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("damping", [0.0, 0.02])
def test_random_features_are_their_own_linearisation(seed, damping):
    model, problem = RandomFeatures.of(mean_field(seed)), make_problem(seed)
    flow = GaussNewtonFlow("identity", Constant(damping))
    trajectory = record(problem, model, flow, (1.2, 4.0, 10.0))
    assert_kernel_dynamics(trajectory, Kernel(model, problem), lambda lam: lam / (lam + damping))
    discrete = [steps(problem, each, flow, 0.7, 6) for each in (model, Linearised(model))]
    for name in ("train_outputs", "test_outputs"):
        np.testing.assert_allclose(discrete[1].data[name], discrete[0].data[name], rtol=0, atol=1e-11)
    np.testing.assert_allclose(discrete[1].model.weights.output_weight, discrete[0].model.output_weight, atol=1e-10)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_frozen_hidden_layer_gives_random_features(seed):
    """Euler's closed form, (1 - step rate)^k along each mode, with the kernel of the output layer alone."""
    model, problem = mean_field(seed), make_problem(seed)
    run = steps(problem, model, Frozen(GradientFlow(), "output"), 0.3, 6)
    output_weights = slice(model.hidden_weight.size + model.hidden_bias.size, None)
    kernel = Kernel(model, problem, output_weights)
    factor = 1 - 0.3 * model.mobility * kernel.eigenvalues / NUM_TRAIN
    found = residuals(run)
    expected = (factor ** np.arange(7)[:, None] * (kernel.vectors.T @ found[0])) @ kernel.vectors.T
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.abs(found[-1] - found[0]).max() > 0.1
    np.testing.assert_array_equal(run.model.hidden_weight, model.hidden_weight)
    np.testing.assert_array_equal(run.model.hidden_bias, model.hidden_bias)
    features = steps(problem, RandomFeatures.of(model), GradientFlow(), 0.3, 6)
    np.testing.assert_allclose(run.data.test_outputs, features.data.test_outputs, rtol=0, atol=1e-12)
