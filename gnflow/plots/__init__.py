"""Figures of runs. They are matplotlib figures without pyplot's global state; `save` writes them as PNG."""

from ._directions import directions_figure as directions_figure
from ._eigenvalues import eigenvalue_figure as eigenvalue_figure
from ._figures import draw_figures as draw_figures, trajectory_figures as trajectory_figures
from ._loss import loss_figure as loss_figure
from ._movement import movement_figure as movement_figure
from ._regime import regime_figure as regime_figure
from ._style import save as save
