"""Preconditioned conjugate gradients with a smoothed residual, which never grows."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Product = Callable[[Array], Array]


class _State(eqx.Module):
    iterate: Array
    residual: Array
    search: Array
    square: Float[Array, ""]  # <r, P^(-1) r>
    smoothed: Array
    smoothed_residual: Array
    iterations: Int[Array, ""]
    stuck: Bool[Array, ""]


def smoothed_conjugate_gradients(
    product: Product,
    right: Array,
    inverse: Product,
    rtol: Float[Array, ""] | float,
    max_steps: Int[Array, ""] | int,
) -> tuple[Array, Int[Array, ""]]:
    """The solution of M x = b for a symmetric positive semi-definite M, and the number of iterations, one product each.

    The conjugate-gradient iterates x_k are optimal in M's norm, but their residuals oscillate, by several times if M is
    ill-conditioned. The smoothed iterates are y_k = y_(k-1) + eta (x_k - y_(k-1)), with the eta in [0, 1] that gives the
    smallest residual. They are means of the x_k, cost two more inner products, and reach a coarse tolerance sooner.

    Sources: Hestenes and Stiefel 1952; Golub and Van Loan, "Matrix Computations", 4th ed., Algorithm 11.5.1 (preconditioned);
    Zhou and Walker, "Residual smoothing techniques for iterative methods", SIAM J. Sci. Comput. 1994 (smoothing).

    **Arguments:**

    - `product`: v -> M v.
    - `right`: b.
    - `inverse`: v -> P^(-1) v, symmetric positive definite.
    - `rtol`: iterations end when ||b - M y|| <= rtol ||b||.
    - `max_steps`: the largest number of iterations.
    """
    goal = rtol * jnp.linalg.norm(right)

    def goes_on(state: _State) -> Bool[Array, ""]:
        unsolved = jnp.linalg.norm(state.smoothed_residual) > goal
        return unsolved & (state.iterations < max_steps) & ~state.stuck

    def iterate(state: _State) -> _State:
        image = product(state.search)
        curvature = jnp.sum(state.search * image)
        # These are positive until only rounding is left, unless M or P is not positive definite.
        stuck = ~((curvature > 0) & (state.square > 0))
        length = jnp.where(stuck, 0.0, state.square / jnp.where(stuck, 1.0, curvature))
        iterate, residual = state.iterate + length * state.search, state.residual - length * image
        conditioned = inverse(residual)
        square = jnp.sum(residual * conditioned)
        change = residual - state.smoothed_residual
        distance = jnp.sum(change**2)
        share = -jnp.sum(state.smoothed_residual * change) / jnp.where(distance > 0, distance, 1.0)
        share = jnp.clip(share, 0.0, 1.0)
        return _State(
            iterate=iterate,
            residual=residual,
            search=conditioned + square / jnp.where(state.square > 0, state.square, 1.0) * state.search,
            square=square,
            smoothed=state.smoothed + share * (iterate - state.smoothed),
            smoothed_residual=state.smoothed_residual + share * change,
            iterations=state.iterations + jnp.where(stuck, 0, 1),
            stuck=stuck,
        )

    zeros = jnp.zeros_like(right)
    search = inverse(right)
    first = _State(
        iterate=zeros,
        residual=right,
        search=search,
        square=jnp.sum(right * search),
        smoothed=zeros,
        smoothed_residual=right,
        iterations=jnp.zeros((), dtype=int),
        stuck=jnp.zeros((), dtype=bool),
    )
    last = jax.lax.while_loop(goes_on, iterate, first)
    return last.smoothed, last.iterations
