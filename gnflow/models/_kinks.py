"""Whether a model's Jacobian can jump."""

from typing import Any

import equinox as eqx
import jax

from .._core import by_shape
from ._activations import Activation
from ._analytic import is_analytic


def has_kinks(model: Any, x: Any = None) -> bool | None:
    """Whether the Jacobian of the outputs may jump as the trained weights move; None where nothing is known.

    A model says so by its `activations`, the activations between its trained weights and its outputs: with that attribute it
    promises that nothing else in it has a kink, so that () stands for a smooth model. Of a model without it the `Activation`
    objects among the leaves are looked at: one whose kinks are not known gives None, one with kinks True. If there is none,
    and an input `x` is given, the model is traced: a program of analytic operations alone has no kinks.

    **Arguments:** `model`: any; `x`: one input of it, or its shape and dtype (`jax.ShapeDtypeStruct`), or None.
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
    return is_analytic(program.jaxpr)
