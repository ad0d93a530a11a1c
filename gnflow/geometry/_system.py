"""A problem joined with a model's structure: everything that a flow needs beside the weights."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from .._core import (
    ModelError,
    in_batches,
    is_traced,
    is_within,
    load_lapack,
    named_leaves,
    nearest_name,
    require_float64,
    require_number,
)
from ..losses import AbstractLoss
from ..models import trainable_mask
from ..models._checks import require_weights
from ..models._trainable import require_trained_weights, trainable_names
from ..models._weight_groups import weight_groups
from ..problems import AbstractProblem, Collocation
from ._dispatch import tangent_of
from ._tangent import AbstractTangent


class System(eqx.Module):
    """A problem (data and loss) joined with a model's structure, built once and used at any weights.

    **Arguments:**

    - `problem`: a `gnflow.Problem` or `gnflow.ResidualProblem`.
    - `model`: any Equinox module called on one input (d,) or (...) that returns (C,), or () for C = 1. With a residual problem,
      any module that its residuals take.
    - `trainable`: "all", or the names of the weights that move: layers as the model names them (`weight_groups`), "biases",
      or paths of its leaves ("output_weight", "layers[0]", "layers[0].bias").

    A system can also be made inside a compiled program (`jax.jit`, `jax.lax.scan`), from a batch that is sliced there, a model
    that is an argument, or both. Shapes are then checked when the program is traced; for numbers see `Problem`. Outside of
    compiled programs another batch of the same shapes costs no tracing.

    **Attributes:**

    - `problem`: the problem, joined with the model.
    - `structure`: the model without the trained weights.
    - `trainable`: "all" or the names of the weights that move, in a tuple.
    - `mobility`: the model's own m of w' = -m grad L, dimensionless; 1 for a model without one.
    - `has_kinks`: whether the Jacobian may jump as the weights move; None if that is not known
      (`gnflow.models.has_kinks`).

    **Raises:** `ModelError` if model and problem do not fit together, nothing is trained or a name is unknown;
    `PrecisionError` if the weights are not float64.
    """

    problem: AbstractProblem
    structure: PyTree
    trainable: tuple[str, ...] = eqx.field(static=True)
    mobility: float = eqx.field(static=True)
    has_kinks: bool | None = eqx.field(static=True)

    def __init__(self, problem: AbstractProblem, model: Any, trainable: str | tuple[str, ...] = "all"):
        if not isinstance(problem, AbstractProblem):
            raise ModelError(
                f"problem is a {type(problem).__name__}; expected a gnflow.Problem(x_train, y_train, ...) or a "
                "gnflow.ResidualProblem(terms)."
            )
        load_lapack()  # flows and metrics of the system decompose its Gram matrix
        names = trainable_names(trainable)
        self.trainable = (names,) if isinstance(names, str) else names
        weights, self.structure = eqx.partition(model, _mask(model, self.trainable))
        require_weights(model, weights)
        self.mobility = _mobility(model)
        require_float64(weights, f"the weights of {type(model).__name__}, ")
        self.problem = problem.joined_with(model)
        self.has_kinks = problem.has_kinks(model)

    def weights(self, model: Any) -> PyTree:
        """The trained weights of `model` (a model of the same structure): a pytree with None for what is not trained."""
        return eqx.partition(model, _mask(model, self.trainable))[0]

    def model(self, weights: PyTree) -> Any:
        """The whole model with the given weights."""
        return eqx.combine(weights, self.structure)

    def named(self, weights: PyTree, name: str) -> PyTree:
        """A tree of booleans like `weights`: True for the trained weights called `name`.

        **Arguments:**

        - `weights`: the trained weights.
        - `name`: a name as in `trainable`.

        **Raises:** `ModelError` if no trained weights have this name.
        """
        paths = [path for path, _ in named_leaves(weights)]
        groups = {"all": tuple(paths), **weight_groups(self.structure, paths)}

        def chosen(one: str) -> list[bool]:
            return [any(is_within(path, prefix) for prefix in groups.get(one, (one,))) for path in paths]

        found = chosen(name)
        if not any(found):
            kind, known = type(self.structure).__name__, {*(group for group in groups if any(chosen(group))), *paths}
            raise ModelError(f"{kind} has no weights called {name!r} that move; {nearest_name(name, known)}")
        return jax.tree.unflatten(jax.tree.structure(weights), found)

    @property
    def loss(self) -> AbstractLoss:
        """The problem's loss."""
        return self.problem.loss

    def tangent(self, weights: PyTree, x: Float[Array, "samples ..."] | Collocation | None = None) -> AbstractTangent:
        """The tangent of the training outputs at `weights`; or that of the model's values on the inputs `x` (n, ...)."""
        return tangent_of(self.structure, weights, self.problem.x_train if x is None else x)

    def outputs(
        self, weights: PyTree, x: Float[Array, "samples ..."] | Collocation | None = None
    ) -> Float[Array, "samples outputs"]:
        """The training outputs (N, C), or the model's values (n, C) on the inputs `x` (n, ...)."""
        model, x = self.model(weights), self.problem.x_train if x is None else x
        if isinstance(x, Collocation):
            return x.outputs(model)
        outputs = jax.vmap(model)(x)
        return outputs.reshape(outputs.shape[0], -1)

    def test_outputs(self, weights: PyTree) -> Float[Array, "samples outputs"]:
        """The model's outputs (n, C) on the test inputs, which the problem must have.

        They are computed in batches, so that the memory beside the outputs does not grow with n.
        """
        return self._in_batches(weights, self.problem.x_test)

    def _in_batches(self, weights: PyTree, x: Float[Array, "samples ..."] | None) -> Float[Array, "samples outputs"]:
        assert x is not None
        outputs = in_batches(self.model(weights), x)
        return outputs.reshape(outputs.shape[0], -1)

    def train_loss(self, weights: PyTree) -> Float[Array, ""]:
        """L on the training data."""
        return self.loss.value(self.outputs(weights), self.problem.y_train)

    def test_loss(self, weights: PyTree) -> Float[Array, ""]:
        """L on the test data, which the problem must have."""
        assert self.problem.y_test is not None
        return self.loss.value(self.test_outputs(weights), self.problem.y_test)

    def validation_outputs(self, weights: PyTree) -> Float[Array, "samples outputs"]:
        """The model's outputs (m, C) on the validation inputs, which the problem must have, computed in batches."""
        return self._in_batches(weights, self.problem.x_validation)


def _mask(model: Any, names: tuple[str, ...]) -> PyTree:
    """A tree of booleans like `model`: True where a leaf is trainable and named."""
    mask = trainable_mask(model)
    require_trained_weights(model, mask)
    if names == ("all",):
        return mask
    if not names:
        raise ModelError(f'trainable names no weights of {type(model).__name__}; name one, or say "all".')
    leaves = named_leaves(mask)
    paths = [path for path, trained in leaves if trained]
    groups = weight_groups(model, paths)
    prefixes = [prefix for name in names for prefix in groups.get(name, (name,))]
    known = {*groups, *paths}
    for name in names:
        own = groups.get(name, (name,))
        if not any(is_within(path, prefix) for path in known for prefix in own):
            raise ModelError(f"{type(model).__name__} has no weights called {name!r}; {nearest_name(name, known)}")
    chosen = [trained and any(is_within(path, prefix) for prefix in prefixes) for path, trained in leaves]
    return jax.tree.unflatten(jax.tree.structure(mask), chosen)


def _mobility(model: Any) -> float:
    own = getattr(model, "mobility", 1.0)
    if is_traced(own):
        raise ModelError(
            f"{type(model).__name__}.mobility is an array of the program that JAX traces; a flow's time unit is a "
            "number that is known beforehand: make it a property that returns one, or a static field, "
            "equinox.field(static=True)."
        )
    return require_number(ModelError, f"{type(model).__name__}.mobility", own, above=0.0)
