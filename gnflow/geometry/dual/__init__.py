"""Dual (prox-linear) Gauss-Newton directions: a convex model of the loss, solved in the dual, of NC unknowns
(docs/dual.md)."""

from collections.abc import Callable
from typing import Any

from ._base import AbstractDualOracle as AbstractDualOracle, DualDirection as DualDirection
from ._exact import ExactOracle as ExactOracle
from ._products import GramProducts as GramProducts, gram_products as gram_products
from ._quadratic import QuadraticOracle as QuadraticOracle

dual_oracle_kinds: dict[str, Callable[..., Any]] = {"quadratic": QuadraticOracle, "exact": ExactOracle}
