"""The [model] table: a model by its kind, and the options that any model has."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax

from ..geometry import fit_output_layer
from ..models import Centred, SinglePrecision, copy_teacher, model_kinds
from ..problems import AbstractProblem
from ._forms import BOOLEAN, ComponentForm, at


def _with_teacher(model: Any, problem: AbstractProblem) -> Any:
    return copy_teacher(model, getattr(problem, "teacher", None))


# What `true` does to the model that was made, in this order. A teacher is copied into the bare network; what is fitted last is
# what the run starts with.
_OPTIONS: dict[str, Callable[[Any, AbstractProblem], Any]] = {
    "copy_teacher": _with_teacher,
    "centred": lambda model, problem: Centred(model),
    "fit_output": fit_output_layer,
    "single_precision": lambda model, problem: SinglePrecision(model),
}
_OF_PROBLEM = ("copy_teacher", "fit_output")
# The sizes of a model's input and output are those of the problem unless the specification has them.
_MODEL = ComponentForm(
    model_kinds,
    "model",
    eqx.Module,
    supplied=("key", "input_dim", "input_shape", "output_dim"),
    reserved=tuple(_OPTIONS),
)


def check_model(named: Any) -> dict[str, Any]:
    """A checked [model] table: `kind`, the options of that kind, and those of any model that are true.

    **Raises:** `ConfigError` for an unknown kind or option, a wrong type, or a missing option.
    """
    if not isinstance(named, Mapping):
        return _MODEL.check(named, "model")
    own = {name: option for name, option in named.items() if name not in _OPTIONS}
    # Written out, the default is the same content as left out.
    chosen = {name: True for name in _OPTIONS if name in named and BOOLEAN.check(named[name], f"model.{name}")}
    return _MODEL.check(own, "model") | chosen


def model_identity(table: Mapping[str, Any], problem: AbstractProblem) -> tuple[Any, ...]:
    """What decides the model beside its seed and its problem's content: the table, and the sizes that the problem gives."""
    return (_MODEL.identity(table), *_sizes(table, problem).values())


def needs_problem(table: Mapping[str, Any]) -> bool:
    """Whether the model depends on the problem's data or teacher, and not on its sizes alone."""
    return any(table.get(name) for name in _OF_PROBLEM)


def make_model(table: Mapping[str, Any], problem: AbstractProblem, key: jax.Array) -> Any:
    """The model of a checked table.

    **Raises:** `ConfigError`, naming the entry, if a constructor refuses its options or model and problem do not fit.
    """
    own = {name: option for name, option in table.items() if name not in _OPTIONS}
    model = _MODEL.build(own, "model", key=key, **_sizes(table, problem))
    for name, change in _OPTIONS.items():
        if table.get(name):
            with at(f"model.{name}"):
                model = change(model, problem)
    return model


def _sizes(table: Mapping[str, Any], problem: AbstractProblem) -> dict[str, Any]:
    sizes: dict[str, Any] = {"input_shape": problem.input_shape, "output_dim": problem.num_outputs}
    if _MODEL.asks_for(table, "input_dim", "model"):
        with at("model"):
            sizes["input_dim"] = problem.input_dim  # inputs that are no vectors have none
    return sizes
