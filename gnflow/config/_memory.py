"""How much memory a problem and a model take at the least, told from their options before either is made."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .._core import ConfigError
from ..models import model_kinds
from ..problems import problem_kinds
from ._machine import available_memory_gib

_GIB = 2**30
_BYTES = 8  # of a float64
_MOST_LAYERS = 10_000  # each is a part of the program; nobody compiles more

Sizes = Mapping[str, int]

# Numbers that each kind holds at the least. What reads files has no more samples than these.
_IN_PROBLEMS: dict[str, Callable[[Sizes], int]] = {
    "teacher_student": lambda s: (s["n_train"] + s["n_test"] + s["teacher_width"]) * (s["input_dim"] + 1),
}
_IN_MODELS: dict[str, Callable[[Sizes], int]] = {
    "mean_field": lambda s: s["width"] * (s["input_dim"] + s["output_dim"]),
    "random_features": lambda s: s["width"] * (s["input_dim"] + s["output_dim"]),
    "mlp": lambda s: s["width"] * (s["input_dim"] + s["output_dim"] + (s["depth"] - 1) * s["width"]),
    "reversible": lambda s: 2 * s["num_blocks"] * s["width"] * s["bottleneck"],
}
_LAYERS = {"mlp": "depth", "reversible": "num_blocks"}


def require_memory(
    problem: Mapping[str, Any], model: Mapping[str, Any], input_dim: int = 1, output_dim: int = 1
) -> None:
    """Check that a problem and a model fit into the memory of this machine.

    **Arguments:** `problem`, `model`: checked tables; `input_dim`, `output_dim`: of the problem, where they are known.

    **Raises:** `ConfigError` that states how much they need and how much there is; also for a model of more layers than can be
    compiled.
    """
    of_problem = _sizes(problem, problem_kinds[problem["kind"]])
    _require("problem", problem, _IN_PROBLEMS, of_problem)
    known = {"input_dim": of_problem.get("input_dim", input_dim), "output_dim": output_dim}
    of_model = {**known, **_sizes(model, model_kinds[model["kind"]])}
    layers = _LAYERS.get(model["kind"])
    if layers is not None and of_model.get(layers, 0) > _MOST_LAYERS:
        raise ConfigError(
            f"model.{layers} = {of_model[layers]}; expected at most {_MOST_LAYERS} layers, to be compiled."
        )
    _require("model", model, _IN_MODELS, of_model)


def _require(what: str, table: Mapping[str, Any], known: Mapping[str, Callable[[Sizes], int]], sizes: Sizes) -> None:
    count = known.get(table["kind"], lambda _: 0)
    if any(size < 0 for size in sizes.values()):
        return  # the constructor says what is wrong
    needed = _BYTES * count(sizes) / _GIB
    if needed < 1:
        return
    there = available_memory_gib()
    if needed > there:
        given = ", ".join(f"{name} = {size}" for name, size in sizes.items() if name in table)
        raise ConfigError(
            f"{what} with {given} needs at least {needed:.3g} GiB of memory, and {there:.3g} GiB are free; make it smaller, or "
            "run it on a larger machine."
        )


def _sizes(table: Mapping[str, Any], factory: Callable[..., Any]) -> dict[str, int]:
    """The options that are integers, as given or by default."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(factory).parameters.items()}
    return {
        name: value
        for name, value in {**defaults, **table}.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
