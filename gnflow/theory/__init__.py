"""Theorems checked on runs: hypotheses with slack, predictions against observations, and a verdict on both."""

from typing import TYPE_CHECKING, Any

from ._a_priori import APriori as APriori
from ._accuracy import Accuracy as Accuracy
from ._base import (
    AbstractTheorem as AbstractTheorem,
    Conclusion as Conclusion,
    Hypotheses as Hypotheses,
    in_stages as in_stages,
)
from ._certificate import Certificate as Certificate, Certificates as Certificates
from ._claim import (
    Check as Check,
    Claim as Claim,
    Error as Error,
    Verdict as Verdict,
    compare as compare,
)
from ._conservation import Conservation as Conservation
from ._curves import Curves as Curves
from ._discretisation import Discretisation as Discretisation
from ._dual_directions import DualDirections as DualDirections
from ._evidence import Evidence as Evidence
from ._exact_rate import ExactRate as ExactRate
from ._feature_gram import FeatureGram as FeatureGram
from ._kernel_dynamics import KernelDynamics as KernelDynamics
from ._kernel_limit import KernelLimit as KernelLimit
from ._linearised_distance import LinearisedDistance as LinearisedDistance
from ._lipschitz import LipschitzBound as LipschitzBound, jacobian_lipschitz as jacobian_lipschitz
from ._mean_field_limit import MeanFieldLimit as MeanFieldLimit
from ._rate import RateFit as RateFit, fit_rate as fit_rate
from ._rate_band import RateBand as RateBand
from ._sandwich import Sandwich as Sandwich
from ._verify import theorem_kinds as theorem_kinds, verify as verify
from ._wasserstein import (
    SlicedDistance as SlicedDistance,
    sliced_wasserstein2 as sliced_wasserstein2,
    wasserstein2 as wasserstein2,
)

if TYPE_CHECKING:
    from ._infinite_width import InfiniteWidth as InfiniteWidth, infinite_width as infinite_width

# They read sweeps, and with them xarray and pandas, which nothing else here needs.
_ON_USE = ("InfiniteWidth", "infinite_width")


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import _infinite_width

    return getattr(_infinite_width, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_USE})
