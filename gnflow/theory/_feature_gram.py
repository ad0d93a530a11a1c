"""Invertibility at the start: the features of a random first layer, and the NTK that they bound."""

import dataclasses
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import tree_size
from ..geometry import rank_cutoff
from ..models import MeanFieldNetwork, RandomFeatures
from ._accuracy import EPSILON
from ._base import AbstractTheorem, Conclusion, Hypotheses, in_stages
from ._claim import Check, compare
from ._evidence import Evidence
from ._hypotheses import is_linear

_UNIT_ROUNDOFF = EPSILON / 2
# The relative accuracy at which agreement of two eigenvalues says something.
_RESOLUTION = 0.02
# The number of roundings in an entry of S for each input feature, from z and from the activation.
_ACTIVATION_ROUNDINGS = 10
_RECORDED = "ntk_smallest_eigenvalue"


@dataclasses.dataclass(frozen=True)
class GramSpectrum:
    """The extreme eigenvalues of a Gram matrix.

    **Attributes:**

    - `smallest`, `largest`: the eigenvalues.
    - `error`: a first-order estimate of their rounding.
    """

    smallest: float
    largest: float
    error: float


def start_spectrum(evidence: Evidence) -> GramSpectrum:
    """The extreme eigenvalues of A at the start. It costs one Gram matrix and its eigenvalues."""
    network = _network(evidence.trajectory.initial_model)
    # The longest sum behind an entry of A: over the particles, or at most over all weights.
    terms = tree_size(evidence.start) if network is None else _terms(network)
    gram = jnp.asarray(evidence.start_gram)
    return _spectrum(jnp.linalg.eigvalsh(gram), jnp.trace(gram), terms)


@dataclasses.dataclass(frozen=True)
class FeatureGram(AbstractTheorem):
    """Theorem F of docs/theorems/a_priori.md: the features of a random first layer make the NTK invertible at the start.

    S are the features s(u_i.x_n + b_i) of the first layer at the start (N x M) and c is the output factor. A_0 - c^2 S S^T
    (for each output) is positive semi-definite, so sigma_min(A_0) >= c^2 sigma_min(S S^T). That is positive with probability
    one over a first layer with a density. What is measured is whether it is so in this run by more than rounding.
    """

    name: ClassVar[str] = "feature Gram"
    statement: ClassVar[str] = "sigma_min(A_0) >= c^2 sigma_min(S S^T) > 0 for the features S of a random first layer"
    reference: ClassVar[str] = (
        "docs/theorems/a_priori.md, Theorem F; the invertibility condition of Arbel et al. 2023 (arXiv 2302.02904)"
    )

    allows_decay: ClassVar[bool] = True
    about: ClassVar[Literal["run", "start", "parts"]] = "start"

    @in_stages
    def hypotheses(self, evidence: Evidence):
        """A two-layer network whose output layer moves, an analytic activation, enough particles, inputs that differ."""
        network = _network(evidence.trajectory.initial_model)
        yield (Check.fact("the model is a two-layer network", network is not None),)
        assert network is not None
        x, particles = np.asarray(evidence.system.problem.x_train), np.asarray(network.hidden_weight)
        with_bias = network.hidden_bias is not None
        if with_bias:
            x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
            particles = np.concatenate([particles, np.asarray(network.hidden_bias)[:, None]], axis=1)
        distance, cosine = _distance_from_parallel(x)
        activation, samples, different = network.activation, float(len(x)), float(len(np.unique(particles, axis=0)))
        density = "that they are drawn from a density cannot be read off a run"
        smallest = f"smallest distance; x~ = {'(x, 1)' if with_bias else 'x'}"
        yield (
            Check.fact("the output layer moves", evidence.start.output_weight is not None),
            Check.fact("s is analytic and no polynomial", activation.is_transcendental, remark=activation.name),
            Check("as many different particles as samples", different, ">=", samples, remark=density),
            Check("x~_n != 0", float(np.linalg.norm(x, axis=1).min()), ">", 0.0),
            Check("x~_n != x~_m and x~_n != -x~_m", distance, ">", 0.0, remark=smallest),
            {
                "N": samples,
                "M": float(network.width),
                "output factor c": network.output_factor,
                "largest |cos(x~_n, x~_m)|": cosine,
            },
        )

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """Positive beyond rounding; the NTK's smallest eigenvalue above that of its part, computed and as recorded."""
        network = _network(evidence.trajectory.initial_model)
        assert network is not None
        part = _spectrum(*_feature_eigenvalues(network, evidence.system.problem.x_train), _terms(network))
        whole = start_spectrum(evidence)
        width, squared = network.width, network.output_factor**2
        bound, error = squared * part.smallest, whole.error + squared * part.error
        # An eigenvalue within its error of zero is not known to be positive, hence the resolution 0.
        claims = [compare("sigma_min(S S^T/M) > 0", part.smallest / width, ">=", 0.0, part.error / width, 0.0)]
        if is_linear(evidence.system, evidence.start):
            name, relation = "sigma_min(A_0) = c^2 sigma_min(S S^T), only the output layer moves", "=="
        else:
            name, relation = "sigma_min(A_0) >= c^2 sigma_min(S S^T)", ">="
        claims.append(compare(name, whole.smallest, relation, bound, error, _RESOLUTION * abs(bound)))
        if _RECORDED in evidence.trajectory.data:
            # The record's own rounding is that of the eigendecomposition at least, so twice the error.
            recorded = float(evidence.trajectory.data[_RECORDED][0])
            name, resolution = "sigma_min(A_0), recorded and computed", _RESOLUTION * abs(whole.smallest)
            claims.append(compare(name, recorded, "==", whole.smallest, 2 * whole.error, resolution))
        return Conclusion(
            claims=tuple(claims),
            constants={
                "sigma_min(S S^T/M)": part.smallest / width,
                "sigma_max(S S^T/M)": part.largest / width,
                "error of eigenvalues of S S^T/M": part.error / width,
                "c^2 sigma_min(S S^T)": bound,
                "sigma_min(A_0)": whole.smallest,
                "error of sigma_min(A_0)": whole.error,
            },
        )


def _network(model: Any) -> MeanFieldNetwork | None:
    """The two-layer network that gives the features, or None for another model."""
    if isinstance(model, RandomFeatures):
        return model.features
    return model if isinstance(model, MeanFieldNetwork) else None


def _terms(network: MeanFieldNetwork) -> int:
    return network.width + _ACTIVATION_ROUNDINGS * (network.hidden_weight.shape[1] + 1)


def _distance_from_parallel(x: np.ndarray) -> tuple[float, float]:
    """min over pairs of min(||x_n - x_m||, ||x_n + x_m||), inf for a single row; and max |cos| between pairs. O(N d) memory."""
    distance, cosine = np.inf, 0.0
    lengths = np.linalg.norm(x, axis=1)
    for n in range(1, len(x)):
        others = x[:n]
        for sign in (1.0, -1.0):
            distance = min(distance, float(np.linalg.norm(others - sign * x[n], axis=1).min()))
        scale = lengths[:n] * lengths[n]
        products = np.abs(others @ x[n])[scale > 0] / scale[scale > 0]
        cosine = max(cosine, float(products.max(initial=0.0)))
    return distance, min(cosine, 1.0)


def _spectrum(eigenvalues: Float[Array, " size"], trace: Float[Array, ""], terms: int) -> GramSpectrum:
    """With the error of the decomposition, and that of forming inner products of `terms` terms: |fl(J J^T) - J J^T| <=
    terms u |J||J|^T entrywise with the unit round-off u, and the norm of |J||J|^T is at most the trace of J J^T."""
    error = float(rank_cutoff(eigenvalues)) + terms * _UNIT_ROUNDOFF * float(trace)
    return GramSpectrum(float(eigenvalues[0]), float(eigenvalues[-1]), error)


@eqx.filter_jit
def _feature_eigenvalues(
    network: MeanFieldNetwork, x: Float[Array, "samples input_dim"]
) -> tuple[Float[Array, " samples"], Float[Array, ""]]:
    features = jax.vmap(network.hidden_features)(x)
    gram = features @ features.T
    return jnp.linalg.eigvalsh(gram), jnp.trace(gram)
