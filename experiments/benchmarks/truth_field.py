"""The flows of the table of truth written out anew, by a singular value decomposition of the Jacobian.

What the docstrings of `gnflow.flows` state, with the same rank cut-off, and nothing of `gnflow.geometry`
but the record that a damping rule reads. A Gram matrix has
the squares of J's singular values, so that its small eigenvalues are rounding; those of the SVD are not. The two agree up to
that rounding, which makes the velocity of a badly scaled problem too rough for a tight tolerance (docs/truth.md).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gnflow.geometry.damping import Spectrum

_EPSILON = float(jnp.finfo(jnp.float64).eps)
_HESSIAN_CUTOFF = 1e-12  # below this part of the largest, an eigenvalue of a sample's Hessian is taken for zero


class State(NamedTuple):
    """What a velocity is made of: `time`; `evaluate`: the outputs (NC,) of all weights in one vector `weights` (P,); their
    values `outputs` and the `targets` (N, C); `loss`; `mobility`: m."""

    time: Float[Array, ""]
    evaluate: Callable[[Float[Array, " weights"]], Float[Array, " size"]]
    weights: Float[Array, " weights"]
    outputs: Float[Array, "samples outputs"]
    targets: Float[Array, "samples outputs"]
    loss: Any
    mobility: float

    @property
    def jacobian(self) -> Float[Array, "size weights"]:
        """J, row by row."""
        return jax.jacrev(self.evaluate)(self.weights)

    def pull(self, coefficients: Float[Array, " size"]) -> Float[Array, " weights"]:
        """J^T a."""
        return jax.vjp(self.evaluate, self.weights)[1](coefficients)[0]

    @property
    def gradient(self) -> Float[Array, " size"]:
        """g by automatic differentiation of the loss."""
        return jax.grad(lambda f: self.loss.value(f, self.targets))(self.outputs).reshape(-1)


def gradient(state: State, flow: Any) -> Float[Array, " weights"]:
    """-m J^T g."""
    return -state.mobility * state.pull(state.gradient)


def frozen_gradient(state: State, flow: Any) -> Float[Array, " weights"]:
    """The same: J has the columns of the weights that move."""
    return gradient(state, flow)


def gauss_newton(state: State, flow: Any) -> Float[Array, " weights"]:
    """-J^T (A + eps)^-1 g over the modes above the cut-off."""
    return _spectral(state, flow.damping, 1.0)


def spectral(state: State, flow: Any) -> Float[Array, " weights"]:
    """-J^T (A + eps)^-power g over the modes above the cut-off."""
    return _spectral(state, flow.damping, flow.power)


def gauss_newton_in_hessian_metric(state: State, flow: Any) -> Float[Array, " weights"]:
    """-(J^T H J + eps)^-1 J^T g."""
    return _damped(state, flow.damping(state.time, Spectrum.of(jnp.zeros(1))), cutoff=True)


def dual(state: State, flow: Any) -> Float[Array, " weights"]:
    """-(1 + gamma) (I + gamma J^T H J)^-1 J^T g, of which no mode is left out."""
    return (1 + flow.gamma) / flow.gamma * _damped(state, 1 / flow.gamma, cutoff=False)


FIELDS: dict[str, Callable[[State, Any], Float[Array, " weights"]]] = {
    "gradient": gradient,
    "frozen_gradient": frozen_gradient,
    "gauss_newton": gauss_newton,
    "gauss_newton_undamped": gauss_newton,
    "gauss_newton_lifted": gauss_newton,
    "gauss_newton_hessian": gauss_newton_in_hessian_metric,
    "gauss_newton_fisher": gauss_newton_in_hessian_metric,  # of the softmax and the logistic loss they are one
    "spectral": spectral,
    "spectral_undamped": spectral,
    "dual": dual,
}


def _spectral(state: State, damping: Any, power: Any) -> Float[Array, " weights"]:
    jacobian = state.jacobian
    left, values, right = jnp.linalg.svd(jacobian, full_matrices=False)
    size = jacobian.shape[0]
    # With fewer weights than outputs A has zeros beside the squares.
    smallest = values[-1] ** 2 if size <= jacobian.shape[1] else jnp.zeros(())
    shift = damping(state.time, Spectrum.of(jnp.stack([smallest, values[0] ** 2])))
    shifted = values**2 + shift
    kept = shifted > size * _EPSILON * values[0] ** 2
    gains = jnp.where(kept, values * jnp.where(kept, shifted, 1.0) ** -power, 0.0)
    return -(right.T @ (gains * (left.T @ state.gradient)))


def _damped(state: State, shift: Any, cutoff: bool) -> Float[Array, " weights"]:
    """-(J^T H J + eps)^-1 J^T g for eps > 0, with H = R R^T: the part of g in the image of H and the rest apart."""
    samples, outputs = state.outputs.shape
    root, inverse = _root_of_hessian(state)
    jacobian = state.jacobian
    in_samples = jnp.einsum("ncd,ncp->ndp", root, jacobian.reshape(samples, outputs, -1))
    left, values, right = jnp.linalg.svd(in_samples.reshape(jacobian.shape), full_matrices=False)
    shifted = values**2 + shift
    kept = shifted > state.outputs.size * _EPSILON * values[0] ** 2 if cutoff else jnp.ones_like(values, dtype=bool)
    gains = jnp.where(kept, values / shifted, 0.0)
    by_sample = state.gradient.reshape(state.outputs.shape)
    whitened = jnp.einsum("ncd,nd->nc", inverse, by_sample)
    rest = by_sample - jnp.einsum("ncd,nd->nc", root, whitened)
    inside = right.T @ (gains * (left.T @ whitened.reshape(-1)))
    pulled = state.pull(rest.reshape(-1))
    outside = (pulled - right.T @ (gains * values * (right @ pulled))) / shift
    return -(inside + outside)


def _root_of_hessian(
    state: State,
) -> tuple[Float[Array, "samples outputs outputs"], Float[Array, "samples outputs outputs"]]:
    """The symmetric square roots of each sample's Hessian and their pseudo-inverses."""

    def of_sample(output: Array, target: Array) -> Array:
        return jax.hessian(lambda f: state.loss.value(f[None], target[None]))(output)

    hessians = jax.vmap(of_sample)(state.outputs, state.targets) / state.outputs.shape[0]
    values, vectors = jnp.linalg.eigh(hessians)
    kept = values > _HESSIAN_CUTOFF * jnp.max(values, axis=1, keepdims=True)
    roots = jnp.where(kept, jnp.sqrt(jnp.where(kept, values, 1.0)), 0.0)
    inverses = jnp.where(kept, 1 / jnp.where(kept, roots, 1.0), 0.0)
    back = jnp.swapaxes(vectors, 1, 2)
    return vectors * roots[:, None, :] @ back, vectors * inverses[:, None, :] @ back
