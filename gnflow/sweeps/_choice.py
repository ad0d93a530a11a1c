"""Make an engine from its name."""

import inspect
from typing import Any

from .._core import ConfigError, shown
from ._dask import DaskEngine
from ._engine import AbstractEngine, require_engine_options
from ._local import LocalEngine
from ._serial import SerialEngine

_NAMES = ("local", "serial", "dask", "slurm")


def make_engine(engine: str | AbstractEngine, **options: Any) -> AbstractEngine:
    """The engine with a name.

    **Arguments:**

    - `engine`: "local" (`LocalEngine`), "serial" (`SerialEngine`), "dask" (`DaskEngine` on this machine), "slurm"
      (`DaskEngine` with Slurm jobs), the address of a Dask scheduler, or an engine.
    - `options`: arguments of its constructor. None means that an option is not given.

    **Raises:** `ConfigError` for anything else, and for options that the engine does not have.
    """
    given = {name: option for name, option in options.items() if option is not None}
    require_engine_options(
        given.get("workers"),
        given.get("memory_gib"),
        given.get("retries", 0),
        given.get("compilation_cache", True),
        threads=given.get("threads"),
    )
    if isinstance(engine, AbstractEngine):
        if given:
            raise ConfigError(f"{next(iter(given))} is given beside an engine; state it when the engine is made.")
        return engine
    if engine in ("local", "serial"):
        known = inspect.signature(LocalEngine).parameters if engine == "local" else {}
        for name in given:
            if name not in known:
                raise ConfigError(f"the {engine} engine has no option {name!r}; it has {', '.join(known) or 'none'}.")
        return LocalEngine(**given) if engine == "local" else SerialEngine()
    if "cluster" in given:
        raise ConfigError(
            f"cluster = {given['cluster']!r} is given beside engine = {engine!r}, which says it; leave it out."
        )
    if engine in _NAMES:
        return DaskEngine("slurm" if engine == "slurm" else "local", **given)
    if isinstance(engine, str) and "://" in engine:
        return DaskEngine(engine, **given)
    raise ConfigError(
        f"engine = {shown(engine)}; expected one of {', '.join(_NAMES)}, the address of a Dask scheduler (tcp://host:port), or "
        "an engine such as gnflow.sweeps.LocalEngine()."
    )
