"""Nonlinear least squares with known parameters: NIST Statistical Reference Datasets, a coefficient of an equation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gnflow as gn

# y and x, the model, the second start of NIST, the certified parameters and sum of squares.
_FITS = {
    "Misra1a (lower difficulty)": (
        [10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05, 61.01, 66.40, 75.47, 81.78],
        [77.6, 114.9, 141.1, 190.8, 239.9, 289.0, 332.8, 378.4, 434.8, 477.3, 536.8, 593.1, 689.1, 760.0],
        lambda b, x: b[0] * (1 - jnp.exp(-b[1] * x)),
        [250.0, 0.0005],
        [2.3894212918e02, 5.5015643181e-04],
        1.2455138894e-01,
    ),
    "BoxBOD (higher difficulty)": (
        [109.0, 149.0, 149.0, 191.0, 213.0, 224.0],
        [1.0, 2.0, 3.0, 5.0, 7.0, 10.0],
        lambda b, x: b[0] * (1 - jnp.exp(-b[1] * x)),
        [100.0, 0.75],
        [2.1380940889e02, 5.4723748542e-01],
        1.1680088766e03,
    ),
    "Rat43 (higher difficulty)": (
        [
            16.08,
            33.83,
            65.80,
            97.20,
            191.55,
            326.20,
            386.87,
            520.53,
            590.03,
            651.92,
            724.93,
            699.56,
            689.96,
            637.56,
            717.41,
        ],
        np.arange(1.0, 16.0),
        lambda b, x: b[0] / (1 + jnp.exp(b[1] - b[2] * x)) ** (1 / b[3]),
        [700.0, 5.0, 0.75, 1.3],
        [6.9964151270e02, 5.2771253025e00, 7.5962938329e-01, 1.2792483859e00],
        8.7864049080e03,
    ),
}


class _Curve(eqx.Module):
    """y = function(parameters, x)."""

    parameters: jax.Array
    function: object = eqx.field(static=True)

    def __call__(self, x):
        return self.function(self.parameters, x)


@pytest.mark.parametrize("name", _FITS)
def test_gauss_newton_flow_finds_the_certified_parameters(name):
    y, x, function, start, certified, squares = _FITS[name]
    data = gn.ResidualTerm("data", lambda curve, point: curve(point[0]) - point[1], np.stack([x, y], axis=1))
    # Residuals do not vanish, and a tolerance is relative to them, so that it has to be small for the parameters.
    flow = gn.flows.GaussNewtonFlow(damping=gn.damping.Constant(0.0))
    run = gn.simulate(
        gn.ResidualProblem([data]), _Curve(jnp.asarray(start), function), flow, t1=100.0, stop=None, rtol=1e-9
    )
    np.testing.assert_allclose(run.model.parameters, certified, rtol=1e-8)
    np.testing.assert_allclose(2 * len(x) * float(run.data.train_loss[-1]), squares, rtol=1e-9)


class _Unknown(eqx.Module):
    """A network for u, and the logarithm of the diffusivity."""

    network: eqx.Module
    log_diffusivity: jax.Array

    def __call__(self, point):
        return self.network(point)


def _heat(model, point):
    u = gn.problems.scalar(model.network)
    bend = gn.problems.second_derivative(u, point, 0)
    return jax.grad(u)(point)[1] - jnp.exp(model.log_diffusivity) * bend


@pytest.mark.slow
def test_gauss_newton_flow_finds_an_unknown_diffusivity():
    inside, _ = gn.problems.Box([0.0, 0.0], [1.0, 1.0], points_per_axis=6).inside()
    where = np.random.default_rng(0).uniform(size=(30, 2))
    measured = np.exp(-0.25 * np.pi**2 * where[:, 1]) * np.sin(np.pi * where[:, 0])
    problem = gn.ResidualProblem(
        [
            gn.ResidualTerm("equation", _heat, inside),
            gn.ResidualTerm("data", lambda m, p: m(p[0])[0] - p[1], (where, measured), weight=10.0),
        ],
        test={"diffusivity": lambda model: jnp.exp(model.log_diffusivity)},
    )
    network = gn.models.MLP(2, 8, 1, 1, "tanh", key=jax.random.key(1))
    flow = gn.flows.GaussNewtonFlow(damping=gn.damping.Exponential(start=1e-3, rate=2.0, floor=1e-12))
    run = gn.simulate(problem, _Unknown(network, jnp.array(0.0)), flow, t1=8.0)
    assert float(run.data.diffusivity[0]) == 1.0
    np.testing.assert_allclose(run.data.diffusivity[-1], 0.25, rtol=0.02)
