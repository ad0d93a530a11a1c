"""The stars where a validation or test loss is lowest."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex

from gnflow.plots import curves_figure, loss_figure

TIMES = np.array([0.0, 1.0, 3.0, 9.0])
LOSSES = {
    "train_loss": [4.0, 3.0, 2.0, 1.0],
    "validation_loss": [3.0, 0.5, 2.0, 5.0],
    "test_loss": [4.0, 2.0, 1.0, 6.0],
}


def run(*names):
    return xr.Dataset({name: ("time", LOSSES[name]) for name in names}, coords={"time": TIMES})


def stars(axes):
    return [line for line in axes.get_lines() if line.get_marker() == "*" and len(line.get_xdata())]


def places(axes):
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in stars(axes)]


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_without_validation_data_they_are_at_the_lowest_test_loss():
    figure = loss_figure({"other": [], "gradient": run("train_loss", "test_loss")})
    upper, lower = figure.axes
    assert places(upper) == [(3.0, 1.0)]
    assert places(lower) == [(3.0 / 9.0, 1.0)]
    assert to_hex(stars(upper)[0].get_color()) == to_hex(upper.get_lines()[0].get_color())
    assert "lowest, selected on test" in labels(figure)


def test_with_validation_data_they_are_where_that_loss_is_lowest_on_both_curves():
    figure = loss_figure({"gradient": run(*LOSSES)})
    assert places(figure.axes[0]) == [(1.0, 0.5), (1.0, 2.0)]
    assert "lowest validation loss" in labels(figure)
    assert "validation" in labels(figure)
    assert "lowest, selected on test" not in labels(figure)


def test_there_is_none_without_such_losses_or_without_a_place():
    figure = loss_figure({"gradient": run("train_loss")})
    assert places(figure.axes[0]) == []
    assert not any("lowest" in label for label in labels(figure))
    rising = run("train_loss", "test_loss").assign(test_loss=("time", [1.0, 2.0, 3.0, 4.0]))
    upper, lower = loss_figure({"gradient": rising}).axes
    assert places(upper) == []  # time 0 has no place on a logarithmic axis
    assert places(lower) == [(0.0, 1.0)]


@pytest.mark.parametrize("seeds", [1, 2])
def test_curves_of_a_sweep_have_them_on_the_curve_or_the_median(seeds):
    times, losses = np.tile([0.1, 1.0, 3.0, 9.0], (1, seeds, 1)), np.tile(LOSSES["test_loss"], (1, seeds, 1))
    dims = ("flow", "seed", "save")
    curves = xr.Dataset(
        {"flow_time": (dims, times), "test_loss": (dims, losses), "train_loss": (dims, losses)},
        coords={"flow": ["gradient"], "seed": np.arange(seeds)},
    )
    drawn = curves_figure(curves, "test_loss")
    ((time, loss),) = places(drawn.figure.axes[0])
    np.testing.assert_allclose([time, loss], [3.0, 1.0], rtol=0.03)
    assert "lowest, selected on test" in labels(drawn.figure)
    assert places(curves_figure(curves, "train_loss").figure.axes[0]) == []
