"""An estimate of the kernel distance that needs no Gram matrix."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from .._core import integer_field, look_up, tree_size
from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable
from ._hidden_layer import hidden_features, require_hidden_features

# The number of probes that are mapped at once; fewer if their trees of weights would take more than these bytes.
_MOST_AT_ONCE = 8
_CHUNK_BYTES = 64 * 2**20
_SOURCE = "Fort et al. 2020; docs/theory.md, Metrics"


class KernelDistanceEstimate(AbstractMetric):
    """`KernelDistance`, 1 - <A_t, A_0> / (||A_t|| ||A_0||), estimated from products with random vectors.

    The cosine of the kernel to the start is 1 minus it. No Gram matrix is formed. With probes V (NC, p) of independent standard
    normal entries, the Gram matrices are replaced by the products A_0 V and A_t V. The means over probes of <A_0 v, A_t v>,
    ||A_0 v||^2 and ||A_t v||^2 are unbiased for <A_0, A_t>, ||A_0||^2 and ||A_t||^2 (E v v^T = I). Their quotient is
    consistent, with a standard deviation of order p^(-1/2) and a bias of order 1/p. (A cosine of averages of A v over the
    probes would not converge, because the average of normal probes is just another normal probe.)

    `kernel_distance_standard_error` is the jackknife's over the probes: (p - 1)^(1/2) times the standard deviation (divisor p)
    of the p values with one probe left out. The probes are the same at all times of a run. Values are between 0 and 2 (the
    distance itself is at most 1). Like those of `KernelDistance` they keep their digits when they are small. They are 0, to
    rounding, for kernels that are multiples of each other, and nan if a Gram matrix is zero.

    A saved time costs p products with J^T and p with J, a few probes at a time. The p NC numbers of A_0 V are kept in memory.

    **Arguments:**

    - `num_probes`: the number p of probes, an integer of at least 2.
    - `seed`: the seed of the probes, an integer of at least 0.
    - `of`: "outputs", or "features" for the tangent kernel of the k last hidden features h(x) (the model's `hidden_features`)
      with respect to all trained weights: J is then their Jacobian (N k, P) and the variables begin with `feature_`. That is
      the NTK of Buffelli et al. (arXiv 2411.07979). Its products are by automatic differentiation, and it is zero, so that the
      distance is nan, where no trained weight moves the features.

    **Raises:** `ConfigError` for other arguments.

    Sources: Fort et al. 2020, "Deep learning versus kernel learning" (the distance); Hutchinson 1989 (the inner
    products); Efron and Stein 1981 (the jackknife).
    """

    num_probes: int = integer_field(
        "num_probes", default=32, static=True, least=2, remedy="One probe has no standard error."
    )
    seed: int = integer_field("seed", default=0, static=True, least=0)
    of: Literal["outputs", "features"] = eqx.field(default="outputs", static=True)

    def __check_init__(self):
        look_up(self.of, dict.fromkeys(("outputs", "features")), "of")

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`kernel_distance_estimate` and `kernel_distance_standard_error`; of the outputs they are defined for every model.

        **Raises:** `ModelError` for a model without `hidden_features` if it is that of the features.
        """
        kernel = "kernel"
        if self.of == "features":
            require_hidden_features(system, "KernelDistanceEstimate of the features")
            kernel = "feature kernel"
        return (
            Variable(self._name("estimate"), f"estimated {kernel} distance to the start", "1", _SOURCE),
            Variable(self._name("standard_error"), f"standard error of the estimated {kernel} distance", "1", _SOURCE),
        )

    def prepare(self, start: Snapshot) -> PyTree:
        """A_0 V, as (p, N, C)."""
        return self._products(start)

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The estimate and its standard error; 0 at the start."""
        distance, error = distance_of_products(self._products(snapshot), memory)
        return {self._name("estimate"): distance, self._name("standard_error"): error}

    def _name(self, what: str) -> str:
        return f"{'feature_' if self.of == 'features' else ''}kernel_distance_{what}"

    def _products(self, snapshot: Snapshot) -> Float[Array, "probes samples outputs"]:
        if self.of == "outputs":
            tangent = snapshot.tangent
            values, push, pull = tangent.outputs, tangent.jvp, tangent.vjp
        else:
            values, push, pull = _tangent_of_features(snapshot)
        probes = jr.normal(jr.key(self.seed), (self.num_probes, *values.shape), dtype=jnp.float64)
        at_once = min(_MOST_AT_ONCE, max(1, _CHUNK_BYTES // (8 * tree_size(snapshot.weights))))
        return jax.lax.map(lambda probe: push(pull(probe)), probes, batch_size=min(at_once, self.num_probes))


def _tangent_of_features(
    snapshot: Snapshot,
) -> tuple[Float[Array, "samples features"], Callable[[PyTree], Array], Callable[[Array], PyTree]]:
    """The last hidden features on the training inputs, and the products with their Jacobian J and with J^T."""
    system = snapshot.system

    def features(weights: PyTree) -> Array:
        return hidden_features(system, weights, system.problem.x_train)

    values, pull = jax.vjp(features, snapshot.weights)
    return values, lambda move: jax.jvp(features, (snapshot.weights,), (move,))[1], lambda probe: pull(probe)[0]


def distance_of_products(
    now: Float[Array, "probes samples outputs"], start: Float[Array, "probes samples outputs"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """1 - cosine of two stacks of products, and its standard error by leaving out one probe at a time.

    **Arguments:**

    - `now`: the products A_t v with p >= 2 probes v, (p, N, C).
    - `start`: the products A_0 v with the same probes.
    """
    count = now.shape[0]
    # For stacks of norm one 1 - cosine is ||D||^2 / 2 with their difference D, which loses no digits when it is small.
    now, start = (stack.reshape(count, -1) / jnp.linalg.norm(stack) for stack in (now, start))
    turn = now - start
    turns = jnp.sum(turn**2, axis=1)
    total = jnp.sum(turns)
    # Without probe i the stacks have squared norms a and b, and their difference has d; all three follow from the totals. Then
    # 1 - cosine = (d - (sqrt a - sqrt b)^2) / (2 sqrt(a b)). To lose no digits b - a is computed from D too.
    a, b = (1 - jnp.sum(stack**2, axis=1) for stack in (now, start))
    b_minus_a = jnp.sum(turn * (now + start), axis=1)
    roots = jnp.sqrt(a) + jnp.sqrt(b)
    without = (total - turns - (b_minus_a / roots) ** 2) / (2 * jnp.sqrt(a * b))
    spread = jnp.sum((without - jnp.mean(without)) ** 2)
    return total / 2, jnp.sqrt((count - 1) / count * spread)
