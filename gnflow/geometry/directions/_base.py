"""Directions, and the abstract base of their solvers."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core import tree_scale
from .._tangent import AbstractTangent
from ._equation import DirectionEquation
from ._modes import Decomposition, Modes


class SolveDiagnostics(eqx.Module):
    """How a direction was solved for.

    **Attributes:**

    - `damping`: eps, in units of H A. (Of a reversible network the largest of a half-block, in units of its features' Gram
      matrix.)
    - `rank`: the number of modes that the solve can tell from zero. (Conjugate gradients do not see the spectrum; for them it
      is the number of iterations, a lower bound.)
    - `relative_residual`: ||(H A + eps) a - g|| / ||g|| in whitened coordinates: the part of the gradient that the direction
      does not reach. (If the metric does not see a part of g, it is relative to the right-hand side of the whitened system.)
    - `success`: False if the solve broke down.
    - `kept`: the number of modes that the direction is made of, for a solver that cuts off those at rounding. The velocity
      jumps where this number changes.
    - `truncated`: whether modes of the gradient were left out of an update that would be exact with them, or were damped.
    - `iterations`: the number of iterations of an iterative solve.
    - `duality_gap`: primal minus dual objective, an upper bound on the distance of the direction's model from its minimum.
    - `relative_duality_gap`: the duality gap as a fraction of the model's decrease, from 0 to 1.
    - `distance_to_gradient_flow`: how far the velocity is from that of gradient flow on the clock that the damping gives,
      relative to the latter: 0 if they are one, and near 1 where damping is of no account (docs/theory.md, Damping and
      gradient flow). Whoever measures a run adds it to what the solve says.
    - `half_block_rank`, `half_block_residual`, `half_block_damping`: rank, relative residual and eps of the least-squares
      problem of each half-block of a reversible network, first to last.

    From `kept` on they are None for solves that do not have them.
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
    distance_to_gradient_flow: Float[Array, ""] | None = None
    half_block_rank: Int[Array, " half_blocks"] | None = None
    half_block_residual: Float[Array, " half_blocks"] | None = None
    half_block_damping: Float[Array, " half_blocks"] | None = None


class Direction(eqx.Module):
    """The direction -J^T a in weight space, given by its coefficients a on the outputs.

    **Attributes:**

    - `coefficients`: a (N, C).
    - `diagnostics`: how it was solved for; None if there was nothing to solve (gradient flow).
    - `pulled`: J^T a, where it is known more accurately than from a; None otherwise.
    """

    coefficients: Float[Array, "samples outputs"]
    diagnostics: SolveDiagnostics | None
    pulled: PyTree | None = None

    def velocity(self, tangent: AbstractTangent) -> PyTree:
        """-J^T a, a tree like the weights."""
        return tree_scale(-1.0, tangent.vjp(self.coefficients) if self.pulled is None else self.pulled)


class AbstractDirectionSolver(eqx.Module):
    """Solves (H A + eps I) a = g for the coefficients a of the Gauss-Newton direction -J^T a.

    With H = R R^T and g = R h the solution is a = R z, where z solves the symmetric system (R^T A R + eps I) z = h
    (push-through identity: (R R^T A + eps) R z = R (R^T A R + eps) z). If g has a part u outside the image of a singular H,
    then a = R z + u/eps and (R^T A R + eps I) z = h - R^T A u/eps. Without damping u is left out: only what H sees moves
    (docs/theory.md, Singular metrics).

    **Attributes:**

    - `is_differentiable`: whether JAX finds the derivative of the coefficients in the weights, for every rank of A.
    - `is_direct`: whether the coefficients come from a factorisation of the whole matrix, so that the residual is rounding.
      False by default, which is always safe.
    """

    is_differentiable: ClassVar[bool] = False
    is_direct: ClassVar[bool] = False

    @property
    def allowed_residual(self) -> float:
        """The relative residual that a solve may leave beside rounding; 0 by default."""
        return 0.0

    def never_ascends(self, sees_gradient: bool) -> bool:
        """Whether the computed direction is a descent direction wherever the exact one is. False by default, which is safe.

        **Arguments:** `sees_gradient`: whether all of g is in the image of H.
        """
        return False

    @abc.abstractmethod
    def solve(self, equation: DirectionEquation) -> Direction:
        """a (N, C), with rank, damping and residual.

        **Raises:** `ConfigError` for a damping rule that reads what this solver does not know.
        """

    def solve_and_decompose(self, equation: DirectionEquation, decomposition: Decomposition) -> tuple[Direction, Modes]:
        """The direction of `solve`, and the modes of R^T A R for the flow's linearisation."""
        return (
            self.solve(equation),
            decomposition.modes(equation.tangent, equation.factor),
        )


def relative_residual(residual: Float[Array, "..."], right_hand_side: Float[Array, "..."]) -> Float[Array, ""]:
    """||residual|| / ||right-hand side||; 0 if the right-hand side is 0, for which the solution 0 is exact."""
    norm = jnp.linalg.norm(right_hand_side)
    # The inner `where` keeps 0/0 out of the branch that is not taken: nan checks and derivatives of JAX would see it there.
    return jnp.where(norm == 0, 0.0, jnp.linalg.norm(residual) / jnp.where(norm == 0, 1.0, norm))
