"""What a direction is, and what solves for it."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._equation import DirectionEquation
from ._modes import Decomposition, Modes


class SolveDiagnostics(eqx.Module):
    """How a direction was solved for.

    **Attributes:** `damping`: eps, in units of H A; `rank`: the number of modes the solve could tell from zero (for the
    conjugate-gradient solver, which sees no spectrum: the iterations it took, a lower bound); `relative_residual`:
    ||(H A + eps) a - g|| / ||g|| in the whitened coordinates, the part of the gradient that the direction does not reach
    (with a part of g that the metric does not see: relative to the right-hand side of the whitened system);
    `success`: False if the solve broke down.

    Of some solves only, None for the others: `kept`: the number of modes that the direction is made of, where those at rounding
    are cut off: the velocity jumps where it changes; `truncated`: whether modes that the gradient has were left out, so that
    an update that is exact otherwise is not; `iterations`: how many an iterative solve took; `duality_gap`: primal minus dual
    objective, an upper bound on how far the direction's model is from its minimum; `relative_duality_gap`: the fraction of the
    model's decrease that this is, from 0 to 1; `half_block_rank`,
    `half_block_residual`: rank and relative residual of the least-squares problem of each half-block of a reversible network,
    first to last.
    """

    damping: Float[Array, ""]
    rank: Int[Array, ""]
    relative_residual: Float[Array, ""]
    success: Bool[Array, ""]
    kept: Int[Array, ""] | None = None
    truncated: Bool[Array, ""] | None = None
    iterations: Int[Array, ""] | None = None
    duality_gap: Float[Array, ""] | None = None
    relative_duality_gap: Float[Array, ""] | None = None
    half_block_rank: Int[Array, " half_blocks"] | None = None
    half_block_residual: Float[Array, " half_blocks"] | None = None


class Direction(eqx.Module):
    """The direction -J^T a in weight space, by its coefficients a (N, C) on the outputs.

    **Attributes:** `coefficients` (N, C); `diagnostics`: None for a direction that takes no solve (gradient flow).
    """

    coefficients: Float[Array, "samples outputs"]
    diagnostics: SolveDiagnostics | None


class AbstractDirectionSolver(eqx.Module):
    """Solves (H A + eps I) a = g for the coefficients a of the Gauss-Newton direction -J^T a.

    With H = R R^T and g = R h this is a = R z, (R^T A R + eps I) z = h, a symmetric system (push-through identity:
    (R R^T A + eps) R z = R (R^T A R + eps) z). A part u of g outside the image of a singular H adds to it:
    a = R z + u/eps, (R^T A R + eps I) z = h - R^T A u/eps. Without damping u is left out: only what H sees moves
    (docs/theory.md, Singular metrics).

    **Attributes:** `is_differentiable`: whether the coefficients have a derivative in the weights that JAX finds, whatever the
    rank of A; `is_direct`: whether they come from a factorisation of the whole matrix, so that the residual is rounding. False,
    which is always safe, for a solver that does not say.
    """

    is_differentiable: ClassVar[bool] = False
    is_direct: ClassVar[bool] = False

    @property
    def allowed_residual(self) -> float:
        """The relative residual that a solve may leave beside rounding; 0 for a solver that does not say."""
        return 0.0

    def never_ascends(self, sees_gradient: bool) -> bool:
        """Whether its direction, as far as it is computed, is one of descent wherever that of the exact solve is.

        **Arguments:** `sees_gradient`: whether all of g is in the image of H. False by default, which is always safe.
        """
        return False

    @abc.abstractmethod
    def solve(self, equation: DirectionEquation) -> Direction:
        """a (N, C), with rank, damping and residual.

        **Raises:** `ConfigError` for a damping rule that reads what this solver does not know.
        """

    def solve_and_decompose(self, equation: DirectionEquation, decomposition: Decomposition) -> tuple[Direction, Modes]:
        """The direction of `solve` and the modes of R^T A R, which a flow's linearisation is made of."""
        return (
            self.solve(equation),
            decomposition.modes(equation.tangent, equation.factor),
        )


def relative_residual(residual: Float[Array, "..."], right_hand_side: Float[Array, "..."]) -> Float[Array, ""]:
    """||residual|| / ||right-hand side||; 0 where the right-hand side is 0 (there the solution 0 is exact)."""
    norm = jnp.linalg.norm(right_hand_side)
    return jnp.where(norm == 0, 0.0, jnp.linalg.norm(residual) / jnp.where(norm == 0, 1.0, norm))
