"""What flows, metrics and theorems ask of a problem."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..losses import AbstractLoss
from ._checks import input_array

# The sources of what residual problems record, by which figures find it.
OF_A_TERM = "loss of a term of the problem, docs/residuals.md"
OF_A_TEST = "test of the problem"


class AbstractProblem(eqx.Module):
    """Outputs that a model has on training data, and a loss of them.

    `gnflow.Problem` is the one for samples: its outputs are the model's values at N inputs. In a `gnflow.ResidualProblem` they
    are residuals, such as those of a differential equation.

    **Attributes:**

    - `loss`: the loss.
    - `teacher`: the model that made the targets, or None.
    - `name`: the problem's name in titles and files.
    - `x_train`, `x_validation`, `x_test`: what the outputs are computed on; None for sets that there are not.
    - `y_train`, `y_validation`, `y_test`: the targets (N, C), (m, C) and (n, C).
    - `input_dim`: the number d of features of an input of the model.
    - `num_outputs`: the number of outputs that a model of this problem must have.
    - `has_samples`: whether the outputs are the model's values at one input after the other, `x_train`. If not, nothing can
      draw batches, and theorems about inputs do not apply.
    """

    has_samples: ClassVar[bool] = True

    loss: eqx.AbstractVar[AbstractLoss]
    teacher: eqx.AbstractVar[Any]
    name: eqx.AbstractVar[str]
    x_train: eqx.AbstractVar[Any]
    y_train: eqx.AbstractVar[Float[Array, "num_train num_outputs"]]
    x_test: eqx.AbstractVar[Any]
    y_test: eqx.AbstractVar[Float[Array, "num_test num_outputs"] | None]
    x_validation: eqx.AbstractVar[Any]
    y_validation: eqx.AbstractVar[Float[Array, "num_validation num_outputs"] | None]
    input_dim: eqx.AbstractVar[int]
    num_outputs: eqx.AbstractVar[int]

    @property
    def num_train(self) -> int:
        """The number N of training samples, by which the loss divides."""
        return self.y_train.shape[0]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input of the model."""
        return (self.input_dim,)

    @property
    def is_standardised(self) -> tuple[bool, bool]:
        """Whether the inputs are standardised, and whether the targets are; here neither."""
        return False, False

    def place_of(self, row: int, output: int) -> str:
        """What stands in a row and a column of the training outputs (N, C), in words."""
        return f"the output {output} of sample {row}"

    @abc.abstractmethod
    def joined_with(self, model: Any) -> "AbstractProblem":
        """The problem of a system with this model, after a check that the model fits to the data.

        **Raises:** `ModelError` if it does not, `PrecisionError` if its outputs are not float64.
        """

    @abc.abstractmethod
    def has_kinks(self, model: Any) -> bool | None:
        """Whether the Jacobian of the training outputs may jump as the weights move; None if that is not known."""

    def prepare_inputs(self, x: Any) -> Any:
        """Inputs (n, ...) in the units of the user's data as a model takes them; here as they are.

        **Raises:** `DataError` for inputs that are not finite numbers.
        """
        return jnp.asarray(input_array(x, "x"))

    def restore_outputs(self, f: Any) -> Any:
        """Outputs of the model in the units of the user's data; here as they are."""
        return f

    @property
    def observables(self) -> dict[str, "Observable"]:
        """What is recorded of the problem itself at each save, by the name of its variable."""
        return {}


class Observable(eqx.Module):
    """A number that is recorded of a problem itself at each save.

    **Attributes:**

    - `function`: the model and its training outputs (N, C) to the number.
    - `long_name`: its name on axes and in tables.
    - `reference`: what it is, which data sets keep: `OF_A_TERM`, `OF_A_TEST` or a source.
    """

    function: Callable[[Any, Array], Float[Array, ""]]
    long_name: str = eqx.field(static=True)
    reference: str = eqx.field(static=True)
