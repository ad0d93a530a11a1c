"""The packaged equations: references that solve them, quadrature rules, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnflow import problems
from gnflow._core import ConfigError, DataError
from gnflow.problems import Box, RelativeError
from gnflow.problems.equations._allen_cahn import allen_cahn_solution
from gnflow.problems.equations._burgers import burgers_solution


class _Solution(eqx.Module):
    """A formula in the place of a network, with one weight that changes nothing."""

    function: object = eqx.field(static=True)
    weight: jax.Array

    def __call__(self, x):
        return self.function(x)[None] + 0 * self.weight


def _model(function):
    return _Solution(function, jnp.zeros(()))


def _sines(*frequencies):
    return lambda x: jnp.prod(jnp.stack([jnp.sin(f * jnp.pi * x[i]) for i, f in enumerate(frequencies)]))


_SOLUTIONS = {
    "poisson": ({}, _sines(1, 1)),
    "poisson in one dimension": ({"dimension": 1}, _sines(1)),
    "poisson in three": ({"dimension": 3, "points_per_axis": 3, "test_points_per_axis": 4}, _sines(1, 1, 1)),
    "helmholtz": ({"wavenumber": 2.0}, _sines(1, 4)),
    "heat": ({"diffusivity": 0.3}, lambda x: jnp.exp(-0.3 * jnp.pi**2 * x[1]) * jnp.sin(jnp.pi * x[0])),
}


@pytest.mark.parametrize("case", _SOLUTIONS)
def test_exact_solutions_have_no_residual_and_no_error(case):
    options, function = _SOLUTIONS[case]
    problem = getattr(problems, case.split()[0])(**{"points_per_axis": 4, "test_points_per_axis": 5, **options})
    model = _model(function)
    residuals = problem.x_train.outputs(model)
    assert np.max(np.abs(residuals)) < 1e-11
    assert all(float(error(model)) < 1e-13 for error in problem.test.values())
    half = _model(lambda x: function(x) / 2)
    for error in problem.test.values():
        np.testing.assert_allclose(error(half), 0.5, rtol=1e-12)
    assert sum(float(term.loss(half)) for term in problem.terms) > 0.01


def test_burgers_reference_solves_the_equation():
    viscosity = 0.02
    x, t = np.meshgrid(np.linspace(-0.9, 0.9, 7), [0.1, 0.4, 0.9])
    points = np.stack([x.ravel(), t.ravel()], axis=1)

    def u(dx, dt):
        return burgers_solution(points + np.array([dx, dt]), viscosity)

    # Central differences of order 4 in x and t.
    h = 1e-3
    first = {
        d: (u(-2 * d[0], -2 * d[1]) - 8 * u(-d[0], -d[1]) + 8 * u(*d) - u(2 * d[0], 2 * d[1])) / 12 / h
        for d in ((h, 0), (0, h))
    }
    second = (-u(-2 * h, 0) + 16 * u(-h, 0) - 30 * u(0, 0) + 16 * u(h, 0) - u(2 * h, 0)) / 12 / h**2
    residual = first[0, h] + u(0, 0) * first[h, 0] - viscosity * second
    assert np.max(np.abs(residual)) < 1e-5 * np.max(np.abs(first[0, h]))
    start = np.stack([x[0], np.zeros(7)], axis=1)
    np.testing.assert_allclose(burgers_solution(start, viscosity), -np.sin(np.pi * x[0]), atol=1e-13)
    np.testing.assert_allclose(burgers_solution(points, 0.004, 601), burgers_solution(points, 0.004), atol=1e-12)


def test_allen_cahn_reference_converges():
    times = np.array([0.0, 0.3, 1.0])
    _, coarse = allen_cahn_solution(1e-3, times, 256)
    x, fine = allen_cahn_solution(1e-3, times, 512)
    assert np.max(np.abs(coarse - fine[:, ::2])) < 2e-5
    np.testing.assert_allclose(fine[0], x**2 * np.cos(np.pi * x), atol=1e-14)


@pytest.mark.parametrize("rule", ["gauss_legendre", "midpoint", "random"])
def test_quadrature_rules_give_volumes_and_faces(rule):
    box = Box((0.0, -1.0), (2.0, 2.0), 5, rule, jax.random.key(0))
    points, weights = box.inside()
    assert points.shape == (25, 2)
    np.testing.assert_allclose(weights.sum(), 6.0)
    assert np.all((points > [0, -1]) & (points < [2, 2]))
    if rule == "gauss_legendre":
        np.testing.assert_allclose(np.sum(weights * points[:, 0] ** 9 * points[:, 1] ** 2), 2**10 / 10 * 3, rtol=1e-12)
    ends, lengths = box.faces((0,))
    assert ends.shape == (10, 2)
    assert set(ends[:, 0]) == {0.0, 2.0}
    np.testing.assert_allclose(lengths.sum(), 6.0)
    corner, one = Box((0.0,), (3.0,), 2).on({0: 3.0}, "end")
    assert corner.tolist() == [[3.0]]
    assert one.tolist() == [1.0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: problems.poisson(points_per_axis=0), DataError, "points_per_axis = 0"),
        (lambda: problems.poisson(rule="gauss"), ConfigError, "gauss_legendre"),
        (lambda: problems.heat(rule="random"), DataError, "give a key"),
        (lambda: problems.heat(diffusivity=-1.0), DataError, "diffusivity"),
        (lambda: problems.burgers(viscosity=1e-4), DataError, "viscosity"),
        (lambda: problems.helmholtz(wavenumber=float(np.pi * np.sqrt(17))), DataError, "not unique"),
        (lambda: RelativeError(np.ones((3, 2)), np.zeros(3)), DataError, "zero everywhere"),
        (lambda: RelativeError(np.ones((3, 2)), np.ones(2)), DataError, r"values has shape \(2,\)"),
        (lambda: RelativeError(np.ones((2, 1)), np.ones(2), quadrature=[1.0, -2.0]), DataError, "the weight -2"),
        (lambda: Box([0.0], [1.0, 2.0], 2), DataError, "two corners"),
        (lambda: Box([0.0, 1.0], [1.0, 0.0], 2), DataError, "low below high"),
        (lambda: Box(0.0, 1.0, 2), DataError, r"two corners \(d,\)"),
        (lambda: Box([0.0], [np.inf], 2), DataError, "finite"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
