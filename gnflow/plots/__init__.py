"""Figures of runs and of grids of runs. They are Matplotlib figures without the global state of pyplot.

`save` writes them as PNG.
"""

from ._boundary_figure import boundary_figure as boundary_figure
from ._comparison_figure import comparison_figure as comparison_figure
from ._curves import curves_figure as curves_figure
from ._directions import directions_figure as directions_figure
from ._draw import draw_figures as draw_figures
from ._drawn import DrawnFigure as DrawnFigure
from ._eigenvalues import eigenvalue_figure as eigenvalue_figure
from ._heat_map import heat_map_figure as heat_map_figure
from ._loss import loss_figure as loss_figure
from ._movement import movement_figure as movement_figure
from ._particle_motion import particle_motion as particle_motion
from ._particles import animate_particles as animate_particles, particle_stills_figure as particle_stills_figure
from ._regime import regime_figure as regime_figure
from ._regime_map import regime_map_figure as regime_map_figure
from ._residuals import residuals_figure as residuals_figure
from ._run_figures import draw_run_figures as draw_run_figures, trajectory_figures as trajectory_figures
from ._seed_bands import seed_band_figure as seed_band_figure
from ._style import save as save
from ._width_limit_figure import width_limit_figure as width_limit_figure
