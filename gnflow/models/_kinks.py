"""Whether a model's Jacobian can jump."""

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .._core import by_shape
from ._activations import Activation

# Operations that are analytic wherever they are finite, and those that run a program of such operations.
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


def has_kinks(model: Any, x: Any = None) -> bool | None:
    """Whether the Jacobian of the outputs may jump as the trained weights move; None where nothing is known.

    A model says so by its `activations`, the activations between its trained weights and its outputs: with that attribute it
    promises that nothing else in it has a kink, so that () stands for a smooth model. Of a model without it the `Activation`
    objects among the leaves are looked at: one with kinks gives True. If there is none, and an input `x` is given, the model
    is traced: a program of analytic operations alone has no kinks.

    **Arguments:** `model`: any; `x`: one input of it, or its shape and dtype (`jax.ShapeDtypeStruct`), or None.
    """
    if kinked_activations(model):
        return True
    if getattr(model, "activations", None) is not None:
        return False
    if x is None:
        return None
    return False if _is_analytic_model(model, x) else None


def kinked_activations(model: Any) -> tuple[str, ...]:
    """The names of the activations that `has_kinks` finds kinks in, sorted; () where it finds none."""
    return tuple(sorted({activation.name for activation in _activations(model) if activation.kinks}))


def _activations(model: Any) -> list[Activation]:
    """Those that the model names, or all among its leaves."""
    named = getattr(model, "activations", None)
    leaves = jax.tree.leaves(model, is_leaf=_is_activation) if named is None else named
    return [leaf for leaf in leaves if _is_activation(leaf)]


def _is_activation(leaf: Any) -> bool:
    return isinstance(leaf, Activation)


@by_shape
def _is_analytic_model(model: Any, x: jax.ShapeDtypeStruct) -> bool:
    """Whether the model is a program of analytic operations."""
    shapes, others = eqx.partition(model, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    program = jax.make_jaxpr(lambda arrays, one: eqx.combine(arrays, others)(one))(shapes, x)
    return _is_analytic(program.jaxpr)


def _is_analytic(program: Any) -> bool:
    """Whether all operations on floating-point numbers in a jaxpr are known to be analytic; rules for derivatives are not."""
    for equation in program.eqns:
        # Floating-point numbers made of others come from comparisons or roundings, or are constants: there is no telling.
        if any(_is_floating(variable) for variable in equation.outvars):
            name = equation.primitive.name
            if name in _PROGRAMS:
                if not all(_is_analytic(inner) for inner in _programs(equation.params)):
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
