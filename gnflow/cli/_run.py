"""The verb `gnflow run`."""

from typing import Annotated

import tyro

from ._arguments import AcceptDigests, Overrides, Quiet, Size
from ._start import start


def run(
    config: tyro.conf.Positional[
        Annotated[
            str | None,
            tyro.conf.arg(
                metavar="[CONFIG.toml]",
                help_behavior_hint="",
                help="The file that states the runs. Without one, the packaged quick start: the teacher-student "
                "problem of Arbel et al. 2023 at reduced size, three initialisation scales, three flows.",
            ),
        ]
    ] = None,
    out: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="DIR",
            help_behavior_hint="(default: gnflow-runs/NAME)",
            help="The folder to write: config.toml, runs/, figures/, summary.csv. Nothing in it is overwritten.",
        ),
    ] = None,
    size: Size = None,
    overrides: Overrides = (),
    resume: tyro.conf.FlagCreatePairsOff[
        Annotated[
            bool,
            tyro.conf.arg(
                help_behavior_hint="",
                help="Go on in a folder that holds runs already: keep the finished ones, compute the missing ones.",
            ),
        ]
    ] = False,
    accept_digests: AcceptDigests = (),
    quiet: Quiet = False,
) -> int:
    """Carry out the runs that a TOML file states (variants x axes x flows x seeds) in this process, one after another,
    keep their trajectories, print a table and draw figures.

    kind = "my_module:MyFlow" in the file names a class or function of yours, for a flow, a model, a loss and so on: it is
    imported from the folder of the file, or the working directory, or what is installed (docs/cli.md, Parts of your own).

    The exit code is 1 if a run failed or a figure could not be drawn, and 2 for bad input.
    """
    start(f"carrying out the runs of {config or 'the packaged quick start'}", quiet)
    from ._compute import run_configuration

    return run_configuration(
        config, out, size=size, overrides=overrides, resume=resume, accept_digests=accept_digests, quiet=quiet
    )
