"""What docs/truth.md shows of the table of truth: counts, the worst rows, and errors against their estimates."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from truth_run import PROMISE, SILENT, UNDECIDED, VERDICTS

from gnflow.plots import save
from gnflow.plots._style import style_of, styled

sys.path.append(str(Path(__file__).parents[1]))
import pages

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "truth.md"
IMAGE = DOCS / "images" / "truth.png"
_WORST = 12


def write_page(rows: Sequence[dict[str, Any]]) -> None:
    """The tables between the marks of the page, and the figure.

    **Arguments:** `rows`: as they are stored, None for a number that there is not.
    """
    pages.insert(PAGE, "counts", counts(rows))
    pages.insert(PAGE, "worst", worst(rows))
    save(figure(rows), IMAGE)


def counts(rows: Sequence[dict[str, Any]]) -> list[str]:
    """How many rows have each verdict: of all, and by loss, flow, activation, data and kind."""
    groups: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
        ("", lambda row: "all"),
        ("loss", lambda row: row["loss"]),
        ("flow", lambda row: row["flow"].replace("_", " ")),
        ("activation", lambda row: row["activation"]),
        ("data", lambda row: row["data"].replace("_", " ")),
        ("kind", kind),
    ]
    table = []
    for name, group in groups:
        for value in dict.fromkeys(map(group, rows)):
            own = [row for row in rows if group(row) == value]
            numbers = [sum(row["verdict"] == verdict for row in own) for verdict in VERDICTS]
            errors = [row["error"] for row in own if _is_judged(row) and not row["failed"]]
            steps = [row["steps"] for row in own]
            table.append(
                [
                    f"{name}: {value}" if name else value,
                    str(len(own)),
                    *map(str, numbers),
                    pages.over_seeds(errors, 2) if errors else "none",
                    f"{np.median(steps):.0f}",
                ]
            )
    return pages.markdown_table(["rows", "", *VERDICTS, "relative error of r", "steps"], table)


def kind(row: dict[str, Any]) -> str:
    """What sets a row apart, beside its parts."""
    if row["kinks"]:
        return "kinks"
    return "rank changes along the run" if row["rank_changes"] else "smooth, of one rank"


def worst(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Everything that is wrong in silence, refused or without a reference; then the largest errors of the others."""
    right = [row for row in rows if row["verdict"] == VERDICTS[0]]
    others = sorted(
        (row for row in rows if row["verdict"] != VERDICTS[0]), key=lambda row: VERDICTS.index(row["verdict"])
    )
    listed = [
        *(row for row in others if row["verdict"] == SILENT),
        *(row for row in others if row["verdict"] not in (SILENT, UNDECIDED)),
        *(row for row in others if row["verdict"] == UNDECIDED),
        *sorted(right, key=lambda row: -row.get("error", 0.0))[:_WORST],
    ]
    heads = [
        "row",
        "what",
        "columns; targets (powers of ten)",
        "verdict",
        "result",
        "error of r",
        "estimate",
        "of the test outputs",
        "steps",
    ]
    return pages.markdown_table(heads, [_line(row) for row in listed])


def _line(row: dict[str, Any]) -> list[str]:
    powers = ", ".join(f"{power:.1f}" for power in row["input_powers"]) + f"; {row['target_power']:.1f}"
    numbers = [row.get("error"), row.get("estimated_error"), row.get("test_output_error")]
    verdict = f"{row['verdict']} ({row['reference']})" if row["verdict"] == UNDECIDED else row["verdict"]
    return [
        str(row["index"]),
        f"{row['combination']}, {row['data'].replace('_', ' ')}",
        powers,
        verdict,
        row["result"].replace("_", " "),
        *("" if number is None else f"{number:.1e}" for number in numbers),
        str(row["steps"]),
    ]


@styled
def figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """The true error of r against what the run estimated, with the promise."""
    drawn = Figure(figsize=(4.6, 3.6), layout="constrained")
    axes = drawn.subplots()
    judged = [row for row in rows if _is_judged(row) and row["estimated_error"] is not None]
    for index, name in enumerate(("smooth, of one rank", "rank changes along the run", "kinks")):
        own = [row for row in judged if kind(row) == name]
        estimates, errors = [[row[value] for row in own] for value in ("estimated_error", "error")]
        axes.loglog(estimates, errors, label=name, linestyle="", **style_of(index)._asdict())
    ends = np.asarray([1e-8, 1e2])
    axes.loglog(ends, ends, color="0.4", linewidth=0.8)
    axes.axhline(PROMISE, color="black", linestyle="--", linewidth=0.8)
    axes.axvline(PROMISE, color="black", linestyle="--", linewidth=0.8)
    axes.set_xlabel("estimated error of the residual")
    axes.set_ylabel("true error of the residual")
    drawn.legend(loc="outside lower center", ncols=3)
    return drawn


def _is_judged(row: dict[str, Any]) -> bool:
    return row["reference"] == "confirmed" and row.get("error") is not None
