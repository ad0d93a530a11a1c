"""Runs that are kept as they come: two tables of results/, of all runs and of the curves of those that are reported."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import gnflow as gn

RESULTS = Path(__file__).parent / "results"


class Record:
    """The lines of the two tables; those that are stored already are taken from there.

    **Arguments:**

    - `name`: of the tables, results/NAME_runs.csv and results/NAME_curves.csv.
    - `run`: carries out one run, given its setting by name.
    - `in_curves`: the parts of a setting that a line of a curve has, and that decide it.
    - `unit`: what the saves of a curve are called.
    - `seconds`: the column of the time of a run, and that time.
    """

    def __init__(
        self,
        name: str,
        run: Callable[..., gn.Trajectory],
        in_curves: tuple[str, ...],
        unit: str,
        seconds: tuple[str, Callable[[gn.Trajectory], float]],
    ) -> None:
        self.name, self.run, self.in_curves, self.unit, self.seconds = name, run, in_curves, unit, seconds
        self.runs: list[dict[str, Any]] = []
        self.curves: list[dict[str, Any]] = []
        self._stored = _read(f"{name}_runs")
        self._stored_curves = _read(f"{name}_curves")

    def add(self, role: str, **setting: Any) -> float:
        """Carry out one run and keep it; its training loss at the end, inf if it failed."""
        known = {part: setting[part] for part in self.in_curves}
        line = {"role": role, **setting}
        stored = next((one for one in self._stored if _same(one, line)), None)
        if stored is not None:
            self.runs.append(stored)
            if role == "report":
                self.curves += [curve for curve in self._stored_curves if _same(curve, known)]
            return float(stored["train_loss"])
        found = self.run(**setting)
        data = found.data
        loss = np.inf if found.result.failed else float(data.train_loss[-1])
        column, seconds = self.seconds
        end = {"train_loss": loss, column: seconds(found), "result": found.result.code.value}
        self.runs.append({**line, **end})
        print(role, *setting.values(), f"{loss:.3e} {seconds(found):.2f} s", flush=True)
        if role == "report":
            for save in range(data.sizes["step"]):
                here = data.isel(step=save)
                numbers = {v: float(here[v]) for v in ("train_loss", "test_loss", "test_accuracy")}
                self.curves.append({**known, self.unit: save, **numbers})
        self._keep()
        return loss

    def store(self) -> None:
        """The two tables, with the lines that were asked for and no others."""
        for kind, lines in (("runs", self.runs), ("curves", self.curves)):
            _write(f"{self.name}_{kind}", lines)

    def _keep(self) -> None:
        """What is known so far, and the stored lines that were not asked for yet."""
        for kind, lines, stored in (
            ("runs", self.runs, self._stored),
            ("curves", self.curves, self._stored_curves),
        ):
            taken = {id(line) for line in lines}
            _write(f"{self.name}_{kind}", [*lines, *(line for line in stored if id(line) not in taken)])


def _write(stem: str, lines: list[dict[str, Any]]) -> None:
    if not lines:
        return
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{stem}.csv"
    beside = path.with_suffix(".part")
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        for line in lines:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()})
    beside.replace(path)


def _read(stem: str) -> list[dict[str, Any]]:
    path = RESULTS / f"{stem}.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _same(stored: dict[str, Any], known: dict[str, Any]) -> bool:
    """Whether a line has all that is known."""
    return all(
        stored[part] == value if isinstance(value, str) else f"{float(stored[part]):.6g}" == f"{value:.6g}"
        for part, value in known.items()
    )
