"""The rate at which the loss decays, and the band of rates that theory allows."""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import ConfigError
from ..flows import AbstractFlow
from ..geometry import Snapshot, System, rank_cutoff
from ..geometry.directions import decomposed_spectrum, whitened_gram
from ..losses import AbstractOutputFactor
from ..metrics import AbstractMetric, Variable
from ._measured import Measured, Quantity

_RATE, _EIGENVALUE = "1/flow time", "outputs^2/weights^2"


@dataclasses.dataclass(frozen=True)
class RateBand(Measured):
    """-d/dt log(L - L*) along a run, and the band [lower, upper] of the a posteriori sandwich with its ingredients.

    For a flow w' = -J^T K g the rate is g^T A K g/(L - L*), and with kappa_low <= A K <= kappa_high on the eigenvalues
    of A, 2 mu kappa_low <= rate <= 2 lambda kappa_high. Derived in docs/theorems/sandwich.md.

    All attributes are arrays (k,) over `times`. Their errors come from the error NC eps sigma_max of the eigenvalues.
    """

    prefix: ClassVar[str] = "band"
    source: ClassVar[str] = "docs/theorems/sandwich.md"

    rate: Annotated[np.ndarray, Quantity("decay rate of the loss", _RATE)]
    lower: Annotated[np.ndarray, Quantity("lower bound of the rate", _RATE)]
    upper: Annotated[np.ndarray, Quantity("upper bound of the rate", _RATE)]
    lower_error: Annotated[np.ndarray, Quantity("error of the lower bound from that of the eigenvalues", _RATE)]
    upper_error: Annotated[np.ndarray, Quantity("error of the upper bound from that of the eigenvalues", _RATE)]
    smallest: Annotated[np.ndarray, Quantity("smallest eigenvalue of the NTK", _EIGENVALUE)]
    largest: Annotated[np.ndarray, Quantity("largest eigenvalue of the NTK", _EIGENVALUE)]
    eigenvalue_error: Annotated[np.ndarray, Quantity("error of the eigenvalues", _EIGENVALUE)]
    damping: Annotated[np.ndarray, Quantity("damping eps", "eigenvalues of H A")]
    residual: Annotated[
        np.ndarray, Quantity("what the solve's residual may change of the rate, over the upper bound", "1")
    ]

    @property
    def solve_error(self) -> np.ndarray:
        """The relative error (k,) of a direction from (A + eps) a = g.

        A backward stable solver solves with A + E, ||E|| <= e, so the error is e/(sigma_min + eps - e). eps is that of H A; for
        H <= 1, as for all metrics of gnflow, that of A is not smaller.
        """
        smallest = np.maximum(self.smallest + self.damping - self.eigenvalue_error, np.finfo(float).tiny)
        return self.eigenvalue_error / smallest


class RateBandMetric(AbstractMetric):
    """`RateBand` at one state, for a flow whose gain increases."""

    flow: AbstractFlow

    def variables(self, system: System) -> tuple[Variable, ...]:
        """Those of `RateBand`; **raises** `ConfigError` where no band is known (`has_band`)."""
        if not has_band(self.flow, system):
            raise ConfigError(f"no band of rates is known for the flow {self.flow!r}.")
        return RateBand.variables()

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """One Gram matrix, its eigenvalues and one velocity."""
        system, tangent = snapshot.system, snapshot.tangent
        targets, eigenvalues = system.problem.y_train, snapshot.eigenvalues
        error = rank_cutoff(eigenvalues)
        smallest, largest = jnp.maximum(eigenvalues[0], 0.0), eigenvalues[-1]
        solve = snapshot.diagnostics
        gain = self.flow.gain(system)
        assert gain is not None
        factor = gain.metric.factor(system.loss, tangent.outputs, targets)
        metric = block_bounds(factor, tangent.outputs.shape)
        if solve is not None:
            damping, residual = solve.damping, solve.relative_residual
        else:
            # A flow without diagnostics: the damping follows from the rule of its gain.
            whitened = jnp.linalg.eigvalsh(whitened_gram(snapshot.gram, factor, tangent.outputs.shape[1]))
            damping = gain.damping.shift(snapshot.time, decomposed_spectrum(snapshot.gram, factor, whitened))
            residual = jnp.zeros(())
        convexity = system.loss.strong_convexity(system.problem.num_train)
        smoothness = system.loss.smoothness(system.problem.num_train)

        def bounds(low_eigenvalue: Array, high_eigenvalue: Array) -> tuple[Array, Array]:
            low, high = gain.bounds(low_eigenvalue, high_eigenvalue, damping, metric)
            return 2 * convexity * low, 2 * smoothness * high

        lower, upper = bounds(smallest, largest)
        surely_lower, surely_upper = bounds(jnp.maximum(smallest - error, 0.0), largest + error)
        gradient = system.loss.gradient(tangent.outputs, targets)
        slope = -jnp.vdot(gradient, tangent.jvp(snapshot.velocity))
        excess = snapshot.train_loss - system.loss.minimum(targets)
        return RateBand.named(
            rate=jnp.where(excess > 0, slope / jnp.where(excess > 0, excess, 1.0), jnp.nan),
            lower=lower,
            upper=upper,
            lower_error=lower - surely_lower,
            upper_error=surely_upper - upper,
            smallest=eigenvalues[0],
            largest=largest,
            eigenvalue_error=error,
            damping=damping,
            residual=residual * self.flow.residual_amplification(metric[1] * largest),
        )


def has_band(flow: AbstractFlow, system: System) -> bool:
    """Whether bounds of the eigenvalues of A bound the rates of the flow."""
    gain = flow.gain(system)
    return gain is not None and gain.is_increasing


def block_bounds(factor: AbstractOutputFactor, shape: tuple[int, ...]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The extreme eigenvalues of R R^T on outputs of `shape` (N, C). It couples only the outputs of one sample."""
    basis = jnp.broadcast_to(jnp.eye(shape[1])[:, None, :], (shape[1], *shape))
    columns = jax.vmap(factor.product)(basis)  # (C, N, C): R_n e_c
    blocks = jnp.einsum("cni,cnj->nij", columns, columns)
    eigenvalues = jnp.linalg.eigvalsh(blocks)
    return jnp.maximum(jnp.min(eigenvalues), 0.0), jnp.max(eigenvalues)
