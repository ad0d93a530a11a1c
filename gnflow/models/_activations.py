"""Activation functions, computed together with their derivatives."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import ModelError, look_up, name_of, on_one_line, require_bool, require_number, shown
from ._analytic import is_analytic

_Elementwise = Callable[[Array], tuple[Array, Array]]
_TRIED = np.array([-1.3, -0.2, 0.4, 2.1])  # where a user's function is evaluated to see whether it is elementwise


@dataclasses.dataclass(frozen=True)
class DerivativeBounds:
    """Upper bounds of an activation's derivatives on the real line.

    **Attributes:**

    - `first`: at least sup |s'|.
    - `second`: at least sup |s''|; inf if s' has jumps.
    """

    first: float
    second: float


class Activation(eqx.Module):
    """An elementwise function s together with s'.

    Evaluating s for all samples and particles costs as much as half an N x M x N product. Who needs both s(z) and s'(z)
    therefore calls `value_and_derivative`, which evaluates the exponential or error function once for both.

    **Attributes:**

    - `name`: the name in configurations, or the name of the user's function.
    - `homogeneous`: whether s(c z) = c s(z) for all c > 0 (then gradient flow conserves ||u~_i||^2 - v_i^2 for every
      particle). False is always safe.
    - `kinks`: the z at which s' jumps, ascending. Elsewhere s is infinitely differentiable. None if the kinks are not known.
    - `function`: s, for a user's activation; None for those of `activation_names`. Runs with such a function are saved, but to
      load them the model must be passed again.
    - `own_bounds`: for a user's activation, bounds of its derivatives, or None if they are not known.
    """

    name: str = eqx.field(static=True)
    homogeneous: bool = eqx.field(static=True)
    kinks: tuple[float, ...] | None = eqx.field(static=True, default=())
    function: Callable[[Array], Array] | None = eqx.field(static=True, default=None)
    own_bounds: DerivativeBounds | None = eqx.field(static=True, default=None)

    @classmethod
    def from_function(
        cls,
        function: Callable[[Array], Array],
        *,
        homogeneous: bool = False,
        kinks: tuple[float, ...] | None = None,
        derivative_bounds: DerivativeBounds | None = None,
    ) -> "Activation":
        """The activation of any elementwise JAX function, such as `jnp.sin`, with its derivative by forward mode.

        **Arguments:**

        - `function`: an elementwise function of an array.
        - `homogeneous`: as the attribute.
        - `kinks`: as the attribute, in any order. With None the function is traced: if all its operations are analytic it has
          no kinks, otherwise they are not known.
        - `derivative_bounds`: bounds of |s'| and |s''| on the real line, which some theorems need.

        **Raises:** `ModelError` for anything else than such a function, and for what is stated of it and is not so at four z.
        """
        _require_elementwise(function)
        kinks = _as_kinks(kinks)
        (homogeneous,) = require_bool(ModelError, homogeneous=homogeneous)
        _require_stated(function, homogeneous, derivative_bounds)
        if kinks is None:
            program = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((), jnp.float64))
            kinks = () if is_analytic(program.jaxpr) else None
        name = name_of(function)
        return cls(name, homogeneous, kinks, function, derivative_bounds)

    def __call__(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """s(z), elementwise."""
        return _FUNCTIONS[self.name](z)[0] if self.function is None else self.function(z)

    def value_and_derivative(self, z: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(s(z), s'(z)), elementwise. At ReLU's kink s'(0) = 0."""
        if self.function is None:
            return _FUNCTIONS[self.name](z)
        value, derivative = jax.jvp(self.function, (z,), (jnp.ones_like(z),))
        return value, derivative

    @property
    def derivative_bounds(self) -> DerivativeBounds | None:
        """Bounds of |s'| and |s''| on the real line; None if they are not known."""
        return _DERIVATIVE_BOUNDS[self.name] if self.function is None else self.own_bounds

    @property
    def is_identity(self) -> bool:
        """Whether s is known to be s(z) = z, so that each layer is linear in the one before."""
        return self.function is None and self.name == "identity"

    @property
    def is_transcendental(self) -> bool:
        """Whether s is known to be analytic on the real line and not a polynomial."""
        return self.function is None and self.name in _TRANSCENDENTAL


def _silu(z: Array) -> tuple[Array, Array]:
    gate = jax.nn.sigmoid(z)
    value = z * gate
    return value, gate + value * (1 - gate)


def _relu(z: Array) -> tuple[Array, Array]:
    return jax.nn.relu(z), (z > 0).astype(z.dtype)


def _tanh(z: Array) -> tuple[Array, Array]:
    value = jnp.tanh(z)
    return value, 1 - value * value


def _erf(z: Array) -> tuple[Array, Array]:
    return jax.scipy.special.erf(z), (2 / math.sqrt(math.pi)) * jnp.exp(-z * z)


def _gelu(z: Array) -> tuple[Array, Array]:
    # The exact GELU z Phi(z), not its tanh approximation. For large negative z erfc keeps the digits that 1 + erf loses.
    distribution = 0.5 * jax.scipy.special.erfc(-z / math.sqrt(2))
    density = jnp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return z * distribution, distribution + z * density


def _softplus(z: Array) -> tuple[Array, Array]:
    return jax.nn.softplus(z), jax.nn.sigmoid(z)


def _sigmoid(z: Array) -> tuple[Array, Array]:
    value = jax.nn.sigmoid(z)
    return value, value * (1 - value)


def _identity(z: Array) -> tuple[Array, Array]:
    return z, jnp.ones_like(z)


_FUNCTIONS: dict[str, _Elementwise] = {
    "silu": _silu,
    "relu": _relu,
    "tanh": _tanh,
    "erf": _erf,
    "gelu": _gelu,
    "softplus": _softplus,
    "sigmoid": _sigmoid,
    "identity": _identity,
}

# The z at which s' jumps; the other activations have none.
_KINKS: dict[str, tuple[float, ...]] = {"relu": (0.0,)}
_HOMOGENEOUS = ("relu", "identity")
_TRANSCENDENTAL = ("silu", "tanh", "erf", "gelu", "softplus", "sigmoid")

# Each number is the supremum in the comment rounded up in its last digit. Derivations: docs/theorems/a_priori.md, Lemma 2.
_DERIVATIVE_BOUNDS: dict[str, DerivativeBounds] = {
    # s' = (1 + tanh y + y sech^2 y)/2 with y = z/2, largest at y tanh y = 1, where it is (1 + y)/2; s'' at 0 is 1/2.
    "silu": DerivativeBounds(1.09983933, 0.5),
    "relu": DerivativeBounds(1.0, math.inf),
    # 1; 4/(3 sqrt 3) at tanh z = 1/sqrt 3.
    "tanh": DerivativeBounds(1.0, 0.76980036),
    # 2/sqrt(pi); 2 sqrt(2/(pi e)) at z = 1/sqrt 2.
    "erf": DerivativeBounds(1.12837917, 0.96788290),
    # Phi(sqrt 2) + sqrt 2 phi(sqrt 2); 2 phi(0) = sqrt(2/pi).
    "gelu": DerivativeBounds(1.12890415, 0.79788457),
    "softplus": DerivativeBounds(1.0, 0.25),
    # 1/4; sqrt(3)/18 at s = (3 - sqrt 3)/6.
    "sigmoid": DerivativeBounds(0.25, 0.09622505),
    "identity": DerivativeBounds(1.0, 0.0),
}

activation_names: tuple[str, ...] = tuple(_FUNCTIONS)


def get_activation(activation: Any) -> Activation:
    """The activation for a name or a function.

    **Arguments:** `activation`: a name of `activation_names`, an `Activation`, or any elementwise JAX function
    (`Activation.from_function`).

    **Raises:** `ModelError` for an unknown name, with the nearest valid one, and for a function that is not elementwise.
    """
    if isinstance(activation, Activation):
        return activation
    if callable(activation):
        return Activation.from_function(cast(Callable[[Array], Array], activation))
    look_up(activation, _FUNCTIONS, "activation", ModelError)
    return Activation(activation, homogeneous=activation in _HOMOGENEOUS, kinks=_KINKS.get(activation, ()))


def _require_elementwise(function: Any) -> None:
    """Check that `function` is elementwise, keeps float64 and can be hashed. **Raises:** `ModelError`."""
    name = name_of(function)
    expected = "expected an elementwise JAX function, such as jnp.sin, or a name of gnflow.models.activation_names"
    if any(eqx.is_array(leaf) for leaf in jax.tree.leaves(function)):
        raise ModelError(
            f"activation {name} has arrays of its own, which would not be trained; {expected}. For a trained activation "
            "write an Equinox module of the whole network."
        )
    try:
        hash(function)  # it is a static field, by which compiled programs are found
        with jax.ensure_compile_time_eval():
            together = np.asarray(function(jnp.asarray(_TRIED)))
            apart = [np.asarray(function(jnp.asarray(z))) for z in _TRIED]
            jax.jvp(function, (jnp.asarray(_TRIED),), (jnp.ones(len(_TRIED)),))
    except Exception as error:
        said = on_one_line(error)
        raise ModelError(
            f"activation {name} cannot be evaluated by JAX on an array and on a number ({type(error).__name__}: {said}); "
            f"{expected}."
        ) from error
    if together.dtype != np.float64 or together.shape != _TRIED.shape or any(one.shape != () for one in apart):
        raise ModelError(
            f"activation {name} makes float64 numbers of shape {_TRIED.shape} into {together.dtype} of shape {together.shape}; "
            f"{expected}."
        )
    if not np.allclose(together, np.stack(apart), rtol=1e-9, atol=1e-12, equal_nan=True):
        raise ModelError(
            f"activation {name} has other values on an array than on each of its numbers alone; {expected}."
        )


def _as_kinks(kinks: Any) -> tuple[float, ...] | None:
    """Ascending and each once. **Raises:** `ModelError` for anything else than finite numbers, or None."""
    if kinks is None:
        return None
    if not isinstance(kinks, tuple | list | np.ndarray) or np.ndim(kinks) != 1:
        raise ModelError(
            f"kinks = {shown(kinks)}; expected the z at which s' jumps, such as (0.0,), or None if they are not known."
        )
    return tuple(sorted({require_number(ModelError, "a kink", kink) for kink in kinks}))


def _require_stated(function: Callable[[Array], Array], homogeneous: bool, bounds: Any) -> None:
    """Check what is stated of `function` at a few z. **Raises:** `ModelError`."""
    name = name_of(function)
    z = jnp.asarray(_TRIED)
    with jax.ensure_compile_time_eval():
        value, twice = np.asarray(function(z)), np.asarray(function(2 * z))
        derivative = np.asarray(jax.jvp(function, (z,), (jnp.ones_like(z),))[1])
    if homogeneous and not np.allclose(twice, 2 * value, rtol=1e-9, atol=1e-12):
        raise ModelError(f"homogeneous = True, but {name}(2 z) is not 2 {name}(z); leave it out.")
    if bounds is None:
        return
    if not isinstance(bounds, DerivativeBounds) or not all(
        isinstance(bound, int | float) and bound >= 0 for bound in (bounds.first, bounds.second)
    ):
        raise ModelError(
            f"derivative_bounds = {shown(bounds)}; expected DerivativeBounds(first, second) of numbers of at least 0, "
            "math.inf where there is no bound, or None."
        )
    if np.any(np.abs(derivative) > bounds.first * (1 + 1e-9)):
        raise ModelError(
            f"derivative_bounds.first = {bounds.first}, but |{name}'| is {np.max(np.abs(derivative)):g} at "
            f"z = {_TRIED[np.argmax(np.abs(derivative))]:g}; expected an upper bound on the real line."
        )
