"""Options that several verbs have."""

from typing import Annotated

import tyro

# As the annotation of a parameter: `quiet: Quiet = False`.
Quiet = tyro.conf.FlagCreatePairsOff[
    Annotated[bool, tyro.conf.arg(help_behavior_hint="", help="No progress: print the table alone.")]
]
