"""Save a run as a folder that any reader of netCDF, npz and JSON can read. Nothing is pickled."""

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._core import (
    GnflowError,
    Result,
    ResultCode,
    RunFolderError,
    as_path,
    decode,
    encode,
    first_difference,
    is_opaque,
    known_classes,
    legible,
    opaque_classes,
    opaque_names,
    read_arrays,
    read_json,
    require_float64,
    require_plain_netcdf,
)
from ..flows import AbstractFlow
from ..problems import AbstractProblem
from ._attributes import restored, storable
from ._kept_weights import kept_arrays, kept_from_arrays
from ._template import describe_leaves, filled

if TYPE_CHECKING:
    import xarray

RUN_FILE = "run.json"
DATA_FILE = "trajectory.nc"
ARRAYS_FILE = "arrays.npz"
_FORMAT = 1
_OBJECTS = ("problem", "flow", "initial_model", "model")
_MODELS = ("initial_model", "model")
_LEAVES = "leaves"  # for models of the user's own classes; folders of versions up to 0.1.0 do not have it
_KEPT = "keeps_weights"  # only in folders of runs that kept weights along their way
_KEYS = {"format", "result", "stats", "settings", "objects", "versions", _LEAVES, _KEPT}
_LOSS_TOLERANCE = 1e-6  # relative, between the recorded loss and that of a model read back, perhaps on another machine
# The errors that reading a damaged folder may raise.
_OF_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
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


class RunData(NamedTuple):
    """What a saved run measured and how it ended, without problem, model and flow.

    **Attributes:**

    - `data`: the data set.
    - `result`: how the run ended.
    - `stats`: the stats of the run, as in `Trajectory`.
    - `settings`: the arguments of the run, with text for objects that cannot be rebuilt.
    - `versions`: the versions of gnflow and its dependencies when the run was saved.
    """

    data: "xarray.Dataset"
    result: Result
    stats: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str]


def write_run(folder: str | os.PathLike[str], parts: dict[str, Any], beside: Mapping[str, str]) -> None:
    """Write the parts of a trajectory. The folder is made under another name and renamed when it is complete.

    **Arguments:**

    - `folder`: the folder of the run.
    - `parts`: the fields of the trajectory, by name.
    - `beside`: further files in the folder, text by name.

    **Raises:** `RunFolderError` if `folder` exists and is not empty, or if it cannot be written. In the second case the run is
    kept in another folder, which the message names.
    """
    target = as_path(folder, "folder", RunFolderError)
    refuse_existing(target)
    target = target.resolve() if target.is_symlink() else target  # a link to an empty folder is as good as the folder
    try:
        _write(target, parts, beside)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        kept = f" {_rescue(parts, beside)}"
        if not isinstance(error, OSError) or isinstance(error, RunFolderError):
            kept = " A file cannot hold a part of it: take that out of trajectory.data."
        raise RunFolderError(f"the run cannot be written to {target}: {reason}.{kept}") from error


def _rescue(parts: dict[str, Any], beside: Mapping[str, str]) -> str:
    """Save a run that cannot be written where it should be to another place. Returns a sentence that names the place."""
    for place in (Path(), Path(tempfile.gettempdir()), Path.home()):
        try:
            rescued = Path(tempfile.mkdtemp(prefix="gnflow-rescued-", dir=place.absolute())) / "run"
        except (OSError, RuntimeError):
            continue
        try:
            _write(rescued, parts, beside)
        except Exception:
            shutil.rmtree(rescued.parent, ignore_errors=True)
            continue
        return f"It is kept in {rescued}; move it where it belongs."
    return "It could be kept nowhere else: save it again in this session, to another disk."


def _write(target: Path, parts: dict[str, Any], beside: Mapping[str, str]) -> None:
    arrays: dict[str, np.ndarray] = {}
    record: dict[str, Any] = {
        "format": _FORMAT,
        "result": {"code": str(parts["result"].code), "message": parts["result"].message, "time": parts["result"].time},
        "stats": encode(parts["stats"], arrays, "stats"),
        "settings": encode(parts["settings"], arrays, "settings"),
        "objects": {name: encode(parts[name], arrays, name, name not in _MODELS) for name in _OBJECTS},
        "versions": versions(),
    }
    leaves = {
        name: describe_leaves(parts[name], arrays, name) for name in _MODELS if is_opaque(record["objects"][name])
    }
    if leaves:
        record[_LEAVES] = leaves
    if kept_arrays(parts["kept_weights"], arrays):
        record[_KEPT] = True
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name[:60]}-") as scratch:
        draft = Path(scratch) / "run"
        draft.mkdir()
        for name, text in {RUN_FILE: json.dumps(record, indent=1) + "\n", **beside}.items():
            (draft / name).write_text(text, encoding="utf-8")
        np.savez(draft / ARRAYS_FILE, allow_pickle=False, **arrays)
        storable(parts["data"]).to_netcdf(draft / DATA_FILE, engine="h5netcdf")
        # Some things can be written but not read, such as a variable of complex numbers. The user should learn that now.
        _read_dataset(draft / DATA_FILE)
        read_arrays(draft / ARRAYS_FILE)
        if target.exists():
            target.rmdir()  # it is empty: `refuse_existing` has checked that
        # The folder appears by a rename, so it is never seen half written.
        shutil.move(draft, target)


def refuse_existing(folder: Path) -> None:
    """Check that nothing would be overwritten. **Raises:** `RunFolderError` if `folder` is a file or a folder with content."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        held = "a run" if (folder / RUN_FILE).exists() else "other files"
        raise RunFolderError(
            f"{folder} already holds {held}, and nothing is overwritten; save to another folder or remove this one first."
        )


def read_run(folder: str | os.PathLike[str], given: dict[str, Any]) -> dict[str, Any]:
    """The parts of a saved trajectory.

    **Arguments:**

    - `folder`: the folder of the run.
    - `given`: by name ("problem", "model", "flow") the objects that gnflow cannot rebuild. The model may be any one of the same
      structure: its arrays are replaced by the saved ones. An object that is given although gnflow rebuilds it must fit the
      saved one in the same way.

    **Raises:** `RunFolderError` if the folder holds no run or a damaged one, or if an object is needed that is not given or
    that differs from the one given; `PrecisionError` unless JAX runs in float64.
    """
    source, record = read_record(folder)
    require_float64((), "gnflow.load")
    with telling_where(source):
        arrays = read_arrays(source / ARRAYS_FILE)
        parts = _measured(source, record, arrays)
        classes, written_with = known_classes(eqx.Module), _written_with(record)
        _require_given(record["objects"], given)
        for name in _OBJECTS:
            stored = record["objects"][name]
            template = given.get(_argument(name))
            if template is None or not is_opaque(stored):
                parts[name] = decode(stored, arrays, classes, written_with)
                _require_like(name, template, parts[name], stored, arrays)
            elif name in _MODELS:
                described = record.get(_LEAVES, {}).get(name)
                parts[name] = filled(template, described, opaque_classes(stored)[0], arrays, name)
            else:
                _require_same(name, template, stored, arrays)
                parts[name] = template
        needed = _needed(record["objects"])
        _require_fit(parts, is_own=any(_argument(name) in needed for name in ("problem", *_MODELS)))
        if record.get(_KEPT):
            system = parts["flow"].system(parts["problem"], parts["initial_model"])
            parts["kept_weights"] = kept_from_arrays(arrays, system.weights(parts["initial_model"]))
    return parts


def parts_to_pass(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """The arguments that `read_run` needs for a run, because parts of it are of classes that gnflow does not rebuild.

    **Raises:** `RunFolderError` if the folder holds no run or a damaged one.
    """
    source, record = read_record(folder)
    with telling_where(source):
        return tuple(_needed(record["objects"]))


def read_data(folder: str | os.PathLike[str]) -> RunData:
    """What a saved run measured and how it ended. Classes of the user are not needed for it.

    **Raises:** `RunFolderError` if the folder holds no run or a damaged one.
    """
    source, record = read_record(folder)
    with telling_where(source):
        parts = _measured(source, record, read_arrays(source / ARRAYS_FILE))
    return RunData(**parts, versions={str(name): str(version) for name, version in record["versions"].items()})


def versions() -> dict[str, str]:
    """The versions of everything that a result depends on, and the kind of machine."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def read_record(folder: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """The folder and the content of its run.json. **Raises:** `RunFolderError` unless it is a run of this format."""
    source = as_path(folder, "folder", RunFolderError)
    file = source / RUN_FILE
    if not file.is_file():
        raise RunFolderError(f"{source} holds no run: there is no {RUN_FILE} in it.")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunFolderError(f"{file} cannot be read: {error.strerror}.") from error
    record = read_json(content, str(file))
    parts = {"result": dict, "stats": dict, "settings": dict, "objects": dict, "versions": dict}
    if not isinstance(record, dict) or "format" not in record or not isinstance(record.get("versions"), dict):
        raise RunFolderError(f"{file} is damaged: it is no record of a run.")
    if record["format"] != _FORMAT or record.keys() - _KEYS:
        unknown = f", with {sorted(record.keys() - _KEYS)[0]!r}" if record.keys() - _KEYS else ""
        raise RunFolderError(
            f"{source} is of run format {record['format']!r}{unknown}, which this gnflow does not read (it reads {_FORMAT}); "
            f"it was written with gnflow {_written_with(record)}."
        )
    for name, kind in parts.items():
        if not isinstance(record.get(name), kind):
            raise RunFolderError(f"{file} is damaged: {name!r} is {record.get(name)!r:.60}; expected a table.")
    return source, record


@contextlib.contextmanager
def telling_where(source: Path) -> Iterator[None]:
    """Turn errors while reading the parts of a run into a `RunFolderError` that names the folder."""
    try:
        yield
    except RunFolderError as error:
        raise RunFolderError(_in_a_line(f"{source}: {error}")) from error
    except _OF_DAMAGE as error:
        raise RunFolderError(_in_a_line(f"the run in {source} is damaged: {type(error).__name__}: {error}.")) from error


def _in_a_line(text: str) -> str:
    """`text` in one line. A message may quote what a damaged file holds, with line breaks in it."""
    return " ".join(text.split())


def _written_with(record: dict[str, Any]) -> str:
    return str(record["versions"].get("gnflow"))[:40]


def _measured(source: Path, record: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Data, result, stats and settings of a saved run."""
    result, classes = record["result"], known_classes(eqx.Module)
    message, time = result["message"], result["time"]
    if not isinstance(message, str) or not isinstance(time, int | float):
        raise RunFolderError(
            f"{RUN_FILE} is damaged: the result has the message {message!r:.60} at the time {time!r:.60}."
        )
    stats = decode(record["stats"], arrays, {}, _written_with(record))
    settings = decode(legible(record["settings"], classes), arrays, classes, _written_with(record))
    if not isinstance(stats, dict) or not isinstance(settings, dict):
        raise RunFolderError(f"{RUN_FILE} is damaged: stats and settings are no tables.")
    return {
        "data": _read_dataset(source / DATA_FILE),
        "result": Result(ResultCode(result["code"]), message, time),
        "stats": stats,
        "settings": settings,
    }


def _read_dataset(file: Path) -> "xarray.Dataset":
    """The data set of a run. **Raises:** `RunFolderError` for a file that does not hold one."""
    import h5py
    import xarray as xr

    try:
        with h5py.File(file, "r") as content:
            require_plain_netcdf(content, file.stat().st_size)
        with xr.open_dataset(file, engine="h5netcdf") as opened:
            data = opened.load()
        data = restored(data)
    except RunFolderError as error:
        raise RunFolderError(f"{file.name}: {error}") from error
    except Exception as error:  # HDF5 and xarray raise many kinds of errors for bytes that are not a data set
        raise RunFolderError(f"{file.name} is damaged: {type(error).__name__}: {error}.") from error
    losses = data.get("train_loss")
    if losses is None or losses.ndim != 1 or losses.dims[0] not in ("time", "step") or losses.dtype.kind != "f":
        raise RunFolderError(f"{file.name} is damaged: it has no train_loss over time or step.")
    if losses.size == 0 or losses.dims[0] not in data.coords:
        raise RunFolderError(f"{file.name} is damaged: its train_loss has no values or no times.")
    times = data[losses.dims[0]].to_numpy()
    if times.dtype.kind not in "if" or not np.all(np.isfinite(times)) or np.any(np.diff(times) <= 0):
        raise RunFolderError(f"{file.name} is damaged: its times do not ascend.")
    return data


def _argument(name: str) -> str:
    """The argument of `gnflow.load` that one of the objects is given by."""
    return "model" if name in _MODELS else name


def _needed(objects: Mapping[str, Any]) -> dict[str, str]:
    """The arguments for the objects that gnflow cannot rebuild, each with the classes or functions of the user's in it."""
    needed: dict[str, str] = {}
    for name in _OBJECTS:
        if is_opaque(objects[name]):
            needed.setdefault(_argument(name), ", ".join(dict.fromkeys(opaque_names(objects[name]))))
    return needed


def _require_given(objects: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Check that everything is given that gnflow cannot rebuild. **Raises:** `RunFolderError` that names the arguments."""
    missing = {name: of for name, of in _needed(objects).items() if given.get(name) is None}
    if missing:
        used = " and ".join(
            f"a {name} with {of}" if name == "problem" else f"a {name} of {of}" for name, of in missing.items()
        )
        arguments = ", ".join(f"{name}={name}" for name in missing)
        raise RunFolderError(
            f"the run used {used}, which gnflow cannot rebuild from a file; pass it: gnflow.load(folder, {arguments})."
        )


def _require_like(name: str, template: Any, made: Any, stored: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Check an object that was given although gnflow rebuilds it: a problem or flow must be the saved one, a model like it.

    **Raises:** `RunFolderError`.
    """
    if template is None:
        return
    if type(template) is not type(made):
        raise RunFolderError(
            f"the {name.replace('_', ' ')} of the run is a {type(made).__name__} of gnflow's own, and the one given is a "
            f"{type(template).__name__}; leave it out: gnflow rebuilds its own classes."
        )
    if name not in _MODELS:
        _require_same(name, template, stored, arrays)
    elif _structure(template) != _structure(made):
        raise RunFolderError(
            f"the {name.replace('_', ' ')} given has other sizes or settings than the one saved; leave it out: gnflow rebuilds "
            "its own classes."
        )


def _structure(model: Any) -> Any:
    """Everything of a model but the numbers in its arrays."""
    leaves, structure = jax.tree.flatten(model)
    return structure, [(leaf.shape, str(leaf.dtype)) if eqx.is_array(leaf) else leaf for leaf in leaves]


def _require_same(name: str, template: Any, stored: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Check that a problem or flow that was given agrees with what was saved of it. **Raises:** `RunFolderError`."""
    kind = AbstractProblem if name == "problem" else AbstractFlow
    if not isinstance(template, kind):
        raise RunFolderError(f"{name} = {template!r:.60}; expected a {kind.__name__}, the one that the run had.")
    own: dict[str, np.ndarray] = {}
    place = first_difference(stored, encode(template, own, name, True), arrays, own, name)
    if place is not None:
        raise RunFolderError(f"the {name} given is not the one saved: they differ in {place}; pass the same one.")


def _require_fit(parts: dict[str, Any], is_own: bool) -> None:
    """Check that the parts belong to one run.

    Models, problem and flow must fit together, and if the model or the problem was given (`is_own`), the models must have the
    losses that the run recorded.

    **Raises:** `RunFolderError`.
    """
    problem, flow, losses = parts["problem"], parts["flow"], parts["data"]["train_loss"].to_numpy()
    if not isinstance(problem, AbstractProblem) or not isinstance(flow, AbstractFlow):
        raise RunFolderError("the run file holds no problem or no flow; it is damaged.")
    if not all(
        bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(eqx.filter(problem, eqx.is_inexact_array))
    ):
        raise RunFolderError("the problem holds numbers that are not finite; it is damaged.")
    for name, recorded in (("initial_model", losses[0]), ("model", losses[-1])):
        model = parts[name]
        try:
            system = flow.system(problem, model)
        except GnflowError as error:
            raise RunFolderError(f"the run is damaged, or its model is another one: {error}") from error
        if not is_own or (name == "model" and parts["result"].failed):
            continue  # the last state of a failed run may be later than the last one that was measured
        loss = float(system.train_loss(system.weights(model)))
        if not jnp.isclose(loss, recorded, rtol=_LOSS_TOLERANCE, atol=_LOSS_TOLERANCE * abs(losses[0])):
            raise RunFolderError(
                f"with what is given the {name.replace('_', ' ')} has the training loss {loss:.6g} with the saved arrays, and "
                f"the run recorded {recorded:.6g}: the code of the model or of the loss, or a number in it that is no array, "
                "is not what it was. Pass it as it was."
            )
