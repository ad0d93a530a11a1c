"""The figures of docs/reversible_study.md, from the stored numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from claims import NAMES
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from stored import Study

from gnflow.plots import save
from gnflow.plots._style import legend_on_top, new_figure, style_of, styled

# Seven looks can be told apart; the dense method shares no figure with the one whose look it has.
_ORDER = [name for name in NAMES if name != "minimum_norm"]
_ORDER_OF = {name: index for index, name in enumerate(_ORDER)} | {"minimum_norm": _ORDER.index("sgd")}
# Runs that diverge leave the axes: the loss begins at 2.4.
_HIGHEST_LOSS = 10.0
_LARGEST_CHANGE = 2.0


def draw_all(results: Path, images: Path) -> None:
    """Draw them into the folder `images`."""
    full, mini, small, long = (
        Study(results, name) for name in ("full_batch", "mini_batch", "small_batch", "full_batch_long")
    )
    for name, figure in {
        "full_batch": full_batch(full, long),
        "mini_batch": mini_batch(mini),
        "small_batch": small_batch(small),
        "kernel": kernel(full, mini),
    }.items():
        print(save(figure, images / f"reversible_{name}.png"))


@styled
def full_batch(full: Study, long: Study) -> Figure:
    """Training loss against steps and against seconds."""
    figure, (steps, time) = new_figure(1, 2, 2.2, sharey=True)
    for flow in full.flows:
        _draw(steps, full.along(flow, "train_loss"), flow)
        seconds = full.record["step_seconds"][flow]
        longest = long if flow in long.flows else full
        _draw(time, longest.along(flow, "train_loss"), flow, lambda step, s=seconds: step * s)
    steps.set_xlabel("steps")
    time.set_xlabel("time [s]")
    steps.set_ylabel("training loss")
    steps.set_yscale("log")
    legend_on_top(figure, _handles(full.flows))
    return figure


@styled
def mini_batch(study: Study) -> Figure:
    """Training loss and test accuracy over epochs; what a step does to its own batch and to the next."""
    figure, axes = new_figure(2, 2, 4.0, sharex=True)
    loss, accuracy, own, coming = axes
    per_epoch = study.record["study"]["n_train"] // study.record["study"]["batch_size"]
    for flow in study.flows:
        _draw(loss, study.along(flow, "train_loss"), flow, lambda step: step / per_epoch)
        _draw(accuracy, study.along(flow, "test_accuracy"), flow, lambda step: step / per_epoch)
        for panel, name in ((own, "batch_loss"), (coming, "next_batch_loss")):
            _draw(panel, study.of_batches(flow, f"{name}_after") - study.of_batches(flow, name), flow)
    loss.set_yscale("log")
    loss.set_ylabel("training loss")
    loss.set_ylim(2e-3, _HIGHEST_LOSS)
    accuracy.set_ylabel("test accuracy")
    accuracy.set_ylim(0.8, 1.0)
    own.set_ylabel("change of a batch's\nloss in its step")
    coming.set_ylabel("change of the next\nbatch's loss")
    _about_zero(own, coming)
    for panel in (own, coming):
        panel.set_xlabel("epoch")
    legend_on_top(figure, _handles(study.flows))
    return figure


def _about_zero(*panels: Axes) -> None:
    """A scale on which large changes of either sign and small ones can be told."""
    for panel in panels:
        panel.set_yscale("symlog", linthresh=1e-2)
        panel.set_ylim(-_LARGEST_CHANGE, _LARGEST_CHANGE)
        panel.set_yticks([-1, -0.1, -0.01, 0, 0.01, 0.1, 1])
        panel.minorticks_off()
        panel.axhline(0.0, color="0.35", linewidth=0.8)


@styled
def small_batch(study: Study) -> Figure:
    """The regime where the reversible update is exact: training loss, and the change of the next batch's loss."""
    figure, (loss, coming) = new_figure(1, 2, 2.2)
    per_epoch = study.record["study"]["n_train"] // study.record["study"]["batch_size"]
    for flow in study.flows:
        _draw(loss, study.along(flow, "train_loss"), flow, lambda step: step / per_epoch)
        change = study.of_batches(flow, "next_batch_loss_after") - study.of_batches(flow, "next_batch_loss")
        _draw(coming, change, flow)
    loss.set_yscale("log")
    loss.set_ylabel("training loss")
    coming.set_ylabel("change of the next\nbatch's loss")
    for panel in (loss, coming):
        panel.set_xlabel("epoch")
    _about_zero(coming)
    legend_on_top(figure, _handles(study.flows))
    return figure


@styled
def kernel(full: Study, mini: Study) -> Figure:
    """Distance of the NTK and least CKA of the blocks to the start."""
    figure, axes = new_figure(2, 2, 3.8, sharey="row", sharex="col")
    for column, study in enumerate((full, mini)):
        for row, name in enumerate(("kernel_distance_estimate", "least_layer_cka_test")):
            for flow in study.flows:
                _draw(axes[2 * row + column], study.along(flow, name), flow)
        axes[column].set_title("mini-batches" if column else "full batch")
        axes[2 + column].set_xlabel("steps")
    axes[0].set_ylabel("kernel distance")
    axes[2].set_ylabel("least CKA of a block")
    legend_on_top(figure, _handles(mini.flows))
    return figure


def _draw(
    axes: Axes, table: pd.DataFrame, flow: str, place: Callable[[np.ndarray], np.ndarray] = lambda index: index
) -> None:
    """The median over seeds (columns) with their range."""
    style = style_of(_ORDER_OF[flow])
    places = place(table.index.to_numpy(dtype=float))
    axes.plot(places, table.median(axis=1), markevery=0.2, color=style.color, marker=style.marker)
    axes.fill_between(places, table.min(axis=1), table.max(axis=1), color=style.color, alpha=0.2, linewidth=0)


def _handles(flows: Sequence[str]) -> list[Line2D]:
    looks = [(flow, style_of(_ORDER_OF[flow])) for flow in flows]
    return [Line2D([], [], color=style.color, marker=style.marker, label=NAMES[flow]) for flow, style in looks]
