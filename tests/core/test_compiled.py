"""Programs compiled with options that this version of XLA may not have."""

import jax
import jax.numpy as jnp
import pytest

from gnflow._core._compiled import _is_known, _jit_with, jit_for_states, jit_for_steps


def test_options_that_xla_does_not_know_are_left_out():
    assert _is_known("xla_backend_optimization_level", 1)
    assert not _is_known("xla_no_such_option", True)
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        jax.jit(lambda x: x + 1, compiler_options={"xla_no_such_option": True})(1.0)
    doubled = _jit_with({"xla_no_such_option": True, "xla_backend_optimization_level": 1}, lambda x: 2 * x)
    assert float(doubled(jnp.asarray(3.0))) == 6.0


@pytest.mark.parametrize("compiled", [jit_for_steps, jit_for_states])
def test_a_program_is_traced_once_and_keeps_its_name(compiled):
    traced = []

    @compiled
    def shifted(x, by=1.0):
        """x + by."""
        traced.append(x)
        return x + by

    assert shifted.__doc__ == "x + by."
    assert [float(shifted(jnp.asarray(x), by=2.0)) for x in (1.0, 2.0)] == [3.0, 4.0]
    assert len(traced) == 1
