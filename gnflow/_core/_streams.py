"""Named random streams: one independent stream of a seed for each purpose."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, UInt32

from ._arrays import is_key
from ._checks import require_integer
from ._errors import ConfigError
from ._text import shown


def stream(key: Any, name: str) -> Key[Array, ""] | UInt32[Array, "2"]:
    """The random stream called `name` of the seed `key`.

    Streams of different names are independent, and a stream does not change when others are added. So a wider network is
    trained on the same data.

    **Arguments:**

    - `key`: a JAX key or an integer seed, as `as_key` takes it.
    - `name`: the purpose.

    **Returns:** a JAX key of the same kind. **Raises:** as `as_key`.
    """
    # CRC-32 and not hash(): Python salts the hash of text in every process.
    return jax.random.fold_in(as_key(key), zlib.crc32(name.encode()))


def as_key(key: Any) -> Key[Array, ""] | UInt32[Array, "2"]:
    """The JAX key that `key` stands for.

    **Arguments:** `key`: a JAX key (`jax.random.key(seed)` or `jax.random.PRNGKey(seed)`), or the seed, an integer from 0 to
    2^63 - 1.

    **Raises:** `ConfigError` for anything else.
    """
    if isinstance(key, jax.Array):
        typed = is_key(key) and key.shape == ()
        if typed or (key.dtype == jnp.uint32 and key.shape == (2,)):
            return key
        if is_key(key):
            raise ConfigError(
                f"key is an array of keys of shape {key.shape}; one is needed: take key[0], or one for each thing drawn."
            )
    try:
        return jax.random.key(require_integer(ConfigError, "key", key, least=0))
    except ConfigError as error:
        raise ConfigError(
            f"key = {shown(key)}; expected a JAX key, such as jax.random.key(0), or an integer of at least 0 and below 2^63."
        ) from error
