"""A wrapper for flows in which only some of the weights move."""

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from .._core import ModelError
from ..geometry import SolveDiagnostics, System
from ..models._trainable import trainable_names
from ._base import AbstractFlow
from ._wrapper import converter_of


class Frozen(AbstractFlow):
    """`flow` with all weights fixed except the named ones. With "output" this is the random feature model.

    J, A and the direction are those of the moving weights, and only these are integrated.

    **Arguments:**

    - `flow`: any flow.
    - `trainable`: one or several names of weights that move: layers as the model names them ("output", "hidden"),
      "biases" or paths of its leaves ("layers[0].bias").

    **Raises:** `ConfigError` if `flow` is not a flow; `ModelError` if `trainable` is neither a name nor several names.
    """

    flow: AbstractFlow
    moving: str | tuple[str, ...] = eqx.field(static=True)

    def __init__(self, flow: AbstractFlow, trainable: str | tuple[str, ...] = "output"):
        self.flow = converter_of("Frozen")(flow)
        self.moving = trainable_names(trainable)

    @property
    def trainable(self) -> str | tuple[str, ...]:
        """The names of the weights that move."""
        return self.moving

    @property
    def dynamics(self) -> AbstractFlow:
        """The dynamics of the wrapped flow."""
        return self.flow.dynamics

    def velocity_and_diagnostics(
        self, time: Float[Array, ""] | float, weights: PyTree, system: System
    ) -> tuple[PyTree, SolveDiagnostics | None]:
        """The velocity of the wrapped flow in a system whose trained weights are the moving ones.

        **Raises:** `ModelError` if `system` was not built by `self.system(...)`.
        """
        expected = (self.moving,) if isinstance(self.moving, str) else tuple(self.moving)
        if system.trainable != expected:
            raise ModelError(
                f"this flow moves {expected}, but the system was built for {system.trainable}; "
                "build it with flow.system(problem, model)."
            )
        return self.flow.velocity_and_diagnostics(time, weights, system)
