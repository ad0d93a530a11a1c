"""docs/theory.md, exact facts 5, 7 and 8: descent, the symmetries of particles, and Euler's method."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import TIMES, equinox_mlp, make_problem, mean_field, mlp, record, steps

import gnflow as gn
from gnflow.flows import GaussNewtonFlow, GradientFlow
from gnflow.geometry.damping import Constant
from gnflow.losses import HuberLoss, SoftmaxCrossEntropy

# Three saves each, as in every run of these tests: one compiled program.
LONG_AND_SHORT = [(0.02, 0.05, 0.1), (0.2, 0.5, 1.0), (2.0, 4.0, 8.0)]

DESCENTS = {
    "gradient, squared, mean field": lambda seed: (make_problem(seed), mean_field(seed), GradientFlow()),
    "gradient, huber, equinox": lambda seed: (
        make_problem(seed, 1, HuberLoss(0.3)),
        equinox_mlp(seed),
        GradientFlow(mobility=2.0),
    ),
    "natural gradient, softmax, mlp": lambda seed: (
        make_problem(seed, loss=SoftmaxCrossEntropy()),
        mlp(seed),
        GaussNewtonFlow("fisher", Constant(0.01)),
    ),
}


@pytest.mark.parametrize("name", DESCENTS)
def test_the_loss_falls_strictly(name):
    for seed in (0, 1):
        # The default tolerance: the fact must survive it.
        runs = [record(*DESCENTS[name](seed), times, rtol=1e-3) for times in LONG_AND_SHORT]
        loss = np.concatenate([runs[0].data.train_loss[:1], *(run.data.train_loss[1:] for run in runs)])
        assert len(loss) == 10
        assert np.all(np.diff(loss) < 0), loss
        assert loss[-1] < 0.8 * loss[0]


def test_a_long_euler_step_climbs():
    """The fact is about flows: gradient descent beyond its stability is not one."""
    flow = GradientFlow()
    short, long = (steps(make_problem(), mean_field(), flow, size, 6).data.train_loss for size in (0.02, 2.0))
    assert np.all(np.diff(short) < 0)
    assert np.any(np.diff(long) > 0)


def above_rounding(problem, model):
    """A tolerance and an order at which every error estimate is far above rounding, so that the same flow takes the same steps.

    (With order 8 that of the first step is not, and the step-size rule remembers it.)
    """
    return record(problem, model, GradientFlow(), solver="tsit5", rtol=1e-5)


def permuted(model, order):
    return gn.models.MeanFieldNetwork.from_arrays(
        model.hidden_weight[order], model.hidden_bias[order], model.output_weight[order]
    )


@pytest.fixture(scope="module")
def particles():
    return make_problem(), mean_field(), np.array([3, 1, 7, 0, 2, 6, 5, 4])


def test_the_order_of_particles_does_not_matter(particles):
    problem, model, order = particles
    first, second = (above_rounding(problem, each) for each in (model, permuted(model, order)))
    for name in ("train_outputs", "test_outputs"):
        np.testing.assert_allclose(second.data[name], first.data[name], rtol=0, atol=1e-10)
    np.testing.assert_allclose(second.model.hidden_weight, first.model.hidden_weight[order], atol=1e-10)


def test_two_of_every_particle_are_the_same_flow(particles):
    problem, model, order = particles
    doubled = permuted(model, np.concatenate([order, order]))
    assert doubled.width == 2 * model.width
    first, second = (above_rounding(problem, each) for each in (model, doubled))
    for name in ("train_outputs", "test_outputs"):
        np.testing.assert_allclose(second.data[name], first.data[name], rtol=0, atol=1e-10)
    # So does the work, with the default error norm.
    assert second.stats["num_steps"] == first.stats["num_steps"] > 3
    # The copies stay together.
    np.testing.assert_allclose(second.model.output_weight[:8], second.model.output_weight[8:], atol=1e-11)


def test_two_of_every_particle_are_half_as_fast_without_the_particle_metric(particles):
    problem, model, order = particles
    doubled = permuted(model, np.concatenate([order, order]))
    flow = GradientFlow(mobility=1.0)
    first, second = (steps(problem, each, flow, 0.5, 40) for each in (model, doubled))
    assert np.abs(second.data.train_outputs - first.data.train_outputs).max() > 1e-2
    # w' = -grad L on 2M particles is the particle flow at half the speed.
    twice = steps(problem, doubled, flow, 1.0, 40)
    np.testing.assert_allclose(twice.data.train_outputs, first.data.train_outputs, rtol=0, atol=1e-12)


def slope(step_sizes, errors):
    return np.polyfit(np.log(step_sizes), np.log(errors), 1)[0]


EULER = {
    "gradient, mean field": (mean_field, GradientFlow()),
    "gauss-newton, mean field": (mean_field, GaussNewtonFlow("hessian", Constant(0.0))),
    "damped gauss-newton, mlp": (mlp, GaussNewtonFlow("identity", Constant(0.05))),
}


# The last network is another program for the flow and for its method.
@pytest.mark.parametrize("name", [*list(EULER)[:2], pytest.param(list(EULER)[2], marks=pytest.mark.slow)])
def test_euler_converges_at_first_order(name):
    make, flow = EULER[name]
    problem, model = make_problem(), make()
    end = record(problem, model, flow)
    counts = np.array([64, 128, 256, 512])
    runs = [steps(problem, model, flow, TIMES[-1] / count, int(count), save_every=int(count)) for count in counts]
    for variable in ("weights", "test_outputs"):
        errors = [np.abs(run.data[variable].values[-1] - end.data[variable].values[-1]).max() for run in runs]
        assert errors[-1] > 1e-7  # well above the accuracy of the reference
        assert abs(slope(TIMES[-1] / counts, errors) - 1) < 0.15, (variable, errors)
    # Compared with another time the error does not fall, and the slope tells.
    errors = [np.abs(run.data.weights.values[-1] - end.data.weights.values[-2]).max() for run in runs]
    assert abs(slope(TIMES[-1] / counts, errors)) < 0.15


def test_euler_of_the_straight_line_is_exact_in_closed_form():
    """Where features do not move: (1 - step)^k along every mode of undamped Gauss-Newton on a linear model."""
    problem, model = make_problem(), gn.models.RandomFeatures.of(mean_field())
    flow = GaussNewtonFlow("identity", Constant(0.0))
    run = steps(problem, model, flow, 0.7, 6)
    ratio = np.sqrt(run.data.train_loss / run.data.train_loss[0])
    np.testing.assert_allclose(ratio, (1 - 0.7 / 4) ** np.arange(7), rtol=1e-10)
    assert eqx.tree_equal(run.initial_model, model)
    assert jnp.all(run.model.features.hidden_weight == model.features.hidden_weight)
