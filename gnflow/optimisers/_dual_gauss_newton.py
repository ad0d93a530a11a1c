"""Dual Gauss-Newton directions as a gradient transformation of Optax."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core import ConfigError, look_up, require_number, require_positive_int, tree_scale
from ..geometry import System
from ..geometry.dual import AbstractDualOracle, dual_oracle_kinds


class DualGaussNewtonState(NamedTuple):
    """The state of `dual_gauss_newton`: how the last direction was solved for.

    **Attributes:**

    - `success`: whether the solve reached its tolerance (or, for a given number of iterations, has finite numbers); False
      before the first direction.
    - `iterations`: the number of iterations; 0 for a direct solve.
    - `relative_residual`: the relative residual; inf before the first direction.
    - `duality_gap`: the duality gap; inf before the first direction.
    - `relative_duality_gap`: the duality gap as a fraction of the largest possible decrease, from 0 to 1; inf before the
      first direction.
    - `dual_variables`: alpha (N, C), or None without a warm start.
    """

    success: Bool[Array, ""]
    iterations: Int[Array, ""]
    relative_residual: Float[Array, ""]
    duality_gap: Float[Array, ""]
    relative_duality_gap: Float[Array, ""]
    dual_variables: Float[Array, "samples outputs"] | None


def dual_gauss_newton(
    gamma: float | Float[Array, ""] = 1.0,
    model: Literal["quadratic", "exact"] = "quadratic",
    max_iterations: int | None = None,
    tol: float | Float[Array, ""] = 1e-8,
    products: Literal["auto", "matrix_free", "dense"] = "auto",
    warm_start: tuple[int, int] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Replace the gradient by -d(gamma), d = argmin (1/N) sum_n q_n(f_n + J_n d) + ||d||^2/(2 gamma).

    `optax.chain(gnflow.optimisers.dual_gauss_newton(gamma), optax.adam(1e-3))` is Adam on dual directions; with
    `optax.sgd(1.0)` behind it the step is d itself. The samples of the step are the keyword argument `system` of
    `update(gradients, state, weights, system=gnflow.System(batch, model))`, where `weights` is `system.weights(model)` or
    a tree like it. The values of the gradients are not used. The loop may be compiled (`jax.jit`, `jax.lax.scan`), with the
    systems made inside it. Source: Roulet and Blondel, TMLR 2024, arXiv 2308.08886, Section 3; derived in docs/dual.md.

    **Arguments:**

    - `gamma`, `model`, `max_iterations`, `tol`, `products`: as for `gnflow.flows.DualGaussNewtonFlow`.
    - `warm_start`: (N, C) of the steps' samples, to start each solve from the dual variables of the last one; useful if all
      steps see the same samples. None for no warm start. Every direction descends, with or without it.

    **Returns:** an `optax.GradientTransformationExtraArgs` with the state `DualGaussNewtonState`.

    **Raises:** `ConfigError` for invalid numbers or names. `update` raises it without `system` or weights, and for ones that
    do not fit together.
    """
    gamma = require_number(ConfigError, "dual_gauss_newton: gamma", gamma, above=0.0)
    oracle: AbstractDualOracle = look_up(model, dual_oracle_kinds, "model of a dual direction")(
        max_iterations, tol, products
    )
    if warm_start is not None:
        if not isinstance(warm_start, tuple | list) or len(warm_start) != 2:
            raise ConfigError(f"dual_gauss_newton: warm_start = {warm_start!r}; expected (N, C) of the steps' samples.")
        warm_start = (warm_start[0], warm_start[1])
        require_positive_int(ConfigError, **{f"warm_start[{index}]": size for index, size in enumerate(warm_start)})

    def init(params: PyTree) -> Any:
        unknown = jnp.asarray(jnp.inf, dtype=jnp.float64)
        # A solve ignores initial dual variables that are not finite.
        start = None if warm_start is None else jnp.full(warm_start, jnp.nan)
        return DualGaussNewtonState(
            success=jnp.zeros((), dtype=bool),
            iterations=jnp.zeros((), dtype=int),
            relative_residual=unknown,
            duality_gap=unknown,
            relative_duality_gap=unknown,
            dual_variables=start,
        )

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        system: System | None = None,
        **others: Any,
    ) -> tuple[Any, Any]:
        system = _check(updates, params, system, warm_start)
        tangent = system.tangent(params)
        targets = system.problem.y_train
        found = oracle.solve(tangent, system.loss, targets, gamma, state.dual_variables)
        pseudo = tree_scale(found.gamma, tangent.vjp(found.coefficients))
        how = found.diagnostics
        iterations = jnp.zeros((), dtype=int) if how.iterations is None else how.iterations
        gap, relative_gap = how.duality_gap, how.relative_duality_gap
        assert gap is not None
        assert relative_gap is not None
        kept = None if warm_start is None else found.dual_variables
        return pseudo, DualGaussNewtonState(how.success, iterations, how.relative_residual, gap, relative_gap, kept)

    return optax.GradientTransformationExtraArgs(init, update)


def _check(updates: PyTree, weights: PyTree | None, system: Any, warm_start: tuple[int, int] | None) -> System:
    """`system`, checked: weights and samples must fit together."""
    if not isinstance(system, System):
        raise ConfigError(
            f"dual_gauss_newton: update(...) got system = {system!r}; a dual direction needs the samples of the step: call "
            "update(gradients, state, weights, system=gnflow.System(batch_problem, model))."
        )
    if weights is None:
        raise ConfigError(
            "dual_gauss_newton: update(...) got no weights; a dual direction depends on the weights: call "
            "update(gradients, state, weights, system=system)."
        )
    if jax.tree.structure(updates) != jax.tree.structure(weights):
        raise ConfigError(
            "dual_gauss_newton: gradients and weights are different trees; both are like system.weights(model), such as "
            "jax.grad(system.train_loss)(weights)."
        )
    if warm_start is not None and warm_start != system.problem.y_train.shape:
        raise ConfigError(
            f"dual_gauss_newton: warm_start = {warm_start}, and the samples of this step have targets of shape "
            f"{system.problem.y_train.shape}; give that shape, or leave warm_start out."
        )
    return system
