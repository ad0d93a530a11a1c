"""What a flow is: a vector field on a model's weights."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import instance_field, tree_multiply, tree_scale, tree_subtract
from ..geometry import AbstractTangent, Decomposition, Direction, Linearisation, SolveDiagnostics, System
from ..geometry.damping import AbstractDamping
from ..problems import Problem
from ._gain import AbstractGain


class AbstractFlow(eqx.Module):
    """dw/dt = velocity(t, w; system). A flow composes its parts; it knows nothing of how it is integrated.

    **Attributes:** `rests_with_gradient`: whether the velocity vanishes where J^T g does, and with it: w' = -J^T K g with a
    symmetric positive semi-definite K of the range of J. A flow with `decay` does not.
    """

    rests_with_gradient: ClassVar[bool] = False

    @property
    def trainable(self) -> str | tuple[str, ...]:
        """The names of the weights that move; all of them unless the flow is wrapped in `Frozen`."""
        return "all"

    def system(self, problem: Problem, model: Any) -> System:
        """The problem joined with the model's structure, with the weights that this flow moves."""
        return System(problem, model, self.trainable)

    @property
    def dynamics(self) -> "AbstractFlow":
        """The flow that acts on the weights that move: the flow itself unless it wraps another."""
        return self

    @property
    def linearised(self) -> "AbstractLinearisedFlow | None":
        """What knows the linearisation of the part -J^T a of the velocity; None where nothing does."""
        return None

    def decay(self, weights: PyTree, system: System) -> PyTree | None:
        """D >= 0, the linear part in weight space of w' = -J^T a - D w; None for a flow that has none.

        A tree like `weights`, for their structure alone, of rates in 1/flow time: a number for each leaf, or an array of its
        shape. They depend neither on the weights nor on time. The velocity has -D w in it.
        """
        return None

    def penalty(self, weights: PyTree, system: System) -> Float[Array, ""] | None:
        """What `never_ascends` adds to the loss of `system`, at least 0; None for nothing."""
        return None

    def never_ascends(self, system: System) -> bool:
        """Whether the loss of `system`, with the `penalty` of a flow that has one, cannot increase along the flow, so that a
        step which raises it is in error (docs/theory.md, exact fact 5, Descent on kinks and Weight decay). False, which is
        always safe, for a flow that does not say."""
        return False

    def has_jumps(self, system: System) -> bool:
        """Whether the velocity may jump along a run where the model has no kink: then no error is carried along, and solutions
        are compared. False for a flow that does not say: say so where a velocity of yours jumps, in time or in the weights."""
        return False

    def has_real_spectrum(self, system: System) -> bool:
        """Whether the velocity's Jacobian in the weights is symmetric, or nearly: then all its eigenvalues are real, or nearly
        so beside the largest, and the stabilised solver may take the flow. Also that a velocity is cheap: it decomposes no
        matrix. False, which is always safe, for a flow that does not say."""
        return False

    def is_smooth(self, system: System) -> bool | None:
        """Whether the velocity is infinitely differentiable in the weights and in time, for a smooth model and loss; None for a
        flow that does not say."""
        return None

    def gain(self, system: System) -> AbstractGain | None:
        """The flow's law as a function of the eigenvalues of the Gram matrix, w' = -J^T K g; None for a flow that has none."""
        return None

    @property
    def reported_rate(self) -> float | None:
        """k, where f' = -k (f - y) for the squared loss, up to the `relative_residual` that the flow reports; None for a flow
        that promises no such thing."""
        return None

    @property
    def solves_iteratively(self) -> bool:
        """Whether the direction is solved for up to a residual that is larger than rounding."""
        return False

    @property
    def allowed_residual(self) -> float:
        """The relative residual that the direction's solve may leave beside rounding; 0 for a flow that does not say."""
        return 0.0

    def residual_amplification(self, largest_eigenvalue: Float[Array, ""]) -> Float[Array, ""] | float:
        """By how much more than its norm the relative residual of the direction's solve may change the rate of the loss, where
        `largest_eigenvalue` is that of H A. 1 unless the right-hand side that it is relative to is not the gradient."""
        return 1.0

    @abc.abstractmethod
    def velocity_and_diagnostics(
        self, time: Float[Array, ""] | float, weights: PyTree, system: System
    ) -> tuple[PyTree, SolveDiagnostics | None]:
        """w' and how it was solved for (None for a flow that solves for nothing).

        **Arguments:** `time`: flow time; `weights`: the trained weights, a pytree; `system`: from `self.system(...)`.
        """

    def velocity(self, time: Float[Array, ""] | float, weights: PyTree, system: System) -> PyTree:
        """w', a tree like the weights, per unit of flow time."""
        return self.velocity_and_diagnostics(time, weights, system)[0]


class AbstractOutputFlow(AbstractFlow):
    """A flow w' = -J^T a whose coefficients a (N, C) come from the outputs and the Gram matrix.

    Then f' = -A a. Every flow of this package but that of reversible networks has this form, with
    a = K g for a symmetric positive semi-definite A K. One that also has a `decay` D is w' = -J^T a - D w.
    """

    @abc.abstractmethod
    def direction(self, time: Float[Array, ""], tangent: AbstractTangent, system: System) -> Direction:
        """a (N, C) at flow time `time`, with the tangent on the training inputs at the present weights."""

    def velocity_and_diagnostics(
        self, time: Float[Array, ""] | float, weights: PyTree, system: System
    ) -> tuple[PyTree, SolveDiagnostics | None]:
        """-J^T a - D w; the tangent is computed once and serves outputs, Gram matrix and J^T."""
        tangent = system.tangent(weights)
        direction = self.direction(jnp.asarray(time, dtype=jnp.float64), tangent, system)
        velocity = tree_scale(-1.0, tangent.vjp(direction.coefficients))
        rates = self.decay(weights, system)
        if rates is not None:
            velocity = tree_subtract(velocity, tree_multiply(rates, weights))
        return velocity, direction.diagnostics


class AbstractLinearisedFlow(AbstractOutputFlow):
    """A flow that knows the low-rank part of its Jacobian, which the exponential and the implicit solver take.

    **Attributes:** `is_stiff`: whether the rates of its modes spread with the spectrum of the Gram matrix.
    """

    is_stiff: ClassVar[bool] = True

    @property
    def linearised(self) -> "AbstractLinearisedFlow":
        """The flow itself."""
        return self

    def is_differentiable(self, system: System) -> bool:
        """Whether the velocity has a continuous derivative in the weights, so that a solver can take its whole Jacobian. False,
        which is always safe, for a flow that does not say."""
        return False

    @abc.abstractmethod
    def linearisation(
        self, time: Float[Array, ""], tangent: AbstractTangent, system: System, decomposition: Decomposition
    ) -> Linearisation:
        """The direction at flow time `time` and W = -J^T K H_L J, with the tangent on the training inputs. The solver adds the
        `decay` of a flow that has one.

        **Arguments:** `decomposition`: how to get the modes of the Gram matrix.
        """


def damping_field(*, default: AbstractDamping) -> Any:
    """The field of a flow that holds its damping rule."""
    return instance_field(
        "damping", AbstractDamping, "a damping rule such as gnflow.geometry.damping.Constant(0.1)", default=default
    )
