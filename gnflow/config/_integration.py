"""The [integration] and [stop] tables: how a flow is run, and until when."""

from collections.abc import Callable, Mapping
from typing import Any

from .._core import ConfigError, nearest_name
from ..optimisers import AbstractSchedule, schedule_kinds
from ..problems import AbstractAugmentation, augmentation_kinds
from ..simulate import (
    AbstractFeatureChoice,
    error_norm_kinds,
    feature_choice_kinds,
    iterate,
    simulate,
    stop_kinds,
    train_features_first,
)
from ..solvers import solver_kinds
from ._forms import INTEGER, NUMBER, ComponentForm, Form, FunctionForm, ListForm, NameForm, Options, UnionForm, at
from ._plain import shown

METHODS: dict[str, Callable[..., Any]] = {
    "simulate": simulate,
    "iterate": iterate,
    "train_features_first": train_features_first,
}

_RULES: Mapping[str, Callable[..., Any]] = dict(stop_kinds)
_METHOD = NameForm({name: name for name in METHODS}, "method")
_HIDDEN = ("problem", "model", "flow", "stop", "metrics", "progress", "throw", "checkpoint")


def _names(known: Mapping[str, Any], what: str, *more: str) -> NameForm:
    return NameForm({name: name for name in (*more, *known)}, what)


_COMMON: dict[str, Form] = {
    "solver": _names(solver_kinds, "solver", "auto"),
    "error_norm": _names(error_norm_kinds, "error norm"),
    "saveat": ListForm(NUMBER, list),
    "key": INTEGER,
}
_REFINED: dict[str, dict[str, Form]] = {
    "simulate": {**_COMMON, "saveat_weights": ListForm(NUMBER, list)},  # flow times
    "iterate": {
        **_COMMON,
        "saveat_weights": ListForm(INTEGER, list),  # steps
        "batch_order": ListForm(ListForm(INTEGER, list), list),
        "augment": ComponentForm(augmentation_kinds, "augmentation", AbstractAugmentation),
        "schedule": UnionForm((FunctionForm(1), ComponentForm(schedule_kinds, "schedule", AbstractSchedule))),
    },
    "train_features_first": {
        **_COMMON,
        "choose": ComponentForm(feature_choice_kinds, "rule that chooses features", AbstractFeatureChoice),
    },
}

# `iterate` takes exactly one option of each pair.
_ALTERNATIVES = (("step_size", "optimiser"), ("num_steps", "num_epochs"))


def check_integration(table: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A checked [integration] table: `method` ("simulate" by default) and the options of `gnflow.simulate` or `gnflow.iterate`.

    **Raises:** `ConfigError` for an unknown method or option, a wrong type, or a missing option.
    """
    method = _METHOD.check(table.get("method", "simulate"), f"{path}.method")
    options = {key: option for key, option in table.items() if key != "method"}
    checked = _options(method).check(options, path, f"method {method!r}", also=("method",))
    if method == "iterate":
        _require_alternatives(checked, path)
    return {"method": method, **checked}


def _require_alternatives(options: Mapping[str, Any], path: str) -> None:
    """Check that `iterate` gets exactly one option of each pair. **Raises:** `ConfigError`."""
    forms = _options("iterate").forms()
    for first, second in _ALTERNATIVES:
        if first in options and second in options:
            raise ConfigError(
                f"{path}: method 'iterate' takes {first!r} or {second!r}, and both are given; leave one out."
            )
        if first not in options and second not in options:
            raise ConfigError(
                f"{path}: method 'iterate' needs the option {first!r}, {forms[first].expected}, or {second!r}, "
                f"{forms[second].expected}."
            )


def merge_integration(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The [integration] table of a flow: the common one changed by its `own`, or its own alone if that names another method.

    An own `optimiser` replaces a common `step_size`, and so on for the other pairs of options that exclude each other.
    """
    same_method = own.get("method", "simulate") == common.get("method", "simulate") or "method" not in own
    if not same_method:
        return dict(own)
    replaced = {name for pair in _ALTERNATIVES if any(name in own for name in pair) for name in pair}
    return {**{name: option for name, option in common.items() if name not in replaced}, **own}


def build_integration(table: Mapping[str, Any], path: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that runs the flow, and its options."""
    options = {key: option for key, option in table.items() if key != "method"}
    return METHODS[table["method"]], _options(table["method"]).build(options, path)


def check_stop(table: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A checked [stop] table: stop rules by kind, each with its first number (a tolerance, a patience) or a table of options.

    The first rule that is met ends the run.

    **Raises:** `ConfigError` for an unknown rule or option, or a value that is not a number.
    """
    checked = {}
    for kind, value in table.items():
        if kind not in _RULES:
            raise ConfigError(f"{path}: unknown stop rule {shown(kind)}; {nearest_name(str(kind)[:80], _RULES)}")
        if isinstance(value, Mapping):
            checked[kind] = Options(_RULES[kind]).check(value, f"{path}.{kind}", f"stop rule {kind!r}")
        else:
            checked[kind] = NUMBER.check(value, f"{path}.{kind}")
    return checked


def build_stop(table: Mapping[str, Any], path: str) -> tuple[Any, ...]:
    """The stop rules of a checked [stop] table."""
    rules = []
    for kind, value in table.items():
        with at(f"{path}.{kind}"):
            rules.append(_RULES[kind](**value) if isinstance(value, Mapping) else _RULES[kind](value))
    return tuple(rules)


def _options(method: str) -> Options:
    return Options(METHODS[method], hidden=_HIDDEN, refined=_REFINED[method])
