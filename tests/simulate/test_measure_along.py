"""What is measured along paths that something else made: the same as along a flow; heavy ball and Langevin dynamics."""

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import pytest
from facts.recording import make_problem, mean_field
from simulate.linear import Axes, Linear

import gnflow as gn

DESCENT = gn.flows.GradientFlow(1.0)
METRICS = (gn.metrics.KernelDistance(), gn.metrics.NTKVelocity(), gn.metrics.RelativeWeightMovement())


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def quadratic():
    """L = sum_k lam_k (w_k - w*_k)^2 / 2 with lam = (1/2, 2) and w* = (3, 2): its system and first weights."""
    axes = Axes(scales=(1.0, 2.0), targets=(3.0, 4.0))
    model = Linear.at([0.0, 0.0])
    system = DESCENT.system(axes.problem, model)
    return system, system.weights(model)


RATES, LIMIT = np.array([0.5, 2.0]), np.array([3.0, 2.0])


def test_it_is_what_a_run_measures_at_its_weights():
    run = gn.iterate(
        make_problem(),
        mean_field(),
        DESCENT,
        step_size=0.5,
        num_steps=4,
        saveat_weights=[0, 1, 2, 3, 4],
        metrics=METRICS,
    )
    system = DESCENT.system(run.problem, run.initial_model)
    weights = stacked([system.weights(run.model_at(step)) for step in range(5)])
    data = gn.measure(DESCENT, system, run.data.flow_time, weights, metrics=METRICS)
    assert list(data.data_vars) == list(run.data.data_vars)
    for name in data.data_vars:
        np.testing.assert_allclose(data[name], run.data[name], rtol=1e-9, atol=1e-14)
        assert data[name].attrs == run.data[name].attrs
    np.testing.assert_array_equal(data.time, [0, 0.5, 1, 1.5, 2])


def test_heavy_ball_is_a_damped_oscillator_whose_energy_falls():
    system, first = quadratic()
    friction = 0.4

    def field(time, state, system):
        weights, momentum = state
        force = DESCENT.velocity(time, weights, system)
        return momentum, jax.tree.map(lambda f, p: f - friction * p, force, momentum)

    times = jnp.linspace(0.0, 10.0, 101)
    at_rest = jax.tree.map(jnp.zeros_like, first)
    weights, momentum = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Dopri8(),
        t0=0.0,
        t1=10.0,
        dt0=0.01,
        y0=(first, at_rest),
        args=system,
        stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-12),
        saveat=diffrax.SaveAt(ts=times),
    ).ys
    # w - w* = -w* exp(-g t/2) (cos(o t) + g/(2 o) sin(o t)) with o^2 = lam - g^2/4.
    phase = np.sqrt(RATES - friction**2 / 4)[None] * np.asarray(times)[:, None]
    swing = np.cos(phase) + friction / (2 * np.sqrt(RATES - friction**2 / 4)) * np.sin(phase)
    exact = LIMIT * (1 - np.exp(-friction * np.asarray(times)[:, None] / 2) * swing)
    np.testing.assert_allclose(weights.w, exact, atol=1e-8)
    data = gn.measure(DESCENT, system, times, weights)
    np.testing.assert_allclose(data.train_loss, np.sum(RATES * (exact - LIMIT) ** 2, axis=1) / 2, atol=1e-7)
    energy = data.train_loss.to_numpy() + 0.5 * np.sum(np.asarray(momentum.w) ** 2, axis=1)
    assert np.all(np.diff(energy) < 0)
    assert np.any(np.diff(data.train_loss) > 0)  # the loss itself goes up and down


def test_langevin_dynamics_come_to_rest_at_the_temperature():
    """Each weight has the stationary variance T/lam, and the mean loss is T/2 for each."""
    system, first = quadratic()
    temperature, chains, end = 0.3, 4000, 12.0

    def noise(time, weights, system):
        return lineax.DiagonalLinearOperator(
            jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.sqrt(2 * temperature)), weights)
        )

    def last(key):
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), first)
        path = diffrax.UnsafeBrownianPath(shapes, key, levy_area=diffrax.SpaceTimeLevyArea)
        terms = diffrax.MultiTerm(diffrax.ODETerm(DESCENT.velocity), diffrax.ControlTerm(noise, path))
        found = diffrax.diffeqsolve(terms, diffrax.ShARK(), 0.0, end, 0.1, first, system, adjoint=diffrax.ForwardMode())
        return jax.tree.map(lambda leaf: leaf[0], found.ys)

    ends = jax.jit(jax.vmap(last))(jax.random.split(jax.random.key(0), chains))
    # Five standard errors of a mean and of a variance over so many chains.
    found, expected = np.asarray(ends.w), temperature / RATES
    np.testing.assert_allclose(found.mean(axis=0), LIMIT, atol=5 * np.sqrt(expected.max() / chains) + 3 * np.exp(-6))
    np.testing.assert_allclose(found.var(axis=0), expected, rtol=5 * np.sqrt(2 / chains))
    few = jax.tree.map(lambda leaf: leaf[:200], ends)
    losses = gn.measure(DESCENT, system, np.arange(200), few).train_loss.to_numpy()
    np.testing.assert_allclose(losses, np.sum(RATES * (found[:200] - LIMIT) ** 2, axis=1) / 2, rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": [0.0, 2.0, 1.0]}, "times = .*ascending"),
        ({"times": [0.0, np.nan, 1.0]}, "times = .*finite"),
        ({"times": []}, "times = "),
        ({"times": "now"}, "times = 'now'"),
        ({"times": [0.0, 1.0]}, r"weights hold an array of shape \(3, 2\) for 2 times; expected a tree like"),
        ({"weights": {}}, "weights hold no arrays; expected a tree like"),
        ({"weights": jnp.zeros((3, 2))}, r"weights are not those of Linear .*; expected a tree like"),
        ({"weights": Linear(jnp.zeros((3, 4)), None)}, r"weights are not those of Linear .*; expected a tree like"),
        ({"metrics": (gn.metrics.PathLength(),)}, "PathLength is an integral along a flow"),
    ],
)
def test_what_is_no_path_is_refused(change, message):
    system, first = quadratic()
    given = {"times": [0.0, 1.0, 2.0], "weights": stacked([first] * 3)} | change
    with pytest.raises(gn.ConfigError, match=message):
        gn.measure(DESCENT, system, **given)
