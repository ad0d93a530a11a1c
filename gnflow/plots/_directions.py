"""The directions of the particles of a two-layer network."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from ._style import COLOURS, legend, new_figure, styled, title

_POSITIVE, _NEGATIVE = COLOURS[0], COLOURS[1]
_SMALLEST_AREA, _LARGEST_AREA = 1.5, 45.0  # points^2


@styled
def directions_figure(models: Mapping[str, Any], teacher: Any = None) -> Figure | None:
    """Unit first-layer directions of the particles, projected on a plane, with a panel for each model.

    The plane is spanned by the two leading principal directions of the teacher's units if it has two or more, and otherwise of
    the particles of the last model, weighted by their norm. The area of a particle grows with |v_i| |u_i|, its share in the
    function, relative to the largest in its panel. For one output the colour shows the sign of v_i. The circle has unit length;
    particles inside of it point out of the plane.

    **Arguments:**

    - `models`: two-layer networks (`hidden_weight` (M, d), `output_weight` (M, C)) by title, such as "start" and the names of
      flows.
    - `teacher`: a network of the same kind, or None.

    **Returns:** the figure, or None if there is no such network with finite weights, or the input has one dimension.
    """
    drawn = {name: _particles(model) for name, model in models.items() if _has_particles(model)}
    if not drawn:
        return None
    units = _unit(_particles(teacher)[0]) if teacher is not None and _has_particles(teacher) else None
    plane = _plane(units if units is not None and len(units) > 1 else list(drawn.values())[-1][0])
    columns = min(2, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    figure, axes = new_figure(rows, columns, height=0.75 + 1.75 * rows, sharex=True, sharey=True)
    for panel, (name, particles) in zip(axes, drawn.items(), strict=False):
        _draw(panel, *particles, plane)
        if units is not None:
            panel.plot(*(units @ plane).T, linestyle="", marker="x", color="black", markersize=5, markeredgewidth=1.2)
        panel.set_title(title(name))
    for panel in axes[len(drawn) :]:
        panel.set_axis_off()
    source = "the teacher" if units is not None and len(units) > 1 else "the particles"
    figure.supxlabel(f"first principal direction of {source}", fontsize=8)
    figure.supylabel("second principal direction", fontsize=8)
    legend(figure, _handles(drawn, units), columns=2)
    return figure


def _has_particles(model: Any) -> bool:
    shapes: list[tuple[int, ...]] = [np.shape(getattr(model, name, ())) for name in ("hidden_weight", "output_weight")]
    if not all(len(shape) == 2 for shape in shapes) or shapes[0][0] < 1 or shapes[0][1] < 2:
        return False
    # The weights of a run that diverged have no directions.
    return all(np.all(np.isfinite(weight)) for weight in (model.hidden_weight, model.output_weight))


def _particles(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Hidden and output weights, each divided by its largest entry.

    Only proportions are drawn, and without large numbers their squares cannot overflow.
    """
    weights = (np.asarray(model.hidden_weight), np.asarray(model.output_weight))
    hidden, output = (weight / (np.max(np.abs(weight)) or 1.0) for weight in weights)
    return hidden, output


def _share(hidden: np.ndarray, output: np.ndarray) -> np.ndarray:
    return np.linalg.norm(hidden, axis=1) * np.linalg.norm(output, axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def _plane(vectors: np.ndarray) -> np.ndarray:
    """The two leading right singular vectors (d, 2) of `vectors` (m, d)."""
    # A single vector spans no plane. With rows of zeros the decomposition completes it.
    padded = np.concatenate([vectors, np.zeros((2, vectors.shape[1]))])
    return np.linalg.svd(padded, full_matrices=False)[2][:2].T


def _draw(panel: Axes, hidden: np.ndarray, output: np.ndarray, plane: np.ndarray) -> None:
    share = _share(hidden, output)
    order = np.argsort(share)
    area = _SMALLEST_AREA + _LARGEST_AREA * share / (share.max() or 1.0)
    colours = np.where(share == 0, "0.6", _POSITIVE)
    if output.shape[1] == 1:
        colours = np.where(output[:, 0] < 0, _NEGATIVE, colours)
    points = _unit(hidden) @ plane
    panel.scatter(*points[order].T, s=area[order], c=colours[order], alpha=0.55, linewidths=0)
    panel.add_patch(Circle((0, 0), 1, fill=False, color="0.6", linewidth=0.6))
    panel.set_aspect("equal")
    panel.set_xlim(-1.08, 1.08)
    panel.set_ylim(-1.08, 1.08)
    panel.set_xticks([-1, 0, 1])
    panel.set_yticks([-1, 0, 1])


def _handles(drawn: Mapping[str, tuple[np.ndarray, np.ndarray]], units: np.ndarray | None) -> list[Line2D]:
    def dot(colour: str, label: str) -> Line2D:
        return Line2D([], [], linestyle="", marker="o", markersize=4, color=colour, markeredgewidth=0, label=label)

    outputs = [output for _, output in drawn.values()]
    one_output = outputs[0].shape[1] == 1
    handles = [dot(_POSITIVE, "particle, $v_i > 0$"), dot(_NEGATIVE, "particle, $v_i < 0$")]
    handles = handles if one_output else [dot(_POSITIVE, "particle")]
    if any(np.any(output == 0) for output in outputs):
        handles.append(dot("0.6", "particle, $v_i = 0$"))
    if units is not None:
        handles.append(Line2D([], [], linestyle="", marker="x", color="black", markersize=5, label="teacher's unit"))
    return handles
