"""What a run consists of, as settings that can be compared with those of another run."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._core import digest_of, encode, read_arrays, settings_of
from ._store import ARRAYS_FILE, read_record, telling_where

_DESCRIBED = ("problem", "initial_model", "flow")


@dataclasses.dataclass(frozen=True)
class RunDescription:
    """The settings of a run.

    **Attributes:**

    - `settings`: every option of problem, initial model, flow and method, by its dotted path. Of arrays there are types and
      shapes.
    - `problem`: a checksum of the problem. Runs with equal ones have the same data and the same loss.
    - `start`: a checksum of the initial model.
    """

    settings: dict[str, Any]
    problem: str
    start: str


def describe(problem: Any, initial_model: Any, flow: Any, settings: Mapping[str, Any]) -> RunDescription:
    """The description of a run that has not been made.

    **Arguments:**

    - `problem`, `initial_model`, `flow`: its parts.
    - `settings`: the arguments of the method.
    """
    arrays: dict[str, np.ndarray] = {}
    objects = {
        name: encode(part, arrays, name, name != "initial_model")
        for name, part in zip(_DESCRIBED, (problem, initial_model, flow), strict=True)
    }
    return _description(objects, encode(dict(settings), arrays, "settings"), arrays)


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
        named |= settings_of(objects[name], arrays, name)
    named |= settings_of(settings, arrays, "settings")
    return RunDescription(named, digest_of(objects["problem"], arrays), digest_of(objects["initial_model"], arrays))
