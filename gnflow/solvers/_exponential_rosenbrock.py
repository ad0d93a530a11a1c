"""The exponential Rosenbrock solver: the exponential Runge-Kutta method with the whole Jacobian, for few weights."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Complex, Float, PyTree

from ._exponential_interpolation import ExponentialInterpolation, PackedTree, add_integrals
from ._linearised import AbstractErrorCarryingSolver
from ._phi import phi_functions
from ._term import unwrap

# A displacement smaller than this beside the weights is scaled up before the flow is looked at there.
_DISPLACEMENT = 1e-6
# Of the eigenvectors, beyond which half of all digits are lost; and what counts as symmetric.
_MOST_CONDITION = 1e8
_ASYMMETRY = 1e-10


class ExponentialRosenbrock(AbstractErrorCarryingSolver):
    """Krogstad's method (`ExponentialRungeKutta`) with the whole Jacobian J_F of the velocity in place of its low-rank part.

    W = -J^T K H_L J leaves out what comes with the residual: sum_n g_n D^2 f_n and the change of K. Where the residual does not
    vanish, as with fewer weights than noisy targets, that is stiff too and limits the steps of the low-rank solver. Here
    J_F, P x P, is found by P derivatives of the velocity and diagonalised (real eigenvalues or conjugate pairs, negative
    curvature among them): O(P (NC)^3 + P^3) a step, so for few weights. The order is 4 whatever the accuracy of J_F;
    rounding, eps times the condition number of the eigenvectors and eps h |J_F|, is what limits a step. With a flow that jumps
    or has no derivative the steps are those of an explicit solver.

    Sources: Krogstad, J. Comput. Phys. 2005; Hochbruck, Ostermann and Schweitzer, "Exponential Rosenbrock-type methods", SIAM
    J. Numer. Anal. 2009. Takes a `LinearisedTerm` of any flow w' = -J^T a whose coefficients have a derivative. Dense output is
    the same formula at intermediate times, of order 3; integrals are found by quadrature along it.
    """

    # The exact linearised flow, over steps so long that a run on its way to another minimum seems near.
    errs_upwards: ClassVar[bool] = False
    interpolation_cls: ClassVar = ExponentialInterpolation

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: None, made_jump: Any
    ) -> tuple[PyTree, PyTree, dict[str, Any], None, diffrax.RESULTS]:
        """One step from t0 to t1."""
        nothing = jax.tree.map(jnp.zeros_like, unwrap(terms).split(y0)[0])
        return self.step_with_error(
            terms, t0, t1, y0, args, solver_state, made_jump, nothing, lambda after: jnp.ones(())
        )[0]

    def step_with_error(
        self,
        terms: Any,
        t0: Any,
        t1: Any,
        y0: PyTree,
        args: Any,
        solver_state: None,
        made_jump: Any,
        error: PyTree,
        decay: Callable[[PyTree], Float[Array, ""]],
    ) -> tuple[tuple[PyTree, PyTree, dict[str, Any], None, diffrax.RESULTS], PyTree]:
        """What `step` returns, and what a small displacement `error` of the weights, a tree like them, has become by t1.

        e+ = exp(h J_F) e + h phi_2(h J_F) D with D = F(w+ + e') - F(w+) - J_F e', e' = exp(h J_F) e: the change of the Jacobian
        along the step taken for linear in time. D is divided by a displacement large enough to leave it digits. The `decay` is
        not looked at.
        """
        term = unwrap(terms)
        weights, integrals = term.split(y0)
        flat, unravel = ravel_pytree(weights)
        length, half = t1 - t0, (t1 - t0) / 2

        def velocity(time: Any, point: Float[Array, " weights"]) -> Float[Array, " weights"]:
            return ravel_pytree(term.velocity(time, unravel(point)))[0]

        start = velocity(t0, flat)
        jacobian = jax.jacfwd(lambda point: velocity(t0, point))(flat)
        jacobian, spectrum = _diagonalised(jacobian)
        rates = spectrum.rates

        def remainder(span: Any, increment: Float[Array, " weights"]) -> Complex[Array, " weights"]:
            """V^-1 D at w + increment."""
            difference = velocity(t0 + span, flat + increment) - start - jacobian @ increment
            return spectrum.inverse @ difference

        first = spectrum.inverse @ start
        phi_half, phi = (phi_functions(span * rates, 3) for span in (half, length))
        second = remainder(half, half * spectrum.real(phi_half[1] * first))
        third = remainder(half, half * spectrum.real(phi_half[1] * first + 2 * phi_half[2] * second))
        fourth = remainder(length, length * spectrum.real(phi[1] * first + 2 * phi[2] * third))
        path = DensePath(spectrum, first, 2 * (second + third) - fourth, 2 * (fourth - second - third), term.integrands)
        weights, integrals = path.advance(weights, integrals, length, length)
        local = length * spectrum.real((2 * phi[2] - 4 * phi[3]) * (second - third))
        y1 = term.join(weights, integrals)
        y_error = term.join(unravel(local), jax.tree.map(jnp.zeros_like, integrals))
        kept = spectrum.real(phi[0] * (spectrum.inverse @ ravel_pytree(error)[0]))
        end = ravel_pytree(weights)[0]
        size = jnp.linalg.norm(kept)
        scale = jnp.where(size > 0, _DISPLACEMENT * jnp.linalg.norm(end) / jnp.where(size > 0, size, 1.0), 1.0)
        scale = jnp.maximum(scale, 1.0)
        change = (velocity(t1, end + scale * kept) - velocity(t1, end)) / scale - jacobian @ kept
        moved = kept + length * spectrum.real(phi[2] * (spectrum.inverse @ change))
        stepped = y1, y_error, {"y0": y0, "path": PackedTree(path)}, None, diffrax.RESULTS.successful
        return stepped, unravel(moved)


def _diagonalised(
    jacobian: Float[Array, "weights weights"],
) -> tuple[Float[Array, "weights weights"], "Spectrum"]:
    """J_F, or its symmetric part where J_F has no usable basis of eigenvectors, and the spectrum of what is returned.

    A matrix may have too few eigenvectors (units that are saturated: rows of zeros). That of gradient flow is symmetric but for
    rounding, which equal eigenvalues turn into eigenvectors that are nearly parallel. The order does not depend on W.
    """
    rates, basis = jnp.linalg.eig(jacobian)
    inverse = jnp.linalg.inv(basis)
    condition = jnp.linalg.norm(basis) * jnp.linalg.norm(inverse)
    symmetric = (jacobian + jacobian.T) / 2
    asymmetry = jnp.linalg.norm(jacobian - symmetric)
    usable = (condition < _MOST_CONDITION) & (asymmetry > _ASYMMETRY * jnp.linalg.norm(jacobian))
    real_rates, orthonormal = jnp.linalg.eigh(symmetric)
    others = Spectrum(real_rates + 0j, orthonormal + 0j, orthonormal.T + 0j)
    found = jax.tree.map(lambda a, b: jnp.where(usable, a, b), Spectrum(rates, basis, inverse), others)
    return jnp.where(usable, jacobian, symmetric), found


class Spectrum(eqx.Module):
    """J_F = V diag(rates) V^(-1). **Attributes:** `rates` (P,), complex; `basis`: V; `inverse`: V^(-1)."""

    rates: Complex[Array, " weights"]
    basis: Complex[Array, "weights weights"]
    inverse: Complex[Array, "weights weights"]

    def real(self, coordinates: Complex[Array, " weights"]) -> Float[Array, " weights"]:
        """V x for the coordinates of a real vector: conjugate pairs have conjugate coordinates."""
        return jnp.real(self.basis @ coordinates)


class DensePath(eqx.Module):
    """w(t_n + s) for 0 <= s <= h, as `StepPath`, in the coordinates of the Jacobian's eigenvectors.

    **Attributes:** `spectrum`; `start`, `slope`, `bend`: V^(-1) F, P_1 and P_2; `integrands` of the term.
    """

    spectrum: Spectrum
    start: Complex[Array, " weights"]
    slope: Complex[Array, " weights"]
    bend: Complex[Array, " weights"]
    integrands: Callable[[PyTree], dict[str, Array]] | None

    def advance(
        self, weights: PyTree, integrals: dict[str, Array], span: Float[Array, ""], length: Float[Array, ""]
    ) -> tuple[PyTree, dict[str, Array]]:
        """Weights and integrals at s = `span` of a step of length h = `length` from the given ones."""
        flat, unravel = ravel_pytree(weights)
        moved = unravel(flat + span * self._combine(1, span, length))
        if self.integrands is None or not integrals:
            return moved, integrals
        integrands = self.integrands
        fastest = jnp.max(jnp.abs(self.spectrum.rates))
        velocity = partial(self._combine, 0)
        return moved, add_integrals(integrals, lambda s: integrands(unravel(velocity(s, length))), span, fastest)

    def _combine(self, lowest: int, span: Float[Array, ""], length: Float[Array, ""]) -> Float[Array, " weights"]:
        """phi_k(s J) F + (s/h) phi_(k+1)(s J) P_1 + 2 (s/h)^2 phi_(k+2)(s J) P_2 with k = `lowest`: 1 for the mean velocity
        up to s, 0 for the velocity there."""
        share = span / length
        phi = phi_functions(span * self.spectrum.rates, lowest + 2)[lowest:]
        return self.spectrum.real(phi[0] * self.start + share * phi[1] * self.slope + 2 * share**2 * phi[2] * self.bend)
