"""Why a run stands still, as far as the state at its end shows it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import jit_for_states, tree_size
from ..geometry import ResolvedRange, System
from ..losses import AbstractLoss
from ..problems._scale import how_to_standardise
from ._advice import of_data, of_spectrum
from .stop import DENSE_LIMIT

_STEPS = 500  # steps of the descent over outputs; a single one is exact if strong convexity equals smoothness


def why_still(system: System, weights: PyTree) -> list[str]:
    """Reasons as clauses: conflicting samples, a derivative of zero, too few weights; then what is unusual about the data.

    One of them is the infimum of the loss over the model's linearisation at `weights`, min over d of L(f + J d). It is exact
    for the squared loss, and otherwise the value that 500 accelerated steps reach. It is left out for more than 4096 outputs
    and for a loss of unknown smoothness.
    """
    reasons = _conflicts(system, weights)
    if system.problem.y_train.size > DENSE_LIMIT:
        return reasons
    eigenvalues, least = (np.asarray(found) for found in _linearised(system, weights))
    size, outputs = tree_size(weights), eigenvalues.size
    if np.max(np.abs(eigenvalues)) == 0:
        return [
            *reasons,
            "the derivative of the outputs is zero in every trained weight (weights that are all zero, or dead units), so that "
            "no flow leaves this state: start from other weights",
        ]
    if size < outputs:
        reasons.append(f"the model has P = {size} trained weights for NC = {outputs} outputs")
    if np.isfinite(least):
        reasons.append(f"the infimum of the loss over the model's linearisation here is {float(least):.4g}")
    x, y = of_data(system)
    scale = [
        *x,
        *y,
        *([how_to_standardise(bool(x), bool(y), system.loss, system.problem.is_standardised)] if x or y else []),
    ]
    # With P < NC weights the rank is below NC for any data, so it says nothing about these.
    odd = of_spectrum(system, weights, eigenvalues) if size >= outputs else []
    return [*reasons, *odd, *scale]


def _conflicts(system: System, weights: PyTree) -> list[str]:
    if not system.problem.has_samples:
        return []
    x, y = (np.asarray(array) for array in (system.problem.x_train, system.problem.y_train))
    groups = np.unique(x.reshape(len(x), -1), axis=0, return_inverse=True)[1].reshape(-1)
    counts = np.bincount(groups)
    if counts.max() == 1:
        return []
    repeated = [np.flatnonzero(groups == group) for group in np.flatnonzero(counts > 1)]
    in_conflict = sum(bool(np.any(y[rows] != y[rows[0]])) for rows in repeated)
    if not in_conflict:
        return []
    least = float(_over_groups(system, weights, jnp.asarray(groups)))
    are = "input occurs" if in_conflict == 1 else "inputs occur"
    keeps = f", which alone keeps the loss at {least:.4g} or above" if np.isfinite(least) else ""
    return [f"{in_conflict} {are} more than once with different targets{keeps}"]


@jit_for_states
def _linearised(system: System, weights: PyTree) -> tuple[Float[Array, " rows"], Float[Array, ""]]:
    """The eigenvalues of A and min over d of L(f + J d)."""
    tangent = system.tangent(weights)
    able = ResolvedRange.of(tangent.gram())
    return able.eigenvalues, _infimum(system.loss, tangent.outputs, system.problem.y_train, able.project)


@jit_for_states
def _over_groups(system: System, weights: PyTree, groups: Array) -> Float[Array, ""]:
    """The infimum of the loss over outputs that are equal within each group of samples."""
    size = groups.shape[0]

    def project(outputs: Array) -> Array:
        sums = jax.ops.segment_sum(outputs, groups, size)
        counts = jax.ops.segment_sum(jnp.ones(size), groups, size)
        return sums[groups] / counts[groups][:, None]

    return _infimum(system.loss, system.outputs(weights), system.problem.y_train, project)


def _infimum(loss: AbstractLoss, outputs: Array, targets: Array, project) -> Float[Array, ""]:
    """The minimum of L over `outputs` plus the range of the orthogonal projection `project`, by Nesterov's accelerated descent.

    It is nan for a loss without a known smoothness, because the step length is the inverse of that.
    """
    samples = outputs.shape[0]
    smoothness = loss.smoothness(samples)
    if not math.isfinite(smoothness):
        return jnp.asarray(jnp.nan)

    def descend(point: Array) -> Array:
        return point - project(loss.gradient(point, targets)) / smoothness

    def body(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        last, point, weight = carry
        lower = descend(point)
        following = (1 + jnp.sqrt(1 + 4 * weight**2)) / 2
        return lower, lower + (weight - 1) / following * (lower - last), following

    exact = loss.strong_convexity(samples) == smoothness
    steps = 1 if exact else _STEPS
    found = jax.lax.fori_loop(0, steps, body, (outputs, outputs, jnp.ones(())))[0]
    return jnp.minimum(loss.value(found, targets), loss.value(outputs, targets))
