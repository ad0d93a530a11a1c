"""The phi-functions of exponential integrators."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Inexact

# For |z| > 2 the recurrence loses at most one digit. For smaller |z| the Taylor series needs 25 terms for all digits.
_SWITCH = 2.0
_TERMS = 25


def phi_functions(z: Inexact[Array, "..."], highest: int) -> list[Inexact[Array, "..."]]:
    """[phi_0(z), ..., phi_highest(z)] for real or complex z, elementwise, each to about machine precision.

    phi_0 = exp and phi_(k+1)(z) = (phi_k(z) - 1/k!)/z, so that phi_k(0) = 1/k!, phi_k is positive and increasing on the
    real line, and phi_k(z) -> -1/((k - 1)! z) as z -> -infinity. Source: Hochbruck and Ostermann, "Exponential integrators",
    Acta Numerica 2010, equation (2.10). The recurrence cancels near 0, so the Taylor series is used there.
    """
    # Both branches are evaluated, so each gets an argument that is safe for it where the other one is used.
    near = jnp.abs(z) < _SWITCH
    inside, outside = jnp.where(near, z, 0.0), jnp.where(near, -_SWITCH, z)
    series = jnp.zeros_like(z)
    for power in reversed(range(_TERMS)):
        series = series * inside + 1.0 / math.factorial(power + highest)
    descending = [series]
    for k in reversed(range(highest)):
        descending.append(descending[-1] * inside + 1.0 / math.factorial(k))
    ascending = [jnp.exp(outside)]
    if highest > 0:
        ascending.append(jnp.expm1(outside) / outside)
    for k in range(1, highest):
        ascending.append((ascending[-1] - 1.0 / math.factorial(k)) / outside)
    return [jnp.where(near, low, high) for low, high in zip(reversed(descending), ascending, strict=True)]


def divided_phi_functions(
    rest: Inexact[Array, "..."], modes: Inexact[Array, "..."], highest: int
) -> tuple[list[Inexact[Array, "..."]], list[Inexact[Array, "..."]], list[Inexact[Array, "..."]]]:
    """phi_k at z = `rest`, phi_k at y = `modes` and the divided differences phi_k[z, y], for k = 0, ..., highest.

    phi_k[z, y] = (phi_k(z) - phi_k(y))/(z - y), which is the derivative for z = y, and phi_(k+1)(y) for z = 0. The arguments
    must satisfy y <= z <= 0 and broadcast. Each value is accurate to about machine precision, also for z close to y, where the
    quotient itself would cancel. Derived in docs/theory.md, With weight decay.
    """
    at_rest, at_modes = phi_functions(rest, highest), phi_functions(modes, highest)
    near = modes > -_SWITCH
    # Near 0 Horner's rule evaluates the Taylor polynomial and its divided difference at the same time, without a division.
    z, y = jnp.where(near, rest, 0.0), jnp.where(near, modes, 0.0)
    series, apart = jnp.zeros_like(y), jnp.zeros_like(y)
    for power in reversed(range(_TERMS)):
        apart = apart * z + series
        series = series * y + 1.0 / math.factorial(power + highest)
    descending = [apart]
    for k in reversed(range(highest)):
        descending.append(descending[-1] * z + at_modes[k + 1])
    # Far from 0 the recurrence of phi is divided. modes - rest <= 0, so exp[z, y] = exp(z) phi_1(y - z) does not cancel.
    far = jnp.where(near, -_SWITCH, modes)
    ascending = [jnp.exp(rest) * phi_functions(modes - rest, 1)[1]]
    for k in range(highest):
        ascending.append((ascending[-1] - at_rest[k + 1]) / far)
    divided = [jnp.where(near, low, high) for low, high in zip(reversed(descending), ascending, strict=True)]
    return at_rest, at_modes, divided
