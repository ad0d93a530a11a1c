"""The stored numbers of the studies."""

import json
from pathlib import Path

import numpy as np
import pandas as pd


class Study:
    """The stored numbers of one study in steps.

    **Attributes:** `record`: its JSON; `curves`: a line for each flow, seed and saved step; `batches`: for each flow, seed and
    epoch, None for full batches.
    """

    def __init__(self, results: Path, name: str):
        self.record = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
        self.curves = pd.read_csv(results / f"{name}_curves.csv")
        path = results / f"{name}_batches.csv"
        self.batches = pd.read_csv(path) if path.is_file() else None

    @property
    def flows(self) -> list[str]:
        """In the order of the study."""
        return list(self.record["chosen"])

    @property
    def num_steps(self) -> int:
        """Of the runs that got to their end."""
        return int(self.curves["step"].to_numpy().max())

    def along(self, flow: str, name: str) -> pd.DataFrame:
        """`name` over steps (rows) and seeds (columns)."""
        own = self.curves[self.curves["flow"] == flow]
        return own.pivot(index="step", columns="seed", values=name)

    def at(self, flow: str, name: str, step: float | None = None) -> np.ndarray:
        """`name` of every seed at the last saved step that is not beyond `step`; at the end by default.

        A run that ended early has no number there: nan.
        """
        table = self.along(flow, name)
        known = [saved for saved in table.index if step is None or saved <= step]
        return table.loc[known[-1]].to_numpy()

    def of_batches(self, flow: str, name: str) -> pd.DataFrame:
        """`name`, a mean over the batches of an epoch, over epochs (rows) and seeds (columns)."""
        assert self.batches is not None
        own = self.batches[self.batches["flow"] == flow]
        return own.pivot(index="epoch", columns="seed", values=name)
