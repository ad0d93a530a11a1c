"""The stabilised explicit solver: Runge-Kutta-Chebyshev steps, whose stable length grows like the square of their cost."""

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
# The real stability interval is longer than this times s^2 - 1 for every s (tests/solvers; 0.653 for many stages).
_INTERVAL = 0.652
# Safety factor on the spectral radius: power iteration approaches it from below, and it may grow along the step.
_SAFETY = 1.2
# The least safety factor, for a step that needs the most stages. A step of the longest length should not be rejected because
# the radius has grown a little since.
_LEAST_SAFETY = 1.05
# The spectral radius is computed again after so many steps or stages, and for a step shorter than this share of the last one.
_MOST_STEPS, _MOST_STAGES, _SHORTER = 10, 50, 0.9
_AMPLE = 2.0
# The asymmetry of the Jacobian (`SpectralRadius.asymmetry`) above which the message of a slow run mentions it.
_MOST_ASYMMETRY = 0.1


class StabilisedState(eqx.Module):
    """What `StabilisedRungeKutta` carries from step to step.

    **Attributes:**

    - `velocity`: the vector field at the end of the last step, like the state.
    - `spectrum`: the spectral radius of the velocity's Jacobian.
    - `num_steps`, `num_stages`: the steps and stages since it was computed.
    - `length`: the length of the last step.
    - `report`: the report on it.
    """

    velocity: PyTree
    spectrum: SpectralRadius
    num_steps: Int[Array, ""]
    num_stages: Int[Array, ""]
    length: Float[Array, ""]
    report: StepReport


class StabilisedRungeKutta(AbstractReportingSolver):
    """RKC2, the Runge-Kutta-Chebyshev method of order 2 with s stages, for a Jacobian with a real spectrum.

    A step h is stable if h rho < 0.65 (s^2 - 1), where rho is the spectral radius of the velocity's Jacobian. So s grows like
    the square root of h rho, while the number of velocities of an explicit method grows like h rho. With the Chebyshev
    polynomials T_j, w0 = 1 + (2/13)/s^2, w1 = T_s'(w0)/T_s''(w0), b_j = T_j''(w0)/T_j'(w0)^2 (b_0 = b_1 = b_2) and
    a_j = 1 - b_j T_j(w0),

        Y_0 = y,   Y_1 = Y_0 + b_1 w1 h F_0
        Y_j = (1 - mu_j - nu_j) Y_0 + mu_j Y_(j-1) + nu_j Y_(j-2) + m_j h F_(j-1) + g_j h F_0,   y+ = Y_s
        mu_j = 2 b_j w0/b_(j-1),   nu_j = -b_j/b_(j-2),   m_j = 2 b_j w1/b_(j-1),   g_j = -a_(j-1) m_j

    The error estimate is 0.8 (y - y+) + 0.4 h (F(y) + F(y+)), of order 3. Source: Sommeijer, Shampine and Verwer, "RKC: an
    explicit solver for parabolic PDEs", J. Comput. Appl. Math. 88, 1998. Derived in docs/theory.md, Stabilised steps.

    Each step uses the s that it needs; the compiled program does not depend on s. A step keeps five vectors like the state,
    forms no matrix, and costs s velocities, because the velocity at its end, which the error estimate needs, begins the next
    step. rho is computed by power iteration, which starts from the last eigenvector. It is computed at the first step, after
    ten steps or fifty stages, and for each step that is shorter than the last one (as after a rejection), unless two stages are
    stable for twice its length. A step that needs more than `max_stages` is not taken: its error estimate is infinite, so that
    the controller shortens it. Inside `gnflow.simulate` such a step is not tried, because the controller knows the longest one.

    The solver integrates a `diffrax.ODETerm` whose Jacobian has a real or nearly real spectrum. The Jacobian of gradient flow
    is symmetric (`AbstractFlow.has_real_spectrum`). Dense output is the cubic polynomial through values and velocities at
    both ends.

    **Arguments:**

    - `max_stages`: the largest s. Rounding grows like s^2 times the machine epsilon.

    **Raises:** `ConfigError` unless `max_stages` is an integer of at least 2.
    """

    needs_real_spectrum: ClassVar[bool] = True
    # The error limits the steps, so its trend can be followed; but not fully, because the spectral radius soon is out of date.
    anticipation: ClassVar[float] = 0.75

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = diffrax.ThirdOrderHermitePolynomialInterpolation

    max_stages: int = integer_field("max_stages", default=500, least=2)

    def order(self, terms: Any) -> int:
        """2."""
        return 2

    def error_order(self, terms: Any) -> int:
        """3, the order of the error estimate of one step."""
        return 3

    def init(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any) -> StabilisedState:
        """The state before any step, with an unknown spectral radius."""
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
        # If two stages are stable for twice this length, an outdated radius cannot be why the last step was rejected.
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
        """The report on the step that returned `solver_state`, accepted or not."""
        return solver_state.report

    def last_velocity(self, solver_state: Any) -> PyTree:
        """The vector field at the end of that step, like the state."""
        return solver_state.velocity

    def stats(self, solver_state: StabilisedState) -> dict[str, int | float]:
        """The last rho (per unit of time), and the largest asymmetry along the run (`SpectralRadius`)."""
        found = solver_state.spectrum
        return {"last_spectral_radius": float(found.radius), "jacobian_asymmetry": float(found.asymmetry)}

    def doubts(self, solver_state: StabilisedState) -> str:
        """A sentence if the Jacobian is far from symmetric."""
        asymmetry = float(solver_state.spectrum.asymmetry)
        if asymmetry <= _MOST_ASYMMETRY:
            return ""
        return (
            f"the Jacobian of this flow is not symmetric, although the flow says so: its eigenvalues have imaginary parts of "
            f"about {asymmetry:.2g} of their size, and the stabilised solver is made for real ones; take 'tsit5'."
        )


class _Chebyshev(NamedTuple):
    """T_j, T_j', T_j'' at w0 (`value`, `slope`, `bend`), b_j (`weight`), and the time c_j of stage j in the step (`share`)."""

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
    """The last of `num_stages` stages, or the start if there are none.

    The recurrence runs over the differences Y_j - Y_0, so that it never subtracts weights of similar size. It begins with
    j = 1 and Y_(-1) = Y_1 (as T_(-1) = T_1), which gives Y_1 = Y_0 + b_1 w1 h F_0.
    """
    s = jnp.maximum(num_stages, 2).astype(float)
    w0, w1 = _expansion_point(s)
    weight = 1 / (4 * w0**2)  # b_0 = b_1 = b_2
    one, zero = jnp.ones(()), jnp.zeros(())
    before = _Chebyshev(w0, one, zero, weight, weight * w1)  # j = -1, with the values of j = 1
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
    # arccosh(1 + above) in a form that does not cancel for a small `above`.
    above = DAMPING / s**2
    x = 2 * jnp.arcsinh(jnp.sqrt(above / 2))
    w0, sine = 1 + above, jnp.sinh(x)
    slope = s * jnp.sinh(s * x) / sine
    bend = (s**2 * jnp.cosh(s * x) - w0 * slope) / sine**2
    return w0, slope / bend
