"""The verb `gnflow sweep`."""

from typing import Annotated

import tyro

from ._arguments import AcceptDigests, Overrides, Quiet, Size
from ._start import start


def sweep(
    config: tyro.conf.Positional[
        Annotated[str, tyro.conf.arg(metavar="CONFIG.toml", help="The file that states the sweep.")]
    ],
    out: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="DIR",
            help_behavior_hint="(default: gnflow-sweeps/NAME)",
            help="The folder to write, or to go on with: config.toml, cells/, index.jsonl.",
        ),
    ] = None,
    size: Size = None,
    overrides: Overrides = (),
    engine: Annotated[
        str,
        tyro.conf.arg(
            metavar="local|serial|dask|slurm|tcp://HOST:PORT",
            help="Where the cells are computed: processes of this machine, this process, a Dask cluster of this machine, "
            "Slurm jobs, or the workers of a Dask scheduler that runs already.",
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        tyro.conf.arg(metavar="K", help_behavior_hint="(default: one per core)", help="Processes, or Slurm jobs."),
    ] = None,
    memory: Annotated[
        float | None,
        tyro.conf.arg(
            metavar="GIB",
            help_behavior_hint="(default: what is free)",
            help="Memory in GiB: of all processes together (local), of each worker (dask, slurm).",
        ),
    ] = None,
    options: tyro.conf.UseAppendAction[
        Annotated[
            tuple[str, ...],
            tyro.conf.arg(
                name="option",
                metavar="KEY=VALUE",
                help="An option of the engine, such as --option threads=4, walltime=02:00:00, queue=long.",
            ),
        ]
    ] = (),
    retry_failed: tyro.conf.FlagCreatePairsOff[
        Annotated[
            bool,
            tyro.conf.arg(
                help_behavior_hint="", help="Compute again the cells that raised an error or lost their worker."
            ),
        ]
    ] = False,
    check: tyro.conf.FlagCreatePairsOff[
        Annotated[
            bool, tyro.conf.arg(help_behavior_hint="", help="Compare the checksums of the cells that are finished.")
        ]
    ] = False,
    accept_digests: AcceptDigests = (),
    quiet: Quiet = False,
) -> int:
    """Carry out a grid of runs (variants x axes x flows x seeds) that a TOML file states, or what is missing of it in DIR.

    kind = "my_module:MyFlow" in the file names a class or function of yours, as for `gnflow run`.

    It may be stopped at any instant; the same command goes on. The exit code is 1 if a cell failed, 2 for bad input, 130 after
    Ctrl-C.
    """
    start(f"carrying out the sweep of {config}", quiet)
    from ._compute import sweep_configuration

    return sweep_configuration(
        config,
        out,
        size=size,
        overrides=overrides,
        engine=engine,
        workers=workers,
        memory=memory,
        options=options,
        retry_failed=retry_failed,
        check=check,
        accept_digests=accept_digests,
        quiet=quiet,
    )
