"""The verb `gnflow compare`."""

from typing import Annotated

import tyro

from ._arguments import AcceptDigests, Imports
from ._start import start


def compare(
    folders: tyro.conf.Positional[
        Annotated[
            tuple[str, ...],
            tyro.conf.arg(
                metavar="DIR [DIR ...]",
                help_behavior_hint="",
                help="Folders that `gnflow run` or `gnflow sweep` wrote, or of single runs, also those that a script saved.",
            ),
        ]
    ],
    only: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="TEXT", help_behavior_hint="", help="Only runs with this text in their name, FOLDER/VARIANT/FLOW."
        ),
    ] = None,
    out: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="DIR",
            help_behavior_hint="",
            help="The folder for comparison.csv, curves.csv, configuration.csv and the figure comparison.png. What is there "
            "under these names is replaced. Without it, tables are printed alone.",
        ),
    ] = None,
    imports: Imports = (),
    accept_digests: AcceptDigests = (),
) -> int:
    """Compare the losses of runs: over time on a common clock, and at equal training loss; and list how they differ.

    Runs that differ in their seed alone are one line, the medians. Runs on different problems are compared apart. The exit code
    is 1 if the figure could not be drawn, and 2 for bad input.
    """
    start(f"comparing the runs in {', '.join(folders)}")
    from ._compare_folders import compare_folders

    return compare_folders(folders, only, out, imports=imports, accept_digests=accept_digests)
