"""The stabilised explicit solver: Runge-Kutta-Chebyshev steps, whose stability grows with the square of their velocities."""

from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._core import integer_field, tree_add_scaled, tree_scale
from ._reporting import AbstractReportingSolver, StepReport
from ._spectral_radius import SpectralRadius
from ._term import join_state, split_state

DAMPING = 2 / 13
# The real stability interval reaches beyond it times s^2 - 1, for every s (tests/solvers; 0.653 for many stages).
_INTERVAL = 0.652
# By what the spectral radius is multiplied: power iteration approaches it from below, and it may grow along the step.
_SAFETY = 1.2
# By what it has to be, of a step that the most stages are taken for: one that was as long as it could be should not be
# rejected because the radius has grown a little since.
_LEAST_SAFETY = 1.05
# The spectral radius is found anew after so many steps, or so many stages; and for a step shorter than that share of the last.
_MOST_STEPS, _MOST_STAGES, _SHORTER = 10, 50, 0.9
_AMPLE = 2.0
# Of the Jacobian, beyond which a run that was slow is told (`SpectralRadius.asymmetry`).
_MOST_ASYMMETRY = 0.1


class StabilisedState(eqx.Module):
    """What `StabilisedRungeKutta` carries from step to step.

    **Attributes:** `velocity`: the vector field at the end of the last step, like the state; `spectrum`: the spectral radius of
    the weights' Jacobian; `num_steps`, `num_stages`: since that was found; `length`: of the last step; `report`: on it.
    """

    velocity: PyTree
    spectrum: SpectralRadius
    num_steps: Int[Array, ""]
    num_stages: Int[Array, ""]
    length: Float[Array, ""]
    report: StepReport


class StabilisedRungeKutta(AbstractReportingSolver):
    """RKC2, the Runge-Kutta-Chebyshev method of order 2 with s stages, for a Jacobian with a real spectrum.

    A step h is stable where h rho < 0.65 (s^2 - 1), rho being the spectral radius of the velocity's Jacobian: s grows with the
    square root of what an explicit method's steps grow with. With w0 = 1 + (2/13)/s^2, w1 = T_s'(w0)/T_s''(w0),
    b_j = T_j''(w0)/T_j'(w0)^2 and a_j = 1 - b_j T_j(w0), T_j the Chebyshev polynomials (b_0 = b_1 = b_2),

        Y_0 = y,   Y_1 = Y_0 + b_1 w1 h F_0
        Y_j = (1 - mu_j - nu_j) Y_0 + mu_j Y_(j-1) + nu_j Y_(j-2) + m_j h F_(j-1) + g_j h F_0,   y+ = Y_s
        mu_j = 2 b_j w0/b_(j-1),   nu_j = -b_j/b_(j-2),   m_j = 2 b_j w1/b_(j-1),   g_j = -a_(j-1) m_j

    The error estimate is 0.8 (y - y+) + 0.4 h (F(y) + F(y+)), of order 3. Source: Sommeijer, Shampine and Verwer, "RKC: an
    explicit solver for parabolic PDEs", J. Comput. Appl. Math. 88, 1998. Derived in docs/theory.md, Stabilised steps.

    Each step takes the s that it needs; the program does not depend on s. It needs five vectors like the state, forms no
    matrix, and takes s velocities: that at its end, which the error estimate asks for, begins the next step. rho is found by
    power iteration, which begins with the last eigenvector: at the first step, after ten steps or fifty stages, and for each
    step that is shorter than the last, as one after a rejection is, unless two stages are stable for twice its length. A step
    that would need more than `max_stages` is not taken: its error estimate is infinite, so that the controller shortens it.
    Inside `gnflow.simulate` such a step is not tried, because the controller is told the longest.

    Takes a `diffrax.ODETerm` for which the spectrum is real or nearly so: gradient flow's Jacobian is a symmetric matrix
    (`AbstractFlow.has_real_spectrum`). Dense output is the cubic polynomial through values and velocities at both ends.

    **Arguments:** `max_stages`: s at most; rounding grows as s^2 times the machine epsilon.

    **Raises:** `ConfigError` unless `max_stages` is an integer of at least 2.
    """

    needs_real_spectrum: ClassVar[bool] = True
    # Its error limits its steps; not all of the way, for the spectral radius that they were made for is soon out of date.
    anticipation: ClassVar[float] = 0.75

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = diffrax.ThirdOrderHermitePolynomialInterpolation

    max_stages: int = integer_field("max_stages", default=500, least=2)

    def order(self, terms: Any) -> int:
        """2."""
        return 2

    def error_order(self, terms: Any) -> int:
        """3, of the estimate of one step."""
        return 3

    def init(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any) -> StabilisedState:
        """Nothing is known."""
        none, nothing = jnp.zeros((), dtype=int), jnp.zeros(())
        velocity = jax.tree.map(jnp.zeros_like, y0)
        spectrum = SpectralRadius.unknown(split_state(terms, y0)[0])
        return StabilisedState(
            velocity, spectrum, none, none, nothing, StepReport(none, none, nothing, jnp.asarray(False))
        )

    def func(self, terms: Any, t0: Any, y0: PyTree, args: Any) -> PyTree:
        """The vector field."""
        return terms.vf(t0, y0, args)

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: Any, made_jump: Any
    ) -> tuple[PyTree, PyTree, dict[str, Any], StabilisedState, diffrax.RESULTS]:
        """One step from t0 to t1."""
        before: StabilisedState = solver_state
        length = terms.contr(t0, t1)
        size = jnp.abs(length)
        begins = (before.num_steps == 0) | jnp.asarray(made_jump)
        old = (before.num_steps >= _MOST_STEPS) | (before.num_stages >= _MOST_STAGES)
        # Not the radius can have been what failed where two stages would be stable for twice as much.
        ample = _AMPLE * size * before.spectrum.radius <= _INTERVAL * (2**2 - 1)
        wanted = begins | old | ((size < _SHORTER * before.length) & ~ample)
        weights, integrals = split_state(terms, y0)

        def velocity(point: PyTree) -> tuple[PyTree, Any]:
            return split_state(terms, terms.vf(t0, join_state(terms, point, integrals), args))

        known = split_state(terms, before.velocity)
        spectrum, start, num_products = before.spectrum.refreshed(velocity, weights, known, wanted)
        first = join_state(terms, *start)
        bound = _SAFETY * spectrum.radius
        reach = _INTERVAL * (self.max_stages**2 - 1)
        fits = size * _LEAST_SAFETY * spectrum.radius <= reach
        needed = jnp.ceil(jnp.sqrt(1 + jnp.where(fits, size * bound, 0.0) / _INTERVAL)).astype(int)
        num_stages = jnp.where(fits, jnp.clip(needed, 2, self.max_stages), 0)

        last = _stages(terms, t0, length, y0, first, args, num_stages)
        y1 = tree_add_scaled(y0, 1.0, last.moved)
        rates = tree_add_scaled(first, 1.0, last.velocity)
        estimate = tree_add_scaled(tree_scale(0.4 * length, rates), -0.8, last.moved)
        y_error = jax.tree.map(lambda leaf: jnp.where(fits, leaf, jnp.inf), estimate)
        dense_info = {
            "y0": y0,
            "y1": y1,
            "k0": tree_scale(length, first),
            "k1": tree_scale(length, last.velocity),
        }
        longest = reach / jnp.where(bound > 0, bound, 1.0)
        report = StepReport(num_stages, num_products, jnp.where(bound > 0, longest, jnp.inf), jnp.asarray(False))
        state = StabilisedState(
            velocity=last.velocity,
            spectrum=spectrum,
            num_steps=jnp.where(wanted, 1, before.num_steps + 1),
            num_stages=jnp.where(wanted, 0, before.num_stages) + num_stages,
            length=jnp.asarray(size, dtype=before.length.dtype),
            report=report,
        )
        return y1, y_error, dense_info, state, diffrax.RESULTS.successful

    def report(self, solver_state: Any) -> StepReport:
        """On the step that returned `solver_state`, accepted or not."""
        return solver_state.report

    def last_velocity(self, solver_state: Any) -> PyTree:
        """The vector field at the end of that step, like the state."""
        return solver_state.velocity

    def stats(self, solver_state: StabilisedState) -> dict[str, int | float]:
        """rho as it was last found (per unit of time), and the largest asymmetry that was met on the way (`SpectralRadius`)."""
        found = solver_state.spectrum
        return {"last_spectral_radius": float(found.radius), "jacobian_asymmetry": float(found.asymmetry)}

    def doubts(self, solver_state: StabilisedState) -> str:
        """Of a Jacobian that is far from symmetric."""
        asymmetry = float(solver_state.spectrum.asymmetry)
        if asymmetry <= _MOST_ASYMMETRY:
            return ""
        return (
            f"the Jacobian of this flow is not symmetric, although the flow says so: its eigenvalues have imaginary parts of "
            f"about {asymmetry:.2g} of their size, and the stabilised solver is made for real ones; take 'tsit5'."
        )


class _Chebyshev(NamedTuple):
    """T_j, T_j', T_j'' at w0, and b_j and c_j, the share of the step at which stage j is."""

    value: Array
    slope: Array
    bend: Array
    weight: Array
    share: Array


class _Stage(NamedTuple):
    """Y_j - Y_0 (`moved`), and the vector field at Y_j (`velocity`)."""

    moved: PyTree
    velocity: PyTree


def _stages(
    terms: Any, t0: Any, length: Any, y0: PyTree, first: PyTree, args: Any, num_stages: Int[Array, ""]
) -> _Stage:
    """The last of `num_stages` stages (the start where there are none).

    The recurrence is that of the differences Y_j - Y_0, which keeps it from subtracting weights. It begins with j = 1, for
    which Y_(-1) = Y_1, as T_(-1) = T_1, makes it say Y_1 = Y_0 + b_1 w1 h F_0.
    """
    s = jnp.maximum(num_stages, 2).astype(float)
    w0, w1 = _expansion_point(s)
    weight = 1 / (4 * w0**2)  # b_0 = b_1 = b_2
    one, zero = jnp.ones(()), jnp.zeros(())
    before = _Chebyshev(w0, one, zero, weight, weight * w1)  # j = -1, which is j = 1
    now = _Chebyshev(one, zero, zero, weight, zero)
    nothing = jax.tree.map(jnp.zeros_like, y0)

    def stage(index: Any, carry: Any) -> Any:
        earlier, before, (moved, velocity), now = carry
        value = 2 * w0 * now.value - before.value
        slope = 2 * now.value + 2 * w0 * now.slope - before.slope
        bend = 4 * now.slope + 2 * w0 * now.bend - before.bend
        weight_here = jnp.where(index < 2, weight, bend / slope**2)
        mu, nu = 2 * weight_here * w0 / now.weight, -weight_here / before.weight
        gain = 2 * weight_here * w1 / now.weight
        gain_first = -(1 - now.weight * now.value) * gain
        share = mu * now.share + nu * before.share + gain + gain_first

        def combined(a: Array, b: Array, f: Array, f0: Array) -> Array:
            return mu * a + nu * b + (length * gain) * f + (length * gain_first) * f0

        new = jax.tree.map(combined, moved, earlier, velocity, first)
        following = terms.vf(t0 + share * length, tree_add_scaled(y0, 1.0, new), args)
        return moved, now, _Stage(new, following), _Chebyshev(value, slope, bend, weight_here, share)

    start = tree_scale(weight * w1 * length, first), before, _Stage(nothing, first), now
    return jax.lax.fori_loop(1, num_stages + 1, stage, start)[2]


def _expansion_point(s: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """w0 and w1 = T_s'(w0)/T_s''(w0) for s stages, from T_s(cosh x) = cosh(s x)."""
    above = DAMPING / s**2
    x = 2 * jnp.arcsinh(jnp.sqrt(above / 2))
    w0, sine = 1 + above, jnp.sinh(x)
    slope = s * jnp.sinh(s * x) / sine
    bend = (s**2 * jnp.cosh(s * x) - w0 * slope) / sine**2
    return w0, slope / bend
