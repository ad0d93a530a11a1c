"""Strict numerics for every test: float64, no silent broadcasting, shapes checked by beartype, warnings are errors."""

import atexit
import importlib.metadata
import os
import shutil
import tempfile

# The suite runs in several processes: one figure backend without a screen, and no thread oversubscription.
os.environ.setdefault("MPLBACKEND", "Agg")
# Tests load SciPy before gnflow does, whose shorter wait of OpenBLAS's threads they would miss: they would spin on busy cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Time is compilation: what one process has compiled, the others and the commands that tests start find in one folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="gnflow-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

# Without these emitters and most optimisations XLA's CPU compiler takes less than half as long, and its programs are as exact.
# Later versions of XLA have no such flag, and end a process that sets it.
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:3])) <= (0, 11, 0):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

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


def pytest_collection_modifyitems(items):
    """Refuse names that hold an address: processes that share the tests would each collect others, and run none."""
    named = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if named:
        raise pytest.UsageError(
            f"the name of {named[0]} holds an address, which every process has another of: give its ids"
        )
