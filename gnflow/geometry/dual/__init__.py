"""Dual (prox-linear) Gauss-Newton directions: a convex model of the loss is minimised in the dual, with NC unknowns.

Derived in docs/dual.md. Oracles differ from the solvers of `gnflow.geometry.directions`: they take the loss itself, while a
solver takes a linear system that the output metric and a damping rule define.
"""

from collections.abc import Callable
from typing import Any

from ._base import AbstractDualOracle as AbstractDualOracle, DualDirection as DualDirection
from ._blocks import (
    BlockDirection as BlockDirection,
    block_direction as block_direction,
    blocks_of as blocks_of,
)
from ._exact import ExactOracle as ExactOracle
from ._products import GramProducts as GramProducts, gram_products as gram_products
from ._quadratic import QuadraticOracle as QuadraticOracle

dual_oracle_kinds: dict[str, Callable[..., Any]] = {"quadratic": QuadraticOracle, "exact": ExactOracle}
