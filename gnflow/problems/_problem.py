"""A problem: data and a loss, checked once."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float64

from .._core import ConfigError, DataError, Numbers, is_own_class, require_float64, shown
from ..losses import AbstractLoss, SquaredLoss, get_loss
from ._checks import input_array, raw_targets
from ._own_loss import require_convex_mean
from ._tables import require_same_columns, require_same_rows

_SQUARED_LOSS = SquaredLoss()
_DERIVATIVES = ("gradient", "hessian_product", "hessian_pinv_product", "hessian_factor")


class Problem(eqx.Module):
    """Training data and a loss, optionally with test data and the teacher that made the targets.

    The training loss is L(f) = (1/N) sum_n l(f_n, y_n) over the N training samples (`gnflow.losses`).

    **Arguments:**

    - `x_train`: training inputs (N, d), or of any shape (N, ...) that the model takes one by one: images (N, H, W, ch),
      sequences (N, T, d). Lists, data frames, NumPy and JAX arrays of integers, bools or floats are converted to float64
      without loss. Integers stay exact: a model that needs token ids (N, T) as integers casts them, `tokens.astype(int)`.
    - `y_train`: training targets (N,) or (N, C) in any form that the loss takes (numbers, class labels, one-hot rows). The
      loss converts them to its canonical form (N, C). Integers reach the loss as integers: the squared loss refuses them,
      because they are usually class labels.
    - `x_test`: test inputs (n, ...) of the same shape, or None.
    - `y_test`: test targets (n,) or (n, C), or None.
    - `loss`: a loss object, the squared loss by default.
    - `teacher`: the model that made the targets, if there is one.
    - `name`: the problem's name in titles and files.

    **Attributes:** the arguments, with arrays as float64 `jax.Array`s and targets in canonical form.

    A problem can also be made of traced arrays inside `jax.jit`, `jax.lax.scan` and the like, such as the batches of a training
    loop. Shapes and dtypes are then checked as usual, but the numbers are unknown: nobody checks whether they are finite,
    whether integers are beyond 2^53, or whether targets are in the loss's range (probabilities between 0 and 1, rows that sum
    to one). Check the whole data once by making a problem of them outside. Class labels must be one-hot rows there, since the
    number of classes is a shape.

    **Raises:** `PrecisionError` if JAX's double precision is off; `DataError` for no samples, NaN or infinite entries (the
    first is named), shapes that do not fit together, test inputs without test targets or the reverse, data that are not
    numbers, targets that do not suit the loss, a user's loss that is not a convex mean over samples, a `loss` that is not a
    loss object, a `teacher` that is not a model and a `name` that is not text.
    """

    x_train: Float64[Array, "num_train ..."]
    y_train: Float64[Array, "num_train num_outputs"]
    x_test: Float64[Array, "num_test ..."] | None
    y_test: Float64[Array, "num_test num_outputs"] | None
    loss: AbstractLoss
    teacher: Any
    name: str = eqx.field(static=True)

    def __init__(
        self,
        x_train: Any,
        y_train: Any,
        x_test: Any = None,
        y_test: Any = None,
        loss: Any = _SQUARED_LOSS,
        teacher: Any = None,
        name: str = "arrays",
    ):
        require_float64((), "Problem")
        _require_loss(loss)
        if not isinstance(name, str):
            raise DataError(f"name = {shown(name)}; expected a text, to call the problem by in titles and files.")
        if teacher is not None and (isinstance(teacher, type) or not callable(teacher)):
            raise DataError(f"teacher = {shown(teacher)}, but a model (called on one input) or None is needed.")
        if (x_test is None) != (y_test is None):
            given, missing = ("y_test", "x_test") if x_test is None else ("x_test", "y_test")
            raise DataError(f"{given} is given without {missing}; give both, or neither for no test data.")

        require_same_columns(x_train, x_test)
        require_same_rows(x_train, y_train, ("x_train", "y_train"))
        require_same_rows(x_test, y_test, ("x_test", "y_test"))
        x_train = input_array(x_train, "x_train")
        y_train = raw_targets(y_train, "y_train", x_train, "x_train")
        if x_test is not None:
            x_test = input_array(x_test, "x_test")
            y_test = raw_targets(y_test, "y_test", x_test, "x_test")
            if x_test.shape[1:] != x_train.shape[1:]:
                raise DataError(
                    f"x_test has {_features(x_test)} but x_train has {_features(x_train)}; both must have the same columns."
                )

        self.x_train = jnp.asarray(x_train)
        self.x_test = None if x_test is None else jnp.asarray(x_test)
        self.y_train, self.y_test = loss.canonical_targets(y_train, y_test)
        require_convex_mean(loss, self.y_train)
        self.loss = loss
        self.teacher = teacher
        self.name = name

    def __check_init__(self):
        # For a problem that is read from a file. The constructor makes the same checks before, with more helpful messages.
        pairs = ((self.x_train, self.y_train), (self.x_test, self.y_test))
        if any((x is None) != (y is None) for x, y in pairs) or self.x_train is None:
            raise DataError("a problem has inputs and targets, and both or neither for testing.")
        known = [(x, y) for x, y in pairs if x is not None and y is not None]
        if any(x.ndim < 2 or y.ndim != 2 or len(x) != len(y) or 0 in (*x.shape, *y.shape) for x, y in known):
            shapes = [(x.shape, y.shape) for x, y in known]
            raise DataError(f"inputs and targets have the shapes {shapes}; expected (N, d) or (N, ...), and (N, C).")
        if len({(x.shape[1:], y.shape[1]) for x, y in known}) > 1:
            raise DataError("training and test data have different numbers of columns.")
        if self.teacher is not None and not callable(self.teacher):
            raise DataError(f"teacher = {shown(self.teacher)} is no model.")

    @property
    def num_train(self) -> int:
        """The number N of training samples."""
        return self.x_train.shape[0]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, (d,) for vectors."""
        return self.x_train.shape[1:]

    @property
    def input_dim(self) -> int:
        """The number d of features of an input. **Raises:** `DataError` if inputs are no vectors."""
        if len(self.input_shape) != 1:
            raise DataError(
                f"one input has the shape {self.input_shape}, but vectors (d,) are needed here; take a model of such inputs, "
                "or make them vectors: x.reshape(len(x), -1)."
            )
        return self.input_shape[0]

    @property
    def num_outputs(self) -> int:
        """The number C of outputs that a model of this problem must have."""
        return self.y_train.shape[1]


def _features(x: Numbers) -> str:
    what = f"{x.shape[1]} features" if x.ndim == 2 else f"inputs of the shape {x.shape[1:]}"
    return f"{what} (shape {x.shape})"


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
