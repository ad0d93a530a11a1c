"""A run as a folder: readable with any netCDF, npz and JSON reader, and no pickle."""

import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._core import (
    Result,
    ResultCode,
    RunFolderError,
    as_path,
    decode,
    encode,
    is_opaque,
    read_json,
    require_plain_netcdf,
)

if TYPE_CHECKING:
    import xarray

RUN_FILE = "run.json"
_DATA_FILE = "trajectory.nc"
_ARRAYS_FILE = "arrays.npz"
_FORMAT = 1
_OBJECTS = ("problem", "flow", "initial_model", "model")
_PACKAGES = (
    "gnflow",
    "jax",
    "jaxlib",
    "diffrax",
    "equinox",
    "lineax",
    "optimistix",
    "optax",
    "numpy",
    "scipy",
    "xarray",
)


def write_run(folder: str | os.PathLike[str], parts: dict[str, Any]) -> None:
    """Write the parts of a trajectory. The folder is made under another name and renamed when it is complete.

    **Raises:** `RunFolderError` if `folder` exists and is not empty, or cannot be written.
    """
    target = Path(folder)
    refuse_existing(target)
    arrays: dict[str, np.ndarray] = {}
    record = {
        "format": _FORMAT,
        "result": {"code": str(parts["result"].code), "message": parts["result"].message, "time": parts["result"].time},
        "stats": encode(parts["stats"], arrays, "stats"),
        "settings": encode(parts["settings"], arrays, "settings"),
        "objects": {name: encode(parts[name], arrays, name) for name in _OBJECTS},
        "versions": versions(),
    }
    for name in ("initial_model", "model"):
        if is_opaque(record["objects"][name]):
            # gnflow cannot rebuild this class; its arrays, in the order of the leaves, fill one that load(...) is given.
            leaves = [leaf for leaf in jax.tree.leaves(parts[name]) if eqx.is_array(leaf)]
            arrays.update({f"{name}_leaf.{index}": np.asarray(leaf) for index, leaf in enumerate(leaves)})
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
            draft = Path(scratch) / "run"
            draft.mkdir()
            (draft / RUN_FILE).write_text(json.dumps(record, indent=1) + "\n")
            np.savez(draft / _ARRAYS_FILE, allow_pickle=False, **arrays)
            parts["data"].to_netcdf(draft / _DATA_FILE, engine="h5netcdf")
            if target.exists():
                target.rmdir()  # empty: checked above
            shutil.move(draft, target)
    except OSError as error:
        raise RunFolderError(f"the run cannot be written to {target}: {error}.") from error


def refuse_existing(folder: Path) -> None:
    """**Raises:** `RunFolderError` if `folder` is a file, or a folder that holds something."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        held = "a run" if (folder / RUN_FILE).exists() else "other files"
        raise RunFolderError(
            f"{folder} already holds {held}, and nothing is overwritten; save to another folder or remove this one first."
        )


def read_run(folder: str | os.PathLike[str], given: dict[str, Any]) -> dict[str, Any]:
    """The parts of a saved trajectory.

    **Arguments:** `given`: objects by name ("problem", "model", "flow") for those that gnflow cannot rebuild; a model is any
    one of the same structure, its arrays are replaced by the saved ones.

    **Raises:** `RunFolderError` if the folder holds no run, a damaged one, or one that needs an object not given.
    """
    import xarray as xr

    source = Path(folder)
    if not (source / RUN_FILE).exists():
        raise RunFolderError(f"{source} holds no run: there is no {RUN_FILE} in it.")
    try:
        record = json.loads((source / RUN_FILE).read_text())
        if record["format"] != _FORMAT:
            raise RunFolderError(
                f"{source} is of run format {record['format']}, this gnflow reads {_FORMAT}; it was written with gnflow "
                f"{record['versions'].get('gnflow')}."
            )
        # Opened here: np.load leaves a file that is no archive open.
        with (source / _ARRAYS_FILE).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        with xr.open_dataset(source / _DATA_FILE, engine="h5netcdf") as file:
            data = file.load()
        result = record["result"]
        parts = {
            "data": data,
            "result": Result(ResultCode(result["code"]), result["message"], result["time"]),
            "stats": decode(record["stats"], arrays),
            "settings": decode(_legible(record["settings"]), arrays),
        }
        for name in _OBJECTS:
            template = given.get("model" if name == "initial_model" else name)
            if template is None or not is_opaque(record["objects"][name]):
                parts[name] = decode(record["objects"][name], arrays)
            elif name in ("problem", "flow"):
                parts[name] = template
            else:
                parts[name] = _filled(template, arrays, name, source)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"the run in {source} is damaged: {type(error).__name__}: {error}.") from error
    return parts


def versions() -> dict[str, str]:
    """Versions of everything a result depends on, and the machine's kind."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def _legible(encoded: Any) -> Any:
    """`encoded` with the notes of objects that gnflow cannot rebuild (a metric of the user's) replaced by their text."""
    if isinstance(encoded, list):
        return [_legible(item) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    if is_opaque(encoded) and not is_opaque(list(encoded.values())):
        return encoded["repr"]
    return {key: _legible(item) for key, item in encoded.items()}


def _filled(template: Any, arrays: dict[str, np.ndarray], name: str, source: Path) -> Any:
    dynamic, static = eqx.partition(template, eqx.is_array)
    leaves, tree = jax.tree.flatten(dynamic)
    saved = [arrays.get(f"{name}_leaf.{index}") for index in range(len(leaves))]
    shapes = [None if leaf is None else leaf.shape for leaf in saved]
    if shapes != [leaf.shape for leaf in leaves]:
        raise RunFolderError(
            f"the model given has arrays of shapes {[leaf.shape for leaf in leaves]}, the one saved in {source} {shapes}; "
            "pass a model of the same structure."
        )
    return eqx.combine(jax.tree.unflatten(tree, [jnp.asarray(leaf) for leaf in saved]), static)


class RunData(NamedTuple):
    """What a saved run measured and how it ended, without any of its objects.

    **Attributes:** `data`: the data set; `result`; `stats`, `settings`: those that are numbers, text or truth values.
    """

    data: "xarray.Dataset"
    result: Result
    stats: dict[str, Any]
    settings: dict[str, Any]


def read_data(folder: str | os.PathLike[str]) -> RunData:
    """What a saved run measured and how it ended; no class of a user's is needed for it.

    **Raises:** `RunFolderError` if the folder holds no run, or a damaged one.
    """
    import h5py
    import xarray as xr

    source = as_path(folder, "the folder", RunFolderError)
    if not (source / RUN_FILE).is_file():
        raise RunFolderError(f"{source} holds no run: there is no {RUN_FILE} in it.")
    try:
        record = read_json((source / RUN_FILE).read_bytes(), str(source / RUN_FILE))
        with h5py.File(source / _DATA_FILE) as file:
            require_plain_netcdf(file, (source / _DATA_FILE).stat().st_size)
        with xr.open_dataset(source / _DATA_FILE, engine="h5netcdf") as stored:
            data = stored.load()
        result = record["result"]
        return RunData(
            data,
            Result(ResultCode(result["code"]), str(result["message"]), float(result["time"])),
            _plain_entries(record["stats"]),
            _plain_entries(record["settings"]),
        )
    except RunFolderError:
        raise
    except Exception as error:  # anybody may have written it
        raise RunFolderError(f"the run in {source} is damaged: {type(error).__name__}: {error}.") from error


def _plain_entries(table: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in table.items() if value is None or isinstance(value, bool | int | float | str)
    }
