"""gnflow: training in continuous time.

Gradient flows and Gauss-Newton flows of over-parameterised networks, posed as ODEs over the weights and integrated to
convergence. See README.md for the first example and docs/ for the rest.
"""

import os as _os

# LAPACK (SciPy's OpenBLAS) keeps its threads spinning for a while after each eigendecomposition, on the cores that XLA needs
# next: a Gauss-Newton velocity at N = 500, M = 5000 takes 166 ms with them and 140 ms without, on 2 cores. OpenBLAS reads
# this when it is loaded, which JAX does at the first decomposition; a value of the user's is kept.
_os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

from . import (
    flows as flows,
    geometry as geometry,
    losses as losses,
    metrics as metrics,
    models as models,
    optimisers as optimisers,
    problems as problems,
    regimes as regimes,
    solvers as solvers,
    sweeps as sweeps,
    theory as theory,
)
from ._core import (
    ConfigError as ConfigError,
    DataError as DataError,
    GnflowError as GnflowError,
    ModelError as ModelError,
    PrecisionError as PrecisionError,
    Result as Result,
    ResultCode as ResultCode,
    RunFolderError as RunFolderError,
)
from .geometry import System as System, damping as damping, directions as directions
from .problems import Problem as Problem
from .simulate import (
    AbstractStopRule as AbstractStopRule,
    GradientNorm as GradientNorm,
    LossPlateau as LossPlateau,
    Movement as Movement,
    RelativeLoss as RelativeLoss,
    SimulationError as SimulationError,
    Stationary as Stationary,
    TestLoss as TestLoss,
    Trajectory as Trajectory,
    VelocityNorm as VelocityNorm,
    iterate as iterate,
    simulate as simulate,
)
from .sweeps import load as load, read_sweep as read_sweep, sweep as sweep

__version__ = "0.1.0"
