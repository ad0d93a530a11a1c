"""Arguments that several verbs share, as annotations of their parameters. Only the parser is loaded here."""

from typing import Annotated

import tyro

Overrides = tyro.conf.UseAppendAction[
    Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            name="set",
            metavar="KEY=VALUE",
            help="Change one entry of the configuration, such as --set model.width=200 or --set axes.tau0.values=[0.1,1].",
        ),
    ]
]
Size = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME", help_behavior_hint="", help="One of the file's [sizes], such as smoke, laptop or paper."
    ),
]
Imports = tyro.conf.UseAppendAction[
    Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            name="import",
            metavar="MODULE",
            help="Import this module of yours, which parts of the runs are from; any number of times. It is looked for in the "
            "working directory and among what is installed (or give its file), and must have the digest that the folder "
            "recorded.",
        ),
    ]
]
AcceptDigests = tyro.conf.UseAppendAction[
    Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            name="accept-digest",
            metavar="DIGEST",
            help="Take a module of yours although it was changed since, by the digest that it has now; any number of times.",
        ),
    ]
]
Quiet = tyro.conf.FlagCreatePairsOff[
    Annotated[bool, tyro.conf.arg(help_behavior_hint="", help="No progress: print the table alone.")]
]
