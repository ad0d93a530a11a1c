"""One run of a specification: a flow on a problem, from one initial model."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from .._core import ConfigError, nearest_name, stream
from ..flows import AbstractFlow, Frozen, Scaled, WeightDecay, flow_kinds
from ..metrics import AbstractMetric, metric_kinds
from ..problems import AbstractProblem, problem_kinds
from ..simulate import Trajectory, argument_checks, check_with_samples
from ._built import built_once
from ._data_file import data_digest, has_data_files
from ._forms import INTEGER, NUMBER, TEXT, ComponentForm, Form, ListForm, TableForm, UnionForm, at
from ._integration import (
    build_integration,
    build_stop,
    check_integration,
    check_stop,
    merge_integration,
)
from ._model import check_model, make_model, model_identity, needs_problem
from ._modules import Source
from ._own_parts import sources_in
from ._plain import shown

_PROBLEM = ComponentForm(problem_kinds, "problem", AbstractProblem, supplied=("key",))
_METRIC = ComponentForm(metric_kinds, "metric", AbstractMetric)
_METRICS = ListForm(_METRIC, tuple)
_BY_GROUP = UnionForm((NUMBER, TableForm(NUMBER)))
# The wrappers, in the order in which they wrap.
_AROUND: dict[str, tuple[Form, Callable[[AbstractFlow, Any], AbstractFlow]]] = {
    "trainable": (UnionForm((TEXT, ListForm(TEXT, tuple))), Frozen),
    "scale_velocity": (_BY_GROUP, lambda flow, scale: Scaled(flow, scale, "velocity")),
    "scale_metric": (_BY_GROUP, lambda flow, scale: Scaled(flow, scale, "metric")),
    "weight_decay": (_BY_GROUP, WeightDecay),
}

_OF_NAMES = "._=+-"  # characters that a name may contain beside letters and digits
_LONGEST_NAME = 200  # bytes: file systems allow 255, and the names of figures contain it

PROBLEM_SEED = "problem_seed"
_SECTIONS = ("problem", PROBLEM_SEED, "model", "flows", "integration", "stop", "metrics")
_OF_FLOW = (*_AROUND, "integration", "stop")
# The wrappers are not kinds of their own: any flow has them as further options.
_FLOW = ComponentForm(
    {kind: flow for kind, flow in flow_kinds.items() if flow not in (Frozen, Scaled, WeightDecay)},
    "flow",
    AbstractFlow,
    reserved=_OF_FLOW,
)
# The types of the entries that `RunSpec.to_dict` writes.
_TYPES: dict[str, Any] = {
    "variant": str,
    "flow_name": str,
    "seed": int,
    "problem": Mapping,
    "model": Mapping,
    "flow": Mapping,
    "integration": Mapping,
    "stop": Mapping | None,
    "metrics": list | tuple,
    PROBLEM_SEED: int | None,
}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The objects of a run that is ready to start.

    **Attributes:**

    - `problem`, `model`, `flow`, `metrics`: the first arguments of the method.
    - `method`: `gnflow.simulate` or `gnflow.iterate`.
    - `settings`: the further arguments of the method.
    """

    problem: AbstractProblem
    model: Any
    flow: AbstractFlow
    metrics: tuple[AbstractMetric, ...]
    method: Callable[..., Trajectory]
    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """Everything that decides a run, as checked tables that TOML and JSON can hold.

    **Attributes:**

    - `variant`, `flow_name`, `seed`: the position of the run in the specification.
    - `problem`, `model`, `flow`, `integration`: tables.
    - `stop`: a table, or None for the default rule of the method.
    - `metrics`: a table for each metric.
    - `problem_seed`: the seed that the problem is drawn from; None if it is `seed`.
    """

    variant: str
    flow_name: str
    seed: int
    problem: Mapping[str, Any]
    model: Mapping[str, Any]
    flow: Mapping[str, Any]
    integration: Mapping[str, Any]
    stop: Mapping[str, Any] | None
    metrics: tuple[Mapping[str, Any], ...]
    problem_seed: int | None = None

    @property
    def label(self) -> str:
        """The name of the run: variant/flow/seed-k."""
        return f"{self.variant}/{self.flow_name}/seed-{self.seed}"

    @property
    def folder(self) -> str:
        """The label as the path of a folder, with other characters for those that a folder's name cannot contain."""
        kept = "".join(char if char.isalnum() or char in _OF_NAMES + "," else "_" for char in self.variant)
        if kept != self.variant or kept.startswith(".") or len(os.fsencode(kept)) > _LONGEST_NAME:
            kept = f"{kept.lstrip('.')[: _LONGEST_NAME // 8]}~{hashlib.sha256(self.variant.encode()).hexdigest()[:6]}"
        return f"{kept}/{self.flow_name}/seed-{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """The run as a table, which `RunSpec.from_dict` reads."""
        table = json.loads(json.dumps(dataclasses.asdict(self)))
        return table if self.problem_seed is not None else _without_problem_seed(table)

    @classmethod
    def from_dict(cls, table: Any) -> "RunSpec":
        """The run from a table that `to_dict` made.

        **Raises:** `ConfigError` unless the table has the entries of a run with the right types.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(table, Mapping):
            raise ConfigError(f"a run is a table with the entries {', '.join(names)}, and not {str(table)[:60]!r}.")
        table = {PROBLEM_SEED: None, **table}
        for key in (*table, *names):
            if key not in names or key not in table:
                raise ConfigError(f"a run has the entries {', '.join(names)}, but {key!r} is not in both.")
        for key, kind in _TYPES.items():
            if not isinstance(table[key], kind) or isinstance(table[key], bool):
                raise ConfigError(f"{key} = {str(table[key])[:60]!r} in the table of a run is of the wrong type.")
        if not all(isinstance(metric, Mapping) for metric in table["metrics"]):
            raise ConfigError("the metrics in the table of a run are tables, each with its kind.")
        return cls(**{**table, "metrics": tuple(table["metrics"])})

    @property
    def sources(self) -> dict[str, Source]:
        """The modules of the user's that parts of this run are from, by name, if they are imported here."""
        return sources_in(list(vars(self).values()))

    @property
    def data_digest(self) -> str:
        """A digest of the problem's data files as they are now; empty without files, or if they cannot be read."""
        return data_digest(self.problem)

    @property
    def lacks_data(self) -> bool:
        """Whether the problem has data files that cannot be read."""
        return has_data_files(self.problem) and not self.data_digest

    def content_hash(self, data: str | None = None) -> str:
        """16 hexadecimal digits that identify a run by everything that decides its result, and not by its names.

        **Arguments:**

        - `data`: the digest of the problem's data files, which also counts; `data_digest` by default.
        """
        content = {key: value for key, value in vars(self).items() if key not in ("variant", "flow_name")}
        if self.problem_seed is None:  # as in runs of versions without this entry, whose hashes stay what they were
            content = _without_problem_seed(content)
        if digest := self.data_digest if data is None else data:
            content["data"] = digest
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def prepare(self) -> Prepared:
        """Make problem, model, flow, metrics and stop rules.

        The problem and the model are drawn from the seed's streams "problem" and "model", and batches from the stream "batches"
        unless the integration has a `key`. A `problem_seed` replaces the seed for the problem alone. So runs that differ only
        in the scale of the model share their data and their unscaled draws. Equal problems and equal models of one seed are
        made only once in a process.

        **Raises:** `ConfigError`, which names the entry, if a constructor refuses its options or objects do not fit together.
        """
        key = jax.random.key(self.seed)
        problem = self.make_problem()
        model = self._model(stream(key, "model"), problem)
        path = f"flows.{self.flow_name}"
        flow = self._build_flow(path)
        metrics = _METRICS.build(self.metrics, "metrics")
        with at(path):
            system = flow.system(problem, model)
        for index, metric in enumerate(metrics):
            with at(f"metrics[{index}]"):
                metric.variables(system)
        method, settings = build_integration(self.integration, f"{path}.integration")
        if self.stop is not None:
            settings["stop"] = build_stop(self.stop, f"{path}.stop")
        drawn = settings.get("batch_order") is None or settings.get("augment") is not None
        if settings.get("batch_size") is not None and drawn:
            settings.setdefault("key", stream(key, "batches"))
        with at(f"{path}.integration"):
            argument_checks[self.integration["method"]](**settings)
            check_with_samples(system.problem, **settings)
        return Prepared(problem, model, flow, metrics, method, settings)

    def make_problem(self) -> AbstractProblem:
        """The problem alone. Equal ones of one seed are made only once in a process. **Raises:** as `prepare`."""
        seed = self.seed if self.problem_seed is None else self.problem_seed
        key = stream(jax.random.key(seed), "problem")
        if self.lacks_data:  # the content of the files is not known, so the problem cannot be shared
            return _PROBLEM.build(self.problem, "problem", key=key)
        return built_once(self._problem_identity, lambda: _PROBLEM.build(self.problem, "problem", key=key))

    @property
    def _problem_identity(self) -> tuple[Any, ...]:
        seed = self.seed if self.problem_seed is None else self.problem_seed
        return (_PROBLEM.identity(self.problem), seed, self.data_digest)

    def _model(self, key: jax.Array, problem: AbstractProblem) -> Any:
        if needs_problem(self.model) and self.lacks_data:
            return make_model(self.model, problem, key)
        of_problem = self._problem_identity if needs_problem(self.model) else ()
        identity = (model_identity(self.model, problem), self.seed, of_problem)
        return built_once(identity, lambda: make_model(self.model, problem, key))

    def _build_flow(self, path: str) -> AbstractFlow:
        flow = _FLOW.build({key: option for key, option in self.flow.items() if key not in _AROUND}, path)
        for key, (form, wrapper) in _AROUND.items():
            if key in self.flow:
                option = form.build(self.flow[key], f"{path}.{key}")
                with at(f"{path}.{key}"):
                    flow = wrapper(flow, option)
        return flow

    def run(self, progress: bool = False, checkpoint: Path | None = None) -> Trajectory:
        """Do the run. A run that fails on its way returns the trajectory so far, with the reason in `result`.

        **Arguments:**

        - `progress`: whether to show a progress bar.
        - `checkpoint`: as for `gnflow.simulate`; ignored for `gnflow.iterate`.

        **Raises:** the errors of `prepare` and `gnflow.simulate` for bad input.
        """
        made = self.prepare()
        is_integrated = checkpoint is not None and self.integration["method"] == "simulate"
        return made.method(
            made.problem,
            made.model,
            made.flow,
            metrics=made.metrics,
            progress=progress,
            throw=False,
            **({"checkpoint": checkpoint} if is_integrated else {}),
            **made.settings,
        )


def check_runs(
    table: Mapping[str, Any],
    variant: str,
    seeds: tuple[int, ...],
    memory: dict[tuple[str, str], Any] | None = None,
) -> tuple[RunSpec, ...]:
    """The runs at one position of the axes: flows times seeds.

    **Arguments:**

    - `table`: the sections of a specification with the overrides of the position applied.
    - `variant`: the name of the position.
    - `seeds`: the seeds.
    - `memory`: a dictionary shared by the calls for a grid, whose tables have most sections in common. Checked sections are
      stored in it, so that each is checked once.

    **Raises:** `ConfigError` for the first entry that is unknown, of the wrong type or missing.
    """
    require_sections(table)
    for key in ("problem", "model", "flows"):
        if key not in table:
            raise ConfigError(
                f"there is no [{key}] section; a run needs [problem], [model] and at least one [flows.NAME]."
            )
    memory = {} if memory is None else memory
    problem = _remembered(memory, "problem", table["problem"], lambda: _PROBLEM.check(table["problem"], "problem"))
    model = _remembered(memory, "model", table["model"], lambda: check_model(table["model"]))
    named = table.get("metrics", [])
    metrics = _remembered(memory, "metrics", named, lambda: _check_metrics(named))
    flows = check_table(table["flows"], "flows")
    if not flows:
        raise ConfigError(
            "[flows] is empty; name at least one flow, such as [flows.gradient_flow] with kind = 'gradient'."
        )
    integration = check_table(table.get("integration", {}), "integration")
    problem_seed = _check_problem_seed(table.get(PROBLEM_SEED))
    stop = None
    if "stop" in table:
        stop = _remembered(
            memory, "stop", table["stop"], lambda: check_stop(check_table(table["stop"], "stop"), "stop")
        )
    runs = []
    for name, flow in flows.items():
        path = f"flows.{check_name(name, 'flows')}"
        own = check_table(flow, path)
        checked, its_integration, its_stop = _remembered(
            memory, path, (own, integration), lambda own=own, path=path: _check_one_flow(own, integration, path)
        )
        runs += [
            RunSpec(
                variant=variant,
                flow_name=name,
                seed=seed,
                problem=problem,
                model=model,
                flow=checked,
                integration=its_integration,
                stop=stop if its_stop is None else its_stop,
                metrics=metrics,
                # A run whose seeds are equal is the run without this entry, with the same content.
                problem_seed=None if problem_seed == seed else problem_seed,
            )
            for seed in seeds
        ]
    return tuple(runs)


def require_sections(table: Mapping[str, Any]) -> None:
    """Check that all sections are known. **Raises:** `ConfigError`."""
    for key in table:
        if key not in _SECTIONS:
            known = (*_SECTIONS, "name", "seeds", "model_seeds", "variants", "axes", "sizes")
            raise ConfigError(f"unknown section {shown(key)}; {nearest_name(str(key)[:80], known)}")


def _remembered(memory: dict[tuple[str, str], Any], path: str, section: Any, check: Callable[[], Any]) -> Any:
    # The text distinguishes 1, 1.0 and true, which are equal as keys. A value that JSON does not know is left to the check.
    key = (path, json.dumps(section, default=repr))
    if key not in memory:
        memory[key] = check()
    return memory[key]


def _without_problem_seed(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != PROBLEM_SEED}


def _check_problem_seed(seed: Any) -> int | None:
    """The entry `problem_seed`; None if there is none. **Raises:** `ConfigError` unless it is an integer of at least 0."""
    if seed is not None and INTEGER.check(seed, PROBLEM_SEED) < 0:
        raise ConfigError(f"{PROBLEM_SEED} = {shown(seed)}; expected an integer of at least 0.")
    return seed


def _check_metrics(named: Any) -> tuple[Mapping[str, Any], ...]:
    metrics = tuple(_METRICS.check(named, "metrics"))
    kinds = [json.dumps(metric, sort_keys=True) for metric in metrics]
    for index, kind in enumerate(kinds):
        if kind in kinds[:index]:
            raise ConfigError(f"metrics[{index}] = {shown(metrics[index])} is named twice.")
    return metrics


def _check_one_flow(
    own: Mapping[str, Any], integration: Mapping[str, Any], path: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """The checked options, integration and own stop rules of a flow."""
    at_stop = f"{path}.stop"
    return (
        _check_flow(own, path),
        _check_integration(integration, own, path),
        check_stop(check_table(own["stop"], at_stop), at_stop) if "stop" in own else None,
    )


def check_name(name: str, path: str) -> str:
    """`name` if it can name a folder. **Raises:** `ConfigError` otherwise."""
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise ConfigError(
            f"{path}: {shown(name)} names a folder, and has {len(os.fsencode(name))} bytes; expected at most {_LONGEST_NAME}."
        )
    if not name or name.startswith(".") or any(not (char.isalnum() or char in _OF_NAMES) for char in name):
        raise ConfigError(
            f"{path}: {shown(name)} names a folder, so it may only hold letters, digits and . _ = + -, "
            "and not begin with a dot."
        )
    return name


def _check_flow(own: Mapping[str, Any], path: str) -> dict[str, Any]:
    options = {key: option for key, option in own.items() if key not in _OF_FLOW}
    checked = _FLOW.check(options, path)
    return checked | {key: form.check(own[key], f"{path}.{key}") for key, (form, _) in _AROUND.items() if key in own}


def _check_integration(common: Mapping[str, Any], own: Mapping[str, Any], path: str) -> dict[str, Any]:
    if "integration" not in own:
        return check_integration(common, "integration")
    path = f"{path}.integration"
    return check_integration(merge_integration(common, check_table(own["integration"], path)), path)


def check_table(value: Any, path: str) -> Mapping[str, Any]:
    """`value` if it is a table. **Raises:** `ConfigError` otherwise."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} = {shown(value)}; expected a table, [{path}].")
    return value
