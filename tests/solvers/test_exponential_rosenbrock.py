"""The exponential solver with the whole Jacobian."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from solvers.running import NONLINEAR, Spectrum, errors_at_fixed_steps, integrate, number, rows, slope

from gnflow.solvers import ExponentialRosenbrock, LinearisedTerm
from gnflow.solvers._exponential_rosenbrock import _diagonalised

SOLVER = ExponentialRosenbrock()
STEPS = {"gradient": (8, 16, 32), "gauss-newton, lifted damping": (8, 16, 32)}


@pytest.mark.parametrize("name", STEPS)
def test_order_four(name):
    """At the end of steps, and three in the step size inside them, where one step's error is of the order four; also where the
    velocity depends on time."""
    at_end, inside = errors_at_fixed_steps(NONLINEAR[name], SOLVER, STEPS[name])
    np.testing.assert_allclose(slope(STEPS[name], at_end), 4, atol=0.3)
    np.testing.assert_allclose(slope(STEPS[name], inside), 4, atol=0.4)


@pytest.mark.parametrize("end", [0.5, 30.0])
def test_one_step_is_exact_where_the_velocity_is_linear(end):
    """Rates 1e4 to 1e-2: at the end, inside, and the integral of a velocity that falls by decades in the step."""
    spectrum = Spectrum([1e4, 1.0, 1e-2])
    term = LinearisedTerm(spectrum.flow, spectrum.system, lambda velocity: {"change": jnp.sum(velocity.w)})
    times = np.array([0.01, 0.3, 1.0]) * end
    start = (spectrum.start, {"change": jnp.zeros(())})
    found = integrate(term, SOLVER, start, number(end), number(end), diffrax.SaveAt(ts=jnp.asarray(times)), max_steps=1)
    assert found.ys is not None
    weights, integrals = found.ys
    np.testing.assert_allclose(rows(weights), spectrum.weights(times), rtol=1e-9)
    np.testing.assert_allclose(integrals["change"], spectrum.weights(times).sum(axis=1), rtol=1e-6)


def test_what_a_displacement_becomes():
    """As the difference of two solutions, up to the third order of the step: half of it, an eighth of the error."""
    case = NONLINEAR["gradient"]
    start, unravel = ravel_pytree(case.weights)
    displacement = 1e-7 * jnp.asarray(np.random.default_rng(0).standard_normal(start.size))

    @jax.jit
    def moved(length):
        nothing = jnp.zeros(())
        return ravel_pytree(
            SOLVER.step_with_error(
                case.term, nothing, length, unravel(start), None, None, False, unravel(displacement), lambda after: 1.0
            )[1]
        )[0]

    def solution(point, length):
        return rows(integrate(case.term, SOLVER, unravel(point), number(length), number(length / 32)).ys)[0]

    errors = []
    for length in (0.4, 0.2):
        expected = solution(start + displacement, length) - solution(start - displacement, length)
        errors.append(np.linalg.norm(np.asarray(moved(number(length))) - expected / 2) / np.linalg.norm(displacement))
    assert errors[0] < 1e-2
    np.testing.assert_allclose(errors[0] / errors[1], 8, rtol=0.3)


@pytest.mark.parametrize(
    "matrix",
    [
        [[-1.0, 1.0], [0.0, -1.0]],  # one eigenvector
        [[-1.0, 0.0, 0.0], [0.0, 0.0, 1e-300], [0.0, 0.0, 0.0]],  # two, but for rounding
        [[0.0, 0.0], [0.0, 0.0]],
    ],
)
def test_a_jacobian_without_a_basis_of_eigenvectors(matrix):
    """Its symmetric part stands in: the steps are shorter, but they are steps."""
    jacobian, spectrum = _diagonalised(jnp.asarray(matrix))
    np.testing.assert_allclose(jacobian, (np.array(matrix) + np.array(matrix).T) / 2)
    product = spectrum.basis @ jnp.diag(spectrum.rates) @ spectrum.inverse
    np.testing.assert_allclose(product, jacobian, atol=1e-12)
