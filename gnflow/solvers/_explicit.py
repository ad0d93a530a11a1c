"""Explicit Runge-Kutta solvers that notice when stability limits their steps."""

import dataclasses
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._core import ConfigError, tree_norm, tree_scale
from ._reporting import AbstractReportingSolver, StepReport
from ._term import split_state
from ._wrapping import AbstractWrappingSolver

# The share of the stability limit from which on a step counts as limited by it. At the limit steps of 0.77 and 1.25 times the
# limit alternate.
_NEAR_LIMIT = 0.65
# Stability limits the steps if so many more of them were limited than not. The count is capped, so that it can fall again soon.
_MANY, _MOST = 5, 8
# Relative to the weights: the velocities at points that are closer than this differ mostly by rounding.
_LEAST_DISTANCE = 1e-12
_BOUNDARY = np.arange(1e-3, 50.0, 1e-3)


class ExplicitState(eqx.Module):
    """What `ExplicitRungeKutta` carries from step to step.

    **Attributes:**

    - `inner`: the state of the method.
    - `velocity`: the vector field at the end of the last step, like the state; None if the method does not compute it.
    - `rate`: |lambda| as estimated in the last step, per unit of time.
    - `balance`: how many more of the last steps were limited by stability than were not.
    - `num_limited`: the number of all limited steps.
    - `report`: the report on the last step.
    """

    inner: Any
    velocity: PyTree | None
    rate: Float[Array, ""]
    balance: Int[Array, ""]
    num_limited: Int[Array, ""]
    report: StepReport


class ExplicitRungeKutta(AbstractWrappingSolver, AbstractReportingSolver):
    """The steps of `inner`, an explicit Runge-Kutta method of Diffrax, with a report on stiffness.

    The last two stages of a step are velocities k at two points g near its end, which differ by the method's error. If fast
    modes decay, they make up most of this error, and |k_s - k_(s-1)|/|g_s - g_(s-1)| is their rate |lambda|. A step is limited
    by stability if h |lambda| comes near the end of the real interval on which the method's stability polynomial is within
    [-1, 1] (3.5 for Tsit5, 5.2 for Dopri8). The estimate costs no velocity. Its source: Hairer and Wanner, Solving Ordinary
    Differential Equations II, Section IV.2.

    **Arguments:**

    - `inner`: a `diffrax.AbstractERK` with a tableau of two stages or more.

    **Raises:** `ConfigError` for a method without such a tableau.
    """

    inner: Any

    def __check_init__(self):
        tableau = getattr(self.inner, "tableau", None)
        if not isinstance(tableau, diffrax.ButcherTableau) or tableau.num_stages < 2:
            raise ConfigError(
                f"inner = {self.inner!r}; expected an explicit Runge-Kutta method of diffrax with a tableau of two stages "
                "or more, such as diffrax.Tsit5()."
            )

    @property
    def tableau(self) -> diffrax.ButcherTableau:
        """The tableau of the method."""
        assert isinstance(self.inner.tableau, diffrax.ButcherTableau)
        return self.inner.tableau

    @property
    def velocities_per_step(self) -> int:
        """The number of stages, without the first one if it is the last one of the step before."""
        return self.tableau.num_stages - int(bool(self.tableau.fsal))

    @property
    def stability_limit(self) -> float:
        """The largest h |lambda| up to which no step amplifies a mode that decays."""
        polynomial = stability_polynomial(self.tableau)
        outside = np.abs(np.polyval(polynomial[::-1], -_BOUNDARY)) > 1
        return float(_BOUNDARY[np.argmax(outside)])

    def init(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any) -> ExplicitState:
        """The state of the method, with nothing known about stability."""
        none, nothing = jnp.zeros((), dtype=int), jnp.zeros(())
        velocity = jax.tree.map(jnp.zeros_like, y0) if self.tableau.fsal else None
        inner = self.inner.init(terms, t0, t1, y0, args)
        report = StepReport(none, none, jnp.asarray(jnp.inf), jnp.asarray(False))
        return ExplicitState(inner, velocity, nothing, none, none, report)

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: Any, made_jump: Any
    ) -> tuple[PyTree, PyTree, dict[str, Any], ExplicitState, diffrax.RESULTS]:
        """One step of the method from t0 to t1."""
        before: ExplicitState = solver_state
        y1, y_error, dense_info, inner, result = self.inner.step(terms, t0, t1, y0, args, before.inner, made_jump)
        length = terms.contr(t0, t1)
        stages = dense_info["k"]  # times the length of the step
        folds = self._folds(split_state(terms, stages)[0], split_state(terms, y1)[0])
        is_near = folds > _NEAR_LIMIT * self.stability_limit
        balance = jnp.clip(before.balance + jnp.where(is_near, 1, -1), 0, _MOST)
        velocity = None
        if self.tableau.fsal:
            velocity = tree_scale(1 / length, jax.tree.map(lambda leaf: leaf[-1], stages))
        # The first step cannot reuse the last stage of another one.
        taken = jnp.where(before.report.num_velocities == 0, self.tableau.num_stages, self.velocities_per_step)
        report = dataclasses.replace(before.report, num_velocities=taken, is_limited=balance >= _MANY)
        state = ExplicitState(inner, velocity, folds / jnp.abs(length), balance, before.num_limited + is_near, report)
        assert y_error is not None
        return y1, y_error, dense_info, state, result

    def report(self, solver_state: Any) -> StepReport:
        """The report on the step that returned `solver_state`, accepted or not."""
        return solver_state.report

    def last_velocity(self, solver_state: Any) -> PyTree | None:
        """The vector field at the end of that step, if it is the last stage of the method; otherwise None."""
        return solver_state.velocity

    def stats(self, solver_state: ExplicitState) -> dict[str, int | float]:
        """The number of accepted steps that stability limited."""
        return {"num_limited_steps": int(solver_state.num_limited)}

    def doubts(self, solver_state: ExplicitState) -> str:
        """A sentence if the flow is stiff."""
        if not bool(solver_state.report.is_limited):
            return ""
        return (
            f"the flow is stiff for an explicit solver: stability holds its steps below {self.stability_limit:.2g} over the "
            f"fastest rate, {float(solver_state.rate):.2g} by the last step; take solver='exponential' where the flow has a "
            "linearisation, 'stabilised' for gradient flow, allow more steps, or ask for less."
        )

    def _folds(self, stages: PyTree, weights: PyTree) -> Float[Array, ""]:
        """h |lambda| from the last two of the `stages` h k; 0 if their points are too close to tell."""
        other, last = stage_matrix(self.tableau)[-2:]
        moved = jax.tree.map(lambda leaf: jnp.tensordot(jnp.asarray(last - other, leaf.dtype), leaf, 1), stages)
        changed = jax.tree.map(lambda leaf: leaf[-1] - leaf[-2], stages)
        distance = tree_norm(moved)
        tells = distance > _LEAST_DISTANCE * tree_norm(weights)
        return jnp.where(tells, tree_norm(changed) / jnp.where(tells, distance, 1.0), 0.0)


def stage_matrix(tableau: diffrax.ButcherTableau) -> Float[np.ndarray, "stages stages"]:
    """The matrix A of a tableau: stage i is the velocity k_i at y + h sum_j A_ij k_j."""
    matrix = np.zeros((tableau.num_stages, tableau.num_stages))
    for row, entries in enumerate(tableau.a_lower, start=1):
        matrix[row, : len(entries)] = entries
    return matrix


def stability_polynomial(tableau: diffrax.ButcherTableau) -> Float[np.ndarray, " degrees"]:
    """The coefficients of 1, z, z^2, ... in R(z), the factor by which a step of w' = lambda w multiplies w, z = h lambda."""
    matrix, vector, coefficients = stage_matrix(tableau), np.ones(tableau.num_stages), [1.0]
    for _ in range(tableau.num_stages):
        coefficients.append(float(np.asarray(tableau.b_sol) @ vector))
        vector = matrix @ vector
    return np.asarray(coefficients)
