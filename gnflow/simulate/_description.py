"""What a run consists of, as settings that can be compared with those of another run."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._core import digest_of, encode, read_arrays, settings_of
from ._store import ARRAYS_FILE, read_record, telling_where

_DESCRIBED = ("problem", "initial_model", "flow")
_DATA = {"x_train", "y_train", "x_test", "y_test"}


@dataclasses.dataclass(frozen=True)
class RunDescription:
    """The settings of a run.

    **Attributes:**

    - `settings`: every option of problem, initial model, flow and method, by its dotted path. Of arrays there are types and
      shapes.
    - `problem`: a checksum of the problem. Runs with equal ones have the same data and the same loss.
    - `start`: a checksum of the initial model; None if only the problem is described.
    """

    settings: dict[str, Any]
    problem: str
    start: str | None


def describe(
    problem: Any, initial_model: Any = None, flow: Any = None, settings: Mapping[str, Any] | None = None
) -> RunDescription:
    """The description of a run that has not been made, or of its problem alone.

    **Arguments:**

    - `problem`, `initial_model`, `flow`: its parts.
    - `settings`: the arguments of the method.
    """
    arrays: dict[str, np.ndarray] = {}
    parts = zip(_DESCRIBED, (problem, initial_model, flow), strict=True)
    objects = {name: encode(part, arrays, name, name != "initial_model") for name, part in parts if part is not None}
    return _description(objects, encode(dict(settings or {}), arrays, "settings"), arrays)


def read_description(folder: str | os.PathLike[str]) -> RunDescription:
    """The description of a saved run. Classes of the user are not needed for it.

    **Raises:** `RunFolderError` if the folder holds no run or a damaged one.
    """
    source, record = read_record(folder)
    with telling_where(source):
        return _description(record["objects"], record["settings"], read_arrays(source / ARRAYS_FILE))


def _description(objects: Mapping[str, Any], settings: Any, arrays: Mapping[str, np.ndarray]) -> RunDescription:
    named: dict[str, Any] = {}
    for name in _DESCRIBED:
        named |= settings_of(objects[name], arrays, name) if name in objects else {}
    named |= settings_of(settings, arrays, "settings")
    start = digest_of(objects["initial_model"], arrays) if "initial_model" in objects else None
    return RunDescription(named, digest_of(_without_names(objects["problem"]), arrays), start)


def _without_names(problem: Any) -> Any:
    """What decides losses on a problem: of one with data these and the loss, and not its name, its teacher or its origin."""
    if isinstance(problem, Mapping) and problem.keys() >= _DATA:
        return {key: part for key, part in problem.items() if key in {*_DATA, "loss"}}
    return problem
