"""Damping rules: eps in the Gauss-Newton direction (H A + eps I)^(-1) g."""

from collections.abc import Callable
from typing import Any

from ._base import AbstractDamping as AbstractDamping
from ._constant import Constant as Constant
from ._largest_eigenvalue import LargestEigenvalue as LargestEigenvalue
from ._predicted_decrease import PredictedDecrease as PredictedDecrease
from ._schedule import Exponential as Exponential, Schedule as Schedule
from ._smallest_eigenvalue import SmallestEigenvalue as SmallestEigenvalue
from ._spectrum import Spectrum as Spectrum
from ._trace import Trace as Trace

damping_kinds: dict[str, Callable[..., Any]] = {
    "constant": Constant,
    "smallest_eigenvalue": SmallestEigenvalue,
    "largest_eigenvalue": LargestEigenvalue,
    "trace": Trace,
    "exponential": Exponential,
    "predicted_decrease": PredictedDecrease,
}
