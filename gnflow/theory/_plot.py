"""A certificate as a figure: the bounds as a band, the observation inside it."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ._certificate import Certificate

_WIDTH, _PANEL_HEIGHT = 3.4, 2.2  # inches; the width is a paper's column
_OBSERVED, _BAND = "#D55E00", "#0072B2"  # Okabe and Ito
_LEAST = 1e-300


def certificate_figure(certificate: Certificate) -> Figure:
    """One panel for each of the certificate's curves."""
    with matplotlib.rc_context({"font.size": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7}):
        return _figure(certificate)


def _figure(certificate: Certificate) -> Figure:
    count = max(len(certificate.curves), 1)
    figure = Figure(figsize=(_WIDTH, _PANEL_HEIGHT * count + 0.3), layout="constrained")
    axes = figure.subplots(count, 1, squeeze=False)[:, 0]
    figure.suptitle(f"{certificate.theorem}: {certificate.verdict}")
    if not certificate.curves:
        axes[0].text(0.5, 0.5, certificate.reason, ha="center", va="center", wrap=True)
        axes[0].set_axis_off()
    for axis, curves in zip(axes, certificate.curves, strict=False):
        lower, upper = curves.lower, curves.upper
        if lower is not None and upper is not None:
            axis.fill_between(curves.x, np.maximum(lower, _LEAST), upper, color=_BAND, alpha=0.2, linewidth=0)
        for bound, style, label in ((upper, "-", "upper bound"), (lower, "--", "lower bound")):
            if bound is not None:
                axis.plot(curves.x, bound, style, color=_BAND, linewidth=1, label=label)
        axis.plot(curves.x, curves.observed, "o", color=_OBSERVED, markersize=3, label="observed")
        axis.set_xscale("log" if curves.log_x else "linear")
        axis.set_yscale("log" if curves.log_y else "linear")
        axis.set_xlabel(curves.x_label)
        axis.set_ylabel(curves.y_label)
        axis.legend(frameon=False)
    return figure
