"""gnflow: training in continuous time.

Gradient flows and Gauss-Newton flows of over-parameterised networks, posed as ODEs over the weights and integrated to
convergence. See README.md for the first example and docs/ for the rest.

`import gnflow` loads nothing: each public name is loaded, with what it stands on, when it is first used.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"  # the one place: the package's metadata take it from here

# What type checkers and the reference read. At run time `_HOMES` says the same.
if TYPE_CHECKING:
    from . import (
        config as config,
        flows as flows,
        geometry as geometry,
        losses as losses,
        metrics as metrics,
        models as models,
        optimisers as optimisers,
        plots as plots,
        problems as problems,
        regimes as regimes,
        solvers as solvers,
        sweeps as sweeps,
        theory as theory,
    )
    from ._core import (
        ConfigError as ConfigError,
        DataError as DataError,
        DataWarning as DataWarning,
        GnflowError as GnflowError,
        ModelError as ModelError,
        PrecisionError as PrecisionError,
        Result as Result,
        ResultCode as ResultCode,
        RunFolderError as RunFolderError,
        compilation_cache as compilation_cache,
    )
    from .config import read_sweep as read_sweep
    from .geometry import System as System, damping as damping, directions as directions
    from .problems import Problem as Problem, ResidualProblem as ResidualProblem, ResidualTerm as ResidualTerm
    from .simulate import (
        AbstractFeatureChoice as AbstractFeatureChoice,
        AbstractStopRule as AbstractStopRule,
        AlignmentPeak as AlignmentPeak,
        FeatureRank as FeatureRank,
        GradientNorm as GradientNorm,
        HoldOut as HoldOut,
        LeaveOneOut as LeaveOneOut,
        LossPlateau as LossPlateau,
        Movement as Movement,
        RelativeLoss as RelativeLoss,
        RunInterrupted as RunInterrupted,
        SimulationError as SimulationError,
        Stationary as Stationary,
        TestLoss as TestLoss,
        Trajectory as Trajectory,
        ValidationLoss as ValidationLoss,
        VelocityNorm as VelocityNorm,
        iterate as iterate,
        measure as measure,
        simulate as simulate,
        train_features_first as train_features_first,
    )
    from .sweeps import load as load, sweep as sweep

# The subpackage that each public name is taken from; a subpackage is taken from none.
_HOMES = {
    name: home
    for home, names in {
        "": "config flows geometry losses metrics models optimisers plots problems regimes solvers sweeps theory",
        "_core": "ConfigError DataError DataWarning GnflowError ModelError PrecisionError Result ResultCode RunFolderError "
        "compilation_cache",
        "config": "read_sweep",
        "geometry": "System damping directions",
        "problems": "Problem ResidualProblem ResidualTerm",
        "simulate": "AbstractFeatureChoice AbstractStopRule AlignmentPeak FeatureRank GradientNorm HoldOut LeaveOneOut "
        "LossPlateau Movement RelativeLoss RunInterrupted SimulationError Stationary TestLoss Trajectory ValidationLoss "
        "VelocityNorm iterate measure simulate train_features_first",
        "sweeps": "load sweep",
    }.items()
    for name in names.split()
}


class _LoadedOnUse(types.ModuleType):
    """The package itself, whose public names are loaded when they are first used (compare PEP 562)."""

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return list(_HOMES)
        if name not in _HOMES:
            message = f"module {self.__name__!r} has no attribute {name!r}{self._elsewhere(name)}"
            raise AttributeError(message, name=name, obj=self)
        home = _HOMES[name]
        module = importlib.import_module(f"{self.__name__}.{home or name}")
        value = getattr(module, name) if home else module
        setattr(self, name, value)
        return value

    def _elsewhere(self, name: str) -> str:
        """Where a class is that was looked for here, as the end of a sentence."""
        if not name[:1].isupper():
            return ""
        for home in (home for home in _HOMES if _HOMES[home] == ""):
            if hasattr(importlib.import_module(f"{self.__name__}.{home}"), name):
                return f"; it is {self.__name__}.{home}.{name}"
        return ""

    def __setattr__(self, name: str, value: Any) -> None:
        # Loading a subpackage binds its name here. One of them bears the name of its public function, which is meant.
        if isinstance(value, types.ModuleType) and _HOMES.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*_HOMES, *(name for name in super().__dir__() if name.startswith("__"))})


sys.modules[__name__].__class__ = _LoadedOnUse
