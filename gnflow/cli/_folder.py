"""The folder of a set of runs: config.toml, runs/VARIANT/FLOW/seed-K/, figures/, summary.csv."""

import csv
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .._core import ConfigError, RunFolderError
from ..config import RunSpec, Specification, read_specification, to_toml
from ..simulate import Trajectory, load
from ._table import Row

_CONFIG = "config.toml"
_SPECIFICATION = "specification.json"
_DATA = "data.sha256"
_UNFINISHED = "unfinished"


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
        the specification's.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"{self.path} is a file; choose a folder with --out.")
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        if not (self.path / _CONFIG).is_file():
            raise RunFolderError(f"{self.path} holds other files and no {_CONFIG}; choose another folder with --out.")
        if not resume:
            raise RunFolderError(
                f"{self.path} already holds a run, and nothing is overwritten; give --resume to keep what is finished "
                "and compute what is missing, choose another folder with --out, or remove this one."
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
        """Make the folder and write the configuration."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / _CONFIG).write_text(to_toml(specification.to_dict()), encoding="utf-8")
        except OSError as error:
            raise RunFolderError(f"cannot write to {self.path}: {error.strerror}.") from error

    def read_specification(self) -> Specification:
        """The configuration of the runs here. **Raises:** `RunFolderError` if there is none."""
        if not (self.path / _CONFIG).is_file():
            raise RunFolderError(f"{self.path} holds no runs: there is no {_CONFIG} in it.")
        return read_specification(self.path / _CONFIG)

    def holds(self, spec: RunSpec) -> bool:
        """Whether this run is finished."""
        return (self._place(spec) / _SPECIFICATION).is_file()

    def save_run(self, spec: RunSpec, trajectory: Trajectory, data_digest: str) -> None:
        """Keep a run. Its folder is made under another name and renamed when it is complete.

        **Arguments:** `data_digest`: of the data files that the run read; empty for none.
        """
        place = self._place(spec)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as scratch:
            draft = Path(scratch) / place.name
            trajectory.save(draft)
            (draft / _SPECIFICATION).write_text(json.dumps(spec.to_dict(), indent=1) + "\n", encoding="utf-8")
            if data_digest:
                (draft / _DATA).write_text(data_digest + "\n", encoding="utf-8")
            draft.rename(place)

    def keep_interrupted(self, spec: RunSpec, trajectory: Trajectory) -> Path:
        """Keep what a run came to that was interrupted, beside the finished ones; the folder of it."""
        place = self.path / "interrupted" / spec.label
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        trajectory.save(place)
        return place

    def unfinished(self, spec: RunSpec) -> Path:
        """The folder in which a run keeps where it stands until it is finished."""
        return self.path / _UNFINISHED / spec.label

    def forget_unfinished(self, spec: RunSpec) -> None:
        """Remove it, and what it leaves empty."""
        place, top = self.unfinished(spec), self.path / _UNFINISHED
        shutil.rmtree(place, ignore_errors=True)
        while place != top and top.exists():
            place = place.parent
            if place.exists() and not any(place.iterdir()):
                place.rmdir()

    def load_run(self, spec: RunSpec) -> Trajectory:
        """A finished run."""
        return load(self._place(spec))

    def load(self, specification: Specification) -> list[tuple[RunSpec, Trajectory]]:
        """The finished runs of the specification, in its order."""
        return [(spec, self.load_run(spec)) for spec in specification.runs if self.holds(spec)]

    def write_summary(self, rows: Sequence[Row]) -> None:
        """summary.csv: one line for each run so far."""
        with (self.path / "summary.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=Row.columns())
            writer.writeheader()
            writer.writerows(row.values() for row in rows)

    def _place(self, spec: RunSpec) -> Path:
        return self.path / "runs" / spec.label

    def _is_result_of(self, spec: RunSpec, file: Path) -> bool:
        """Whether a finished run is what `spec` would give, with its data files as they are now."""
        data = file.with_name(_DATA)
        # Without a record of the files they count as unchanged.
        digest = data.read_text(encoding="utf-8").strip() if data.is_file() else None
        return self._read(file).content_hash(digest) == spec.content_hash()

    def _read(self, file: Path) -> RunSpec:
        try:
            return RunSpec.from_dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, ConfigError) as error:
            raise RunFolderError(f"{file} is damaged: {error}.") from error
