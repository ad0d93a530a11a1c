"""The exponential Rosenbrock solver, an exponential Runge-Kutta method with the whole Jacobian, for few weights."""

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

# A displacement below this share of the weights is scaled up before the velocity is evaluated there, to keep digits.
_DISPLACEMENT = 1e-6
# The largest condition number of the eigenvectors: beyond it half of all digits are lost.
_MOST_CONDITION = 1e8
# The relative asymmetry up to which a Jacobian counts as symmetric.
_ASYMMETRY = 1e-10


class ExponentialRosenbrock(AbstractErrorCarryingSolver):
    """Krogstad's method (`ExponentialRungeKutta`) with the whole Jacobian J_F of the velocity instead of its low-rank part.

    W = -J^T K H_L J leaves out the terms with the residual: sum_n g_n D^2 f_n and the change of K. If the residual does not
    vanish, as with fewer weights than noisy targets, these terms are stiff, too, and limit the steps of the low-rank solver.
    Here J_F (P, P) is computed from P derivatives of the velocity and diagonalised, with real eigenvalues and conjugate pairs,
    also those of negative curvature. This costs O(P (NC)^3 + P^3) per step, so the solver is for few weights. The order is 4
    for any accuracy of J_F. Rounding limits a step: eps times the condition number of the eigenvectors, and eps h |J_F|. For a
    flow that jumps or has no derivative the steps are as short as those of an explicit solver.

    Sources: Krogstad, J. Comput. Phys. 2005; Hochbruck, Ostermann and Schweitzer, "Exponential Rosenbrock-type methods", SIAM
    J. Numer. Anal. 2009. The solver integrates a `LinearisedTerm` of any flow w' = -J^T a whose coefficients have a derivative.
    Dense output is the same formula at intermediate times, of order 3, and integrals are found by quadrature along it.
    """

    # The exact linearised flow carries the error over very long steps, so a run on its way to another minimum may seem near.
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
        """The result of `step`, and a small displacement e = `error` of the weights, a tree like them, carried on to t1.

        e+ = exp(h J_F) e + h phi_2(h J_F) D with D = F(w+ + e') - F(w+) - J_F e' and e' = exp(h J_F) e. This takes the change
        of the Jacobian along the step for linear in time. D is computed with a displacement that is large enough to keep
        digits. `decay` is not used.
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
            """V^-1 D at the weights plus `increment`."""
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
    """J_F, or its symmetric part if J_F has no usable basis of eigenvectors, and the spectrum of the matrix that is returned.

    A matrix may have too few eigenvectors, for instance with rows of zeros from saturated units. The Jacobian of gradient flow
    is symmetric up to rounding, and for equal eigenvalues rounding makes eigenvectors nearly parallel. The symmetric part is
    safe in both cases, because the order of the method does not depend on W.
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
    """The eigendecomposition J_F = V diag(rates) V^(-1).

    **Attributes:**

    - `rates`: the eigenvalues (P,), complex.
    - `basis`: V (P, P).
    - `inverse`: V^(-1) (P, P).
    """

    rates: Complex[Array, " weights"]
    basis: Complex[Array, "weights weights"]
    inverse: Complex[Array, "weights weights"]

    def real(self, coordinates: Complex[Array, " weights"]) -> Float[Array, " weights"]:
        """V x for the coordinates x of a real vector. It is real, because conjugate pairs have conjugate coordinates."""
        return jnp.real(self.basis @ coordinates)


class DensePath(eqx.Module):
    """w(t_n + s) for 0 <= s <= h, as in `StepPath`, in the coordinates of the Jacobian's eigenvectors.

    **Attributes:**

    - `spectrum`: the eigendecomposition of the Jacobian.
    - `start`, `slope`, `bend`: V^(-1) F, V^(-1) P_1 and V^(-1) P_2, each (P,).
    - `integrands`: the rates of change of the integrals as a function of w', or None.
    """

    spectrum: Spectrum
    start: Complex[Array, " weights"]
    slope: Complex[Array, " weights"]
    bend: Complex[Array, " weights"]
    integrands: Callable[[PyTree], dict[str, Array]] | None

    def advance(
        self, weights: PyTree, integrals: dict[str, Array], span: Float[Array, ""], length: Float[Array, ""]
    ) -> tuple[PyTree, dict[str, Array]]:
        """Weights and integrals at s = `span` in a step of length h = `length` that starts at the given ones."""
        flat, unravel = ravel_pytree(weights)
        moved = unravel(flat + span * self._combine(1, span, length))
        if self.integrands is None or not integrals:
            return moved, integrals
        integrands = self.integrands
        fastest = jnp.max(jnp.abs(self.spectrum.rates))
        velocity = partial(self._combine, 0)
        return moved, add_integrals(integrals, lambda s: integrands(unravel(velocity(s, length))), span, fastest)

    def _combine(self, lowest: int, span: Float[Array, ""], length: Float[Array, ""]) -> Float[Array, " weights"]:
        """phi_k(s J) F + (s/h) phi_(k+1)(s J) P_1 + 2 (s/h)^2 phi_(k+2)(s J) P_2 with k = `lowest`.

        It is the mean velocity up to s for k = 1, and the velocity at s for k = 0.
        """
        share = span / length
        phi = phi_functions(span * self.spectrum.rates, lowest + 2)[lowest:]
        return self.spectrum.real(phi[0] * self.start + share * phi[1] * self.slope + 2 * share**2 * phi[2] * self.bend)
