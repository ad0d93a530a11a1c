"""The state of a run at one saved time. What several metrics need is computed at most once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._system import System
from ._tangent import AbstractTangent
from .directions import SolveDiagnostics


class Snapshot:
    """The state of a run at one time. Within one trace each property is computed when it is first read, and kept.

    **Arguments:**

    - `time`: flow time, or the number of the step.
    - `weights`: the trained weights.
    - `system`: the problem and the model's structure.
    - `velocity`: a function without arguments that returns (w', diagnostics) at this state. It is called only if a metric
      needs them.
    - `integrals`: integrals over flow time up to this time, by the name of their variable.
    - `rests_with_gradient`: whether w' vanishes where J^T g does.
    - `tangent`: the tangent on the training inputs, if it is known already.
    - `decay`: D of w' = -J^T a - D w, a tree like the weights; None for a flow without weight decay.
    """

    def __init__(
        self,
        time: Float[Array, ""],
        weights: PyTree,
        system: System,
        velocity: Callable[[], tuple[PyTree, SolveDiagnostics | None]],
        integrals: dict[str, Float[Array, ""]] | None = None,
        rests_with_gradient: bool = False,
        tangent: AbstractTangent | None = None,
        decay: PyTree | None = None,
    ):
        self.time = time
        self.weights = weights
        self.system = system
        self._velocity = velocity
        self.integrals = {} if integrals is None else integrals
        self.rests_with_gradient = rests_with_gradient
        self.decay = decay
        self._tangent = tangent

    @property
    def model(self) -> Any:
        """The whole model."""
        return self.system.model(self.weights)

    @functools.cached_property
    def tangent(self) -> AbstractTangent:
        """The tangent on the training inputs."""
        return self.system.tangent(self.weights) if self._tangent is None else self._tangent

    @functools.cached_property
    def gram(self) -> Float[Array, "rows rows"]:
        """The NTK Gram matrix A, (NC, NC)."""
        return self.tangent.gram()

    @functools.cached_property
    def eigenvalues(self) -> Float[Array, " rows"]:
        """Eigenvalues of A, ascending, (NC,)."""
        return jnp.linalg.eigvalsh(self.gram)

    @functools.cached_property
    def train_outputs(self) -> Float[Array, "samples outputs"]:
        """f on the training inputs, (N, C)."""
        return self.tangent.outputs

    @functools.cached_property
    def test_outputs(self) -> Float[Array, "samples outputs"]:
        """f on the test inputs, (n, C); only if the problem has test data."""
        return self.system.test_outputs(self.weights)

    @functools.cached_property
    def train_loss(self) -> Float[Array, ""]:
        """L on the training data."""
        return self.system.loss.value(self.train_outputs, self.system.problem.y_train)

    @functools.cached_property
    def test_loss(self) -> Float[Array, ""]:
        """L on the test data; only if the problem has test data."""
        assert self.system.problem.y_test is not None
        return self.system.loss.value(self.test_outputs, self.system.problem.y_test)

    @functools.cached_property
    def validation_outputs(self) -> Float[Array, "samples outputs"]:
        """f on the validation inputs, (m, C); only if the problem has validation data."""
        return self.system.validation_outputs(self.weights)

    @functools.cached_property
    def validation_loss(self) -> Float[Array, ""]:
        """L on the validation data; only if the problem has validation data."""
        assert self.system.problem.y_validation is not None
        return self.system.loss.value(self.validation_outputs, self.system.problem.y_validation)

    @functools.cached_property
    def _velocity_and_diagnostics(self) -> tuple[PyTree, SolveDiagnostics | None]:
        return self._velocity()

    @property
    def velocity(self) -> PyTree:
        """w' of the flow at this state."""
        return self._velocity_and_diagnostics[0]

    @property
    def diagnostics(self) -> SolveDiagnostics | None:
        """Damping, rank and residual of the flow's solve at this state; None for a flow without one."""
        return self._velocity_and_diagnostics[1]

    def gram_velocity(self) -> Float[Array, "rows rows"]:
        """dA/dt along the flow, (NC, NC), by forward mode through the Gram matrix."""

        def gram(weights: PyTree) -> Array:
            return self.system.tangent(weights).gram()

        return jax.jvp(gram, (self.weights,), (self.velocity,))[1]
