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
Quiet = tyro.conf.FlagCreatePairsOff[
    Annotated[bool, tyro.conf.arg(help_behavior_hint="", help="No progress: print the table alone.")]
]
