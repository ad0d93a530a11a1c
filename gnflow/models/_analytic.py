"""Whether all operations of a program are analytic."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp

# Operations that are analytic wherever they are finite, and operations that run a program inside them.
_SUMS = ("add", "add_any", "cumsum", "dot_general", "conv_general_dilated", "mul", "neg", "reduce_sum", "square", "sub")
_POOLINGS = ("reduce_window_sum",)
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
    "dynamic_slice",
    "expand_dims",
    "gather",
    "pad",
    "reshape",
    "rev",
    "slice",
    "split",
    "squeeze",
    "stack",
)
_ANALYTIC = frozenset((*_SUMS, *_POOLINGS, *_FUNCTIONS, *_MORE_FUNCTIONS, *_SHAPES, "transpose"))
_PROGRAMS = frozenset(("checkpoint", "closed_call", "jit", "pjit", "remat", "scan"))


def is_analytic(program: Any, varies: Sequence[bool] | None = None) -> bool:
    """Whether the results of a jaxpr are known to be analytic functions of those of its arguments that vary.

    A function with a derivative rule of its own (`jax.custom_jvp`) does not count as analytic: the rule may be anything.
    Whatever is computed from arguments that do not vary is a constant, and may jump between other ones.

    **Arguments:** `varies`: which arguments vary; all by default.
    """
    return _varying_results(program, [True] * len(program.invars) if varies is None else varies) is not None


def _varying_results(program: Any, varies: Sequence[bool]) -> list[bool] | None:
    """Which results vary with the arguments; None if one may not be analytic in them."""
    varying = {variable for variable, moves in zip(program.invars, varies, strict=True) if moves}

    def is_varying(variable: Any) -> bool:
        return not hasattr(variable, "val") and variable in varying  # a literal has a value

    for equation in program.eqns:
        moves = [is_varying(variable) for variable in equation.invars]
        if not any(moves):
            continue
        found = _varying_of(equation, moves)
        if found is None:
            return None
        varying |= {variable for variable, moved in zip(equation.outvars, found, strict=True) if moved}
    return [is_varying(variable) for variable in program.outvars]


def _varying_of(equation: Any, moves: list[bool]) -> list[bool] | None:
    """Which results of an operation vary; None if they may not be analytic."""
    # Integers and booleans may come from comparisons or roundings, so floating-point numbers made from them may jump.
    floating = [_is_floating(variable) for variable in (*equation.invars, *equation.outvars)]
    moving = [kind for kind, moved in zip(floating, moves, strict=False) if moved]
    if not any(floating[len(moves) :]):
        return [True] * len(equation.outvars)
    name = equation.primitive.name
    inner = list(_programs(equation.params))
    if name in _PROGRAMS:
        if name == "scan" or len(inner) != 1 or len(inner[0].invars) != len(moves):
            # What a loop carries may vary from the second round on.
            return [True] * len(equation.outvars) if all(map(is_analytic, inner)) else None
        return _varying_results(inner[0], moves)
    is_known = (
        name in _ANALYTIC
        or (name == "select_n" and not moves[0])  # which case is taken does not change
        or (name == "convert_element_type" and equation.invars[0].aval.dtype == equation.outvars[0].aval.dtype)
    )
    return [True] * len(equation.outvars) if is_known and all(moving) else None


def _is_floating(variable: Any) -> bool:
    return jnp.issubdtype(variable.aval.dtype, jnp.inexact)


def _programs(parameters: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among the parameters of an operation."""
    for value in parameters.values():
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
            yield inner
