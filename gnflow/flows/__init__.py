"""Flows: vector fields on a model's weights, dw/dt = velocity(t, w; system)."""

from collections.abc import Callable
from typing import Any

from ._base import (
    AbstractFlow as AbstractFlow,
    AbstractLinearisedFlow as AbstractLinearisedFlow,
    AbstractOutputFlow as AbstractOutputFlow,
)
from ._dual_gauss_newton import DualGaussNewtonFlow as DualGaussNewtonFlow
from ._frozen import Frozen as Frozen
from ._gain import (
    AbstractGain as AbstractGain,
    ConstantGain as ConstantGain,
    InverseGain as InverseGain,
    PowerGain as PowerGain,
)
from ._gauss_newton import GaussNewtonFlow as GaussNewtonFlow
from ._gradient import GradientFlow as GradientFlow
from ._reversible_gauss_newton import ReversibleGaussNewtonFlow as ReversibleGaussNewtonFlow
from ._scaled import Scaled as Scaled
from ._spectral import SpectralFlow as SpectralFlow
from ._weight_decay import WeightDecay as WeightDecay

flow_kinds: dict[str, Callable[..., Any]] = {
    "gradient": GradientFlow,
    "gauss_newton": GaussNewtonFlow,
    "dual_gauss_newton": DualGaussNewtonFlow,
    "spectral": SpectralFlow,
    "reversible_gauss_newton": ReversibleGaussNewtonFlow,
    "frozen": Frozen,
    "weight_decay": WeightDecay,
    "scaled": Scaled,
}
