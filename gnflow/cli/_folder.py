"""The folder of a set of runs: config.toml, runs/VARIANT/FLOW/seed-K/, figures/, summary.csv."""

import contextlib
import csv
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from .._core import ConfigError, GnflowError, RunFolderError, cannot_write, draft_of, read_json, write_whole
from ..config import RunSpec, Specification, read_sweep, read_toml, to_toml
from ..simulate import RunData, Trajectory, load, read_data
from ._table import Row

_Run = TypeVar("_Run")

_CONFIG = "config.toml"
_SPECIFICATION = "specification.json"
_DATA = "data.sha256"
_UNFINISHED = "unfinished"
_MARK = "# Written by gnflow run: the configuration as it was run, overrides included.\n"
_OF_RUNS = ("runs", "summary.csv", _UNFINISHED, "interrupted")
_PROBE_BYTES = 65536
_LARGEST_TEXT = 2**22  # bytes of a specification or a digest


class RunFolder:
    """Where the runs of a specification are kept. A finished run is a folder that appears whole; none is overwritten.

    **Arguments:** `path`: need not exist yet.
    """

    def __init__(self, path: Path):
        self.path = path
        self.figures = path / "figures"

    def require_fit(self, specification: Specification, resume: bool) -> None:
        """Check that the specification may be run here, before anything is.

        **Raises:** `RunFolderError` if the folder holds something and `resume` is False, or holds runs that are not
        the specification's, or a configuration that gnflow did not write and that would be replaced.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"{self.path} is a file; choose a folder with --out.")
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        if not (self.path / _CONFIG).is_file():
            raise RunFolderError(f"{self.path} holds other files and no {_CONFIG}; choose another folder with --out.")
        if not resume:
            held = "a run" if self._wrote_configuration() else f"a {_CONFIG} that gnflow run did not write"
            raise RunFolderError(
                f"{self.path} already holds {held}, and nothing is overwritten; give --resume to keep what is finished "
                "and compute what is missing, choose another folder with --out, or remove this one."
            )
        if not self._holds_configuration(specification) and not self._wrote_configuration():
            raise RunFolderError(
                f"{self.path / _CONFIG} states another configuration than is to be run, and gnflow run has not written it as "
                "it stands, so it is not overwritten; choose another folder with --out, or move that file."
            )
        runs = {run.label: run for run in specification.runs}
        for file in sorted((self.path / "runs").glob(f"*/*/*/{_SPECIFICATION}")):
            label = file.parent.relative_to(self.path / "runs").as_posix()
            if label not in runs or not self._is_result_of(runs[label], file):
                what = "with other settings or data files than" if label in runs else "which is not in"
                raise RunFolderError(
                    f"{self.path} holds the run {label}, {what} this configuration; choose another folder with --out, "
                    f"or run {self.path / _CONFIG} to go on with what is there."
                )

    def begin(self, specification: Specification) -> None:
        """Make the folder, write the configuration and try whether there is room for runs, before anything is computed.

        A configuration that says the same already is left as it is, with whatever a person has noted in it.

        **Raises:** `RunFolderError` if the folder cannot be written (full disk, read-only folder).
        """
        make_writable(self.path)
        try:
            if not self._holds_configuration(specification):
                write_whole(self.path / _CONFIG, (_MARK + to_toml(specification.to_dict())).encode())
        except OSError as error:
            raise error if isinstance(error, RunFolderError) else cannot_write(self.path, error) from error

    def _holds_configuration(self, specification: Specification) -> bool:
        """Whether the configuration here says what `specification` does."""
        try:
            there = self.read_specification()
        except (ConfigError, RunFolderError):
            return False
        return to_toml(there.to_dict()) == to_toml(specification.to_dict())

    def _wrote_configuration(self) -> bool:
        """Whether the configuration here is as gnflow wrote it, so that nothing is lost with it.

        Version 0.1.0 did not mark it: there the runs beside it tell.
        """
        file = self.path / _CONFIG
        try:
            text = file.read_text(encoding="utf-8")
            is_as_written = text.removeprefix(_MARK) == to_toml(read_toml(file))
        except (OSError, ValueError):
            return False
        return is_as_written and (text.startswith(_MARK) or any((self.path / name).exists() for name in _OF_RUNS))

    def read_specification(self) -> Specification:
        """The configuration of the runs here. **Raises:** `RunFolderError` if there is none."""
        if not (self.path / _CONFIG).is_file():
            raise RunFolderError(f"{self.path} holds no runs: there is no {_CONFIG} in it.")
        return read_sweep(self.path / _CONFIG)

    def holds(self, spec: RunSpec) -> bool:
        """Whether this run is finished."""
        return (self._place(spec) / _SPECIFICATION).is_file()

    def save_run(self, spec: RunSpec, trajectory: Trajectory, data_digest: str) -> None:
        """Keep a run. Its folder is made under another name and renamed when it is complete.

        **Arguments:** `data_digest`: of the data files that the run read; empty for none.

        **Raises:** `RunFolderError` if it cannot be kept here; the message says in which other folder it is kept, and how to
        bring it back.
        """
        place = self._place(spec)
        try:
            _write_run(place, spec, trajectory, data_digest)
        except OSError as error:  # a full disk, or somebody removed the folder or took away the right to write
            self._keep_elsewhere(place, error, lambda other: _write_run(other, spec, trajectory, data_digest))

    def keep_interrupted(self, spec: RunSpec, trajectory: Trajectory) -> Path:
        """Keep what a run came to that was interrupted, beside the finished ones; the folder of it.

        **Raises:** `RunFolderError` as `save_run`.
        """
        place = self.path / "interrupted" / spec.label
        try:
            shutil.rmtree(place, ignore_errors=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            trajectory.save(place, keep_elsewhere=False)
        except OSError as error:
            self._keep_elsewhere(place, error, trajectory.save)
        return place

    def _keep_elsewhere(self, place: Path, error: OSError, write: Callable[[Path], None]) -> NoReturn:
        """Have a run written to a new folder for temporary files. **Raises:** `RunFolderError` that says where it is."""
        reason = error.strerror or str(error)
        try:
            other = Path(tempfile.mkdtemp(prefix="gnflow-run-")) / place.name
            write(other)
        except OSError as second:
            raise RunFolderError(
                f"the run cannot be kept in {place} ({reason}), nor in a folder for temporary files ({second}); it is lost."
            ) from error
        raise RunFolderError(
            f"the run cannot be kept in {place} ({reason}); it is kept in {other}: make room, and move that folder to {place}."
        ) from error

    def unfinished(self, spec: RunSpec) -> Path:
        """The folder in which a run keeps where it stands until it is finished."""
        return self.path / _UNFINISHED / spec.label

    def forget_unfinished(self, spec: RunSpec) -> None:
        """Remove it, and what it leaves empty."""
        place, top = self.unfinished(spec), self.path / _UNFINISHED
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):  # a read-only folder: it does no harm
            while place != top and top.exists():
                place = place.parent
                if place.exists() and not any(place.iterdir()):
                    place.rmdir()

    def load_run(self, spec: RunSpec) -> Trajectory:
        """A finished run."""
        return load(self._place(spec))

    def load(self, specification: Specification) -> list[tuple[RunSpec, Trajectory]]:
        """The finished runs of the specification, in its order; damaged ones are named on the standard error output."""
        return self._read_each(specification, self.load_run)

    def load_for_figures(self, specification: Specification) -> list[tuple[RunSpec, Trajectory | RunData]]:
        """The finished runs as far as they can be read, in the specification's order; damaged ones are named on the standard
        error output."""
        return self._read_each(specification, lambda spec: read_for_figures(self._place(spec), spec.label))

    def _read_each(self, specification: Specification, read: Callable[[RunSpec], _Run]) -> list[tuple[RunSpec, _Run]]:
        found = []
        for spec in specification.runs:
            if self.holds(spec):
                try:
                    found.append((spec, read(spec)))
                except GnflowError as error:
                    print(f"gnflow: {spec.label} is left out: {error}", file=sys.stderr)
        return found

    def write_summary(self, rows: Sequence[Row]) -> None:
        """summary.csv: one line for each run so far. **Raises:** `RunFolderError` if it cannot be written."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=Row.columns())
        writer.writeheader()
        writer.writerows(row.values() for row in rows)
        try:
            write_whole(self.path / "summary.csv", text.getvalue().encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise cannot_write(self.path / "summary.csv", error) from error

    def _place(self, spec: RunSpec) -> Path:
        return self.path / "runs" / spec.label

    def _is_result_of(self, spec: RunSpec, file: Path) -> bool:
        """Whether a finished run is what `spec` would give, with its data files as they are now."""
        data = file.with_name(_DATA)
        # Without a record of the files they count as unchanged.
        digest = _read_text(data).strip() if data.is_file() else None
        return self._read(file).content_hash(digest) == spec.content_hash()

    def _read(self, file: Path) -> RunSpec:
        try:
            return RunSpec.from_dict(read_json(_read_text(file), str(file)))
        except ConfigError as error:
            raise RunFolderError(f"{file} is damaged: {error}") from error


def make_writable(folder: Path) -> None:
    """Make a folder, and try whether it can be written, before anything is computed for it.

    **Raises:** `RunFolderError` if not (full disk, read-only folder).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft_of(folder / "try", bytes(_PROBE_BYTES)).unlink()
    except OSError as error:
        raise cannot_write(folder, error) from error


def read_for_figures(folder: Path, label: str) -> Trajectory | RunData:
    """A saved run, or without its model where that cannot be rebuilt, which the standard error output says.

    **Raises:** `RunFolderError` if there is no run, or a damaged one.
    """
    try:
        return load(folder)
    except GnflowError as error:
        data = read_data(folder)
        print(f"gnflow: {label} is drawn without what needs its model: {error}", file=sys.stderr)
        return data


def _write_run(place: Path, spec: RunSpec, trajectory: Trajectory, data_digest: str) -> None:
    """**Raises:** `OSError`."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as scratch:
        draft = Path(scratch) / place.name
        trajectory.save(draft, keep_elsewhere=False)
        (draft / _SPECIFICATION).write_text(json.dumps(spec.to_dict(), indent=1) + "\n", encoding="utf-8")
        if data_digest:
            (draft / _DATA).write_text(data_digest + "\n", encoding="utf-8")
        draft.rename(place)


def _read_text(file: Path) -> str:
    """**Raises:** `RunFolderError` for a file that is no text, or larger than any that gnflow writes here."""
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
