"""What run.py has computed so far, as CSV and as the tables of docs/paper_size.md.

    python experiments/arbel/report.py RUN_DIR

A part, a scale or a seed that is missing is marked as not run.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)
sys.path.append(str(Path(__file__).parents[1]))

import numpy as np  # noqa: E402 (after the setting)
import pages  # noqa: E402
import pandas as pd  # noqa: E402
import xarray as xr  # noqa: E402
from intervals import ratio  # noqa: E402

import gnflow as gn  # noqa: E402
from gnflow.simulate import versions  # noqa: E402

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "paper_size.md"
SCALES = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 100.0)
BUDGET_STEPS, STEP_SIZE, WIDTH = 2_000_000, 10.0, 5000
BUDGET = BUDGET_STEPS * STEP_SIZE / WIDTH  # of the released gradient descent, in units of particle time
NOT_RUN = "not run"
_SWEEPS = ("protocol", "gauss_newton_steps", "gradient_steps", "pretrained")
_ROWS = ("random_features", "random_features_laptop", "pretrained_start")
_KEPT = (
    "train_loss",
    "test_loss",
    "refit_test_loss",
    "kernel_distance",
    "direction_distance_to_initial",
    "direction_distance_to_teacher",
    "subspace_distance_to_teacher",
    "particle_spread",
    "flow_time",
    "num_steps",
    "wall_seconds",
    "result",
)


def write(folder: Path, results: Path = HERE / "results", page: Path = PAGE) -> None:
    """CSV of every part, a record of the versions, and the tables."""
    results.mkdir(exist_ok=True)
    for name in _ROWS:
        path = folder / f"{name}.jsonl"
        if path.is_file():
            rows = pd.DataFrame(map(json.loads, path.read_text(encoding="utf-8").splitlines()))
            rows.sort_values(["tau0", "seed"]).to_csv(results / f"{name}.csv", index=False, float_format="%.6g")
    for name in _SWEEPS:
        if (folder / name).is_dir():
            ends_of(folder / name).to_csv(results / f"{name}.csv", index=False, float_format="%.6g")
    record = {"command": "python experiments/arbel/run.py", "versions": versions()}
    (results / "arbel.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, lines in tables(results).items():
        pages.insert(page, name, lines)


def ends_of(folder: Path) -> pd.DataFrame:
    """A row for each finished run: what it ended with, and the losses at the released budget if it went so far."""
    data = gn.load(folder)
    assert isinstance(data, xr.Dataset)
    kept = data[[name for name in _KEPT if name in data]]
    table = kept.to_dataframe().reset_index()
    table = table[np.isfinite(table["train_loss"])]
    curves = gn.sweeps.load_curves(folder, ["train_loss", "test_loss"])
    first = curves["train_loss"].isel(save=0)
    at = curves["flow_time"] == BUDGET
    columns = {
        "relative_loss": curves["train_loss"].ffill("save").isel(save=-1) / first,
        "budget_relative_loss": (curves["train_loss"] / first).where(at).max("save"),
        "budget_test_loss": curves["test_loss"].where(at).max("save"),
    }
    more = xr.Dataset(columns).to_dataframe().reset_index()
    return table.merge(more, on=[str(dim) for dim in data["train_loss"].dims])


class Stored:
    """The CSV of results/ that there are."""

    def __init__(self, results: Path):
        self._results = results

    def table(self, name: str) -> pd.DataFrame:
        """A table, without rows if it is not there."""
        path = self._results / f"{name}.csv"
        return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["tau0", "flow", "seed", "test_loss"])

    def of(self, name: str, tau0: float, flow: str | None = None) -> pd.DataFrame:
        """The rows of one scale (and flow) by seed."""
        table = self.table(name)
        chosen = table["tau0"] == tau0
        return table[chosen if flow is None else chosen & (table["flow"] == flow)].set_index("seed").sort_index()


METHODS = {
    "gradient flow": ("protocol", "gradient_flow", "test_loss"),
    "gradient descent, steps of 10": ("gradient_steps", "gradient_steps", "test_loss"),
    "Gauss-Newton flow": ("protocol", "gauss_newton_flow", "test_loss"),
    "Gauss-Newton, steps of 10": ("gauss_newton_steps", "gauss_newton_steps", "test_loss"),
    "random features, exact": ("random_features", None, "exact_test_loss"),
    "random features, released": ("random_features", None, "released_test_loss"),
    "random features, damped flow": ("random_features", None, "damped_test_loss"),
}


def test_losses(stored: Stored, method: str, tau0: float) -> pd.Series:
    """The final test losses of a method at a scale, by seed."""
    name, flow, column = METHODS[method]
    return stored.of(name, tau0, flow)[column] if column in stored.table(name) else pd.Series(dtype=float)


def tables(results: Path) -> dict[str, list[str]]:
    """Lines of Markdown by the name of the table."""
    stored = Stored(results)
    return {
        "protocol": [*_losses(stored), *_ratios(stored)],
        "budget": _budget(stored),
        "random features": _random_features(stored),
        "pretrained theorem": _theorem(stored),
        "pretrained runs": _pretrained(stored),
    }


def _over(values: pd.Series) -> str:
    seeds = f", {len(values)} seed{'s' if len(values) > 1 else ''}"
    return f"{pages.over_seeds(values, range_digits=2)}{seeds}" if len(values) else NOT_RUN


def _losses(stored: Stored) -> list[str]:
    rows = [[f"{tau0:g}", *(_over(test_losses(stored, method, tau0)) for method in METHODS)] for tau0 in SCALES]
    return pages.markdown_table(["tau0", *METHODS], rows, "Test loss at a relative training loss of 1e-8")


_PAIRS = (
    ("Gauss-Newton flow", "gradient flow"),
    ("Gauss-Newton, steps of 10", "Gauss-Newton flow"),
    ("random features, released", "gradient flow"),
    ("random features, released", "Gauss-Newton flow"),
)


def paired(above: pd.Series, below: pd.Series) -> Any:
    """The geometric mean of the ratio over the seeds that both have; None without any."""
    seeds = above.index.intersection(below.index)
    return ratio(above[seeds], below[seeds]) if len(seeds) else None


def _ratios(stored: Stored) -> list[str]:
    rows = []
    for tau0 in SCALES:
        found = [paired(*(test_losses(stored, name, tau0) for name in pair)) for pair in _PAIRS]
        rows.append([f"{tau0:g}", *(NOT_RUN if value is None else str(value) for value in found)])
    heads = ["tau0", *(f"{above} / {below}" for above, below in _PAIRS)]
    return pages.markdown_table(heads, rows, "Ratios of test losses, geometric mean over seeds with its 95% interval")


def _budget(stored: Stored) -> list[str]:
    rows = []
    for tau0 in SCALES:
        own = stored.of("protocol", tau0, "gradient_flow")
        if not len(own):
            rows.append([f"{tau0:g}", *[NOT_RUN] * 5])
            continue
        times, inside = own["flow_time"], own["budget_relative_loss"].isna()
        late = own[~inside]
        rows.append(
            [
                f"{tau0:g}",
                _over(times),
                f"{np.median(times) * WIDTH / STEP_SIZE:.2g}",
                f"{int(inside.sum())} of {len(own)}",
                pages.over_seeds(late["budget_relative_loss"], range_digits=2) if len(late) else "ended before",
                str(ratio(late["budget_test_loss"], late["test_loss"])) if len(late) else "1",
            ]
        )
    heads = [
        "tau0",
        "particle time to 1e-8",
        "steps of 10",
        f"seeds within {BUDGET_STEPS:.0e} steps ({BUDGET:g} units)",
        "relative training loss at the budget",
        "test loss there / at the end",
    ]
    return pages.markdown_table(heads, rows, "Gradient flow against the budget of the released gradient descent")


def _random_features(stored: Stored) -> list[str]:
    lines = []
    for name, words in (("random_features", "N = 500, M = 5000"), ("random_features_laptop", "N = 200, M = 1000")):
        rows = []
        for tau0 in SCALES:
            own = stored.of(name, tau0)
            if not len(own):
                continue
            ways = [_over(own[f"{way}_test_loss"]) for way in ("exact", "released", "damped")]
            over = ratio(own["damped_test_loss"], own["released_test_loss"])
            left, kept = own["released_train_loss"], own["kept_modes"]
            rows.append(
                [
                    f"{tau0:g}",
                    *ways,
                    str(over),
                    pages.over_seeds(left, range_digits=2),
                    f"{kept.min():g} to {kept.max():g}",
                ]
            )
        heads = [
            "tau0",
            "exact",
            "released",
            "damped flow",
            "damped / released",
            "relative training loss of the released",
            "modes above its cut-off",
        ]
        lines += pages.markdown_table(heads, rows, f"Random features three ways, test loss, {words}")
    return lines


def _theorem(stored: Stored) -> list[str]:
    rows = []
    for tau0 in SCALES:
        own = stored.of("pretrained_start", tau0)
        if not len(own):
            continue
        share = own["fitted_train_loss"] / own["zero_train_loss"]
        path = [
            pages.over_seeds(own[f"{start}_{flow}_path_over_radius"], range_digits=2)
            for flow in ("gauss_newton", "gradient_flow")
            for start in ("zero", "fitted")
        ]
        sigma = pages.over_seeds(own["fitted_gauss_newton_sigma_0"], range_digits=2)
        rows.append([f"{tau0:g}", pages.over_seeds(share, range_digits=2), sigma, *path])
    heads = [
        "tau0",
        "loss of the fitted start / that of v = 0",
        "sigma_0, fitted",
        "l/R, Gauss-Newton, v = 0",
        "fitted",
        "l/R, gradient flow, v = 0",
        "fitted",
    ]
    return pages.markdown_table(heads, rows, "The condition of the a priori theorem, l below R, N = 200, M = 1000")


def _pretrained(stored: Stored) -> list[str]:
    path = HERE.parent / "phase_diagrams" / "results" / "scales.csv"
    usual = pd.read_csv(path)
    rows = []
    for (tau0, flow), own in stored.table("pretrained").groupby(["tau0", "flow"]):
        own = own.set_index("seed")
        before = usual[(usual["tau0"] == tau0) & (usual["flow"] == flow)].set_index("seed")["test_loss"]
        over = paired(own["test_loss"], before)
        rows.append(
            [
                f"{tau0:g}",
                str(flow).replace("_", " "),
                _over(own["test_loss"]),
                pages.over_seeds(own["kernel_distance"], range_digits=2),
                NOT_RUN if over is None else str(over),
            ]
        )
    heads = ["tau0", "flow", "test loss at the end", "kernel distance to the fitted start", "test loss / from v = 0"]
    return pages.markdown_table(heads, rows, "Runs from a fitted output layer, N = 200, M = 1000")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python experiments/arbel/report.py RUN_DIR")
    write(Path(sys.argv[1]))
