"""What a finished sweep of this folder says: its numbers as CSV, the tables of its page, and the figures of the docs.

    python experiments/phase_diagrams/report.py NAME RUN_DIR

NAME is scales, samples, step_size, hidden_learning, spectral, activations or depth. Writes results/NAME.csv (a line a cell),
results/NAME.json (configuration, result codes, versions), the tables of the page docs/phase_diagrams/NAME.md, between its marks
(medians over seeds with their range), and its figures docs/images/phase_NAME*.png.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)
sys.path.append(str(Path(__file__).parents[1]))

import hidden  # noqa: E402 (after the setting)
import numpy as np  # noqa: E402
import pages  # noqa: E402
import xarray as xr  # noqa: E402

import gnflow as gn  # noqa: E402
from gnflow import plots  # noqa: E402

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
IMAGES = DOCS / "images"
RESULTS = HERE / "results"
# Depth shares a page with the activations.
PAGES = {"depth": "activations"}
_NOT_KEPT = ("message", "cell", "time_to_target")
_THRESHOLD = 0.1  # of the kernel distance: the end of the kernel regime


def scales(data: xr.Dataset, folder: Path) -> list[str]:
    """(a) Test loss, kernel distance and hidden learning over tau0; where the kernel regime begins."""
    data = gn.regimes.order_parameters(data, "gradient_flow")
    draw(data, "scales", "test_loss", x="tau0", y="flow")
    save(
        plots.seed_band_figure(data, ["test_loss", "kernel_distance", "hidden_learning_gain"], x="tau0"), "scales_lines"
    )
    return [
        *table(data, "test_loss", rows="tau0", columns="flow"),
        *table(data, "kernel_distance", rows="tau0", columns="flow"),
        *table(data, "hidden_learning_gain", rows="tau0", columns="flow"),
        *table(data, "test_loss_ratio", rows="tau0", columns="flow"),
        *boundaries(data, "tau0"),
    ]


def samples(data: xr.Dataset, folder: Path) -> list[str]:
    """(b) Test loss of each flow over N, for each scale."""
    data = gn.regimes.order_parameters(data, "gradient_flow")
    save(plots.seed_band_figure(data, "test_loss", x="N", over="tau0"), "samples_lines")
    tables = []
    for tau0 in data.tau0.values:
        tables += table(data.sel(tau0=tau0), "test_loss", rows="N", columns="flow", where=f"tau0 = {tau0:g}")
    for tau0 in data.tau0.values:
        tables += table(data.sel(tau0=tau0), "test_loss_ratio", rows="N", columns="flow", where=f"tau0 = {tau0:g}")
    return tables


def step_size(data: xr.Dataset, folder: Path) -> list[str]:
    """(c) Steps against the flow: test loss, refitted test loss, feature movement."""
    data = gn.regimes.order_parameters(data, "gauss_newton_flow")
    data = data.rename({"lambda": "step"})
    steps = data.sel(flow="gauss_newton_steps")
    names = ["test_loss", "refit_test_loss", "direction_distance_to_initial"]
    save(plots.seed_band_figure(steps, names, x="step", lines="tau0"), "step_size_lines")
    tables = []
    for name in (
        "test_loss",
        "refit_test_loss",
        "hidden_learning_gain",
        "kernel_distance",
        "direction_distance_to_initial",
    ):
        tables += table(
            data.sel(flow="gauss_newton_steps"),
            name,
            rows="tau0",
            columns="step",
            flow=data.sel(step=data.step[0], flow="gauss_newton_flow"),
        )
    return tables


def hidden_learning(data: xr.Dataset, folder: Path) -> list[str]:
    """(f) Losses before and after refitting the output layer, along the runs."""
    curves = gn.sweeps.load_curves(folder, hidden.MEASURED)
    rows, levels = hidden.summary(curves), hidden.level_table(curves)
    rows.to_csv(RESULTS / "hidden_learning_runs.csv", index=False, float_format="%.6g")
    levels.to_csv(RESULTS / "hidden_learning_curves.csv", index=False, float_format="%.4g")
    save(hidden.figure(levels), "hidden_learning")
    return hidden.tables(rows, curves["tau0"].to_numpy().tolist())


def spectral(data: xr.Dataset, folder: Path) -> list[str]:
    """(d) Test loss over (tau0, s), and the explicit steps that each flow needs."""
    data = gn.regimes.order_parameters(data).isel(flow=0)
    # rho = lam_max^(1 - s)/N
    curves = gn.sweeps.load_curves(folder, ["ntk_largest_eigenvalue"]).isel(flow=0)
    rate = curves["ntk_largest_eigenvalue"] ** (1 - curves["s"]) / curves["N"]
    data["explicit_steps"] = pages.explicit_steps(data, curves, rate)
    for name, words, s in (
        ("test_loss", "test loss over that of s = 0 (gradient flow)", 0.0),
        ("explicit_steps", "explicit steps over those of s = 1 (Gauss-Newton)", 1.0),
    ):
        ratio = data[name] / data[name].sel(s=s, drop=True)
        data[f"{name}_ratio"] = ratio.assign_attrs(long_name=words, units="1")
    draw(data, "spectral_test_loss", "test_loss", x="tau0", y="s", over="N")
    names = ["test_loss_ratio", "explicit_steps_ratio"]
    save(plots.seed_band_figure(data, names, x="s", lines="tau0", over="N"), "spectral_lines")
    tables = []
    for count in data.N.values[::-1]:
        for name in ("test_loss_ratio", "explicit_steps_ratio", "test_loss", "explicit_steps", "kernel_distance"):
            tables += table(data.sel(N=count), name, rows="s", columns="tau0", where=f"N = {count}")
    return tables


def activations(data: xr.Dataset, folder: Path) -> list[str]:
    """(e) The flows' test losses for each activation."""
    data = gn.regimes.order_parameters(data, "gradient_flow")
    draw(data.sel(flow=["gauss_newton"]), "activations_ratio", "test_loss_ratio", x="tau0", y="activation")
    return _tables_over(data, "activation", "tau0")


def depth(data: xr.Dataset, folder: Path) -> list[str]:
    """(e) The flows' test losses for each depth, without biases and with them."""
    data = gn.regimes.order_parameters(data, "gradient_flow")
    draw(data.sel(flow=["gauss_newton"]), "depth_ratio", "test_loss_ratio", x="sigma", y="depth", over="bias")
    tables = []
    for index, bias in enumerate(data.bias.values):
        words = ", with biases" if bias else ", without biases"
        tables += _tables_over(data.isel(bias=index), "depth", "sigma", words)
    return tables


def _tables_over(data: xr.Dataset, what: str, scale: str, words: str = "") -> list[str]:
    tables = []
    for variable in ("test_loss", "test_loss_ratio", "kernel_distance"):
        for value in data[what].values:
            where = f"{what} = {value}{words}"
            tables += table(data.sel({what: value}), variable, rows=scale, columns="flow", where=where)
    return tables


def boundaries(data: xr.Dataset, along: str) -> list[str]:
    """Where the kernel distance falls to the threshold, for each flow."""
    found = gn.regimes.boundary(data, "kernel_distance", _THRESHOLD, along=along)
    rows = []
    for flow in found.flow.values:
        one = found.sel(flow=flow)
        seeds = f"{int(one.num_crossed)} crossed, {int(one.num_below)} below, {int(one.num_above)} above the range"
        status = str(one.median_status.item())
        where = (
            f"{float(one['median']):.3g} ({float(one.lower):.3g} to {float(one.upper):.3g})"
            if status == "crossed"
            else status
        )
        rows.append([str(flow), where, seeds])
    title = f"Where the kernel distance is {_THRESHOLD:g}, along {along}"
    return pages.markdown_table(["flow", "boundary", "seeds"], rows, title)


def table(
    data: xr.Dataset, name: str, rows: str, columns: str, where: str = "", flow: xr.Dataset | None = None
) -> list[str]:
    """A Markdown table of medians over seeds with their range; `flow`: a further column."""
    title = str(data[name].attrs.get("long_name", name)) + (f", {where}" if where else "")
    heads = [f"{columns} = {v:g}" if columns != "flow" else str(v) for v in data[columns].values]
    lines = []
    for value in data[rows].values:
        shown = [data[name].sel({rows: value, columns: column}) for column in data[columns].values]
        shown += [] if flow is None else [flow[name].sel({rows: value})]
        lines.append([f"{value:g}", *(pages.over_seeds(values.to_numpy(), range_digits=2) for values in shown)])
    return pages.markdown_table([rows, *heads, *([] if flow is None else ["the flow"])], lines, title)


def versions_of(data: xr.Dataset, folder: Path) -> set[str]:
    """The versions that the cells were computed with, each different set of them as JSON."""
    store = gn.sweeps.SweepStore(folder)
    finished = np.isfinite(data["wall_seconds"])
    return {store.read(cell).attrs["versions"] for cell in np.unique(data["cell"].where(finished, "")) if cell}


def draw(data: xr.Dataset, name: str, variable: str, **axes: str) -> None:
    save(plots.heat_map_figure(data, variable, **axes), name)


def save(figure: plots.DrawnFigure, name: str) -> None:
    pages.save_figure(figure, IMAGES / f"phase_{name}.png", RESULTS)


STUDIES: dict[str, Callable[[xr.Dataset, Path], Sequence[str]]] = {
    "scales": scales,
    "samples": samples,
    "step_size": step_size,
    "hidden_learning": hidden_learning,
    "spectral": spectral,
    "activations": activations,
    "depth": depth,
}


def main(name: str, folder: Path) -> None:
    data = gn.load(folder)
    assert isinstance(data, xr.Dataset)
    RESULTS.mkdir(exist_ok=True)
    lines = STUDIES[name](data, folder)
    kept = data.drop_vars([v for v in _NOT_KEPT if v in data]).drop_dims("target", errors="ignore")
    kept.to_dataframe().to_csv(RESULTS / f"{name}.csv", float_format="%.6g")
    pages.insert(DOCS / "phase_diagrams" / f"{PAGES.get(name, name)}.md", name, lines)
    configuration = json.loads(data.attrs["configuration"])
    record = {
        "command": f"gnflow sweep experiments/phase_diagrams/{name}.toml --out RUN_DIR",
        "configuration": configuration,
        "wall_seconds_of_all_cells": float(np.nansum(np.unique(data["wall_seconds"].to_numpy()))),
        "results": {
            str(code): int(n) for code, n in zip(*np.unique(data["result"].to_numpy(), return_counts=True), strict=True)
        },
        "versions": sorted(versions_of(data, folder)),
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in STUDIES:
        sys.exit(f"usage: python experiments/phase_diagrams/report.py [{' | '.join(STUDIES)}] RUN_DIR")
    main(sys.argv[1], Path(sys.argv[2]))
