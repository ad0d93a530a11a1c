"""Count the operations of a function from its trace, to choose between two ways before either is compiled."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

# Moving one number counts as this many multiplications of a matrix product. It is a round figure for operations whose time
# the memory bounds (products of thin matrices, elementwise operations).
_OPERATIONS_PER_MOVE = 8.0
# Multiplications of decompositions of an n x n matrix, over n^3: rounded from measured times relative to those of products
# (docs/devdocs/solvers.md, Three tiers).
_CUBIC = {"eigh": 10.0, "eig": 80.0, "svd": 60.0, "qr": 6.0, "cholesky": 1.0, "lu": 2.0}


def count_operations(function: Callable[..., Any], *arguments: PyTree) -> float:
    """Multiplications of `function(*arguments)`, where moving a number counts as eight of them. Nothing is computed.

    The count is an order of magnitude: it does not see fusion, and a loop of unknown length counts once. It is the same on
    every machine and in every run, so that a choice that rests on it can be repeated; measured times are not.
    """
    leaves, structure = jax.tree.flatten(arguments)
    known = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf for leaf in leaves)
    try:
        return _cached_count(function, structure, known)
    except TypeError:  # an argument has no hash
        return _cached_count.__wrapped__(function, structure, known)


def has_operation(name: str, function: Callable[..., Any], *arguments: PyTree) -> bool:
    """Whether `function(*arguments)` contains the operation of JAX called `name`. It is traced, and nothing is computed."""
    return _contains(name, jax.make_jaxpr(function)(*arguments).jaxpr)


def _contains(name: str, program: Any) -> bool:
    return any(
        equation.primitive.name == name or any(_contains(name, part) for part in _programs_in(equation.params))
        for equation in program.eqns
    )


# A trace takes as long as a short run, and a sweep has many runs of the same shapes.
@functools.lru_cache(maxsize=64)
def _cached_count(function: Callable[..., Any], structure: Any, known: tuple[Any, ...]) -> float:
    is_shape = [isinstance(leaf, jax.ShapeDtypeStruct) for leaf in known]

    def of_arrays(arrays: list[Any]) -> Any:
        given = iter(arrays)
        leaves = [next(given) if shape else leaf for leaf, shape in zip(known, is_shape, strict=True)]
        return function(*jax.tree.unflatten(structure, leaves))

    shapes = [leaf for leaf, shape in zip(known, is_shape, strict=True) if shape]
    return _count_program(jax.make_jaxpr(of_arrays)(shapes).jaxpr)


def _count_program(program: Any) -> float:
    total = 0.0
    for equation in program.eqns:
        inner = [_count_program(part) for part in _programs_in(equation.params)]
        if inner:
            name = equation.primitive.name
            repeats = equation.params["length"] if name == "scan" else 1
            # One branch of a conditional runs, and it is not known which.
            total += repeats * (max(inner) if name == "cond" else sum(inner))
        else:
            total += _count_equation(equation)
    return total


def _programs_in(parameters: dict[str, Any]) -> Iterator[Any]:
    """The programs inside an operation (a loop, a branch or a call)."""
    for value in parameters.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            item = getattr(item, "jaxpr", item)
            if hasattr(item, "eqns"):
                yield item


def _count_equation(equation: Any) -> float:
    operands = [variable.aval.shape for variable in equation.invars if hasattr(variable.aval, "shape")]
    results = [variable.aval.shape for variable in equation.outvars if hasattr(variable.aval, "shape")]
    moved = _OPERATIONS_PER_MOVE * sum(math.prod(shape) for shape in (*operands, *results))
    # Arithmetic and memory work at the same time: the slower of the two takes the time.
    return max(moved, float(_multiplications(equation.primitive.name, equation.params, operands, results)))


def _multiplications(name: str, parameters: dict[str, Any], operands: list[Any], results: list[Any]) -> int | float:
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        return math.prod(results[0]) * math.prod(operands[0][axis] for axis in contracted)
    if name == "conv_general_dilated":
        # Each output needs the entries of the kernel that belong to its own output feature.
        features = parameters["dimension_numbers"].rhs_spec[0]
        return math.prod(results[0]) * math.prod(operands[1]) / operands[1][features]
    if name in _CUBIC:
        *batch, rows, columns = operands[0]
        return _CUBIC[name] * math.prod(batch) * max(rows, columns) * min(rows, columns) ** 2
    return 0
