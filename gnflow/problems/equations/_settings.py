"""What equations of one kind have in common: their terms, and errors against a reference with its gradient."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._collocation import Residual, ResidualTerm
from .._residual_problem import ResidualProblem
from ._conditions import Fixed, Vanishing
from ._errors import RelativeError
from ._quadrature import Box


def boundary_value_problem(
    name: str, residual: Residual, box: Box, boundary_weight: float, test: Mapping[str, RelativeError]
) -> ResidualProblem:
    """The residual vanishes in the box ("interior"), and u on all its faces ("boundary")."""
    inside, faces = box.inside(), box.faces(tuple(range(len(box.low))))
    terms = [
        ResidualTerm("interior", residual, inside[0], quadrature=inside[1]),
        ResidualTerm("boundary", Vanishing(), faces[0], boundary_weight, faces[1]),
    ]
    return ResidualProblem(terms, test=dict(test), name=name)


def initial_value_problem(
    name: str,
    residual: Residual,
    box: Box,
    boundary: ResidualTerm,
    initial: Callable[[np.ndarray], np.ndarray],
    initial_weight: float,
    test: Mapping[str, RelativeError],
) -> ResidualProblem:
    """The residual vanishes in the box of (x, t) ("interior"); beside `boundary`, u at t = 0 is `initial` of x ("initial")."""
    inside, start = box.inside(), box.on({1: 0.0}, "initial")
    terms = [
        ResidualTerm("interior", residual, inside[0], quadrature=inside[1]),
        boundary,
        ResidualTerm("initial", Fixed(), (start[0], initial(start[0][:, 0])), initial_weight, start[1]),
    ]
    return ResidualProblem(terms, test=dict(test), name=name)


def vanishing_at_ends(box: Box, weight: float) -> ResidualTerm:
    """u = 0 at both ends of the first coordinate ("boundary")."""
    ends, quadrature = box.faces((0,))
    return ResidualTerm("boundary", Vanishing(), ends, weight, quadrature)


def relative_errors(points: Any, values: Any, gradients: Any, quadrature: Any) -> dict[str, RelativeError]:
    """The errors in L2 and in H1, by the names of their variables."""
    return {
        "relative_l2": RelativeError(points, values, quadrature=quadrature),
        "relative_h1": RelativeError(points, values, gradients, quadrature),
    }
