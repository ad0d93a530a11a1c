"""Nonlinear least squares of any kind: residuals of differential equations, of data, of anything that JAX can compute."""

import bisect
import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from .._core import DataError, ModelError, is_traced, on_one_line, require_instance, require_integer, shown
from ..losses import AbstractLoss, SquaredLoss
from ._base import OF_A_TERM, OF_A_TEST, AbstractProblem, Observable
from ._collocation import Collocation, ResidualTerm

Functional = Callable[[Any], Float[Array, ""]]

_RESERVED = ("time", "step", "flow_time", "batch", "epoch", "train_loss", "test_loss", "validation_loss")


class ResidualProblem(AbstractProblem):
    """Make residuals small: L = sum_k weight_k/(2 sum_i q_i) sum_i q_i |r_k(model, x_i)|^2, the sum over terms k.

    Its outputs are the residuals times sqrt(weight q_i/sum q), all in one row (1, R), so that L is half their sum of squares:
    the squared loss with targets 0 and N = 1. A = J J^T is the NTK of the operator; its spectrum converges as points are added.
    Under Gauss-Newton flow L falls as exp(-2t) where A is invertible. The infimum 0 need not be reached: by default runs end
    where they stand still, as `stationary`. Derived in docs/residuals.md.

    **Arguments:**

    - `terms`: the terms, `ResidualTerm`s with different names, in a list or tuple.
    - `test`: error functionals by name: a JAX function of the model that gives a number, such as
      `gnflow.problems.RelativeError`. Each is recorded at each save.
    - `input_dim`: the number of inputs of the model, for configurations. None takes it from points (n, d) of the first term.
    - `num_outputs`: the number of outputs of the model, for configurations.
    - `teacher`: a model that solves the problem, if there is one.
    - `name`: the problem's name in titles and files.

    Recorded at each save, beside `train_loss`: `loss_NAME`, the loss of each term, and the functionals of `test`.

    **Raises:** `DataError` for bad values, `PrecisionError` without float64. Whether residuals can be computed is checked with
    the model (`ModelError`).
    """

    has_samples: ClassVar[bool] = False

    loss: AbstractLoss
    teacher: Any
    name: str = eqx.field(static=True)
    x_train: Collocation
    x_test: None
    y_test: Float64[Array, "num_test num_outputs"] | None
    x_validation: None
    y_validation: Float64[Array, "num_validation num_outputs"] | None
    test: dict[str, Functional]
    input_dim: int = eqx.field(static=True)
    num_outputs: int = eqx.field(static=True)
    row_counts: tuple[tuple[str, int], ...] = eqx.field(static=True)

    def __init__(
        self,
        terms: Any,
        test: Any = None,
        input_dim: Any = None,
        num_outputs: Any = 1,
        teacher: Any = None,
        name: Any = "residuals",
    ):
        if not isinstance(terms, list | tuple) or not terms:
            raise DataError(f"terms = {shown(terms)}; expected a list of gnflow.ResidualTerm, at least one.")
        for index, term in enumerate(terms):
            require_instance(
                DataError, f"terms[{index}]", term, ResidualTerm, "a gnflow.ResidualTerm(name, residual, points)"
            )
        names = [term.name for term in terms]
        twice = next((one for one in names if names.count(one) > 1), None)
        if twice is not None:
            raise DataError(
                f"two terms are called {twice!r}; expected different names, for the variables of the data set."
            )
        if not isinstance(name, str):
            raise DataError(f"name = {shown(name)}; expected a text, to call the problem by in titles and files.")
        if all(not is_traced(term.weight) and float(term.weight) == 0 for term in terms):
            raise DataError("all terms have the weight 0, so that nothing is trained; give one a positive weight.")
        self.loss = SquaredLoss()
        self.teacher, self.name = teacher, name
        self.x_train = Collocation(tuple(terms))
        self.x_test = self.y_test = self.x_validation = self.y_validation = None
        self.test = _functionals({} if test is None else test, {f"loss_{one}" for one in names})
        self.input_dim = (
            _dimension(terms[0]) if input_dim is None else require_integer(DataError, "input_dim", input_dim)
        )
        self.num_outputs = require_integer(DataError, "num_outputs", num_outputs)
        self.row_counts = ()

    @property
    def terms(self) -> tuple[ResidualTerm, ...]:
        """The terms."""
        return self.x_train.terms

    @property
    def y_train(  # pyright: ignore[reportIncompatibleVariableOverride]
        self,
    ) -> Float64[Array, "1 rows"]:
        """The targets (1, R), all zero. R is known when a model says how many residuals there are: in a `System`.

        **Raises:** `DataError` before that.
        """
        if not self.rows:
            raise DataError(
                "the number of residuals depends on the model; ask the problem of a system: system.problem."
            )
        return jnp.zeros((1, sum(self.rows.values())))

    @property
    def rows(self) -> dict[str, int]:
        """The number of rows of each term, by name; empty before a model is known."""
        return dict(self.row_counts)

    def place_of(self, row: int, output: int) -> str:
        """Which residual stands in a column of the outputs (1, R), in words: its term and its point."""
        edges = list(itertools.accumulate(self.rows.values(), initial=0))
        place = bisect.bisect_right(edges, output) - 1
        term, each = self.terms[place], (edges[place + 1] - edges[place]) // self.terms[place].num_points
        output -= edges[place]
        point = jax.tree.map(lambda leaf: np.asarray(leaf)[output // each].tolist(), term.points)
        component = f", component {output % each}" if each > 1 else ""
        return f"the residual of term {term.name!r} at its point {output // each}, {shown(point)}{component}"

    def joined_with(self, model: Any) -> "ResidualProblem":
        """The problem with the number of rows that each term has with this model.

        **Raises:** `ModelError` if a residual cannot be computed with it or is not (k,) real numbers, or a functional of
        `test` gives no number; `PrecisionError` if one is not float64.
        """
        for name, functional in self.test.items():
            _check_functional(name, functional, model)
        return _with_rows(self, tuple((term.name, term.num_points * term.num_residuals(model)) for term in self.terms))

    def has_kinks(self, model: Any) -> bool | None:
        """Whether the Jacobian of the residuals may jump; None if that is not known."""
        return self.x_train.has_kinks(model)

    @property
    def observables(self) -> dict[str, Observable]:
        """The loss of each term, and the error functionals."""
        edges = itertools.accumulate(self.rows.values(), initial=0)
        losses = {
            f"loss_{name}": Observable(_Part(low, high), f"loss of the {name} term", OF_A_TERM)
            for name, (low, high) in zip(self.rows, itertools.pairwise(edges), strict=True)
        }
        errors = {name: Observable(_OfModel(one), name.replace("_", " "), OF_A_TEST) for name, one in self.test.items()}
        return {**losses, **errors}


class _Part(eqx.Module):
    """Half the sum of squares of some of the training outputs."""

    low: int = eqx.field(static=True)
    high: int = eqx.field(static=True)

    def __call__(self, model: Any, outputs: Float[Array, "1 rows"]) -> Float[Array, ""]:
        return jnp.sum(outputs[0, self.low : self.high] ** 2) / 2


class _OfModel(eqx.Module):
    """An error functional, which does not need the outputs."""

    functional: Functional

    def __call__(self, model: Any, outputs: Float[Array, "1 rows"]) -> Float[Array, ""]:
        return self.functional(model)


def _with_rows(problem: ResidualProblem, rows: tuple[tuple[str, int], ...]) -> ResidualProblem:
    """A copy with other rows. The constructor would check the terms again."""
    joined = object.__new__(type(problem))
    for field in dataclasses.fields(problem):
        object.__setattr__(joined, field.name, rows if field.name == "row_counts" else getattr(problem, field.name))
    return joined


def _functionals(test: Any, taken: set[str]) -> dict[str, Functional]:
    """`test` after its check. **Raises:** `DataError`."""
    if not isinstance(test, dict):
        raise DataError(f"test = {shown(test)}; expected a dictionary of error functionals by name.")
    for name, functional in test.items():
        if not isinstance(name, str) or not name.isidentifier() or name in taken or name in _RESERVED:
            raise DataError(
                f"test has a functional called {shown(name)}; expected a word that is no other variable of the data "
                "set, such as 'relative_error'."
            )
        if isinstance(functional, type) or not callable(functional):
            raise DataError(
                f"test[{name!r}] = {shown(functional)}; expected a function of the model that gives a number."
            )
    return dict(test)


def _check_functional(name: str, functional: Functional, model: Any) -> None:
    try:
        found = eqx.filter_eval_shape(functional, model)
    except Exception as error:
        raise ModelError(
            f"test[{name!r}] cannot be computed with {type(model).__name__}: {type(error).__name__}: {on_one_line(error, 300)}"
        ) from error
    if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ModelError(f"test[{name!r}] gives {shown(found)}; expected one real number.")


def _dimension(term: ResidualTerm) -> int:
    """The number of coordinates of the points of a term: that of all their arrays."""
    return sum(int(np.prod(leaf.shape[1:])) for leaf in jax.tree.leaves(term.points))
