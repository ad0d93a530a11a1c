"""A specification: the TOML file that states a set of runs."""

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .._core import ConfigError, as_path
from ._forms import INTEGER, TEXT, ListForm
from ._overrides import Override, apply_overrides, flatten_overrides
from ._plain import MOST_RUNS, require_plain, shown
from ._run import RunSpec, check_name, check_runs
from ._toml import read_toml

_SEEDS = ListForm(INTEGER, tuple)
_ONLY_VARIANT = "base"


@dataclasses.dataclass(frozen=True)
class Specification:
    """A set of runs: variants times flows times seeds, stated once.

    Made by `Specification.from_dict` or `read_specification`, which check every name and type.

    **Attributes:** `name`; `table`: the whole specification as TOML holds it; `runs`: every run, in order; `variants`:
    by name, what each variant changes, as dotted paths and values ("model.init_scale": 0.1). A specification without
    variants has the one called "base", which changes nothing.
    """

    name: str
    table: Mapping[str, Any]
    runs: tuple[RunSpec, ...]
    variants: Mapping[str, Mapping[str, Any]]

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], name: str = "run") -> "Specification":
        """The specification that a TOML table states.

        **Arguments:** `table`: `problem`, `model` and `flows`, and optionally `name`, `integration`, `stop`, `metrics`,
        `seeds` (default [0]) and `variants`; `name`: used where the table has none.

        **Raises:** `ConfigError` that names the entry, its value and what was expected, for the first thing that is
        wrong.
        """
        require_plain(table)
        common = {key: value for key, value in table.items() if key not in ("name", "seeds", "variants")}
        seeds = check_seeds(table.get("seeds", [0]))
        name = check_name(TEXT.check(table.get("name", name), "name"), "name")
        variants = _check_variants(table.get("variants", {}))
        flows = table.get("flows", {})
        num_flows = len(flows) if isinstance(flows, Mapping) else 1
        require_few_runs(("variants", len(variants)), ("flows", num_flows), ("seeds", len(seeds)))
        runs: list[RunSpec] = []
        for variant, overrides in variants.items():
            try:
                runs += check_runs(apply_overrides(common, overrides), variant, seeds)
            except ConfigError as error:
                raise error if variant == _ONLY_VARIANT else ConfigError(f"in variant {variant!r}: {error}") from error
        changes = {
            variant: {".".join(path): value for path, value in overrides} for variant, overrides in variants.items()
        }
        return cls(name, {**table, "name": name}, tuple(runs), changes)

    def to_dict(self) -> dict[str, Any]:
        """The table to write to TOML; `from_dict` makes an equal specification of it."""
        return dict(self.table)

    def check(self) -> None:
        """Make the objects of every run of the first seed, and throw them away, so that no run starts if one cannot.

        **Raises:** `ConfigError` for the first that cannot be made.
        """
        first = self.runs[0].seed
        for run in self.runs:
            if run.seed == first:
                try:
                    run.prepare()
                except ConfigError as error:
                    raise (
                        error if run.variant == _ONLY_VARIANT else ConfigError(f"in variant {run.variant!r}: {error}")
                    ) from error


def read_specification(path: str | os.PathLike[str], overrides: Iterable[Override] = ()) -> Specification:
    """The specification in a TOML file, with `overrides` applied to it.

    Paths of data files in the file are relative to its folder, those in overrides to the working directory; the
    specification keeps them absolute.

    **Raises:** `ConfigError`, naming the file, for a file that cannot be read or whatever is wrong in it.
    """
    path = as_path(path, "the configuration", ConfigError)
    table = read_toml(path)
    try:
        table = absolute_paths(table, path.parent)
        overrides = list(overrides)
        table = absolute_paths(apply_overrides(table, overrides), Path())
        specification = Specification.from_dict(table, name=path.stem)
        _require_effect(overrides, specification)
        return specification
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _require_effect(overrides: Iterable[Override], specification: Specification) -> None:
    """**Raises:** `ConfigError` if every variant sets an entry that was overridden, which would do nothing."""
    for path, _ in overrides:
        dotted = ".".join(path)
        if all(dotted in changes for changes in specification.variants.values()):
            name = next(iter(specification.variants))
            raise ConfigError(
                f"setting {dotted} has no effect, because every variant sets it; set variants.{name}.{dotted}, or "
                "variants={} to do without variants."
            )


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """The entry `seeds`. **Raises:** `ConfigError` unless it holds integers of at least 0, each once, at least one."""
    if isinstance(seeds, list | tuple):
        require_few_runs(("seeds", len(seeds)))
    checked = tuple(_SEEDS.check(seeds, "seeds"))
    if not checked or len(set(checked)) < len(checked) or min(checked) < 0:
        raise ConfigError(f"seeds = {shown(seeds)}; expected at least one integer of at least 0, each once.")
    return checked


def require_few_runs(*counts: tuple[str, int]) -> None:
    """Check how many runs there would be before they are made.

    **Arguments:** `counts`: what is multiplied, each with its name.

    **Raises:** `ConfigError` that states their number.
    """
    number = math.prod(count for _, count in counts)
    if number > MOST_RUNS:
        factors = (
            " x ".join(f"{count} {name}" for name, count in counts)
            if len(counts) > 1
            else "".join(name for name, _ in counts)
        )
        raise ConfigError(f"{factors} = {number} runs; expected at most {MOST_RUNS}. Take fewer values.")


def _check_variants(variants: Any) -> dict[str, list[Override]]:
    if not isinstance(variants, Mapping) or not all(isinstance(changes, Mapping) for changes in variants.values()):
        raise ConfigError(f"variants = {shown(variants)}; expected a table for each: [variants.NAME].")
    if not variants:
        return {_ONLY_VARIANT: []}
    flat = {check_name(name, "variants"): flatten_overrides(changes) for name, changes in variants.items()}
    for name, overrides in flat.items():
        for path, _ in overrides:
            if path[0] in ("name", "seeds", "variants"):
                raise ConfigError(f"variants.{name} sets {'.'.join(path)!r}, which is common to all variants.")
    return flat


def absolute_paths(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`table` with the path of `problem` (a data file or their folder), in itself and in its variants, absolute.

    **Raises:** `ConfigError` for what is no path.
    """
    changed = dict(table)
    variants = table.get("variants")
    if isinstance(variants, dict):
        changed["variants"] = {
            name: absolute_paths(changes, folder) if isinstance(changes, dict) else changes
            for name, changes in variants.items()
        }
    if isinstance(table.get("problem.path"), str):
        changed["problem.path"] = absolute_path(table["problem.path"], folder, "problem.path")
    problem = table.get("problem")
    if isinstance(problem, dict) and isinstance(problem.get("path"), str):
        changed["problem"] = {**problem, "path": absolute_path(problem["path"], folder, "problem.path")}
    return changed


def absolute_path(text: str, folder: Path, what: str) -> str:
    """A path in a configuration that lies in `folder`, absolute; ~ is the home folder. **Raises:** `ConfigError`."""
    try:
        return str((folder / as_path(text, what, ConfigError)).resolve())
    except (OSError, RuntimeError) as error:  # links that lead in a circle
        raise ConfigError(f"{what} = {text!r} leads nowhere: {error}.") from error
