"""Flows: vector fields on a model's weights, dw/dt = velocity(t, w; system)."""

from collections.abc import Callable
from typing import Any

from ._base import (
    AbstractFlow as AbstractFlow,
    AbstractLinearisedFlow as AbstractLinearisedFlow,
    AbstractOutputFlow as AbstractOutputFlow,
)
from ._frozen import Frozen as Frozen
from ._gauss_newton import GaussNewtonFlow as GaussNewtonFlow
from ._gradient import GradientFlow as GradientFlow
from ._spectral import SpectralFlow as SpectralFlow

flow_kinds: dict[str, Callable[..., Any]] = {
    "gradient": GradientFlow,
    "gauss_newton": GaussNewtonFlow,
    "spectral": SpectralFlow,
    "frozen": Frozen,
}
