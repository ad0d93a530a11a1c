"""Named random streams: one seed, and a stream for each purpose that no other purpose disturbs."""

import zlib

import jax
from jaxtyping import Array, Key, UInt32


def stream(key: Key[Array, ""] | UInt32[Array, "2"], name: str) -> Key[Array, ""] | UInt32[Array, "2"]:
    """The random stream called `name` of the seed `key`.

    Streams of different names are independent, and a stream does not change when others are added, so that
    (say) widening the network never changes the training data.

    **Arguments:** `key`: a JAX key (`jax.random.key(seed)` or `jax.random.PRNGKey(seed)`); `name`: what it is for.

    **Returns:** a JAX key of the same kind.
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
