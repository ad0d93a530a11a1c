"""The verb `gnflow plot`."""

from typing import Annotated

import tyro

from ._arguments import AcceptDigests, Imports
from ._start import start


def plot(
    folder: tyro.conf.Positional[
        Annotated[str, tyro.conf.arg(metavar="DIR", help="The folder; its figures go into DIR/figures.")]
    ],
    x: Annotated[
        str | None, tyro.conf.arg(metavar="AXIS", help="Of a sweep: the horizontal axis of its figures.")
    ] = None,
    y: Annotated[str | None, tyro.conf.arg(metavar="AXIS", help="Of a sweep: the vertical axis of heat maps.")] = None,
    over: Annotated[
        str | None, tyro.conf.arg(metavar="AXIS", help="Of a sweep: the axis whose values have a panel each.")
    ] = None,
    variables: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(name="variable", metavar="NAME", help="Of a sweep: what to draw; any number of times."),
    ] = (),
    reference: Annotated[
        str | None, tyro.conf.arg(metavar="FLOW", help="Of a sweep: the flow that test losses are compared with.")
    ] = None,
    curves: tyro.conf.FlagCreatePairsOff[
        Annotated[
            bool,
            tyro.conf.arg(
                help_behavior_hint="",
                help="Of a sweep: losses against flow time, moving particles and the limit of infinite width too; "
                "reads every cell.",
            ),
        ]
    ] = False,
    imports: Imports = (),
    accept_digests: AcceptDigests = (),
) -> int:
    """Draw the figures of a folder anew: one that `gnflow run` or `gnflow sweep` wrote, or a run that a script saved.

    The figures of a sweep have their data beside them as CSV. The exit code is 1 if a figure could not be drawn, and 2 if the
    folder holds none of these.
    """
    start(f"drawing the figures of {folder}")
    from ._draw import draw

    return draw(
        folder,
        x=x,
        y=y,
        over=over,
        variables=variables,
        reference=reference,
        curves=curves,
        imports=imports,
        accept_digests=accept_digests,
    )
