"""The axes of a sweep: what varies, over which values, with which coordinates."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._core import ConfigError, nearest_name
from ..simulate import BEST_LOSSES
from ._overrides import AXIS_FORMS, SEED_FORMS, Override, flatten_overrides, parse_path
from ._plain import require_few_runs, shown

_ENTRIES = (*AXIS_FORMS, "path", "label", "labels", "units")
COMMON = ("name", "size", "sizes", *SEED_FORMS, "axes", "variants")  # entries that all cells share
VARIANT = "variant"  # the axis whose positions are the variants
# Names that the data set and the tables of figures use as dimensions or variables.
_OF_DATA_SETS = (
    *("flow", "seed", "target", "save", "batch", "regime", "threshold"),
    *("result", "failed", "message", "cell", "flow_time", "num_steps", "wall_seconds", "time_to_target"),
    *("median", "lower", "upper", "state", "num_values", "num_failed", "num_missing", "num_undefined"),
)
# Names of measured variables that other code looks up. An axis may have the name of another variable (such as `damping`).
_MEASURED = (
    *("train_loss", "test_loss", "validation_loss", *BEST_LOSSES),
    *("refit_train_loss", "refit_test_loss", "train_accuracy", "validation_accuracy", "test_accuracy"),
    *("kernel_distance", "kernel_distance_estimate", "relative_ntk_change", "linearisation_error", "path_length"),
    *("relative_weight_movement", "relative_weight_movement_hidden", "feature_cka_train", "feature_cka_test"),
    *("direction_distance_to_initial", "direction_distance_to_teacher", "test_loss_ratio", "hidden_learning_gain"),
    *("particle_hidden_weight", "particle_output_weight", "teacher_hidden_weight"),
)
RESERVED = (*_OF_DATA_SETS, *_MEASURED)
_LONGEST_NAME = 100  # characters; names of figures contain it
_LONGEST_LABEL = 80  # characters of a coordinate in the label of a cell
_DIGITS = 12  # digits of a generated value, so that 0.1 from a logspace equals the 0.1 that a person writes


@dataclasses.dataclass(frozen=True)
class Axis:
    """One dimension of a grid. Each of its positions sets one or several entries of the configuration.

    `read_axes` and `read_variants` make axes and check everything.

    **Attributes:**

    - `name`: the name of the dimension.
    - `changes`: for each position the entries that it sets, as paths and values.
    - `coordinate`: a number, boolean or text for each position, all different.
    - `beside`: further coordinates along the dimension, by name.
    - `label`, `units`: the label and the units for figures.
    """

    name: str
    changes: tuple[tuple[Override, ...], ...]
    coordinate: tuple[Any, ...]
    beside: Mapping[str, tuple[Any, ...]]
    label: str
    units: str

    def __len__(self) -> int:
        return len(self.changes)

    @property
    def paths(self) -> tuple[tuple[str, ...], ...]:
        """Every entry that a position sets, once."""
        return tuple(dict.fromkeys(path for changes in self.changes for path, _ in changes))

    def overrides(self, position: int) -> list[Override]:
        """The changes of the configuration at `position`."""
        return list(self.changes[position])

    def sets(self, path: tuple[str, ...]) -> bool:
        """Whether every position sets this very entry."""
        return all(any(own == path for own, _ in changes) for changes in self.changes)

    def words(self, position: int) -> str:
        """The position in the label of a cell: NAME=VALUE, or the name of the variant."""
        coordinate = self.coordinate[position]
        text = str(coordinate)
        text = text if text.isprintable() and len(text) <= _LONGEST_LABEL else shown(coordinate)
        return text if self.name == VARIANT else f"{self.name}={text}"

    def coordinates(self) -> dict[str, tuple[str, np.ndarray, dict[str, str]]]:
        """The coordinates along this dimension in xarray's form: (dimension, values, attributes) by name."""
        attrs = {"long_name": self.label, "units": self.units}
        own = {self.name: (self.name, np.asarray(self.coordinate), attrs)}
        return own | {name: (self.name, np.asarray(along), {"long_name": name}) for name, along in self.beside.items()}


def read_axes(table: Any, flows: Mapping[str, Any], *others: Axis) -> tuple[Axis, ...]:
    """The axes that the section [axes] states, in its order, after `others`.

    **Arguments:**

    - `table`: the section.
    - `flows`: the section [flows], whose names paths may use.
    - `others`: further axes of the grid.

    **Raises:** `ConfigError` for the first error. It names the axis, the entry, its value and what was expected. It is an error
    if two axes, or two entries of one axis, set the same entry of the configuration.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"axes = {shown(table)}; expected a table for each axis: [axes.NAME].")
    axes = (*others, *(_read_axis(str(name), entries, flows) for name, entries in table.items()))
    require_few_runs(*counts_of(axes), ("flows", len(flows)))
    if len({axis.name for axis in axes}) < len(axes):
        raise ConfigError(
            f"axes.{VARIANT} stands beside [variants], which are the axis of this name; call it otherwise."
        )
    taken: dict[tuple[str, ...], str] = {}  # by path, what sets it
    taken |= {path: "a variant" for axis in others for path in axis.paths}
    names: dict[str, str] = {axis.name: axis.name for axis in axes}
    for axis in axes[len(others) :]:
        for path in axis.paths:
            for other, owner in taken.items():
                if path[: len(other)] == other or other[: len(path)] == path:
                    raise ConfigError(
                        f"axes.{axis.name} sets {'.'.join(path)} and {owner} sets {'.'.join(other)}: which of them "
                        "holds would depend on their order; let one axis set it."
                    )
            taken[path] = f"axes.{axis.name}"
        for name in axis.beside:
            if names.setdefault(name, axis.name) != axis.name or name in RESERVED:
                raise ConfigError(
                    f"axes.{axis.name} would give the data set a second coordinate {name!r}; put the entry that is called "
                    "so first in its values and name the axis after it."
                )
    return axes


def _read_axis(name: str, entries: Any, flows: Mapping[str, Any]) -> Axis:
    at = f"axes.{name}"
    if name in RESERVED:
        what = "is measured along the runs" if name in _MEASURED else "is the data set's own name for something else"
        raise ConfigError(
            f"{at}: {name!r} cannot name a dimension, because it {what}; choose another name, such as {name}_axis."
        )
    if not name.isidentifier() or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"{at[:100]}: {shown(name)} cannot name a dimension; expected at most {_LONGEST_NAME} letters, digits and _."
        )
    if not isinstance(entries, Mapping):
        raise ConfigError(f"{at} = {shown(entries)}; expected a table with values (or logspace, linspace) and a path.")
    for key in entries:
        if key not in _ENTRIES:
            raise ConfigError(f"{at}: unknown entry {shown(key)}; {nearest_name(str(key)[:80], _ENTRIES)}")
    given = [form for form in AXIS_FORMS if form in entries]
    if len(given) != 1:
        raise ConfigError(
            f"{at} has {' and '.join(given) or 'no values'}; expected exactly one of {', '.join(AXIS_FORMS)}."
        )
    columns = _columns(at, given[0], entries)
    for path in columns:
        _check_path(at, path, flows)
    paths = tuple(columns)
    lengths = {".".join(path): len(column) for path, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(f"{at}: entries that move together need as many values each; they have {lengths}.")
    if not lengths or not next(iter(lengths.values())):
        raise ConfigError(f"{at} has no values; give at least one, or leave the axis out.")
    coordinate = _coordinate(at, entries.get("labels"), columns[paths[0]])
    beside = {
        inner: tuple(columns[path])
        for path, inner in zip(paths, short_names(paths), strict=True)
        if inner != name and (path != paths[0] or "labels" in entries) and are_plain(columns[path])
    }
    for path, inner in zip(paths[1:], short_names(paths)[1:], strict=True):
        if inner == name:
            raise ConfigError(
                f"{at} is named like its entry {'.'.join(path)}, whose values would be nowhere in the data set: put that "
                "entry first, or choose another name."
            )
    if len(paths) == 1:
        beside = {}  # labels name the values of the only entry, so no further coordinate is needed
    rows = zip(*columns.values(), strict=True)
    return Axis(
        name,
        tuple(tuple(zip(paths, row, strict=True)) for row in rows),
        coordinate,
        beside,
        _text(at, entries, "label", name),
        _text(at, entries, "units", "1"),
    )


def counts_of(axes: tuple[Axis, ...]) -> list[tuple[str, int]]:
    """The names and lengths of axes, for `require_few_runs`."""
    return [(f"{axis.name}s" if axis.name == VARIANT else axis.name, len(axis)) for axis in axes]


def _columns(at: str, form: str, entries: Mapping[str, Any]) -> dict[tuple[str, ...], list[Any]]:
    """The values of each path."""
    given = entries[form]
    if form == "values" and isinstance(given, Mapping):
        if "path" in entries:
            raise ConfigError(f"{at} has a path and a table of values, whose keys are paths; leave the path out.")
        columns = dict(flatten_overrides(given))
    else:
        if not isinstance(entries.get("path"), str):
            raise ConfigError(
                f'{at}.path = {shown(entries.get("path"))}; expected a dotted path, such as "model.init_scale".'
            )
        columns = {parse_path(entries["path"]): given if form == "values" else _spaced(f"{at}.{form}", form, given)}
    for path, column in columns.items():
        if not isinstance(column, list | tuple):
            raise ConfigError(f"{at}: the values of {'.'.join(path)} are {shown(column)}; expected an array.")
    return {path: list(column) for path, column in columns.items()}


def _spaced(at: str, form: str, given: Any) -> list[float | int]:
    """Values from `logspace` or `linspace` = [first, last, number], both ends included."""
    numbers = list(given) if isinstance(given, list | tuple) else []
    ok = len(numbers) == 3 and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
    if not ok or not isinstance(numbers[2], int) or numbers[2] < 1 or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"{at} = {shown(given)}; expected [first, last, number of values], such as [0.01, 100, 9].")
    first, last, number = numbers
    require_few_runs((at, number))
    if form == "logspace" and not (first > 0 and last > 0):
        raise ConfigError(f"{at} = {given!r}; logarithmic spacing needs positive ends; use linspace or values.")
    points = (np.geomspace if form == "logspace" else np.linspace)(first, last, number)
    rounded = [float(f"{point:.{_DIGITS}g}") for point in points]
    if isinstance(first, int) and isinstance(last, int) and all(value.is_integer() for value in rounded):
        return [int(value) for value in rounded]
    return rounded


def _check_path(at: str, path: tuple[str, ...], flows: Mapping[str, Any]) -> None:
    """Check that cells may differ in the entry at `path`. **Raises:** `ConfigError` if all cells share it."""
    dotted = ".".join(path)
    if path[0] in COMMON:
        raise ConfigError(
            f"{at} sets {dotted!r}, which is common to all cells (seeds are a dimension of their own); expected an entry of "
            "problem, problem_seed, model, flows.NAME, integration, stop or metrics."
        )
    if path[0] == "flows" and (len(path) < 2 or path[1] not in flows):
        raise ConfigError(f"{at} sets {dotted!r}; unknown flow: {nearest_name('.'.join(path[1:2]), flows)}")


def _coordinate(at: str, labels: Any, values: list[Any]) -> tuple[Any, ...]:
    """The coordinate of an axis: its labels, or the values of its first path."""
    if labels is None and not are_plain(values):
        raise ConfigError(
            f"{at}: its values are tables, arrays or of mixed types, and cannot be coordinates; give labels = [...], a text "
            "for each."
        )
    chosen = values if labels is None else labels
    what = "values" if labels is None else "labels"
    if not isinstance(chosen, list | tuple) or len(chosen) != len(values) or not are_plain(list(chosen)):
        raise ConfigError(f"{at}.labels = {shown(labels)}; expected an array of {len(values)} texts or numbers.")
    if any(isinstance(value, float) and not math.isfinite(value) for value in chosen):
        raise ConfigError(f"{at}.{what} = {shown(list(chosen))}; expected finite numbers.")
    if len(set(chosen)) < len(chosen):
        raise ConfigError(f"{at}.{what} = {shown(list(chosen))}; expected each once.")
    return tuple(chosen)


def are_plain(values: list[Any]) -> bool:
    """Whether the values are all numbers, all booleans or all text."""
    kinds = {bool if isinstance(v, bool) else float if isinstance(v, int | float) else type(v) for v in values}
    return len(kinds) == 1 and kinds <= {bool, float, str}


def short_names(paths: tuple[tuple[str, ...], ...]) -> list[str]:
    """A short name for each path: its last parts, as many as distinguish it from the others and from reserved names."""
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["_".join(path[-depth:]) for path in paths]
        if len(set(names)) == len(names) and not set(names) & set(RESERVED):
            return names
    return ["_".join(path) for path in paths]


def _text(at: str, entries: Mapping[str, Any], key: str, default: str) -> str:
    value = entries.get(key, default)
    if not isinstance(value, str):
        raise ConfigError(f"{at}.{key} = {shown(value)}; expected text.")
    return value
