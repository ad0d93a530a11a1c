"""The rate at which the loss decays, and the band in which theory puts it, at one state."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import ConfigError
from ..flows import AbstractFlow, DualGaussNewtonFlow, GaussNewtonFlow, GradientFlow, SpectralFlow
from ..geometry import Snapshot, System, rank_cutoff
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
        """Ten numbers; defined for gradient, Gauss-Newton, spectral and dual Gauss-Newton flow (of the quadratic model)."""
        if not has_band(self.flow):
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
        damping, residual = (jnp.zeros(()),) * 2 if solve is None else (solve.damping, solve.relative_residual)
        metric = _metric_bounds(self.flow, system, tangent.outputs)
        convexity = system.loss.strong_convexity(system.problem.num_train)
        smoothness = system.loss.smoothness(system.problem.num_train)

        def bounds(low_eigenvalue: Array, high_eigenvalue: Array) -> tuple[Array, Array]:
            low, high = gain_bounds(self.flow, system, low_eigenvalue, high_eigenvalue, damping, metric)
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
            "band_residual": residual * _amplification(self.flow, metric[1] * largest),
        }


def has_band(flow: AbstractFlow) -> bool:
    """Whether `gain_bounds` knows the flow."""
    if isinstance(flow, DualGaussNewtonFlow):
        return flow.model == "quadratic"
    return isinstance(flow, GradientFlow | GaussNewtonFlow | SpectralFlow)


def gain_bounds(
    flow: AbstractFlow,
    system: System,
    smallest: Float[Array, ""],
    largest: Float[Array, ""],
    damping: Float[Array, ""],
    metric: tuple[Float[Array, ""], Float[Array, ""]],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """kappa_low, kappa_high: bounds of the eigenvalues of A K where those of A lie between `smallest` and `largest`.

    **Arguments:** `damping`: eps; `metric`: mu_H and lambda_H, the extreme eigenvalues of the output metric.
    """
    if isinstance(flow, GradientFlow):
        mobility = flow.effective_mobility(system)
        return mobility * smallest, mobility * largest
    if isinstance(flow, SpectralFlow):
        return _spectral_gain(smallest, damping, flow.power), _spectral_gain(largest, damping, flow.power)
    unit = 1 + 1 / flow.gamma if isinstance(flow, DualGaussNewtonFlow) else 1.0
    return unit * _damped(smallest, damping, metric[1]), unit * _damped(largest, damping, metric[0])


def _amplification(flow: AbstractFlow, largest: Array) -> Array | float:
    """By how much more than its norm the residual of the solve may enter the rate; `largest`: eigenvalue of H A.

    That of a dual direction is relative to a right-hand side that is large for a large gamma (docs/theorems/sandwich.md).
    """
    return 1 + flow.gamma * largest if isinstance(flow, DualGaussNewtonFlow) else 1.0


def _spectral_gain(eigenvalue: Array, damping: Array, power: float | Array) -> Array:
    """lam (lam + eps)^-s, increasing in lam."""
    shifted = eigenvalue + damping
    return jnp.where(shifted > 0, eigenvalue * jnp.where(shifted > 0, shifted, 1.0) ** -power, 0.0)


def _damped(eigenvalue: Array, damping: Array, metric: Array) -> Array:
    """1/(h + eps/lam), 0 at lam = 0, infinite where h = 0 without damping."""
    denominator = metric * eigenvalue + damping
    return jnp.where(eigenvalue > 0, eigenvalue / denominator, 0.0)


def _metric_bounds(flow: AbstractFlow, system: System, outputs: Array) -> tuple[Array, Array]:
    """mu_H and lambda_H of a Gauss-Newton flow's metric at these outputs; 1 and 1 for flows without one."""
    targets = system.problem.y_train
    if isinstance(flow, DualGaussNewtonFlow):
        factor = system.loss.hessian_factor(outputs, targets)
    elif isinstance(flow, GaussNewtonFlow):
        factor = flow.metric.factor(system.loss, outputs, targets)
    else:
        return jnp.ones(()), jnp.ones(())
    return block_bounds(factor, outputs.shape)


def block_bounds(factor: AbstractOutputFactor, shape: tuple[int, ...]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The extreme eigenvalues of R R^T on outputs of `shape` (N, C): it couples only the outputs of one sample."""
    basis = jnp.broadcast_to(jnp.eye(shape[1])[:, None, :], (shape[1], *shape))
    columns = jax.vmap(functools.partial(_column, factor))(basis)  # (C, N, C): R_n e_c
    blocks = jnp.einsum("cni,cnj->nij", columns, columns)
    eigenvalues = jnp.linalg.eigvalsh(blocks)
    return jnp.maximum(jnp.min(eigenvalues), 0.0), jnp.max(eigenvalues)


def _column(factor: AbstractOutputFactor, values: Array) -> Array:
    return factor.product(values)
