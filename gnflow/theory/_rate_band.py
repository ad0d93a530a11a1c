"""The rate at which the loss decays, and the band in which theory puts it, at one state."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import ConfigError
from ..flows import AbstractFlow
from ..geometry import Snapshot, System, rank_cutoff
from ..geometry.directions import decomposed_spectrum, whitened_gram
from ..losses import AbstractOutputFactor
from ..metrics import AbstractMetric, Variable

_SOURCE = "docs/theorems/sandwich.md"


class RateBand(AbstractMetric):
    """-d/dt log(L - L*) and the band [rho_low, rho_high] of the a posteriori sandwich, with what the band is made of.

    For a flow w' = -J^T K g the rate is g^T A K g/(L - L*), and with kappa_low <= A K <= kappa_high on the eigenvalues of A,
    2 mu kappa_low <= rate <= 2 lambda kappa_high. Derived in docs/theorems/sandwich.md.
    """

    flow: AbstractFlow

    def variables(self, system: System) -> tuple[Variable, ...]:
        """Ten numbers; defined for a flow with an increasing gain (`gnflow.flows.AbstractGain`)."""
        if not has_band(self.flow, system):
            raise ConfigError(f"no band of rates is known for the flow {self.flow!r}.")
        rate, eigenvalue = "1/flow time", "outputs^2/weights^2"
        return tuple(
            Variable(f"band_{name}", long_name, units, _SOURCE)
            for name, long_name, units in (
                ("rate", "decay rate of the loss", rate),
                ("low", "lower bound of the rate", rate),
                ("high", "upper bound of the rate", rate),
                ("low_error", "error of the lower bound from that of the eigenvalues", rate),
                ("high_error", "error of the upper bound from that of the eigenvalues", rate),
                ("smallest", "smallest eigenvalue of the NTK", eigenvalue),
                ("largest", "largest eigenvalue of the NTK", eigenvalue),
                ("eigenvalue_error", "error of the eigenvalues", eigenvalue),
                ("damping", "damping eps", "eigenvalues of H A"),
                ("residual", "what the residual of the solve may change of the rate, over the upper bound", "1"),
            )
        )

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
            # A flow that does not say what it solved with: by the rule of its law.
            whitened = jnp.linalg.eigvalsh(whitened_gram(snapshot.gram, factor, tangent.outputs.shape[1]))
            damping = gain.damping(snapshot.time, decomposed_spectrum(snapshot.gram, factor, whitened))
            residual = jnp.zeros(())
        convexity = system.loss.strong_convexity(system.problem.num_train)
        smoothness = system.loss.smoothness(system.problem.num_train)

        def bounds(low_eigenvalue: Array, high_eigenvalue: Array) -> tuple[Array, Array]:
            low, high = gain.bounds(low_eigenvalue, high_eigenvalue, damping, metric)
            return 2 * convexity * low, 2 * smoothness * high

        low, high = bounds(smallest, largest)
        surely_low, surely_high = bounds(jnp.maximum(smallest - error, 0.0), largest + error)
        gradient = system.loss.gradient(tangent.outputs, targets)
        slope = -jnp.vdot(gradient, tangent.jvp(snapshot.velocity))
        excess = snapshot.train_loss - system.loss.minimum(targets)
        return {
            "band_rate": jnp.where(excess > 0, slope / jnp.where(excess > 0, excess, 1.0), jnp.nan),
            "band_low": low,
            "band_high": high,
            "band_low_error": low - surely_low,
            "band_high_error": surely_high - high,
            "band_smallest": eigenvalues[0],
            "band_largest": largest,
            "band_eigenvalue_error": error,
            "band_damping": damping,
            "band_residual": residual * self.flow.residual_amplification(metric[1] * largest),
        }


def has_band(flow: AbstractFlow, system: System) -> bool:
    """Whether bounds of A's eigenvalues bound the rates of the flow."""
    gain = flow.gain(system)
    return gain is not None and gain.is_increasing


def block_bounds(factor: AbstractOutputFactor, shape: tuple[int, ...]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The extreme eigenvalues of R R^T on outputs of `shape` (N, C): it couples only the outputs of one sample."""
    basis = jnp.broadcast_to(jnp.eye(shape[1])[:, None, :], (shape[1], *shape))
    columns = jax.vmap(functools.partial(_column, factor))(basis)  # (C, N, C): R_n e_c
    blocks = jnp.einsum("cni,cnj->nij", columns, columns)
    eigenvalues = jnp.linalg.eigvalsh(blocks)
    return jnp.maximum(jnp.min(eigenvalues), 0.0), jnp.max(eigenvalues)


def _column(factor: AbstractOutputFactor, values: Array) -> Array:
    return factor.product(values)
