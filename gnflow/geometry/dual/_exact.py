"""The exact prox-linear direction: the loss itself on the linearised outputs."""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jaxtyping import Array, Float

from ..._core import ConfigError
from ...losses import AbstractLoss
from .._tangent import AbstractTangent
from ..directions import SolveDiagnostics
from ._base import AbstractDirectionOracle, DualDirection
from ._products import gram_products

_MOST_ITERATIONS = 256


class ExactOracle(AbstractDirectionOracle):
    """d = argmin L(f + J d) + ||d||^2/(2 gamma) (prox-linear: only the model is linearised).

    d = -gamma J^T g(u) with the predicted outputs u = f + J d, which are the root of

        u - f + gamma A grad L(u) = 0,

    NC equations for any number of weights. The dual variables N grad L(u) are in the domain of the conjugate by
    themselves. The Jacobian I + gamma A H(u) has no eigenvalue below 1, so that least squares have no minimum but the
    root: Optimistix's Dogleg takes it from u = f (Newton's method within a trust region), with a dense A by dense
    linear solves, without by conjugate gradients on their normal equations. It stops where its last step and the change of the
    residual are below `tol`, relative to u - f and to the first residual.

    **Diagnostics:** `damping` 1/gamma; `relative_residual` of the equation, relative to that at u = f; `duality_gap`,
    what the primal objective can still fall by at most: gamma/2 ||J^T (g(u) - g(f + J d))||^2; `iterations`; `rank`:
    the number of unknowns NC. `success` is False where Dogleg did not converge although no number of iterations was
    given.
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
        """The direction. Cut off before it descends it is the gradient's, so that it is always one of descent."""
        strength = jnp.asarray(gamma, dtype=jnp.float64)
        outputs = tangent.outputs
        product = gram_products(tangent, self.products, None)
        # In units of the first residual, so that tolerances are relative however near the end of training.
        first = strength * product(loss.gradient(outputs, targets))
        size = jnp.linalg.norm(first)
        unit = jnp.where(size == 0, 1.0, size)

        def residual(change: Array, _: None) -> Array:
            return change + (strength / unit) * product(loss.gradient(outputs + unit * change, targets))

        start = jnp.zeros_like(outputs)
        if initial is not None:
            guess = -(strength / unit) * product(initial) / initial.shape[0]
            better = jnp.linalg.norm(residual(guess, None)) < size / unit
            start = jnp.where(better, guess, start)
        tol: Any = self.tol  # arrays are taken too, whatever the annotations say
        linear_solver = lx.AutoLinearSolver(well_posed=True)
        if product.gram is None:
            linear_solver = lx.Normal(lx.CG(rtol=tol, atol=tol, max_steps=_MOST_ITERATIONS))
        solver = optx.Dogleg(rtol=tol, atol=tol, linear_solver=linear_solver)
        most = _MOST_ITERATIONS if self.max_iterations is None else self.max_iterations
        answer = optx.least_squares(residual, solver, start, max_steps=most, throw=False)
        # An iteration that was cut off may not descend; the gradient direction does.
        reached = outputs + unit * answer.value
        away = product(loss.gradient(reached, targets))
        descends = jnp.sum(loss.gradient(outputs, targets) * away) >= 0
        predicted = jnp.where(descends, reached, outputs)
        gradient = loss.gradient(predicted, targets)
        change = -jnp.where(descends, strength * away, first)  # J d
        missed = jnp.linalg.norm(predicted - outputs - change)
        difference = gradient - loss.gradient(outputs + change, targets)
        success = jnp.isfinite(missed)
        if self.max_iterations is None:
            success = success & (answer.result == optx.RESULTS.successful)
        diagnostics = SolveDiagnostics(
            damping=1 / strength,
            rank=jnp.asarray(outputs.size),
            relative_residual=jnp.where(size == 0, 0.0, missed / unit),
            success=success,
            iterations=jnp.asarray(answer.stats["num_steps"]),
            duality_gap=jnp.maximum(strength / 2 * jnp.sum(difference * product(difference)), 0.0),
        )
        return DualDirection(gradient * outputs.shape[0], predicted, strength, diagnostics)
