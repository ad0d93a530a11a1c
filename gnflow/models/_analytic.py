"""Whether all operations of a program are analytic."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

# Operations that are analytic wherever they are finite, and operations that run a program inside them.
_SUMS = ("add", "add_any", "cumsum", "dot_general", "conv_general_dilated", "mul", "neg", "reduce_sum", "square", "sub")
_FUNCTIONS = (
    "asinh",
    "atan",
    "cos",
    "cosh",
    "div",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "integer_pow",
    "log",
    "log1p",
)
_MORE_FUNCTIONS = ("logistic", "rsqrt", "sin", "sinh", "tanh")
_SHAPES = (
    "broadcast_in_dim",
    "concatenate",
    "copy",
    "expand_dims",
    "pad",
    "reshape",
    "rev",
    "slice",
    "split",
    "squeeze",
)
_ANALYTIC = frozenset((*_SUMS, *_FUNCTIONS, *_MORE_FUNCTIONS, *_SHAPES, "transpose"))
_PROGRAMS = frozenset(("checkpoint", "closed_call", "jit", "pjit", "remat", "scan"))


def is_analytic(program: Any) -> bool:
    """Whether all operations on floating-point numbers in a jaxpr are known to be analytic.

    A function with a derivative rule of its own (`jax.custom_jvp`) does not count as analytic: the rule may be anything.
    """
    for equation in program.eqns:
        # Integers and booleans may come from comparisons or roundings, so floating-point numbers made from them may jump.
        if any(_is_floating(variable) for variable in equation.outvars):
            name = equation.primitive.name
            if name in _PROGRAMS:
                if not all(is_analytic(inner) for inner in _programs(equation.params)):
                    return False
            elif name not in _ANALYTIC or not all(_is_floating(variable) for variable in equation.invars):
                return False
    return True


def _is_floating(variable: Any) -> bool:
    return jnp.issubdtype(variable.aval.dtype, jnp.inexact)


def _programs(parameters: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among the parameters of an equation."""
    for value in parameters.values():
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
            yield inner
