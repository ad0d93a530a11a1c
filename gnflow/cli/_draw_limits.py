"""The figures of the limit of infinite width, of a sweep that has a width axis."""

import json
import sys
from pathlib import Path

import xarray as xr

from .._core import ConfigError, on_one_line
from ..config import Specification
from ..plots import DrawnFigure, width_limit_figure
from ..theory import InfiniteWidth, infinite_width
from ._failures import Failures

_WIDTH = ("model", "width")


def draw_limits(dataset: xr.Dataset, folder: Path, failures: Failures) -> list[Path]:
    """Draw the limit of the training loss for each flow that has one, with its numbers as CSV. **Returns:** the files.

    Why a flow has none is printed on the standard error output. That is no failure: in many sweeps over a width each run ends
    by a stop rule, at a time of its own.

    **Arguments:**

    - `dataset`: the data set of the sweep.
    - `folder`: the folder of the figures.
    - `failures`: is told figures that cannot be drawn.
    """
    spec = Specification.from_dict(json.loads(dataset.attrs["configuration"]))
    has_widths = any(_WIDTH in axis.paths and len(axis) > 1 for axis in spec.axes)
    if not has_widths or len(spec.seeds) < 2:
        return []
    written: list[Path] = []
    for flow in spec.flows:
        name = f"infinite-width-{flow}"
        try:
            drawn = _drawn(infinite_width(dataset, flow=flow))
        except ConfigError as error:
            print(f"gnflow: {name} is not drawn: {on_one_line(error, None)}", file=sys.stderr)
            continue
        except Exception as error:  # a figure that fails must not cost the others
            failures.tell(name, error)
            continue
        written += drawn.save(folder / f"{name}.png")
    return written


def _drawn(limit: InfiniteWidth) -> DrawnFigure:
    means = [name for name in limit.data.data_vars if "width" in limit.data[name].dims]
    return DrawnFigure(
        width_limit_figure(limit.data), {"": limit.data.drop_vars([*means, "width"]), "widths": limit.data[means]}
    )
