"""What the studies' sweeps say: their numbers as CSV, and the time of a step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import claims
import figures
import numpy as np
import pages
import pandas as pd
import studies
import xarray as xr

import gnflow as gn

PAGE = Path(__file__).parents[2] / "docs" / "reversible_study.md"
_ALONG = ("train_loss", "test_loss", "test_accuracy", "weight_change_norm", "weight_cosine")
_KERNEL = ("kernel_distance_estimate", "kernel_distance_standard_error")
_CKA = ("layer_cka_train", "layer_cka_test")
_BATCHES = ("batch_loss", "batch_loss_after", "next_batch_loss", "next_batch_loss_after")
_SOLVES = ("batch_rank", "batch_relative_residual")


def store(
    study: studies.Study,
    losses: Mapping[str, Mapping[float, float]],
    chosen: Mapping[str, float],
    folder: Path,
    results: Path,
) -> dict[str, Any]:
    """Write NAME_curves.csv and, of mini-batches, NAME_batches.csv; returns what to record of the choice and the ends."""
    runs = gn.load(folder / "report")
    assert isinstance(runs, xr.Dataset)
    optional = (*_ALONG, *_KERNEL, *_CKA, "rank", "relative_residual", *_BATCHES, *_SOLVES)
    curves = gn.sweeps.load_curves(folder / "report", ["train_loss"], optional=optional)
    along = {name: curves[name] for name in (*_ALONG, *_KERNEL, "rank", "relative_residual") if name in curves}
    along |= {f"least_{name}": curves[name].min("layer") for name in _CKA if name in curves}
    table = xr.Dataset(along).to_dataframe().reset_index().rename(columns={"save": "step"})
    table["step"] *= study.integration["save_every"]
    _write(table.dropna(subset=["train_loss"]), results / f"{study.name}_curves.csv")
    if "batch_loss" in curves:
        batches = xr.Dataset({name: curves[name] for name in (*_BATCHES, *_SOLVES) if name in curves})
        per_epoch = study.n_train // study.integration["batch_size"]
        epochs = batches.assign_coords(epoch=("batch", np.arange(batches.sizes["batch"]) // per_epoch + 1))
        means = epochs.groupby("epoch").mean()
        # Of the last batch there is no next one in its epoch, but the next epoch's first: all of them count.
        _write(means.to_dataframe().reset_index(), results / f"{study.name}_batches.csv")
    flows = [str(name) for name in runs.flow.values]
    return {
        "study": {"n_train": study.n_train, "bottleneck": study.bottleneck, **study.integration},
        "selection": {
            name: [{"rate": rate, "mean_final_train_loss": mean} for rate, mean in of.items()]
            for name, of in losses.items()
        },
        "chosen": {**chosen, **{name: rate for name, (_, rate) in study.fixed.items()}},
        "results": {name: sorted(map(str, np.unique(runs.result.sel(flow=name)))) for name in flows},
        "wall_seconds_of_all_reported_cells": float(runs.wall_seconds.sum()),
    }


def step_seconds(study: studies.Study, folder: Path) -> dict[str, float]:
    """Seconds of a step of each method: the shortest run of those that chose the rates, over its steps.

    All methods ran side by side there, under the same load and on one thread each. The shortest run had its program compiled
    before; it measures the losses at its two ends only.
    """
    runs = gn.load(folder / "select")
    assert isinstance(runs, xr.Dataset)
    seconds = (runs.wall_seconds / runs.num_steps).min(["rate", "seed"])
    method = {name: name for name in study.methods} | {name: of for name, (of, _) in study.fixed.items()}
    return {name: float(seconds.sel(flow=of)) for name, of in method.items()}


def _write(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, float_format="%.7g")


def write_up(results: Path, elsewhere: Path | None) -> None:
    """Figures and the page's tables from the stored numbers; into the folder `elsewhere` if it is given."""
    images = PAGE.parent / "images" if elsewhere is None else elsewhere
    figures.draw_all(results, images)
    for name, lines in claims.tables(results).items():
        if elsewhere is None:
            pages.insert(PAGE, name, lines)
        print("\n".join(lines))
