"""Tables of docs/dual_study.md and its figures, from the sweep in a folder and the numbers in results/.

python experiments/dual/report.py RUN_DIR
"""

import json
import sys
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)
sys.path.append(str(Path(__file__).parents[1]))

import digits  # noqa: E402 (after the setting)
import numpy as np  # noqa: E402
import pages  # noqa: E402
import pandas as pd  # noqa: E402
import xarray as xr  # noqa: E402
from equal_time import chosen, digits_seconds  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

import gnflow as gn  # noqa: E402
from gnflow import plots  # noqa: E402
from gnflow.plots._style import legend_on_top, new_figure, style_of, styled  # noqa: E402
from gnflow.simulate import versions  # noqa: E402

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCS = HERE.parents[1] / "docs"
BENCHMARK = HERE.parent / "benchmarks" / "results" / "dual_direction.json"
TARGET = 0.1  # training loss


def phase(folder: Path) -> dict[str, list[str]]:
    """Test loss and explicit steps over (tau0, gamma)."""
    data = gn.load(folder)
    assert isinstance(data, xr.Dataset)
    data = data.isel(flow=0)
    configuration = json.loads(data.attrs["configuration"])
    curves = gn.sweeps.load_curves(folder, ["ntk_largest_eigenvalue"]).isel(flow=0)
    largest, samples = curves["ntk_largest_eigenvalue"], configuration["problem"]["n_train"]
    rate = (1 + curves["gamma"]) * largest / (samples + curves["gamma"] * largest)
    data["explicit_steps"] = pages.explicit_steps(data, curves, rate)
    for name, words, gamma in (
        ("test_loss", "test loss over that of the smallest gamma", float(data.gamma[0])),
        ("explicit_steps", "explicit steps over those of the largest gamma", float(data.gamma[-1])),
    ):
        ratio = data[name] / data[name].sel(gamma=gamma, drop=True)
        data[f"{name}_ratio"] = ratio.assign_attrs(long_name=words, units="1")
    for name in ("test_loss", "explicit_steps"):
        _save(plots.heat_map_figure(data, name, x="tau0", y="gamma"), f"dual_phase_{name}")
    _save(
        plots.seed_band_figure(data, ["test_loss_ratio", "explicit_steps_ratio"], x="gamma", lines="tau0"), "dual_lines"
    )
    kept = ["test_loss", "explicit_steps", "flow_time", "kernel_distance", "num_steps", "wall_seconds", "result"]
    data[kept].to_dataframe()[kept].to_csv(RESULTS / "phase.csv", float_format="%.6g")
    record = {
        "command": "python experiments/dual/run.py",
        "configuration": configuration,
        "wall_seconds_of_all_cells": float(data["wall_seconds"].sum()),
        "versions": versions(),
    }
    (RESULTS / "phase.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    names = ("test_loss", "test_loss_ratio", "explicit_steps", "kernel_distance")
    return {"phase": [line for name in names for line in _over_gamma(data, name)]}


def _over_gamma(data: xr.Dataset, name: str) -> list[str]:
    heads = [f"tau0 = {tau0:g}" for tau0 in data.tau0.values]
    rows = [
        [f"{gamma:g}", *(pages.over_seeds(data[name].sel(gamma=gamma, tau0=tau0).values) for tau0 in data.tau0.values)]
        for gamma in data.gamma.values
    ]
    return pages.markdown_table(["gamma", *heads], rows, str(data[name].attrs.get("long_name", name)))


def digit_tables(runs: pd.DataFrame, curves: pd.DataFrame) -> dict[str, list[str]]:
    """What was reached by each optimiser on each direction, and what gamma does."""
    reported = runs[runs.role == "report"]
    steps = digits.EPOCHS * (digits.SAMPLES // digits.BATCH)
    rows = []
    for name in digits.RATES:
        for direction in digits.DIRECTIONS:
            here = chosen(reported, name, direction)
            lines = chosen(curves, name, direction)
            last = lines[lines.epoch == digits.EPOCHS]
            per_epoch = digits_seconds(runs, name, direction) / digits.EPOCHS
            needed = [_epochs_to(curve, TARGET) for _, curve in lines.groupby("seed")]
            median = np.median(np.nan_to_num(needed, nan=np.inf))
            rows.append(
                [
                    name,
                    direction,
                    f"{here.learning_rate.iloc[0]:g}",
                    pages.over_seeds(last.train_loss),
                    pages.over_seeds(last.test_loss),
                    pages.over_seeds(100 * last.test_accuracy),
                    pages.over_seeds(needed),
                    f"{1e3 * digits_seconds(runs, name, direction) / steps:.2g}",
                    f"{median * per_epoch:.2g}" if np.isfinite(median) else "none",
                ]
            )
    heads = ["optimiser", "direction", "rate", "training loss", "test loss", "test accuracy [%]"]
    heads += [f"epochs to {TARGET:g}", "ms a step", f"seconds to {TARGET:g}"]
    tried = runs[(runs.role == "gamma") & (runs.direction == "dual 16")]
    gammas = [
        [f"{gamma:g}", *(f"{tried[(tried.gamma == gamma) & (tried.learning_rate == rate)].train_loss.iloc[0]:.3g}"
                         for rate in sorted(tried.learning_rate.unique()))]
        for gamma in sorted(tried.gamma.unique())
    ]  # fmt: skip
    return {
        "digits": pages.markdown_table(heads, rows, "At the end, and on the way to a training loss"),
        "gamma": pages.markdown_table(
            ["gamma", *(f"{rate:g}" for rate in sorted(tried.learning_rate.unique()))],
            gammas,
            "Training loss at the end by gamma and learning rate: SGD, 16 iterations, the tuning seed",
        ),
    }


@styled
def digit_figure(runs: pd.DataFrame, curves: pd.DataFrame, against: str) -> Figure:
    """Training loss against epochs or seconds: medians over the seeds in their range, a panel for each optimiser."""
    figure, axes = new_figure(2, 2, 3.8, sharex=True, sharey=True)
    for axis, name in zip(np.ravel(axes), digits.RATES, strict=True):
        for index, direction in enumerate(digits.DIRECTIONS):
            one = chosen(curves, name, direction).pivot(index="epoch", columns="seed", values="train_loss")
            unit = 1.0
            if against == "time":
                unit = digits_seconds(runs, name, direction) / digits.EPOCHS
            x = one.index.to_numpy() * unit
            if against == "time":
                one, x = one[1:], x[1:]
            style = style_of(index)
            axis.plot(x, one.median(axis=1), color=style.color, marker=style.marker, markevery=5)
            axis.fill_between(x, one.min(axis=1), one.max(axis=1), color=style.color, alpha=0.18, linewidth=0)
        axis.set_title(name)
        axis.set_yscale("log")
        axis.set_ylim(1e-4, 10)
        if against == "time":
            axis.set_xscale("log")
    for axis in axes[1] if np.ndim(axes) == 2 else axes[2:]:
        axis.set_xlabel("time [s]" if against == "time" else "epoch")
    for axis in axes[:, 0] if np.ndim(axes) == 2 else axes[::2]:
        axis.set_ylabel("training loss")
    handles = [
        Line2D([], [], color=style_of(index).color, marker=style_of(index).marker, label=direction)
        for index, direction in enumerate(digits.DIRECTIONS)
    ]
    legend_on_top(figure, handles)
    return figure


def cost_table() -> dict[str, list[str]]:
    """The benchmark's rows."""
    record = json.loads(BENCHMARK.read_text(encoding="utf-8"))
    rows = []
    for row in record["rows"]:
        over, memory = row["over_gradient"], row["memory_over_gradient"]
        faster = row["auto_over_faster"]
        rows.append(
            [
                f"{row['samples']}",
                f"{row['outputs']}",
                f"{row['num_weights']:,}",
                f"{1e3 * row['seconds']['gradient']:.3g}",
                f"{over['matrix_free']:.1f}",
                f"{over['dense']:.1f}" if "dense" in over else "not timed",
                f"{memory['matrix_free']:.2f}",
                f"{memory['dense']:.1f}" if "dense" in memory else "not timed",
                row["auto"].replace("_", "-"),
                "yes" if faster == 1 else "only one timed" if len(over) == 1 else "no",
            ]
        )
    heads = [
        "N",
        "C",
        "P",
        "gradient [ms]",
        "matrix-free",
        "dense",
        "memory, matrix-free",
        "memory, dense",
        "auto takes",
    ]
    title = "10 iterations, in gradients: time and temporary memory"
    return {"cost": pages.markdown_table([*heads, "the faster"], rows, title)}


def _epochs_to(curve: pd.DataFrame, target: float) -> float:
    below = curve[curve.train_loss <= target]
    return float(below.epoch.min()) if len(below) else float("nan")


def _save(figure: plots.DrawnFigure, name: str) -> None:
    pages.save_figure(figure, DOCS / "images" / f"{name}.png", RESULTS)


def main(folder: Path) -> None:
    RESULTS.mkdir(exist_ok=True)
    runs, curves = (pd.read_csv(RESULTS / f"digits_{name}.csv") for name in ("runs", "curves"))
    for against in ("epochs", "time"):
        plots.save(digit_figure(runs, curves, against), DOCS / "images" / f"dual_digits_{against}.png")
    for name, lines in (phase(folder) | digit_tables(runs, curves) | cost_table()).items():
        pages.insert(DOCS / "dual_study.md", name, lines)
        print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python experiments/dual/report.py RUN_DIR")
    main(Path(sys.argv[1]))
