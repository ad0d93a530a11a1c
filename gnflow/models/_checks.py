"""Checks of models, before anything is computed with them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._core import (
    ModelError,
    PrecisionError,
    by_shape,
    name_of,
    require_integer,
    require_memory,
    require_number,
    shown,
)

_MOST_LAYERS = 10_000
_IS_FUNCTION = (
    "write an equinox.Module whose fields are its weights and whose __call__(self, x) takes one input (d,), such as "
    "eqx.nn.MLP(d, C, width, depth, key=key)"
)
_DETERMINISTIC = (
    "A flow needs a function of one input that draws no random numbers and sees no other samples: pass "
    "eqx.nn.inference_mode(model), which turns Dropout off and lets BatchNorm use its running statistics. Keep these "
    "(eqx.nn.State) in a field of the model, which passes them on in __call__; they are not trained."
)
_INTEGERS = (
    " Inputs reach a model as float64, integers among them exactly: where it needs integers, such as token ids for an "
    "embedding, cast them in __call__, tokens.astype(int)."
)


def require_init_scale(scale: Any) -> float:
    """`scale` as the standard deviation of initial weights. **Raises:** `ModelError` unless it is positive."""
    remedy = "With 0 all units are equal and stay equal: take a small number such as 1e-3."
    return require_number(ModelError, "init_scale", scale, above=0.0, remedy=remedy)


def require_depth(**depths: int) -> None:
    """Check that a network does not have more layers than can be compiled. **Raises:** `ModelError`."""
    for name, depth in depths.items():
        require_integer(ModelError, name, depth, most=_MOST_LAYERS, remedy="Each layer is a part of the program.")


def require_memory_for_weights(model: str, num_weights: int) -> None:
    """Check that the weights of a network fit into memory before they are drawn. **Raises:** `ModelError`."""
    require_memory(ModelError, f"{model} of {num_weights} weights", 8.0 * num_weights, "Take a smaller width.")


def require_module(model: Any) -> None:
    """Check that `model` is an object with weights that JAX sees, and can be called. **Raises:** `ModelError`."""
    if isinstance(model, type):
        name = model.__name__
        raise ModelError(f"model is the class {name}; expected an object of it: {name}(...), with its sizes and a key.")
    has_arrays = any(eqx.is_array(leaf) for leaf in jax.tree.leaves(model))
    if callable(model) and (isinstance(model, eqx.Module) or has_arrays):
        return
    if isinstance(model, eqx.Module):
        raise ModelError(f"model is a {type(model).__name__}, which cannot be called on an input; {_IS_FUNCTION}.")
    if callable(model):
        name = name_of(model)
        raise ModelError(
            f"model is the function {name}, not an equinox.Module: JAX would not see its weights. Instead "
            f"{_IS_FUNCTION}; wrap a function of weights and input in one whose __call__ is function(self.weights, x)."
        )
    raise ModelError(f"model = {shown(model)} is a {type(model).__name__}, not an equinox.Module; {_IS_FUNCTION}.")


def require_weights(model: Any, weights: PyTree) -> None:
    """Check the trained arrays of `model`.

    **Raises:** `ModelError` for complex numbers, and for the same array in two places, which it names.
    """
    places: dict[int, str] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(weights)[0]:
        place = f"{type(model).__name__}{jax.tree_util.keystr(path)}"
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise ModelError(
                f"{place} is {leaf.dtype}; gnflow's flows need real weights: keep real and imaginary parts as two float64 "
                "arrays, and join them in __call__."
            )
        if id(leaf) in places:
            raise ModelError(
                f"{places[id(leaf)]} and {place} are one array, but would be trained as two. If they are to stay equal, "
                "tie them with eqx.nn.Shared; if not, make one of them a copy: jnp.copy(array)."
            )
        places[id(leaf)] = place


@by_shape
def _one_output(model: Any, x: jax.ShapeDtypeStruct) -> Any:
    return eqx.filter_eval_shape(model, x)


def output_of(model: Any, x: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the outputs of `model` for one input like `x`.

    **Raises:** `ModelError` if the model cannot be called on such an input, or does not return one array of real numbers;
    `PrecisionError` if the outputs are not float64.
    """
    name = type(model).__name__
    try:
        output = _one_output(model, x)
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        has_state = any(is_state(leaf) for leaf in jax.tree.leaves(model, is_leaf=is_state))
        if has_state or _is_random_or_joint(error):
            raise ModelError(f"{name} cannot be called on one input: {text} {_DETERMINISTIC}") from error
        raise ModelError(
            f"{name} cannot be called on one training input of shape {x.shape}: {text}. A model maps one input to (C,) outputs "
            "(gnflow batches it), its input size must be that of the data, and it must already hold what else it needs (a "
            f"key, a state).{shape_remedy(x)}{_INTEGERS if _wants_integers(error) else ''}"
        ) from error
    if not isinstance(output, jax.ShapeDtypeStruct):
        raise ModelError(f"{name} returns a {type(output).__name__} for one input; expected one array of outputs (C,).")
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise ModelError(
            f"{name} returns outputs of dtype {output.dtype}; expected real numbers: of complex ones return the real part or "
            "the modulus, and class scores before any argmax."
        )
    if output.dtype != jnp.float64:
        raise PrecisionError(
            f"{name} returns outputs of dtype {output.dtype}, but float64 is needed; remove the conversion inside the model."
        )
    return output


def shape_remedy(x: Any) -> str:
    """What to do if a model takes vectors and an input `x` is none, as a sentence after a space; empty for a vector."""
    return "" if x.ndim == 1 else " A model of vectors (d,) needs inputs that are vectors: x.reshape(len(x), -1)."


def _wants_integers(error: Exception) -> bool:
    # JAX says so in errors of general classes.
    return isinstance(error, TypeError | ValueError) and "integer" in str(error)


def is_state(leaf: Any) -> bool:
    """Whether a leaf holds running statistics, such as those of BatchNorm."""
    return isinstance(leaf, eqx.nn.State | eqx.nn.StateIndex)


def _is_random_or_joint(error: Exception) -> bool:
    """Whether a model needs randomness (Dropout), the other samples of a batch or running statistics (BatchNorm)."""
    # Equinox and JAX raise errors of general classes here, so only their texts tell.
    text = str(error)
    return (
        (isinstance(error, RuntimeError) and "requires a key" in text)
        or (isinstance(error, NameError) and "axis name" in text)
        or (isinstance(error, TypeError) and "argument: 'state'" in text)
    )
