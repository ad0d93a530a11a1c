"""Whole trajectories in a folder. Each finished run is in runs/VARIANT/FLOW/seed-K/, which appears whole."""

import contextlib
import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import xarray as xr

from .._core import ConfigError, GnflowError, RunFolderError, read_json
from ..config import RunSpec, Specification
from ..simulate import load, read_data
from ._cell import Kept, cell_of_run
from ._modules_file import MODULES_FILE, modules_text

_RUNS = "runs"
_UNFINISHED = "unfinished"
_INTERRUPTED = "interrupted"
_SPECIFICATION = "specification.json"
_DATA = "data.sha256"
_LARGEST_TEXT = 2**22  # bytes of a specification or a digest


class KeptRun(NamedTuple):
    """A finished run as the folder holds it.

    **Attributes:**

    - `place`: the folder of the run.
    - `spec`: its specification.
    - `data_digest`: a digest of the data files that it read; None if that was not recorded.
    """

    place: Path
    spec: RunSpec
    data_digest: str | None

    @property
    def content_hash(self) -> str:
        """The content hash of the run. Data files without a record count as unchanged."""
        return self.spec.content_hash(self.data_digest)

    def cell(self) -> xr.Dataset:
        """The data set that the cell's file would hold. **Raises:** `RunFolderError` for a damaged run."""
        run = read_data(self.place)
        try:
            problem = load(self.place).system.problem
            minimum = float(problem.loss.minimum(problem.y_train))
        except GnflowError:  # a class of the user, which is not rebuilt
            minimum = math.nan
        data_digest = self.spec.data_digest if self.data_digest is None else self.data_digest
        file = self.place / MODULES_FILE
        modules = _read_text(file) if file.is_file() else None
        try:
            return cell_of_run(self.spec, run, minimum, data_digest, modules=modules)
        except (LookupError, TypeError, ValueError) as error:  # stats that gnflow did not write
            raise RunFolderError(f"the run in {self.place} is damaged: {type(error).__name__}: {error}.") from error


class Trajectories:
    """The trajectories of a folder: finished and interrupted ones, and checkpoints of unfinished runs.

    **Arguments:**

    - `folder`: the folder, which need not exist.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._known: dict[Path, tuple[int, KeptRun]] = {}  # by specification file, with its time of change

    def finished(self) -> dict[str, KeptRun]:
        """The finished runs by content hash. Damaged ones are named on the standard error output.

        A run whose data files cannot be read now is also listed under its hash without these files.
        """
        found: dict[str, KeptRun] = {}
        for file in self._files():
            try:
                kept = self._read(file)
            except RunFolderError as error:
                print(f"gnflow: {self._label(file)} is left out: {error}", file=sys.stderr)
                continue
            if kept.spec.lacks_data:
                found.setdefault(kept.spec.content_hash(""), kept)
            found[kept.content_hash] = kept
        return found

    def require_all_in(self, spec: Specification) -> None:
        """Check that all runs belong to the specification. **Raises:** `RunFolderError` for other, changed or damaged runs."""
        hashes = {run.folder: spec.hashes[place] for run, place in zip(spec.runs, spec.grid.flat, strict=True)}
        for file in self._files():
            label = self._label(file)
            own = hashes.get(label)
            if own is None or self._read(file).content_hash != own:
                what = "which is not in" if own is None else "with other settings or data files than"
                raise RunFolderError(
                    f"{self._folder} holds the run {label}, {what} this configuration; choose another folder with --out, or "
                    f"run {self._folder / 'config.toml'} to go on with what is there."
                )

    def save(self, kept: Kept, is_interrupted: bool = False) -> Path:
        """Keep a run, and remove its checkpoint if it is finished. An interrupted run is kept apart from the finished ones.

        **Returns:** the folder of the run.

        **Raises:** `RunFolderError` if it cannot be kept here. The message names the other folder in which it is kept.
        """
        place = self._folder / (_INTERRUPTED if is_interrupted else _RUNS) / kept.spec.folder
        beside = {_SPECIFICATION: json.dumps(kept.spec.to_dict(), indent=1) + "\n"}
        beside |= {_DATA: kept.data_digest + "\n"} if kept.data_digest else {}
        beside |= {MODULES_FILE: modules_text(kept.spec.sources)} if kept.spec.sources else {}
        if is_interrupted:
            shutil.rmtree(place, ignore_errors=True)  # left by an earlier interrupt
            kept.trajectory.save(place, beside=beside)
            return place
        if not _is_there(place, kept):
            kept.trajectory.save(place, beside=beside)
        self.forget_checkpoint(kept.spec)
        return place

    def checkpoint(self, spec: RunSpec) -> Path:
        """The folder of a run's checkpoints until it is finished."""
        return self._folder / _UNFINISHED / spec.folder

    def forget_checkpoint(self, spec: RunSpec) -> None:
        """Remove the checkpoint of a run, and folders that become empty."""
        place, top = self.checkpoint(spec), self._folder / _UNFINISHED
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):  # in a read-only folder the empty folders stay, which does no harm
            while place != top and top.exists():
                place = place.parent
                if place.exists() and not any(place.iterdir()):
                    place.rmdir()

    def _read(self, file: Path) -> KeptRun:
        # A finished run never changes, and all of them are asked for before each new run.
        changed = file.stat().st_mtime_ns
        if self._known.get(file, (None,))[0] != changed:
            self._known[file] = changed, kept_run(file.parent)
        return self._known[file][1]

    def _files(self) -> Iterator[Path]:
        yield from sorted((self._folder / _RUNS).glob(f"*/*/*/{_SPECIFICATION}"))

    def _label(self, file: Path) -> str:
        return file.parent.relative_to(self._folder / _RUNS).as_posix()


def kept_run_in(place: Path) -> tuple[Path, KeptRun] | None:
    """The folder of the grid and the run, if `place` is the folder of a kept run in a grid; None for other folders.

    **Raises:** `RunFolderError` if its specification is damaged.
    """
    place = place.resolve()
    if not (place / _SPECIFICATION).is_file() or len(place.parents) < 4:
        return None
    kept, above = kept_run(place), place.parents[3]
    return (above, kept) if kept.place == above / _RUNS / kept.spec.folder else None


def kept_run(place: Path) -> KeptRun:
    """The run that a folder holds. **Raises:** `RunFolderError` if its specification is missing or damaged."""
    file = place / _SPECIFICATION
    try:
        spec = RunSpec.from_dict(read_json(_read_text(file), str(file)))
    except ConfigError as error:
        raise RunFolderError(f"{file} is damaged: {error}") from error
    data = file.with_name(_DATA)
    return KeptRun(place, spec, _read_text(data).strip() if data.is_file() else None)


def _is_there(place: Path, kept: Kept) -> bool:
    """Whether another process has finished this run meanwhile."""
    try:
        return kept_run(place).content_hash == kept.spec.content_hash(kept.data_digest)
    except RunFolderError:
        return False


def _read_text(file: Path) -> str:
    """The text of a file. **Raises:** `RunFolderError` if it is not text, or larger than any file that gnflow writes here."""
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST_TEXT + 1)
        if len(content) > _LARGEST_TEXT:
            raise RunFolderError(f"{file} is damaged: it is longer than what gnflow writes there.")
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RunFolderError(f"{file} is damaged: it is not UTF-8 text.") from error
    except OSError as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"{file} cannot be read: {error.strerror}.") from error
