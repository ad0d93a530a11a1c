"""The settings of a record as arguments of a rerun, and which of them are not legal."""

import dataclasses
import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._core import ConfigError, GnflowError, recheck
from ..metrics import AbstractMetric
from ..simulate import DEFAULT_RTOL, AbstractStopRule, Trajectory, argument_checks, simulate
from ..solvers import solver_kinds

_KIND = "simulate"
# The values that a rerun uses in the place of those that are missing or not legal.
_INSTEAD: Mapping[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(simulate).parameters.items()
    if name in ("t1", "saveat", "solver", "atol", "error_norm", "metrics", "max_steps")
} | {"rtol": DEFAULT_RTOL, "stop": ()}


@dataclasses.dataclass(frozen=True)
class RecordedSettings:
    """The settings of a record.

    **Attributes:**

    - `arguments`: legal arguments of `simulate`. Defaults replace wrong settings, and the end of the record a wrong end.
    - `wrong`: a sentence for each setting that no run can have had.
    """

    arguments: Mapping[str, Any]
    wrong: tuple[str, ...]


def recorded_settings(record: Trajectory) -> RecordedSettings:
    """The arguments of the call that made a record, as it states them.

    Metrics, stop rules and solvers of the user, which a file cannot hold, are text in a record that was loaded. They are left
    out. The end of the record takes the place of such stop rules, and "auto" that of such a solver.
    """
    settings, arguments, wrong = record.settings, dict(_INSTEAD), []
    kind = settings.get("kind")
    if kind != _KIND:
        wrong.append(f"kind = {kind!r}; expected {_KIND!r}, for a record over flow time.")
    for name in _INSTEAD:
        if name not in settings:
            wrong.append(f"{name} is missing.")
            continue
        try:
            arguments[name] = _legal(name, settings[name])
        except GnflowError as error:
            wrong.append(str(error))
        except (TypeError, ValueError):
            wrong.append(f"{name} = {settings[name]!r}; it is of a type that {name} cannot be.")
    try:
        argument_checks["simulate"](t1=arguments["t1"], saveat=arguments["saveat"])
    except GnflowError as error:
        wrong.append(str(error))
        arguments["saveat"] = None
    left_out = isinstance(settings.get("stop"), tuple | list) and len(arguments["stop"]) < len(settings["stop"])
    if arguments["t1"] is None and (left_out or not arguments["stop"]):
        if not left_out and not wrong:
            wrong.append("neither t1 nor a stop rule is recorded, so that the run would have no end.")
        arguments["t1"] = float(saved_times(record)[-1])
    if arguments["solver"] not in solver_kinds:
        arguments["solver"] = "auto"
    if not arguments["stop"]:
        arguments["stop"] = None
    return RecordedSettings(arguments, tuple(wrong))


def steps_allowed(record: Trajectory) -> int | float:
    """The number of steps that the recorded solution was allowed.

    `max_steps` bounds the first solution. One that measures the error of another may take more.
    """
    solutions = record.stats.get("num_solutions")
    is_first = not isinstance(solutions, int) or solutions <= 1
    return recorded_settings(record).arguments["max_steps"] if is_first else math.inf


def saved_times(record: Trajectory) -> np.ndarray:
    """The flow times of the saves (n,), of a flow or of a run in steps."""
    data = record.data
    return data["time" if "time" in data.dims else "flow_time"].to_numpy()


def _legal(name: str, value: Any) -> Any:
    """The value as an argument. **Raises:** `ConfigError`, `TypeError` or `ValueError` if no record can have it."""
    if name == "metrics":
        return tuple(metric for metric in value if isinstance(metric, AbstractMetric))
    if name == "stop":
        return _rebuilt_rules(value)
    if name == "solver" and isinstance(value, str):
        return value  # a name that gnflow does not know is that of a class of the user
    if name in ("rtol", "atol", "max_steps", "solver", "error_norm") and value is None:
        raise ConfigError(f"{name} = None; expected the value that the run had.")
    argument_checks["simulate"](**{name: value})
    return value


def _rebuilt_rules(stop: Any) -> tuple[AbstractStopRule, ...]:
    """The rules that could be rebuilt, without text that stands for a rule of the user."""
    listed = () if stop is None else stop
    if not isinstance(listed, tuple | list) or not all(isinstance(rule, AbstractStopRule | str) for rule in listed):
        raise ConfigError(f"stop = {stop!r}; expected a tuple of stop rules.")
    rules = tuple(rule for rule in listed if isinstance(rule, AbstractStopRule))
    for rule in rules:
        check_parts(rule)
        if any(isinstance(getattr(rule, field.name), str) for field in dataclasses.fields(rule)):
            raise ConfigError(f"stop = {stop!r}; expected numbers.")
    return rules


def check_parts(part: Any) -> None:
    """Check an object and its parts as their constructors do. Reading a file skips these checks.

    **Raises:** the errors of the constructors for numbers that they refuse.
    """
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return
    recheck(part)
    for field in dataclasses.fields(part):
        check_parts(getattr(part, field.name))
