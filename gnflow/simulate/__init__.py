"""Running a flow: in continuous time (`simulate`) or in steps (`iterate`), and what comes back."""

import os
from typing import Any

from ._accuracy import CARRIED as CARRIED, DEFAULT_RTOL as DEFAULT_RTOL
from ._along import measure as measure
from ._arguments import (
    DEFAULT_ATOL as DEFAULT_ATOL,
    argument_checks as _of_runs,
    check_with_samples as check_with_samples,
)
from ._best import BEST_LOSSES as BEST_LOSSES, best_losses as best_losses, lowest as lowest
from ._controller import error_norm_kinds as error_norm_kinds
from ._description import RunDescription as RunDescription, describe as describe, read_description as read_description
from ._iterate import iterate as iterate
from ._simulate import simulate as simulate, simulate_once as simulate_once
from ._store import (
    DATA_FILE as DATA_FILE,
    RUN_FILE as RUN_FILE,
    RunData as RunData,
    parts_to_pass as parts_to_pass,
    read_data as read_data,
    read_run,
    versions as versions,
)
from ._trajectory import RunInterrupted as RunInterrupted, SimulationError as SimulationError, Trajectory as Trajectory
from .features_first import (
    KIND as FEATURES_FIRST,
    AbstractFeatureChoice as AbstractFeatureChoice,
    AlignmentPeak as AlignmentPeak,
    FeatureRank as FeatureRank,
    HoldOut as HoldOut,
    LeaveOneOut as LeaveOneOut,
    check_features_first,
    feature_choice_kinds as feature_choice_kinds,
    train_features_first as train_features_first,
)
from .stop import (
    AbstractStopRule as AbstractStopRule,
    GradientNorm as GradientNorm,
    LossPlateau as LossPlateau,
    Movement as Movement,
    RelativeLoss as RelativeLoss,
    Stationary as Stationary,
    TestLoss as TestLoss,
    ValidationLoss as ValidationLoss,
    VelocityNorm as VelocityNorm,
    stop_kinds as stop_kinds,
)

argument_checks = {**_of_runs, FEATURES_FIRST: check_features_first}


def load(folder: str | os.PathLike[str], *, problem: Any = None, model: Any = None, flow: Any = None) -> Trajectory:
    """Read back a run that `Trajectory.save` wrote.

    **Arguments:**

    - `folder`: the folder of the run.
    - `problem`, `model`, `flow`: needed only if the run used a class or function of the user's own, because gnflow rebuilds
      only its own classes. The arrays of `model` are replaced by the saved ones, which are found by their places in the model.
      One that is given and not needed has to fit what was saved in the same way.

    **Raises:** `RunFolderError` if the folder holds no run or a damaged one; if a later version wrote it with fields that this
    version does not know; if an object is needed and not given; or if an object that is given is not the saved one: a model of
    another class, with other arrays or with arrays in other places, or with another training loss than the run recorded.
    """
    return Trajectory(**read_run(folder, {"problem": problem, "model": model, "flow": flow}))
