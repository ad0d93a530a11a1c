"""A model with saddles: products of weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import gnflow as gn


class Products(eqx.Module):
    """f = sum_i u_i v_i x_i: from small weights each column is learnt at its own time."""

    u: jax.Array
    v: jax.Array

    def __call__(self, x):
        return jnp.sum(self.u * self.v * x)[None]


def fast_and_slow(small):
    """A problem with a column of 100, which is learnt at once, beside one of 1, and all weights `small`."""
    x = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 2)))[0] * np.sqrt(8) * [100.0, 1.0]
    return gn.Problem(x, x @ [0.01, 1.0]), Products(jnp.asarray([small, small]), jnp.asarray([small, small]))
