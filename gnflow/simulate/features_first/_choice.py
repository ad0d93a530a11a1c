"""The extension point of rules that choose when the features are learned."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx

from ...problems import AbstractProblem
from .._trajectory import Trajectory
from ..stop import AbstractStopRule

# (problem, metrics) -> a run of the flow to where the first stage ends at the latest.
Probe = Callable[[AbstractProblem, tuple[Any, ...]], Trajectory]


@dataclasses.dataclass(frozen=True)
class Decision:
    """When the first stage ends, and how its output layer is solved.

    **Attributes:**

    - `t1`: the flow time; None if `stop` says it.
    - `stop`: the rule that ends the stage; None if `t1` says it.
    - `cutoff`: the share of the largest eigenvalue of the features' Gram matrix up to which eigenvalues count as zero.
    - `probes`: the runs that were made to decide.
    - `found`: what was found, by name, for the record.
    """

    t1: float | None = None
    stop: AbstractStopRule | None = None
    cutoff: float = 1e-10
    probes: tuple[Trajectory, ...] = ()
    found: dict[str, Any] = dataclasses.field(default_factory=dict)


class AbstractFeatureChoice(eqx.Module):
    """A rule that chooses when features are learned, by a run of the flow. No rule sees the test data."""

    @abc.abstractmethod
    def decide(self, problem: AbstractProblem, readout: str, cutoff: float, probe: Probe) -> Decision:
        """The decision for one stage.

        **Arguments:**

        - `problem`: the training data, without test data.
        - `readout`: the name of the output layer.
        - `cutoff`: the cut-off of the solve, unless the rule chooses another.
        - `probe`: runs the flow from the first model of the stage, on any problem with inputs and outputs like these.

        **Raises:** `ConfigError` or `DataError` if the rule is not defined for the problem.
        """
