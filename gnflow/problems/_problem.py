"""A problem: data and a loss, checked once."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float64

from .._core import ConfigError, DataError, ModelError, is_own_class, require_float64, require_instance, shown
from ..losses import AbstractLoss, SquaredLoss, get_loss
from ..models import has_kinks
from ..models._checks import output_of, shape_remedy
from ._base import AbstractProblem
from ._checks import input_array
from ._names import Names
from ._own_loss import require_convex_mean
from ._scale import warn_of_large_scale
from ._sets import SETS, canonical_targets, checked_sets
from ._standardise import Standardisation, standardised, what_to_standardise

_SQUARED_LOSS = SquaredLoss()
_NO_NAMES = Names()
_DERIVATIVES = ("gradient", "hessian_product", "hessian_pinv_product", "hessian_factor")


class Problem(AbstractProblem):
    """Training data and a loss, optionally with validation and test data and the teacher that made the targets.

    The training loss is L(f) = (1/N) sum_n l(f_n, y_n) over the N training samples (`gnflow.losses`).

    **Arguments:**

    - `x_train`: training inputs (N, d), or of any shape (N, ...) that the model takes one by one: images (N, H, W, ch),
      sequences (N, T, d). Lists, data frames, NumPy and JAX arrays of integers, bools or floats are converted to float64
      without loss. Integers stay exact: a model that needs token ids (N, T) as integers casts them, `tokens.astype(int)`.
    - `y_train`: training targets (N,) or (N, C) in any form that the loss takes (numbers, class labels, one-hot rows). The
      loss converts them to its canonical form (N, C). Integers reach the loss as integers: the squared loss refuses them,
      because they are usually class labels. Text is class labels, too, numbered in sorted order over all sets.
    - `x_test`: test inputs (n, ...) of the same shape, or None.
    - `y_test`: test targets (n,) or (n, C), or None.
    - `loss`: a loss object, the squared loss by default.
    - `teacher`: the model that made the targets, if there is one.
    - `name`: the problem's name in titles and files.
    - `x_validation`, `y_validation`: validation inputs (m, d) and targets, or None. They are not trained on; they choose where
      to stop, so that the test data are left to judge.
    - `standardise`: True gives the inputs mean 0 and standard deviation 1 in each column, and the targets too if the loss
      depends on f - y alone (`SquaredLoss`, `HuberLoss`, whose `delta` is then in standard deviations). "inputs", "targets" and
      "both" say which, for a loss of your own. A `gnflow.problems.Standardisation` (`Standardisation.given(mean, scale)`) is
      applied to the inputs as it is. Otherwise mean and standard deviation (divisor N) are those of the training samples, and
      serve all sets. A column that is constant over them is only centred, with a `gnflow.DataWarning`, as there is one of
      large inputs or targets that are not standardised.
    - `names`: what columns and classes are called (`gnflow.problems.Names`). By default the names in data frames and, for
      targets that are text, the labels.

    **Attributes:** the arguments but `standardise`, with arrays as float64 `jax.Array`s, standardised if asked for, and targets
    in canonical form. All losses of a run are those of the standardised targets.

    - `input_standardisation`, `target_standardisation`: means and standard deviations (`gnflow.problems.Standardisation`), or
      None for what is not standardised. `prepare_inputs` and `restore_outputs` use them.

    A problem can also be made of traced arrays inside `jax.jit`, `jax.lax.scan` and the like, such as the batches of a training
    loop. Shapes and dtypes are then checked as usual, but the numbers are unknown: nobody checks whether they are finite,
    whether integers are beyond 2^53, or whether targets are in the loss's range (probabilities between 0 and 1, rows that sum
    to one). Check the whole data once by making a problem of them outside. Class labels must be one-hot rows there, since the
    number of classes is a shape.

    **Raises:** `PrecisionError` if JAX's double precision is off; `DataError` for no samples, NaN or infinite entries (the
    first is named), shapes that do not fit together, test inputs without test targets or the reverse, data that are not
    numbers (columns of text are named), targets that do not suit the loss, a user's loss that is not a convex mean over
    samples, a `loss` that is not a loss object, a `teacher` that is not a model, a `name` that is not text, and data that
    cannot be standardised.
    """

    x_train: Float64[Array, "num_train ..."]
    y_train: Float64[Array, "num_train num_outputs"]
    x_test: Float64[Array, "num_test ..."] | None
    y_test: Float64[Array, "num_test num_outputs"] | None
    loss: AbstractLoss
    teacher: Any
    name: str = eqx.field(static=True)
    # Folders of versions up to 0.2.0 do not have these.
    x_validation: Float64[Array, "num_validation input_dim"] | None = None
    y_validation: Float64[Array, "num_validation num_outputs"] | None = None
    input_standardisation: Standardisation | None = None
    target_standardisation: Standardisation | None = None
    names: Names = _NO_NAMES

    def __init__(
        self,
        x_train: Any,
        y_train: Any,
        x_test: Any = None,
        y_test: Any = None,
        loss: Any = _SQUARED_LOSS,
        teacher: Any = None,
        name: str = "arrays",
        *,
        x_validation: Any = None,
        y_validation: Any = None,
        standardise: Any = False,
        names: Names | None = None,
    ):
        require_float64((), "Problem")
        _require_loss(loss)
        if not isinstance(name, str):
            raise DataError(f"name = {shown(name)}; expected a text, to call the problem by in titles and files.")
        if teacher is not None and (isinstance(teacher, type) or not callable(teacher)):
            raise DataError(f"teacher = {shown(teacher)}, but a model (called on one input) or None is needed.")
        scales = what_to_standardise(standardise, loss)
        given = {"train": (x_train, y_train), "validation": (x_validation, y_validation), "test": (x_test, y_test)}
        inputs, targets, classes = checked_sets(given)
        if names is not None:
            require_instance(DataError, "names", names, Names, 'gnflow.problems.Names(inputs=("age", "size"))')
        named = Names.of(x_train, y_train) if names is None else names
        self.names = named if classes is None else Names(named.inputs, named.targets, classes)
        inputs = {which: jnp.asarray(x) for which, x in inputs.items()}
        targets = canonical_targets(loss, targets)
        self.input_standardisation, inputs = standardised(inputs, "x_train", self.names.inputs, scales[0])
        self.target_standardisation, targets = standardised(targets, "y_train", self.names.targets, scales[1])
        self.x_train, self.y_train = inputs["train"], targets["train"]
        self.x_validation, self.x_test = (inputs.get(which) for which in SETS[1:])
        self.y_validation, self.y_test = (targets.get(which) for which in SETS[1:])
        require_convex_mean(loss, self.y_train)
        warn_of_large_scale(self.x_train, self.y_train, loss, self.is_standardised)
        self.loss = loss
        self.teacher = teacher
        self.name = name

    def __check_init__(self):
        # For a problem that is read from a file. The constructor makes the same checks before, with more helpful messages.
        pairs = [(getattr(self, f"x_{which}"), getattr(self, f"y_{which}")) for which in SETS]
        if any((x is None) != (y is None) for x, y in pairs) or self.x_train is None:
            raise DataError("a problem has inputs and targets, and both or neither for validation and for testing.")
        known = [(x, y) for x, y in pairs if x is not None and y is not None]
        if any(x.ndim < 2 or y.ndim != 2 or len(x) != len(y) or 0 in (*x.shape, *y.shape) for x, y in known):
            shapes = [(x.shape, y.shape) for x, y in known]
            raise DataError(f"inputs and targets have the shapes {shapes}; expected (N, d) or (N, ...), and (N, C).")
        if len({(x.shape[1:], y.shape[1]) for x, y in known}) > 1:
            raise DataError("training, validation and test data have different numbers of columns.")
        if self.teacher is not None and not callable(self.teacher):
            raise DataError(f"teacher = {shown(self.teacher)} is no model.")
        scaled = ((self.input_standardisation, self.x_train), (self.target_standardisation, self.y_train))
        if any(scaling is not None and scaling.mean.shape != data.shape[1:] for scaling, data in scaled):
            raise DataError("a standardisation has a mean and a scale for each column of inputs or targets.")
        self.names.require_fit(self.x_train)

    def prepare_inputs(self, x: Any) -> Float64[Array, "num_samples ..."]:
        """Inputs (n, d) in the units of the data that the problem was made of, as its model takes them: standardised if the
        problem's are. Of a data frame the columns with the names of the problem's inputs are taken, in their order.

        **Raises:** `DataError` as for `x_test`, and for a data frame without one of the columns.
        """
        inputs = jnp.asarray(input_array(self.names.choose(x, "x"), "x"))
        if inputs.shape[1:] != self.x_train.shape[1:]:
            raise DataError(
                f"x has shape {inputs.shape}, but the training inputs have shape {self.x_train.shape}: give "
                f"(n, {', '.join(map(str, self.input_shape))}), a row for each sample, also for one."
            )
        return inputs if self.input_standardisation is None else self.input_standardisation.apply(inputs)

    def restore_inputs(self, x: Any) -> Any:
        """The inverse of `prepare_inputs`: inputs of the problem, such as `x_test` (n, d), in the units of the data."""
        return x if self.input_standardisation is None else self.input_standardisation.invert(x)

    def restore_outputs(self, f: Any) -> Any:
        """Outputs of the model or targets of the problem, (..., C), in the units of the data.

        What was not standardised, such as the logits of classes, is returned as it is.
        """
        return f if self.target_standardisation is None else self.target_standardisation.invert(f)

    @property
    def is_standardised(self) -> tuple[bool, bool]:
        """Whether the inputs are standardised, and whether the targets are."""
        return self.input_standardisation is not None, self.target_standardisation is not None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, (d,) for vectors."""
        return self.x_train.shape[1:]

    @property
    def input_dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The number d of features of an input. **Raises:** `DataError` if inputs are no vectors."""
        if len(self.input_shape) != 1:
            raise DataError(
                f"one input has the shape {self.input_shape}, but vectors (d,) are needed here; take a model of such inputs, "
                "or make them vectors: x.reshape(len(x), -1)."
            )
        return self.input_shape[0]

    @property
    def num_outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The number C of outputs that a model of this problem must have."""
        return self.y_train.shape[1]

    def joined_with(self, model: Any) -> "Problem":
        """The problem itself. **Raises:** `ModelError` and `PrecisionError` if the model's outputs are not like the targets."""
        shape, expected = output_of(model, self._one_input).shape, self.y_train.shape[1:]
        if shape != expected and not (shape == () and expected == (1,)):
            raise ModelError(
                f"{type(model).__name__} returns outputs of shape {shape} for one input, but the targets of the problem have "
                f"shape {expected}; build the model with output_dim={expected[0]}.{shape_remedy(self._one_input)}"
            )
        return self

    def has_kinks(self, model: Any) -> bool | None:
        """Whether the Jacobian of the outputs may jump as the weights move (`gnflow.models.has_kinks`)."""
        return has_kinks(model, self._one_input)

    @property
    def _one_input(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.x_train.shape[1:], self.x_train.dtype)


def _require_loss(loss: Any) -> None:
    if isinstance(loss, AbstractLoss):
        _require_own_derivatives(type(loss))
        return
    if isinstance(loss, type) and issubclass(loss, AbstractLoss):
        raise DataError(f"loss is the class {loss.__name__}, but an object of it is needed: write {loss.__name__}().")
    if isinstance(loss, str):
        try:
            remedy = f"write gnflow.losses.{get_loss(loss).__name__}()."
        except ConfigError as error:
            remedy = f"such as gnflow.losses.SquaredLoss(). {error}"
        raise DataError(f"loss = {shown(loss)} is a name, but a loss object is needed: {remedy}")
    raise DataError(
        f"loss is an object of {type(loss).__name__}, but a gnflow.losses.AbstractLoss is needed, such as "
        "gnflow.losses.SquaredLoss()."
    )


def _require_own_derivatives(cls: type[AbstractLoss]) -> None:
    """Check that a subclass of one of gnflow's losses does not combine its own value with the inherited derivatives.

    **Raises:** `DataError`.
    """
    homes = {name: next(kind for kind in cls.__mro__ if name in vars(kind)) for name in ("value", *_DERIVATIVES)}
    place = cls.__mro__.index(homes["value"])
    # The derivatives of AbstractLoss come from the value, so they fit every value.
    older = [
        name for name in _DERIVATIVES if homes[name] is not AbstractLoss and cls.__mro__.index(homes[name]) > place
    ]
    if older and not is_own_class(homes["value"]):
        raise DataError(
            f"{cls.__name__} has a value of its own and the {', '.join(older)} of {homes[older[0]].__name__}, which belong "
            "to another loss; write these, too."
        )
