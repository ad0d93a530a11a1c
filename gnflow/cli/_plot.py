"""The verb `gnflow plot`."""

from pathlib import Path
from typing import Annotated

import tyro

from ..plots import draw_figures, save, trajectory_figures
from ..simulate import RUN_FILE, load
from ._folder import RunFolder


def plot(
    folder: tyro.conf.Positional[
        Annotated[Path, tyro.conf.arg(metavar="DIR", help="The folder; its figures go into DIR/figures.")]
    ],
) -> int:
    """Draw the figures of a folder anew: one that `gnflow run` wrote, or a single run that a script saved.

    The exit code is 2 if the folder holds no run.
    """
    if (folder / RUN_FILE).is_file():
        figures = trajectory_figures({folder.resolve().name: [load(folder)]})
        written = [save(figure, folder / "figures" / f"{name}.png") for name, figure in figures.items()]
    else:
        runs = RunFolder(folder)
        specification = runs.read_specification()
        written = draw_figures(specification, runs.load(specification), runs.figures)
    for path in written:
        print(path)
    return 0
