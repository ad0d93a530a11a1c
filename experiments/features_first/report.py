"""Tables and the figure of docs/features_first.md from the stored results.

    python experiments/features_first/report.py [--size laptop]

Writes docs/images/features_first.png, and the tables into the page. What has not been run is said to be so.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import scipy.stats

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parent))

from cells import SIZES
from methods import TIERS
from pages import insert, markdown_table
from run import OF_ALL, read

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REFERENCE = "gradient flow"
UNDER_TEST = "hold-out"
EARLY = "early-stopped gradient flow"
FEWEST = 3  # seeds for an interval
NOT_MEASURED = "not measured"
COMPILED = 1.0  # seconds: a run that compiles for longer says nothing of costs
# Okabe and Ito's colours, which the colour-blind can tell apart, with marks of their own.
STYLES = {
    "hold-out": ("#0072B2", "o"),
    "relative loss 0.9": ("#56B4E9", "s"),
    "early-stopped gradient flow": ("#E69F00", "^"),
    "Gauss-Newton": ("#D55E00", "D"),
    "spectral 1/2": ("#009E73", "v"),
    "Adam": ("#CC79A7", "P"),
}

Records = Mapping[tuple[str, int, str], Any]


def ratios(records: Records, cell: str, seeds: Sequence[int], method: str) -> np.ndarray:
    """Test losses over gradient flow's, of the seeds that have both."""
    pairs = [(records.get((cell, seed, method)), records.get((cell, seed, REFERENCE))) for seed in seeds]
    return np.asarray([one["test_loss"] / other["test_loss"] for one, other in pairs if one and other])


def mean_and_interval(values: np.ndarray) -> tuple[float, float, float]:
    """The geometric mean, and its 95% interval by Student's t on logarithms."""
    logs = np.log(values)
    half = (
        scipy.stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    )
    return tuple(float(np.exp(end)) for end in (logs.mean(), logs.mean() - half, logs.mean() + half))


def described(values: np.ndarray, planned: int) -> str:
    """A cell of the table: mean (interval), wins."""
    if not len(values):
        return "not run"
    mean, low, high = mean_and_interval(values)
    interval = f" ({low:.2g} to {high:.2g})" if len(values) >= FEWEST else ""
    verdict = ", **better**" if high < 1 else ", **worse**" if low > 1 else ""
    verdict = verdict if len(values) == planned else ""
    return f"{mean:.2g}{interval}, {np.sum(values < 1)} of {len(values)}{verdict}"


def table(records: Records, size: str, methods: Sequence[str], title: str) -> list[str]:
    cells, seeds = SIZES[size]
    rows = []
    for cell in cells:
        found = [ratios(records, cell.name, seeds, method) for method in methods]
        if any(map(len, found)):
            rows.append([cell.name, *(described(values, len(seeds)) for values in found)])
    return markdown_table(["cell", *methods], rows, title) if rows else []


def losses(records: Records, size: str) -> list[str]:
    """What the ratios are ratios of."""
    cells, seeds = SIZES[size]
    rows = []
    for cell in cells:
        kept = [records[cell.name, seed, REFERENCE] for seed in seeds if (cell.name, seed, REFERENCE) in records]
        if kept:
            tests = [record["test_loss"] for record in kept]
            unfinished = sum(record["relative_loss"] > 1.01e-6 for record in kept)
            rows.append(
                [
                    cell.name,
                    f"{np.median(tests):.2g} ({min(tests):.2g} to {max(tests):.2g})",
                    f"{np.median([record['flow_time'] for record in kept]):.2g}",
                    str(len(kept)),
                    f"{unfinished}",
                ]
            )
    heads = ["cell", "test loss, median (range)", "flow time, median", "seeds", "of them not converged"]
    return markdown_table(heads, rows, "Gradient flow, to which all else is compared")


def chosen(records: Records, size: str) -> list[str]:
    """When the method under test stopped."""
    cells, seeds = SIZES[size]
    rows = []
    for cell in cells:
        kept = [records[cell.name, seed, UNDER_TEST] for seed in seeds if (cell.name, seed, UNDER_TEST) in records]
        kept = [record for record in kept if "feature_relative_loss" in record]
        if kept:
            shares = [record["feature_relative_loss"] for record in kept]
            cutoffs = [record["readout_cutoff"] for record in kept]
            counted = ", ".join(f"{value:g} ({cutoffs.count(value)})" for value in sorted(set(cutoffs)))
            ranks = [record["readout_rank"] for record in kept]
            rows.append(
                [
                    cell.name,
                    f"{np.median(shares):.3g} ({min(shares):.3g} to {max(shares):.3g})",
                    counted,
                    f"{np.median(ranks):.0f} ({min(ranks)} to {max(ranks)})",
                ]
            )
    heads = ["cell", "share of the first loss, median (range)", "cut-off (seeds)", "rank, median (range)"]
    return markdown_table(heads, rows, "What the hold-out chose")


def warm_cost(records: Records, cell: str, seeds: Sequence[int], method: str) -> float:
    """The median CPU time in units of one gradient's, of the runs whose programs were compiled before; nan without any."""
    pairs = [(records.get((cell, seed, method)), records.get((cell, seed, OF_ALL))) for seed in seeds]
    warm = [(one, unit) for one, unit in pairs if one and unit and one.get("compile_seconds", 0.0) < COMPILED]
    return float(np.median([one["cpu_seconds"] / unit["cpu_seconds"] for one, unit in warm])) if warm else math.nan


def costs(records: Records, size: str, methods: Sequence[str]) -> list[str]:
    """What each method took."""
    cells, seeds = SIZES[size]
    rows = []
    for cell in cells:
        spent = {method: warm_cost(records, cell.name, seeds, method) for method in methods}
        spent[EARLY] += spent[REFERENCE]  # its second run is that of gradient flow
        if not all(map(math.isnan, spent.values())):
            numbers = [NOT_MEASURED if math.isnan(value) else f"{value:.2g}" for value in spent.values()]
            rows.append([cell.name, *numbers])
    measured = [place for place in range(len(methods)) if any(row[place + 1] != NOT_MEASURED for row in rows)]
    rows = [[row[0], *(row[place + 1] for place in measured)] for row in rows]
    heads = ["cell", *(methods[place] for place in measured)]
    return markdown_table(heads, rows, "Cost in gradients, median over seeds")


def trials() -> list[str]:
    """What the trials found, for the rules that compete."""
    rows = []
    for line in (HERE / "results" / "trials.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        whole, part, unit = record["whole"], record["part"], record["gradient_flow"]
        tests, held = np.asarray(whole["test"]), np.asarray(part["held_out"])
        place, cutoff = np.unravel_index(held.argmin(), held.shape)

        def at(share: float, cutoff: int, whole: Any = whole, tests: np.ndarray = tests) -> float:
            return float(np.exp(np.interp(-np.log(share), -np.log(whole["share"]), np.log(tests[:, cutoff]))))

        found = (tests.min(), at(part["share"][place], int(cutoff)), at(0.9, -1), whole["end"])
        setting = f"{record['tau0']:g}" + (f", noise {record['noise']:g}" if record["noise"] else "")
        compared = [f"{value / unit:.2g}" for value in found]
        rows.append([setting, str(record["seed"]), f"{unit:.2g}", *compared, f"{part['share'][place]:.3g}"])
    heads = [
        "tau0",
        "seed",
        "gradient flow",
        "best along the run",
        "hold-out",
        "relative loss 0.9",
        "Gauss-Newton",
        "share",
    ]
    title = "Trials: test loss of gradient flow, and ratios to it; the share of the first loss that the hold-out chose"
    return markdown_table(heads, rows, title)


def not_run(records: Records, size: str) -> list[str]:
    """The cells of the protocol that have no results or not all of their seeds."""
    cells, seeds = SIZES[size]
    counts = {cell.name: len(ratios(records, cell.name, seeds, UNDER_TEST)) for cell in cells}
    missing = [
        f"{name} ({count} of {len(seeds)} seeds)" if count else name
        for name, count in counts.items()
        if count < len(seeds)
    ]
    return [f"*Not run, or not with all seeds:* {'; '.join(missing)}.", ""] if missing else []


def draw(records: Records, size: str) -> None:
    """Ratios of all seeds, with their means and intervals, cell by cell."""
    cells, seeds = SIZES[size]
    names = [cell.name for cell in cells if len(ratios(records, cell.name, seeds, UNDER_TEST))]
    figure, axis = plt.subplots(figsize=(7.2, 0.9 + 0.75 * len(names)), layout="constrained")
    apart = 0.8 / len(STYLES)
    for row, name in enumerate(names):
        for place, (method, (colour, mark)) in enumerate(STYLES.items()):
            values = ratios(records, name, seeds, method)
            if not len(values):
                continue
            height = row - 0.4 + apart * (place + 0.5)
            axis.plot(values, np.full(len(values), height), ".", color=colour, ms=3, alpha=0.5)
            mean, low, high = mean_and_interval(values)
            label = method if not axis.get_legend_handles_labels()[1].count(method) else None
            axis.plot(mean, height, mark, color=colour, ms=5, label=label)
            if len(values) >= FEWEST:
                axis.plot([low, high], [height, height], color=colour, lw=1.5)
        if row:
            axis.axhline(row - 0.5, color="0.85", lw=0.8)
    axis.axvline(1.0, color="0.3", lw=1)
    axis.set_xscale("log")
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel("test loss over that of gradient flow at convergence")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(ROOT / "docs" / "images" / "features_first.png", dpi=150)
    plt.close(figure)


def main(size: str) -> None:
    records = read(HERE / "results" / f"{size}.jsonl")
    first, second, third = ([name for name in tier if name != REFERENCE] for tier in TIERS)
    title = "Test loss over gradient flow's: mean (95% interval), seeds below 1"
    lines = [
        *table(records, size, first, title),
        *table(records, size, second, f"{title}; other flows, and other rules"),
        *table(records, size, third, f"{title}; variants"),
        *losses(records, size),
        *chosen(records, size),
        *costs(records, size, [REFERENCE, *first, *[name for name in second if not name.startswith("hold-out")]]),
        *not_run(records, size),
    ]
    page = ROOT / "docs" / "features_first.md"
    insert(page, "features_first", lines)
    insert(page, "trials", trials())
    draw(records, size)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="laptop")
    main(parser.parse_args().size)
