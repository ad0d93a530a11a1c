"""Programs compiled quickly: most are run once, on a few samples."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Compile without most optimisations in these modules; `tests/simulate` compiles as a user does."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
