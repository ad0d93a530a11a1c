"""Whether a model's Jacobian can jump."""

from typing import Any

import equinox as eqx
import jax

from .._core import by_shape
from ._activations import Activation
from ._analytic import is_analytic


def has_kinks(model: Any, x: Any = None) -> bool | None:
    """Whether the Jacobian of the outputs may jump as the trained weights move; None if that is not known.

    The answer comes from the model's attribute `activations`: the activations between its trained weights and its outputs. A
    model with this attribute promises that nothing else in it has a kink; () stands for a smooth model. In a model without it
    the `Activation` objects among its leaves are examined. Kinks make the answer True, unknown kinks None. Otherwise a model
    without `activations` is traced, if an input `x` is given: it has no kinks if all its operations are analytic.

    **Arguments:**

    - `model`: any model.
    - `x`: one input (an array or a tree of arrays), or its shapes and dtypes (`jax.ShapeDtypeStruct`), or None.
    """
    found = _activations(model)
    if any(activation.kinks is None for activation in found):
        return None
    if any(activation.kinks for activation in found):
        return True
    if getattr(model, "activations", None) is not None:
        return False
    if x is None:
        return None
    return False if _is_analytic_model(model, x) else None


def kinked_activations(model: Any) -> tuple[str, ...]:
    """The names of the activations in which `has_kinks` finds kinks, sorted; () if it finds none."""
    return tuple(sorted({activation.name for activation in _activations(model) if activation.kinks}))


def _activations(model: Any) -> list[Activation]:
    """The activations that the model names, or all among its leaves."""
    named = getattr(model, "activations", None)
    leaves = jax.tree.leaves(model, is_leaf=_is_activation) if named is None else named
    return [leaf for leaf in leaves if _is_activation(leaf)]


def _is_activation(leaf: Any) -> bool:
    return isinstance(leaf, Activation)


@by_shape
def _is_analytic_model(model: Any, x: Any) -> bool:
    """Whether all operations of the model are analytic."""
    shapes, others = eqx.partition(model, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    program = jax.make_jaxpr(lambda arrays, one: eqx.combine(arrays, others)(one))(shapes, x)
    inputs = len(jax.tree.leaves(x))  # these come last, and do not move
    weights = len(program.jaxpr.invars) - inputs
    return is_analytic(program.jaxpr, [True] * weights + [False] * inputs)
