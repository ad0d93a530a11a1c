"""Check that the value of a user's loss is a convex mean over samples, which everything else assumes."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import DataError, is_own_class, is_traced
from ..losses import AbstractLoss

_SAMPLES = 4
_PAIRS = 64  # of outputs, for each sample
_SCALES = (1.0, 4.0, 16.0)  # of outputs: a value may be convex near 0 only
_ROUNDING = 1e-12


def require_convex_mean(loss: AbstractLoss, y: Float[Array, "N C"]) -> None:
    """Check `loss.value` for the first samples of the targets `y`, at random outputs. gnflow's own losses are not checked.

    **Raises:** `DataError` if the value is not a finite number, is below `loss.minimum`, not a mean over samples, or not
    convex.
    """
    home = next(kind for kind in type(loss).__mro__ if "value" in vars(kind))
    if (is_own_class(home) and not loss.has_users_value) or is_traced(y):
        return
    # Inside `jax.jit` operations would be traced even where their arrays are known, and traced values cannot be compared.
    with jax.ensure_compile_time_eval():
        _require_mean(loss, y[:_SAMPLES])
        _require_convex(loss, y[:_SAMPLES])


def _require_mean(loss: AbstractLoss, y: Float[Array, "n C"]) -> None:
    name, f = _name(loss), jnp.asarray(np.random.default_rng(0).standard_normal(y.shape))
    value = loss.value(f, y)
    if jnp.shape(value) != ():
        raise DataError(f"{name} gives an array of shape {jnp.shape(value)}; expected a number, the mean over samples.")
    apart = [float(loss.value(f[n : n + 1], y[n : n + 1])) for n in range(len(y))]
    least = float(loss.minimum(y))
    if not np.all(np.isfinite([float(value), *apart])):
        raise DataError(
            f"{name} is {float(value)} at outputs of ordinary size; expected a finite number for all outputs, since a "
            "model starts anywhere."
        )
    rounding = _ROUNDING * np.max(np.abs(apart))
    if abs(float(value) - np.mean(apart)) > rounding:
        raise DataError(
            f"{name} is {float(value):.6g} over {len(y)} samples, whose own values have the mean {np.mean(apart):.6g}; "
            "a loss is the mean of one value per sample: divide a sum by f.shape[0], and let no sample see another."
        )
    if not least <= float(value) + rounding:
        raise DataError(
            f"{_name(loss, 'minimum')} is {least:.6g}, but its value is {float(value):.6g} at some outputs; expected the "
            "infimum over all outputs, the mean over samples."
        )


def _require_convex(loss: AbstractLoss, y: Float[Array, "n C"]) -> None:
    targets = jnp.repeat(y, _PAIRS, axis=0)
    values = jax.vmap(lambda output, target: loss.value(output[None], target[None]))
    for scale in _SCALES:
        f, g = jnp.asarray(scale * np.random.default_rng(1).standard_normal((2, *targets.shape)))
        first, second, middle = (np.asarray(values(outputs, targets)) for outputs in (f, g, (f + g) / 2))
        above = middle - (first + second) / 2 - _ROUNDING * np.maximum(np.abs(first), np.abs(second))
        worst = int(np.argmax(np.where(np.isfinite(above), above, -np.inf)))  # overflow at large outputs is allowed
        if above[worst] > 0:
            raise DataError(
                f"{_name(loss)} is not convex in the outputs: {middle[worst]:.6g} half-way between "
                f"two outputs with {first[worst]:.6g} and {second[worst]:.6g}. "
                "Gauss-Newton flows and every certificate need a convex loss."
            )


def _name(loss: AbstractLoss, method: str = "value") -> str:
    """A method for messages; of a loss that a function states, the name of the function."""
    return f"the {method} of {getattr(loss, 'name', '')}" if loss.has_users_value else f"{type(loss).__name__}.{method}"
