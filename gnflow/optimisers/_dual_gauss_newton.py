"""Dual Gauss-Newton directions as a gradient transformation of Optax."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core import ConfigError, look_up, require_number, require_positive_int, tree_add_scaled, tree_scale
from ..geometry import SolveDiagnostics, System
from ..geometry.dual import AbstractDualOracle, block_direction, blocks_of, dual_oracle_kinds
from ..geometry.dual._blocks import check_blocks
from ._adaptive_gamma import AdaptiveGamma


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
    - `gamma`: that of the last direction, and before the first one that of the first.
    - `dual_variables`: alpha (N, C), or None without a warm start.
    - `next_gamma`, `ratio`: with `AdaptiveGamma` the gamma of the next direction, and rho of the last one (nan before the
      first); None without.
    """

    success: Bool[Array, ""]
    iterations: Int[Array, ""]
    relative_residual: Float[Array, ""]
    duality_gap: Float[Array, ""]
    relative_duality_gap: Float[Array, ""]
    gamma: Float[Array, ""]
    dual_variables: Float[Array, "samples outputs"] | None
    next_gamma: Float[Array, ""] | None = None
    ratio: Float[Array, ""] | None = None


def dual_gauss_newton(
    gamma: float | Float[Array, ""] | AdaptiveGamma = 1.0,
    model: Literal["quadratic", "exact"] = "quadratic",
    max_iterations: int | None = None,
    tol: float | Float[Array, ""] = 1e-8,
    products: Literal["auto", "matrix_free", "dense"] = "auto",
    warm_start: tuple[int, int] | None = None,
    blocks: str | tuple[str, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Replace the gradient by -d(gamma), d = argmin (1/N) sum_n q_n(f_n + J_n d) + ||d||^2/(2 gamma).

    `optax.chain(gnflow.optimisers.dual_gauss_newton(gamma), optax.adam(1e-3))` is Adam on dual directions; with
    `optax.sgd(1.0)` behind it the step is d itself. The samples of the step are the keyword argument `system` of
    `update(gradients, state, weights, system=gnflow.System(batch, model))`, where `weights` is `system.weights(model)` or
    a tree like it. The values of the gradients are not used. The loop may be compiled (`jax.jit`, `jax.lax.scan`), with the
    systems made inside it. Source: Roulet and Blondel, TMLR 2024, arXiv 2308.08886, Section 3; derived in docs/dual.md.

    **Arguments:**

    - `gamma`, `model`, `max_iterations`, `tol`, `products`: as for `gnflow.flows.DualGaussNewtonFlow`; or an `AdaptiveGamma`,
      whose gamma is in the state.
    - `warm_start`: (N, C) of the steps' samples, to start each solve from the dual variables of the last one; useful if all
      steps see the same samples. None for no warm start, as it has to be with blocks. Every direction descends, with or
      without it.
    - `blocks`: None for the direction of all weights; "layers" or a tuple of names (as for `gnflow.flows.Frozen`) for one dual
      problem for each layer or name, and one length for their sum (docs/dual.md, Blocks of weights). Names have to cover
      all weights that move. In the state are the sums of iterations and of gaps over the blocks, and the largest residual.

    **Returns:** an `optax.GradientTransformationExtraArgs` with the state `DualGaussNewtonState`.

    **Raises:** `ConfigError` for invalid numbers or names. `update` raises it without `system` or weights, and for ones that
    do not fit together; `ModelError` for blocks that are not the model's.
    """
    rule = gamma if isinstance(gamma, AdaptiveGamma) else None
    first = rule.initial if rule else require_number(ConfigError, "dual_gauss_newton: gamma", gamma, above=0.0)
    oracle: AbstractDualOracle = look_up(model, dual_oracle_kinds, "model of a dual direction")(
        max_iterations, tol, products
    )
    names = check_blocks("dual_gauss_newton: blocks", blocks)
    if names is not None and warm_start is not None:
        raise ConfigError(
            f"dual_gauss_newton: warm_start = {warm_start!r} with blocks = {blocks!r}; each block has dual variables of its "
            "own, and starts without. Leave one of the two out."
        )
    if warm_start is not None:
        if not isinstance(warm_start, tuple | list) or len(warm_start) != 2:
            raise ConfigError(f"dual_gauss_newton: warm_start = {warm_start!r}; expected (N, C) of the steps' samples.")
        warm_start = (warm_start[0], warm_start[1])
        require_positive_int(ConfigError, **{f"warm_start[{index}]": size for index, size in enumerate(warm_start)})

    def init(params: PyTree) -> Any:
        unknown, begin = jnp.asarray(jnp.inf, dtype=jnp.float64), jnp.asarray(first, dtype=jnp.float64)
        return DualGaussNewtonState(
            success=jnp.zeros((), dtype=bool),
            iterations=jnp.zeros((), dtype=int),
            relative_residual=unknown,
            duality_gap=unknown,
            relative_duality_gap=unknown,
            gamma=begin,
            # A solve ignores initial dual variables that are not finite.
            dual_variables=None if warm_start is None else jnp.full(warm_start, jnp.nan),
            next_gamma=begin if rule else None,
            ratio=jnp.full((), jnp.nan) if rule else None,
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
        assert params is not None
        tangent, targets = system.tangent(params), system.problem.y_train
        strength = jnp.asarray(first, dtype=jnp.float64) if state.next_gamma is None else state.next_gamma
        duals = change = None
        if names is None:
            found = oracle.solve(tangent, system.loss, targets, strength, state.dual_variables)
            displacement, how = found.displacement(tangent), found.diagnostics
            duals = None if warm_start is None else found.dual_variables
        else:
            blocks = block_direction(oracle, system, params, tangent, blocks_of(names, params, system), strength)
            displacement, how, change = blocks.displacement, blocks.diagnostics, blocks.change
        following = ratio = None
        if rule is not None:
            change = tangent.jvp(displacement) if change is None else change
            loss = system.loss.value(tangent.outputs, targets)
            actual = loss - system.train_loss(tree_add_scaled(params, 1.0, displacement))
            ratio = rule.ratio(actual, oracle.decrease(system.loss, tangent.outputs, targets, change), loss)
            following, accepted = rule.next(strength, ratio), rule.accepts(ratio)
            displacement = jax.tree.map(lambda leaf: jnp.where(accepted, leaf, 0.0), displacement)
        last = _state(how, strength, duals)._replace(next_gamma=following, ratio=ratio)
        return tree_scale(-1.0, displacement), last

    return optax.GradientTransformationExtraArgs(init, update)


def _state(how: SolveDiagnostics, gamma: Float[Array, ""], dual_variables: Array | None) -> DualGaussNewtonState:
    assert how.duality_gap is not None
    assert how.relative_duality_gap is not None
    return DualGaussNewtonState(
        success=how.success,
        iterations=jnp.zeros((), dtype=int) if how.iterations is None else how.iterations,
        relative_residual=how.relative_residual,
        duality_gap=how.duality_gap,
        relative_duality_gap=how.relative_duality_gap,
        gamma=gamma,
        dual_variables=dual_variables,
    )


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
