"""Check theorems on a run."""

from collections.abc import Sequence
from typing import Any, Literal, overload

from .._core import ConfigError, look_up
from ..simulate import Trajectory
from ._a_priori import APriori
from ._base import AbstractTheorem
from ._certificate import Certificate, Certificates
from ._conservation import Conservation
from ._discretisation import Discretisation
from ._dual_directions import DualDirections
from ._evidence import Evidence
from ._exact_rate import ExactRate
from ._feature_gram import FeatureGram
from ._kernel_dynamics import KernelDynamics
from ._kernel_limit import KernelLimit
from ._linearised_distance import LinearisedDistance
from ._mean_field_limit import MeanFieldLimit
from ._sandwich import Sandwich

# Every theorem by name. Unless told otherwise `verify` checks those about a single run.
theorem_kinds: dict[str, type[AbstractTheorem]] = {
    kind.name: kind
    for kind in (
        Sandwich,
        APriori,
        FeatureGram,
        ExactRate,
        KernelDynamics,
        Conservation,
        DualDirections,
        LinearisedDistance,
        KernelLimit,
        Discretisation,
        MeanFieldLimit,
    )
}


@overload
def verify(trajectory: Trajectory, theorem: Literal["all"] | None = None) -> Certificates: ...  # pyright: ignore[reportOverlappingOverload]
@overload
def verify(trajectory: Trajectory, theorem: str | AbstractTheorem) -> Certificate: ...
@overload
def verify(trajectory: Trajectory, theorem: Sequence[str | AbstractTheorem]) -> Certificates: ...
def verify(trajectory: Any, theorem: Any = None) -> Certificate | Certificates:
    """Check theorems on a run: which hypotheses hold, with how much slack, what is predicted, what was observed, the verdict.

    The run is repeated twice: by the same call, and at a tolerance that `verify` chooses. Theorems are tested on the second
    one. Both show whether the record is a run of this flow; otherwise no theorem about a run holds (docs/theorems/index.md).

    **Arguments:**

    - `trajectory`: from `simulate`, `iterate` or `load`.
    - `theorem`: a name in `theorem_kinds`, an `AbstractTheorem`, a list of these, None for every theorem about a single run, or
      "all" to include theorems that need further runs (minutes and more).

    **Returns:** one `Certificate` for a single theorem, `Certificates` otherwise.

    **Raises:** `ConfigError` for an unknown theorem, or if `trajectory` is not a trajectory.
    """
    evidence = Evidence(trajectory)
    if theorem is None or (isinstance(theorem, str) and theorem == "all"):
        theorems = [kind() for kind in theorem_kinds.values() if theorem == "all" or not kind.own_runs]
    elif isinstance(theorem, str | AbstractTheorem):
        return _as_theorem(theorem).certify(evidence)
    else:
        theorems = [_as_theorem(t) for t in theorem]
    return Certificates(tuple(t.certify(evidence) for t in theorems))


def _as_theorem(theorem: Any) -> AbstractTheorem:
    if isinstance(theorem, AbstractTheorem):
        return theorem
    if isinstance(theorem, str):
        return look_up(theorem, theorem_kinds, "theorem")()
    raise ConfigError(f"theorem = {theorem!r}; expected a name ({', '.join(theorem_kinds)}) or an AbstractTheorem.")
