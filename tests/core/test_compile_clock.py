"""The clock that counts compiling."""

import jax
import jax.numpy as jnp
import numpy as np

from gnflow._core import CompileClock


def test_it_counts_what_is_compiled_while_it_runs():
    before = CompileClock()
    jax.jit(lambda x: jnp.sin(x) * 1.25)(jnp.ones(13)).block_until_ready()
    found = before.seconds()
    after = CompileClock()
    assert found > 0
    assert after.seconds() == 0


def test_spans_within_others_count_once():
    clock = CompileClock()
    for start, end in ((5.0, 6.0), (1.0, 3.0), (2.0, 2.5), (2.5, 4.0)):
        clock.add(start, end)
    np.testing.assert_allclose(clock.seconds(), 4.0)
