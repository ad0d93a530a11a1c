"""The exact prox-linear direction: the loss itself on the linearised outputs."""

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._core import ConfigError
from ...losses import AbstractLoss
from .._tangent import AbstractTangent
from ..directions import SolveDiagnostics
from ._base import AbstractDualOracle, DualDirection, relative_gap
from ._conjugate_gradients import conjugate_gradients
from ._direct import direct_solution
from ._products import GramProducts, gram_products
from ._step_length import step_length

_MOST_ITERATIONS = 256

# What Newton's steps are solved to, relative to what they gain, and better once they are small: convergence is quadratic.
_FORCING = 0.1
_FINEST_FORCING = 1e-12

# Of J d, relative: what the dual variables may lose of the direction before it counts as not solved for.
_ROUNDING = 1e-6

# Conjugate gradients that have lost their orthogonality to rounding take some times NC iterations.
_INNER_ITERATIONS = (1000, 10)


class ExactOracle(AbstractDualOracle):
    """d = argmin P(d), P(d) = L(f + J d) + ||d||^2/(2 gamma) (prox-linear: only the model is linearised).

    Newton's method on P: the direction of a step is that of the quadratic model at the outputs reached, solved for as
    `QuadraticOracle` does, by Cholesky with a dense A, else by conjugate gradients; its length is searched along the convex
    P, which costs no product with A. So P falls in every step from P(0) = L(f), and every iterate is a direction of descent
    (docs/dual.md). In dual variables: d = -gamma J^T a, u = f + J d, and a = grad L(u) at the end.

    It stops where Newton's whole step, what is missing of its solve included, is below `tol` ||d||: that was the error of d
    before the step, and after it is smaller still. Beside it there is rounding: a has 16 digits, so that d = -gamma J^T a is
    known to about 1e-16 gamma ||J|| ||a||, some 1e-8 of it at gamma = 1e8 where A is rank deficient.

    **Diagnostics:** `damping` 1/gamma; `relative_residual` of u - f + gamma A grad L(u) = 0, relative to that at u = f;
    `duality_gap`, what P can still fall by at most: gamma/2 ||J^T (a - grad L(f + J d))||^2, and `relative_duality_gap`;
    `iterations`: Newton's steps; `rank`: the number of unknowns NC. `success` is False where numbers are not finite
    and, if no number of iterations was given, where `tol` was not reached or rounding is more than it and 1e-6.
    """

    max_iterations: int | None = eqx.field(static=True, default=None)
    tol: float | Float[Array, ""] = 1e-8
    products: Literal["auto", "matrix_free", "dense"] = eqx.field(static=True, default="auto")

    def __check_init__(self):
        if self.max_iterations == 0:
            raise ConfigError(
                "max_iterations = 0; the exact model needs one at least, or None to go on to the tolerance."
            )

    def solve(
        self,
        tangent: AbstractTangent,
        loss: AbstractLoss,
        targets: Float[Array, "samples outputs"],
        gamma: Float[Array, ""] | float,
        initial: Float[Array, "samples outputs"] | None = None,
    ) -> DualDirection:
        """The direction. Where no step could be made it is the gradient's, so that it is always one of descent."""
        strength = jnp.asarray(gamma, dtype=jnp.float64)
        outputs = tangent.outputs
        product = gram_products(tangent, self.products, None)
        model = _Model(product, loss, targets, outputs, strength)
        most = _MOST_ITERATIONS if self.max_iterations is None else self.max_iterations
        last = model.minimise(model.start(initial), self.tol, most)
        steepest = loss.gradient(outputs, targets)
        coefficients = jnp.where(jnp.sum(steepest * last.change) < 0, last.coefficients, steepest)
        # Once more from the coefficients themselves, so that what is reported holds for the direction that is returned.
        change = -strength * product(coefficients)
        difference = coefficients - loss.gradient(outputs + change, targets)
        away = product(difference)
        scale, missed = jnp.linalg.norm(product(steepest)), jnp.linalg.norm(away)
        # A bound also where all digits of the product have cancelled.
        digits = jnp.finfo(away.dtype).eps
        gap = strength / 2 * jnp.maximum(jnp.sum(difference * away), digits * jnp.linalg.norm(difference) * missed)
        value = loss.value(outputs, targets)
        decrease = value - loss.value(outputs + change, targets) + jnp.sum(coefficients * change) / 2
        success = jnp.isfinite(missed)
        if self.max_iterations is None:
            rounding = jnp.linalg.norm(change - last.change) / jnp.linalg.norm(change)
            faithful = (rounding <= jnp.maximum(self.tol, _ROUNDING)) & (decrease >= -8 * digits * jnp.abs(value))
            success = success & ((last.solved & faithful) | (scale == 0))
        diagnostics = SolveDiagnostics(
            damping=1 / strength,
            rank=jnp.asarray(outputs.size),
            relative_residual=jnp.where(scale == 0, 0.0, missed / jnp.where(scale == 0, 1.0, scale)),
            success=success,
            iterations=last.iterations,
            duality_gap=gap,
            relative_duality_gap=relative_gap(gap, decrease),
        )
        return DualDirection(coefficients * outputs.shape[0], outputs + change, strength, diagnostics)


class _State(eqx.Module):
    """d = -gamma J^T a and what is known of it."""

    coefficients: Float[Array, "samples outputs"]  # a
    change: Float[Array, "samples outputs"]  # J d
    error: Float[Array, ""]  # of d before the last step, relative
    iterations: Int[Array, ""]
    solved: Bool[Array, ""]
    stuck: Bool[Array, ""]  # all that is left is rounding


class _Model(eqx.Module):
    """P and Newton's method on it, in dual variables."""

    product: GramProducts
    loss: AbstractLoss
    targets: Float[Array, "samples outputs"]
    outputs: Float[Array, "samples outputs"]
    gamma: Float[Array, ""]

    def gradient(self, change: Float[Array, "samples outputs"]) -> Float[Array, "samples outputs"]:
        """grad L at f + J d."""
        return self.loss.gradient(self.outputs + change, self.targets)

    def start(self, initial: Float[Array, "samples outputs"] | None) -> _State:
        """d = 0, or the direction of the dual variables `initial` where P is less than there."""
        coefficients = change = jnp.zeros_like(self.outputs)
        if initial is not None:
            guess = initial / initial.shape[0]
            guess = jnp.where(jnp.all(jnp.isfinite(guess)), guess, 0.0)
            moved = -self.gamma * self.product(guess)
            value = self.loss.value(self.outputs + moved, self.targets) - jnp.sum(guess * moved) / 2
            better = value < self.loss.value(self.outputs, self.targets)
            coefficients, change = jnp.where(better, guess, 0.0), jnp.where(better, moved, 0.0)
        no, none = jnp.zeros((), dtype=bool), jnp.zeros((), dtype=int)
        return _State(coefficients, change, jnp.ones(()), none, no, no)

    def minimise(self, start: _State, tol: Float[Array, ""] | float, max_iterations: int) -> _State:
        """Newton's steps from `start`."""

        def goes_on(state: _State) -> Bool[Array, ""]:
            return ~state.solved & ~state.stuck & (state.iterations < max_iterations)

        return jax.lax.while_loop(goes_on, lambda state: self.step(state, tol), start)

    def step(self, state: _State, tol: Float[Array, ""] | float) -> _State:
        """One of Newton's steps, and how far from its end P was."""
        # With a + v + R z for a, d + step is the minimum of the quadratic model at u: (I + gamma B) z = -gamma R^T A v.
        gradient = self.gradient(state.change)
        left = gradient - state.coefficients
        along, unsolved = self.newton(state, left)
        moved = -self.gamma * self.product(along)

        def slope(step: Float[Array, ""]) -> Float[Array, ""]:
            """dP/dt at d + t step: <grad L(u), J step> + <d, step>/gamma."""
            coefficients = state.coefficients + step * along
            return jnp.sum((self.gradient(state.change + step * moved) - coefficients) * moved)

        rounding = jnp.finfo(moved.dtype).eps * jnp.sum(
            (jnp.abs(gradient) + jnp.abs(state.coefficients)) * jnp.abs(moved)
        )
        length = step_length(slope)
        stuck = ~(-slope(jnp.zeros(())) > rounding) | (length == 0)
        coefficients, change = state.coefficients + length * along, state.change + length * moved
        # ||d||^2 = -gamma <a, J d>; the model is 1/gamma-strongly convex, and ||residual||^2/2 its duality gap.
        size = jnp.sqrt(self.gamma * jnp.maximum(-jnp.sum(coefficients * change), 0.0))
        missing = jnp.sqrt(self.gamma * jnp.maximum(-jnp.sum(along * moved), 0.0)) + jnp.sqrt(self.gamma) * unsolved
        error = missing / jnp.where(size == 0, 1.0, size)
        return _State(coefficients, change, error, state.iterations + 1, error < tol, stuck)

    def newton(
        self, state: _State, left: Float[Array, "samples outputs"]
    ) -> tuple[Float[Array, "samples outputs"], Float[Array, ""]]:
        """Newton's step in a, and the norm of its system's residual."""
        factor = self.loss.hessian_factor(self.outputs + state.change, self.targets)
        if self.product.gram is None:
            least, times = _INNER_ITERATIONS
            most = max(least, times * math.prod(left.shape))
            forcing = jnp.clip(_FORCING * state.error, _FINEST_FORCING, _FORCING)
            solution = conjugate_gradients(
                self.product, factor, left, self.gamma, forcing, most, relative_to="decrease"
            )
        else:
            solution = direct_solution(self.product, factor, left, self.gamma)[0]
        return left + factor.product(solution.whitened), jnp.linalg.norm(solution.residual)
