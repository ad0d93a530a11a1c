"""Optimisers: what `gnflow.iterate` makes of a direction, with memory of the steps before."""

from collections.abc import Callable
from typing import Any

from ._adam import Adam as Adam
from ._base import AbstractOptimiser as AbstractOptimiser
from ._optax import Optax as Optax, as_optimiser as as_optimiser
from ._sgd import SGD as SGD

optimiser_kinds: dict[str, Callable[..., Any]] = {"sgd": SGD, "adam": Adam}
