"""Load LAPACK on the CPU so that its idle threads leave the cores to XLA."""

import os
import sys

_LIBRARY = "scipy.linalg.cython_lapack"  # what JAX calls, and loads at its first decomposition
_TIMEOUT = "OPENBLAS_THREAD_TIMEOUT"
_SHORTEST = "4"  # 2^4 cycles; OpenBLAS's default is 2^26, some 20 ms


def load_lapack() -> None:
    """Load LAPACK if nothing has loaded it yet. Call it before the first decomposition.

    The threads of SciPy's OpenBLAS spin for a while after each call, on cores that XLA or other processes need next. OpenBLAS
    reads the time from the environment while it is loaded, so the variable is set for that moment only. A value that the user
    has set is kept (docs/choosing.md, Threads).
    """
    if _LIBRARY in sys.modules or _TIMEOUT in os.environ:
        return
    os.environ[_TIMEOUT] = _SHORTEST
    try:
        import scipy.linalg.cython_lapack  # noqa: F401
    finally:
        del os.environ[_TIMEOUT]
