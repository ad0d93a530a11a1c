"""The base classes of flows, which are vector fields on a model's weights."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import instance_field, tree_multiply, tree_subtract
from ..geometry import AbstractTangent, Decomposition, Direction, Linearisation, SolveDiagnostics, System
from ..geometry.damping import AbstractDamping
from ..problems import AbstractProblem
from ._gain import AbstractGain


class AbstractFlow(eqx.Module):
    """A vector field dw/dt = velocity(t, w; system). A flow does not know how it is integrated.

    Methods that describe the flow have defaults that are safe for any flow. Whoever integrates or verifies a flow asks these
    methods, never its class.

    **Attributes:**

    - `rests_with_gradient`: whether the velocity vanishes exactly where J^T g does: w' = -J^T K g with a symmetric positive
      semi-definite K with the range of J. A flow with `decay` does not have this property.
    """

    rests_with_gradient: ClassVar[bool] = False

    @property
    def trainable(self) -> str | tuple[str, ...]:
        """The names of the weights that move: all of them, unless the flow is wrapped in `Frozen`."""
        return "all"

    def system(self, problem: AbstractProblem, model: Any) -> System:
        """The problem joined with the model's structure, for the weights that this flow moves."""
        return System(problem, model, self.trainable)

    @property
    def dynamics(self) -> "AbstractFlow":
        """The flow that acts on the weights that move: the flow itself unless it wraps another."""
        return self

    @property
    def linearised(self) -> "AbstractLinearisedFlow | None":
        """The flow that knows the linearisation of the part -J^T a of the velocity; None if there is none."""
        return None

    def tangent(self, weights: PyTree, system: System) -> AbstractTangent:
        """The tangent of the training outputs at `weights` along which the flow moves: w' = -J^T a, where J^T is its `vjp`.

        It is the adjoint of J in the flow's inner product of weights, which is the Euclidean one unless the flow is `Scaled`.
        """
        return system.tangent(weights)

    def decay(self, weights: PyTree, system: System) -> PyTree | None:
        """The rates D >= 0 of weight decay in w' = -J^T a - D w; None for a flow without decay.

        They form a tree with the structure of `weights`, with a number or an array of its shape for each leaf, in 1/flow time.
        They depend neither on the values of the weights nor on time. The velocity includes -D w.
        """
        return None

    def penalty(self, weights: PyTree, system: System) -> Float[Array, ""] | None:
        """The penalty, at least 0, that `never_ascends` adds to the loss of `system`; None for no penalty."""
        return None

    def never_ascends(self, system: System) -> bool:
        """Whether the loss of `system`, plus the `penalty` of a flow that has one, cannot increase along the flow.

        A step that raises it is then in error (docs/theory.md, exact fact 5, Descent on kinks and Weight decay). The default
        False is always safe.
        """
        return False

    def has_jumps(self, system: System) -> bool:
        """Whether the velocity may jump along a run, in time or in the weights, where the model has no kink.

        For such a flow the error is not carried along; two solutions are compared instead. The default is False, so override
        it if your velocity may jump.
        """
        return False

    def has_real_spectrum(self, system: System) -> bool:
        """Whether the velocity's Jacobian in the weights is symmetric or nearly so, and the velocity decomposes no matrix.

        All eigenvalues are then real, up to a small share of the largest, so that the stabilised solver can integrate the flow
        with cheap velocities. The default False is always safe.
        """
        return False

    def is_smooth(self, system: System) -> bool | None:
        """Whether the velocity is infinitely differentiable in the weights and in time, for a smooth model and loss.

        None, the default, means unknown.
        """
        return None

    def gain(self, system: System) -> AbstractGain | None:
        """The law K of w' = -J^T K g as a function of the Gram matrix's eigenvalues; None for a flow without such a law."""
        return None

    @property
    def reported_rate(self) -> float | None:
        """The rate k of f' = -k (f - y) for the squared loss, up to the `relative_residual` that the flow reports.

        None for a flow that does not promise this.
        """
        return None

    @property
    def solves_iteratively(self) -> bool:
        """Whether the direction solve leaves a residual that is larger than rounding."""
        return False

    @property
    def allowed_residual(self) -> float:
        """The relative residual that the direction solve may leave beside rounding. The default is 0."""
        return 0.0

    def residual_amplification(self, largest_eigenvalue: Float[Array, ""]) -> Float[Array, ""] | float:
        """The factor by which a relative residual of the direction solve may change the rate of the loss.

        It is 1 unless the residual is relative to a right-hand side that is not the gradient.

        **Arguments:**

        - `largest_eigenvalue`: the largest eigenvalue of H A.
        """
        return 1.0

    @abc.abstractmethod
    def velocity_and_diagnostics(
        self, time: Float[Array, ""] | float, weights: PyTree, system: System
    ) -> tuple[PyTree, SolveDiagnostics | None]:
        """w', and diagnostics of its solve (None for a flow without a solve).

        **Arguments:**

        - `time`: flow time.
        - `weights`: the trained weights.
        - `system`: from `self.system(...)`.
        """

    def velocity(self, time: Float[Array, ""] | float, weights: PyTree, system: System) -> PyTree:
        """w', a tree like the weights, per unit of flow time."""
        return self.velocity_and_diagnostics(time, weights, system)[0]


class AbstractOutputFlow(AbstractFlow):
    """A flow w' = -J^T a whose coefficients a (N, C) are computed from the outputs and the Gram matrix.

    Then f' = -A a. Every flow of this package except that of reversible networks has this form, with a = K g and a symmetric
    positive semi-definite A K. With a `decay` D it is w' = -J^T a - D w.
    """

    @abc.abstractmethod
    def direction(self, time: Float[Array, ""], tangent: AbstractTangent, system: System) -> Direction:
        """The coefficients a (N, C) at flow time `time`, given the tangent on the training inputs at the present weights."""

    def velocity_and_diagnostics(
        self, time: Float[Array, ""] | float, weights: PyTree, system: System
    ) -> tuple[PyTree, SolveDiagnostics | None]:
        """-J^T a - D w, and diagnostics of the solve for a."""
        return velocity_along(self, self, time, weights, system)


def velocity_along(
    flow: AbstractFlow, law: AbstractOutputFlow, time: Float[Array, ""] | float, weights: PyTree, system: System
) -> tuple[PyTree, SolveDiagnostics | None]:
    """-J^T a - D w with the tangent and rates of `flow` and the coefficients a of `law`, and diagnostics of the solve."""
    tangent = flow.tangent(weights, system)  # shared by outputs, Gram matrix and J^T
    direction = law.direction(jnp.asarray(time, dtype=jnp.float64), tangent, system)
    velocity, rates = direction.velocity(tangent), flow.decay(weights, system)
    if rates is not None:
        velocity = tree_subtract(velocity, tree_multiply(rates, weights))
    return velocity, direction.diagnostics


class AbstractLinearisedFlow(AbstractOutputFlow):
    """A flow that knows the low-rank part of its Jacobian, which the exponential and the implicit solver need.

    **Attributes:**

    - `is_stiff`: whether the rates of its modes spread like the spectrum of the Gram matrix.
    """

    is_stiff: ClassVar[bool] = True

    @property
    def linearised(self) -> "AbstractLinearisedFlow":
        """The flow itself."""
        return self

    def is_differentiable(self, system: System) -> bool:
        """Whether the velocity has a continuous derivative in the weights, so that a solver can use its whole Jacobian.

        The default False is always safe.
        """
        return False

    @abc.abstractmethod
    def linearisation(
        self, time: Float[Array, ""], tangent: AbstractTangent, system: System, decomposition: Decomposition
    ) -> Linearisation:
        """The direction and W = -J^T K H_L J. The solver adds the `decay` of a flow that has one.

        **Arguments:**

        - `time`: flow time.
        - `tangent`: the tangent on the training inputs at the present weights.
        - `system`: from `self.system(...)`.
        - `decomposition`: how to compute the modes of the Gram matrix.
        """


def damping_field(*, default: AbstractDamping) -> Any:
    """The field of a flow that holds its damping rule."""
    return instance_field(
        "damping", AbstractDamping, "a damping rule such as gnflow.geometry.damping.Constant(0.1)", default=default
    )
