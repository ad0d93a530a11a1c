"""The figure and the table of the theorems' experiment: `python experiments/theorems/figures.py` draws them from results/."""

import csv
import sys
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import numpy as np
from matplotlib.figure import Figure
from pages import markdown_table

from gnflow.plots import save
from gnflow.plots._style import style_of, styled

RESULTS, DOCS = Path(__file__).parent / "results", Path(__file__).parents[2] / "docs"

# The two whose comparison is the point of [A].
DRAWN = {"gradient flow": "gradient flow", "Gauss-Newton, eps = sigma_min": "Gauss-Newton flow"}


@styled
def rates_figure(rates: list[dict]) -> Figure:
    """Instantaneous decay rates over their upper bound against 1/condition number of the NTK, with both bounds."""
    figure = Figure(figsize=(3.4, 2.9), layout="constrained")
    axis = figure.subplots()
    for index, (name, label) in enumerate(DRAWN.items()):
        rows = [r for r in rates if r["flow"] == name and r["smallest"] > r["eigenvalue_error"]]
        x = np.array([r["smallest"] / r["largest"] for r in rows])
        order = np.argsort(x)
        rate, low = (np.array([r[key] / r["high"] for r in rows])[order] for key in ("rate", "low"))
        style = style_of(index)
        axis.loglog(x[order], rate, linestyle="", markersize=2.5, alpha=0.6, label=label, **style._asdict())
        axis.loglog(x[order], low, linestyle="--", linewidth=1, color=style.color)
    axis.plot([], [], linestyle="--", linewidth=1, color="0.3", label="lower bound of each")
    axis.axhline(1.0, color="0.3", linewidth=1, label="upper bound")
    axis.set_xlabel(r"$\sigma_{\min}/\sigma_{\max}$ of the NTK")
    axis.set_ylabel("decay rate of the loss\nover its upper bound")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def write_table(rows: list[dict], path: Path) -> Path:
    """Verdicts of each theorem and flow, counted over tau0, N and activation."""
    theorems = list(dict.fromkeys(row["theorem"] for row in rows))
    flows = list(dict.fromkeys(row["flow"] for row in rows))
    lines = []
    for theorem in theorems:
        cells = []
        for flow in flows:
            counts = Counter(r["verdict"] for r in rows if r["theorem"] == theorem and r["flow"] == flow)
            cells.append(", ".join(f"{verdict} {count}" for verdict, count in counts.items()))
        lines.append((theorem, *cells))
    path.write_text("\n".join(markdown_table(("theorem", *flows), lines)), encoding="utf-8")
    return path


def main() -> None:
    """Both, from the stored rows of the size that the docs show."""
    rows, rates = (
        list(csv.DictReader((RESULTS / f"laptop{part}.csv").open(encoding="utf-8"))) for part in ("", "-rates")
    )
    texts = ("activation", "flow")
    rates = [{key: value if key in texts else float(value) for key, value in rate.items()} for rate in rates]
    print(save(rates_figure(rates), DOCS / "images" / "theorems_rates.png"))
    print(write_table(rows, RESULTS / "table.md"))


if __name__ == "__main__":
    main()
