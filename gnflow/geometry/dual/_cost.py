"""What a program costs, counted from its trace: to choose between two ways to compute the same."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

# A number moved is counted as this many multiplications inside a matrix product: a round figure, for what is bounded by
# memory (products of thin matrices, elementwise operations).
_MOVE = 8.0


def cost(function: Callable[..., Any], *arguments: PyTree) -> float:
    """Multiplications of `function(*arguments)`, numbers moved counted as eight of them each; nothing is computed.

    An order of magnitude: fusion is not seen, and loops whose length is not known count once.
    """
    arrays, rest = eqx.partition(arguments, eqx.is_array)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arrays)
    return _jaxpr_cost(jax.make_jaxpr(lambda given: function(*eqx.combine(given, rest)))(shapes).jaxpr)


def _jaxpr_cost(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        inner = [_jaxpr_cost(part) for part in _jaxprs_in(equation.params)]
        if inner:
            name = equation.primitive.name
            repeats = equation.params["length"] if name == "scan" else 1
            total += repeats * (max(inner) if name == "cond" else sum(inner))
        else:
            total += _equation_cost(equation)
    return total


def _jaxprs_in(parameters: dict[str, Any]) -> Iterator[Any]:
    """The programs inside an operation: of loops, branches and calls."""
    for value in parameters.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            item = getattr(item, "jaxpr", item)
            if hasattr(item, "eqns"):
                yield item


def _equation_cost(equation: Any) -> float:
    operands = [variable.aval.shape for variable in equation.invars if hasattr(variable.aval, "shape")]
    results = [variable.aval.shape for variable in equation.outvars if hasattr(variable.aval, "shape")]
    moved = _MOVE * sum(math.prod(shape) for shape in (*operands, *results))
    if equation.primitive.name != "dot_general":
        return moved
    (contracted, _), _ = equation.params["dimension_numbers"]
    length = math.prod(operands[0][axis] for axis in contracted)
    return max(moved, 1.0 * length * math.prod(results[0]))
