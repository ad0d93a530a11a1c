"""Strict numerics for every test: float64, no silent broadcasting, shapes checked by beartype, warnings are errors."""

import os

# The suite runs in several processes: one figure backend without a screen, and no thread oversubscription.
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import jaxtyping

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Shapes in the signatures are checked at run time, but only here: users pay nothing for it.
jaxtyping.install_import_hook("gnflow", "beartype.beartype")

import jax.random as jr  # noqa: E402 (after the settings)
import pytest  # noqa: E402

from gnflow._core import forget_compiled_programs  # noqa: E402


@pytest.fixture
def key():
    """One fixed seed; tests that need several fold their own number in."""
    return jr.key(20230206)


@pytest.fixture(autouse=True, scope="module")
def forgotten_programs():
    """Forget compiled programs between modules before there are too many for the kernel's limit of memory maps."""
    yield
    forget_compiled_programs()
