"""The verb `gnflow verify`."""

from typing import Annotated

import tyro

from ._arguments import AcceptDigests, Imports, Quiet
from ._start import start


def verify(
    folder: tyro.conf.Positional[
        Annotated[
            str,
            tyro.conf.arg(
                metavar="RUN_DIR", help="A folder that `gnflow run` wrote, or a single run that a script saved."
            ),
        ]
    ],
    theorems: tyro.conf.UseAppendAction[
        Annotated[
            tuple[str, ...],
            tyro.conf.arg(
                name="theorem",
                metavar="NAME",
                help="Check this theorem only; any number of times. Without it, every theorem about a single run; with `all` "
                "those that take runs of their own too.",
            ),
        ]
    ] = (),
    out: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="DIR",
            help_behavior_hint="(default: RUN_DIR/certificates)",
            help="The folder for the certificates: certificates.json, certificates.md and figures, for each run. "
            "What is there under these names is replaced.",
        ),
    ] = None,
    full: tyro.conf.FlagCreatePairsOff[
        Annotated[
            bool,
            tyro.conf.arg(
                help_behavior_hint="", help="Print every certificate whole: hypotheses, conclusions, constants."
            ),
        ]
    ] = False,
    imports: Imports = (),
    accept_digests: AcceptDigests = (),
    quiet: Quiet = False,
) -> int:
    """Check theorems on finished runs: which assumptions hold, what is predicted, what was observed, the verdict.

    The exit code is 1 if a theorem is violated and 2 for bad input.
    """
    start(f"checking theorems on the runs in {folder}", quiet)
    from ._check_theorems import check_theorems

    return check_theorems(folder, theorems, out, full, quiet, imports=imports, accept_digests=accept_digests)
