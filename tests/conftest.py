"""Strict numerics for every test: float64, no silent broadcasting, shapes checked by beartype, warnings are errors."""

import gc
import os
import pathlib

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


@pytest.fixture
def key():
    """One fixed seed; tests that need several fold their own number in."""
    return jr.key(20230206)


@pytest.fixture(autouse=True, scope="module")
def forgotten_programs():
    """Forget compiled programs between modules before there are too many.

    Each is mapped into memory in several pieces, and beyond the kernel's limit (65530 maps by default on Linux) the compiler
    dies of a segmentation fault.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()
