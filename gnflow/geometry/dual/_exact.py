"""The exact prox-linear direction, for the loss itself on the linearised outputs."""

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

# The tolerance of a Newton step, relative to what it gains. It falls with the error of the step before, so that convergence
# stays quadratic.
_FORCING = 0.1
_FINEST_FORCING = 1e-12

# The largest relative error of J d that rounding in the dual variables may cause in a solve that counts as successful.
_ROUNDING = 1e-6

# At most max(1000, 10 NC) iterations: conjugate gradients that lose their orthogonality to rounding take several times NC.
_INNER_ITERATIONS = (1000, 10)


class ExactOracle(AbstractDualOracle):
    """d = argmin P(d) with P(d) = L(f + J d) + ||d||^2/(2 gamma): prox-linear, only the model is linearised.

    P is minimised by Newton's method. The direction of a step is that of the quadratic model at the present outputs, solved
    for as by `QuadraticOracle`: by Cholesky with a dense A, otherwise by conjugate gradients. The length of the step is
    searched along the convex P, without products with A. So P falls in every step from P(0) = L(f), and every iterate is a
    descent direction (docs/dual.md). In dual variables d = -gamma J^T a and u = f + J d; at the end a = grad L(u).

    The iteration stops when the whole Newton step, including what its solve may lack, is below `tol` ||d||. That was the error
    of d before the step; after the step it is smaller. Rounding comes on top: a has 16 digits, so d = -gamma J^T a is known
    to about 1e-16 gamma ||J|| ||a||, which is some 1e-8 of d at gamma = 1e8 if A is rank deficient.

    **Arguments:**

    - `max_iterations`: the largest number of Newton steps, at least 1, or None to continue to the tolerance.
    - `tol`: the tolerance of d, relative to ||d||.
    - `products`: as for every `AbstractDualOracle`.

    **Diagnostics:**

    - `damping`: 1/gamma.
    - `rank`: the number NC of unknowns.
    - `relative_residual`: that of u - f + gamma A grad L(u) = 0, relative to the residual at u = f.
    - `success`: False if numbers are not finite. With `max_iterations=None` also if `tol` was not reached, or if rounding is
      larger than `tol` and 1e-6.
    - `iterations`: the number of Newton steps.
    - `duality_gap`: how much P can still fall at most, gamma/2 ||J^T (a - grad L(f + J d))||^2.
    - `relative_duality_gap`: this as a fraction of the largest possible decrease.
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
        """The direction. If no step could be made it is the gradient's, so that it always descends."""
        strength = jnp.asarray(gamma, dtype=jnp.float64)
        outputs = tangent.outputs
        product = gram_products(tangent, self.products, None)
        model = _Model(product, loss, targets, outputs, strength)
        most = _MOST_ITERATIONS if self.max_iterations is None else self.max_iterations
        last = model.minimise(model.start(initial), self.tol, most)
        steepest = loss.gradient(outputs, targets)
        coefficients = jnp.where(jnp.sum(steepest * last.change) < 0, last.coefficients, steepest)
        # J d is computed again from the coefficients: the sum over steps has other rounding, and the diagnostics have to hold
        # for the direction that is returned.
        change = -strength * product(coefficients)
        difference = coefficients - loss.gradient(outputs + change, targets)
        away = product(difference)
        scale, missed = jnp.linalg.norm(product(steepest)), jnp.linalg.norm(away)
        # The second term keeps it an upper bound where all digits of the first have cancelled.
        digits = jnp.finfo(away.dtype).eps
        gap = strength / 2 * jnp.maximum(jnp.sum(difference * away), digits * jnp.linalg.norm(difference) * missed)
        value = loss.value(outputs, targets)
        decrease = value - loss.value(outputs + change, targets) + jnp.sum(coefficients * change) / 2
        success = jnp.isfinite(missed)
        if self.max_iterations is None:
            rounding = jnp.linalg.norm(change - last.change) / jnp.linalg.norm(change)
            # Rounding has neither changed J d nor made P rise by more than its own digits.
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

    def decrease(
        self,
        loss: AbstractLoss,
        outputs: Float[Array, "samples outputs"],
        targets: Float[Array, "samples outputs"],
        change: Float[Array, "samples outputs"],
    ) -> Float[Array, ""]:
        """L(f) - L(f + u)."""
        return loss.value(outputs, targets) - loss.value(outputs + change, targets)

    def length(
        self,
        loss: AbstractLoss,
        outputs: Float[Array, "samples outputs"],
        targets: Float[Array, "samples outputs"],
        change: Float[Array, "samples outputs"],
        ridge: Float[Array, ""],
    ) -> Float[Array, ""]:
        """Searched along the convex P by its slope, <grad L(f + t J d), J d> + t ||d||^2/gamma, to a tenth of that at t = 0."""
        return step_length(lambda t: jnp.sum(loss.gradient(outputs + t * change, targets) * change) + t * ridge)


class _State(eqx.Module):
    """The iterate d = -gamma J^T a."""

    coefficients: Float[Array, "samples outputs"]  # a
    change: Float[Array, "samples outputs"]  # J d
    error: Float[Array, ""]  # relative error of d before the last step
    iterations: Int[Array, ""]
    solved: Bool[Array, ""]
    stuck: Bool[Array, ""]  # only rounding is left


class _Model(eqx.Module):
    """The objective P and Newton's method for it, in dual variables."""

    product: GramProducts
    loss: AbstractLoss
    targets: Float[Array, "samples outputs"]
    outputs: Float[Array, "samples outputs"]
    gamma: Float[Array, ""]

    def gradient(self, change: Float[Array, "samples outputs"]) -> Float[Array, "samples outputs"]:
        """grad L at f + J d."""
        return self.loss.gradient(self.outputs + change, self.targets)

    def start(self, initial: Float[Array, "samples outputs"] | None) -> _State:
        """d = 0, or the direction of the dual variables `initial` if P is smaller there."""
        coefficients = change = jnp.zeros_like(self.outputs)
        if initial is not None:
            guess = initial / initial.shape[0]
            guess = jnp.where(jnp.all(jnp.isfinite(guess)), guess, 0.0)
            moved = -self.gamma * self.product(guess)
            value = self.loss.value(self.outputs + moved, self.targets) - jnp.sum(guess * moved) / 2
            better = value < self.loss.value(self.outputs, self.targets)
            coefficients, change = jnp.where(better, guess, 0.0), jnp.where(better, moved, 0.0)
        false, zero = jnp.zeros((), dtype=bool), jnp.zeros((), dtype=int)
        return _State(coefficients, change, error=jnp.ones(()), iterations=zero, solved=false, stuck=false)

    def minimise(self, start: _State, tol: Float[Array, ""] | float, max_iterations: int) -> _State:
        """Newton steps from `start`."""

        def goes_on(state: _State) -> Bool[Array, ""]:
            return ~state.solved & ~state.stuck & (state.iterations < max_iterations)

        return jax.lax.while_loop(goes_on, lambda state: self.step(state, tol), start)

    def step(self, state: _State, tol: Float[Array, ""] | float) -> _State:
        """One Newton step, and the error of d before it."""
        # The quadratic model at u has its minimum at a + v + R z, where v = grad L(u) - a and (I + gamma B) z = -gamma R^T A v.
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
        # ||d||^2 = -gamma <a, J d>. The model is 1/gamma-strongly convex and its duality gap is ||residual||^2/2, so that the
        # computed step is within sqrt(gamma) ||residual|| of the whole one.
        size = jnp.sqrt(self.gamma * jnp.maximum(-jnp.sum(coefficients * change), 0.0))
        missing = jnp.sqrt(self.gamma * jnp.maximum(-jnp.sum(along * moved), 0.0)) + jnp.sqrt(self.gamma) * unsolved
        error = missing / jnp.where(size == 0, 1.0, size)
        return _State(coefficients, change, error, state.iterations + 1, error < tol, stuck)

    def newton(
        self, state: _State, left: Float[Array, "samples outputs"]
    ) -> tuple[Float[Array, "samples outputs"], Float[Array, ""]]:
        """The Newton step in a, and the norm of the residual of its system."""
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
