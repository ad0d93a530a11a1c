"""The numbers of `variants.toml` and of its rates: results/variants*.csv, a figure and tables of docs/reversible_study.md.

    gnflow sweep experiments/reversible/variants_rates.toml --engine serial --out runs/reversible_variants_rates
    gnflow run experiments/reversible/variants.toml --out runs/reversible_variants
    python experiments/reversible/variants.py runs/reversible_variants runs/reversible_variants_rates

Without folders figure and tables are made again from the stored numbers.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import gnflow as gn
from gnflow.plots import save
from gnflow.plots._style import legend_on_top, new_figure, style_of, styled

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import pages  # noqa: E402 (beside this file's folder)
from intervals import Interval, interval, number, ratio, verdict  # noqa: E402

_RESULTS = HERE / "results"
_PAGE = HERE.parents[1] / "docs" / "reversible_study.md"
_NAMES = {
    "block_exact": "blocks, exact (rtol 0)",
    "block_truncated": "blocks, truncated (rtol 1e-2)",
    "block_damped": "blocks, damped (share 0.9)",
    "minimum_norm": "minimum norm, CG",
    "adam": "Adam, 1e-3",
    "adam_higher": "Adam, 3.16e-3",
}
_EPOCHS_OF_A_SAVE = 2  # 20 steps, 10 of them in an epoch
_ALONG = ("train_loss", "test_loss", "test_accuracy")
_BATCHES = ("batch_loss", "batch_loss_after", "next_batch_loss", "next_batch_loss_after")
_SOLVES = ("batch_rank", "batch_relative_residual", "batch_iterations")


def main() -> None:
    parser = argparse.ArgumentParser(description="The numbers of variants.toml.")
    parser.add_argument("runs", type=Path, nargs="?", help="what gnflow run has written")
    parser.add_argument("rates", type=Path, nargs="?", help="what gnflow sweep has written")
    arguments = parser.parse_args()
    if arguments.rates is not None:
        rates_of(arguments.rates).to_csv(_RESULTS / "variants_rates.csv", index=False, float_format="%.7g")
    if arguments.runs is not None:
        along, batches = curves_of(arguments.runs)
        along.to_csv(_RESULTS / "variants.csv", index=False, float_format="%.7g")
        batches.to_csv(_RESULTS / "variants_batches.csv", index=False, float_format="%.7g")
    along, batches, rates = (
        pd.read_csv(_RESULTS / f"{name}.csv") for name in ("variants", "variants_batches", "variants_rates")
    )
    print(save(figure(along), _PAGE.parent / "images" / "reversible_variants.png"))
    for name, lines in {"variants": ends(along, batches), "variants' rates": chosen(rates)}.items():
        pages.insert(_PAGE, name, lines)
        print("\n".join(lines))


def rates_of(folder: Path) -> pd.DataFrame:
    """A line for each method and rate: the training loss at the end, nan of a run that failed."""
    data = gn.load(folder)
    assert isinstance(data, xr.Dataset)
    losses = data["train_loss"].isel(seed=0)
    return losses.to_dataframe().reset_index()[["flow", "rate", "seed", "train_loss"]]


def curves_of(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Losses and accuracy at every saved step; what steps did to the batches' losses, in means over parts of the run."""
    curves = gn.sweeps.load_curves(folder, ["train_loss"], optional=(*_ALONG, *_BATCHES, *_SOLVES))
    along = xr.Dataset({name: curves[name] for name in ("flow_time", *_ALONG) if name in curves})
    batches = xr.Dataset({name: curves[name] for name in (*_BATCHES, *_SOLVES) if name in curves})
    count = batches.sizes["batch"]
    parts = {"first": slice(0, count // 10), "second half": slice(count // 2, count)}
    means = xr.concat([batches.isel(batch=part).mean("batch") for part in parts.values()], pd.Index(parts, name="part"))
    tables = (data.to_dataframe().reset_index() for data in (along, means))
    long, short = (
        table.dropna(subset=[name]) for table, name in zip(tables, ("train_loss", "batch_loss"), strict=True)
    )
    return long.drop(columns=["flow_time"], errors="ignore"), short


def ends(along: pd.DataFrame, batches: pd.DataFrame) -> list[str]:
    """Means at the end with their intervals, and against the higher rate of Adam and the exact blocks, seed by seed."""
    last = along.sort_values("save").groupby(["flow", "seed"]).last()
    later = batches[batches["part"] == "second half"].set_index(["flow", "seed"])
    lines = []
    present = set(along["flow"])
    for flow, name in _NAMES.items():
        if flow not in present:
            lines.append((name, *["not run"] * 7))
            continue
        loss, own = last["train_loss"].loc[flow], later.loc[flow]
        cells = [str(interval(last[column].loc[flow])) for column in ("train_loss", "test_loss", "test_accuracy")]
        for other in ("adam_higher", "block_exact"):
            value = ratio(loss, last["train_loss"].loc[other])
            cells.append("1" if flow == other else f"{value}, {_below_one(value)}")
        change = interval(own["next_batch_loss_after"] - own["next_batch_loss"])
        residual = own["batch_relative_residual"].mean()
        lines.append((name, *cells, str(change), "" if pd.isna(residual) else number(residual)))
    heads = ("training loss", "test loss", "test accuracy", "training loss over Adam's, 3.16e-3")
    more = ("over exact blocks'", "change of the next batch's loss, epochs 11 to 20", "residual there")
    return pages.markdown_table(("method", *heads, *more), lines)


def _below_one(value: Interval) -> str:
    return {"**seen**": "**lower**", "not seen": "higher", "open": "open"}[verdict(value, 1.0, below=True)]


def chosen(rates: pd.DataFrame) -> list[str]:
    """What the selection saw, and what it took."""
    table = rates.pivot(index="flow", columns="rate", values="train_loss")
    lines = []
    for flow in (name for name in _NAMES if name in table.index):
        losses = table.loc[flow]
        best = losses.idxmin()
        edge = ", at the edge" if best in (table.columns[0], table.columns[-1]) else ""
        lines.append((_NAMES[flow], *map(number, losses), f"{best:g}{edge}"))
    return pages.markdown_table(("method", *(f"h = {rate:g}" for rate in table.columns), "chosen"), lines)


@styled
def figure(along: pd.DataFrame) -> Figure:
    """Training loss and test accuracy over epochs: medians over seeds and their range."""
    drawn, (loss, accuracy) = new_figure(1, 2, 2.2)
    present = [flow for flow in _NAMES if flow in set(along["flow"])]
    for index, flow in enumerate(present):
        style = style_of(index)
        for axes, name in ((loss, "train_loss"), (accuracy, "test_accuracy")):
            table = along[along["flow"] == flow].pivot(index="save", columns="seed", values=name)
            epochs = table.index.to_numpy(dtype=float) * _EPOCHS_OF_A_SAVE
            axes.plot(epochs, table.median(axis=1), markevery=2, color=style.color, marker=style.marker)
            axes.fill_between(epochs, table.min(axis=1), table.max(axis=1), color=style.color, alpha=0.2, linewidth=0)
    loss.set_yscale("log")
    loss.set_ylabel("training loss")
    accuracy.set_ylabel("test accuracy")
    accuracy.set_ylim(0.8, 1.0)
    for axes in (loss, accuracy):
        axes.set_xlabel("epoch")
    looks = [(_NAMES[flow], style_of(index)) for index, flow in enumerate(present)]
    legend_on_top(drawn, [Line2D([], [], color=look.color, marker=look.marker, label=name) for name, look in looks])
    return drawn


if __name__ == "__main__":
    main()
