"""The terms and errors of residual problems against flow time."""

from itertools import cycle

from matplotlib.figure import Figure

from ..problems import OF_A_TERM, OF_A_TEST
from ._drawable import left_out_handle
from ._style import (
    Runs,
    datasets_of,
    draw_lines,
    flow_handles,
    legend_above,
    line_handle,
    new_figure,
    styled,
    time_label,
)

_STYLES = ("-", "--", ":", "-.")
_PANELS = (("loss of a term", OF_A_TERM), ("test error", OF_A_TEST))


@styled
def residuals_figure(runs: Runs) -> Figure | None:
    """The loss of each term above, the test errors below, log-log, with a colour for each flow and a line style for each name.

    None if the problem has neither.

    **Arguments:**

    - `runs`: by the name of the flow a data set, or one for each seed.
    """
    panels = [(label, names) for label, source in _PANELS if (names := _recorded(runs, source))]
    if not panels:
        return None
    figure, _ = new_figure(len(panels), 1, height=2.2 * len(panels))
    all_axes = figure.axes
    lines, left_out = [], False
    for panel, (label, names) in zip(all_axes, panels, strict=True):
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_ylabel(label)
        for name, style in zip(names, cycle(_STYLES), strict=False):
            left_out = draw_lines(panel, runs, name, style) or left_out
            lines.append(line_handle(style, name))
    all_axes[-1].set_xlabel(time_label(runs))
    legend_above(figure, flow_handles(list(runs)), lines, [left_out_handle()] if left_out else [])
    return figure


def _recorded(runs: Runs, source: str) -> list[str]:
    """The variables of this source in any of the runs, in their order."""
    found = [
        str(name)
        for several in runs.values()
        for data in datasets_of(several)
        for name, variable in data.items()
        if variable.attrs.get("reference") == source
    ]
    return list(dict.fromkeys(found))
