"""What the choice of a run's solver depends on."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import PyTree

from .._core import tree_size
from ..geometry import Decomposition, System
from ..solvers import Situation
from ._start import InitialState, linearisation_at, linearisation_work, velocity_work

_LEADING_MODE = Decomposition(dense_limit=0, rank=1, power=2)


def situation_of(
    system: System, weights: PyTree, flow: Any, t1: float | None, start: Callable[[], InitialState]
) -> Situation:
    """The situation of a run that begins at `weights`.

    **Arguments:**

    - `flow`, `t1`: as for `simulate`.
    - `start`: returns the first state. It is called only after that is known.
    """
    dynamics = flow.dynamics
    linearised = dynamics.linearised
    num_outputs = system.problem.y_train.size
    has_jacobian = linearised is not None and linearised.is_differentiable(system)

    @functools.cache
    def stiffness() -> float | None:
        if t1 is None or start().evaluation.diagnostics is not None:
            return None
        # A few products with J J^T give the fastest rate to one digit, which is enough to choose a solver.
        rates, _, _ = linearisation_at(jnp.zeros(()), weights, system, flow, _LEADING_MODE)
        return t1 * float(jnp.max(rates))

    return Situation(
        linearised=linearised is not None,
        is_stiff=linearised is not None and linearised.is_stiff,
        has_real_spectrum=dynamics.has_real_spectrum(system),
        has_kinks=system.has_kinks,
        has_constant_hessian=system.loss.has_constant_hessian,
        num_outputs=num_outputs,
        jacobian=(tree_size(weights), num_outputs) if has_jacobian else None,
        stiffness=stiffness,
        velocity_work=functools.partial(velocity_work, weights, system, dynamics),
        linearisation_work=functools.partial(linearisation_work, weights, system, linearised),
    )
