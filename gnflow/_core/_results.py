"""How an integration or iteration ended: a code, the time, and a message that says what to do."""

import dataclasses
import enum


class ResultCode(enum.StrEnum):
    """The ways in which a run can end. `failed` says whether the run ended before what was asked for."""

    STOP_RULE_MET = "stop_rule_met"
    STOP_RULE_MET_AT_START = "stop_rule_met_at_start"
    STATIONARY = "stationary"
    TIME_REACHED = "time_reached"
    NUM_STEPS_REACHED = "num_steps_reached"
    HORIZON_REACHED = "horizon_reached"
    MAX_STEPS_REACHED = "max_steps_reached"
    STEP_SIZE_TOO_SMALL = "step_size_too_small"
    INACCURATE = "inaccurate"
    INTERRUPTED = "interrupted"
    NON_FINITE = "non_finite"
    DIRECTION_FAILED = "direction_failed"
    SOLVER_FAILED = "solver_failed"

    @property
    def failed(self) -> bool:
        """Whether the run ended before what was asked for."""
        return self in _FAILURES


_FAILURES = frozenset(
    {
        ResultCode.HORIZON_REACHED,
        ResultCode.INACCURATE,
        ResultCode.INTERRUPTED,
        ResultCode.MAX_STEPS_REACHED,
        ResultCode.STEP_SIZE_TOO_SMALL,
        ResultCode.NON_FINITE,
        ResultCode.DIRECTION_FAILED,
        ResultCode.SOLVER_FAILED,
    }
)


@dataclasses.dataclass(frozen=True)
class Result:
    """The end of a run.

    **Attributes:**

    - `code`: how it ended.
    - `message`: what happened and what to do about it.
    - `time`: when it ended: flow time for `simulate`, the number of the step for `iterate`.
    """

    code: ResultCode
    message: str
    time: float

    @property
    def failed(self) -> bool:
        """Whether the run ended before what was asked for."""
        return self.code.failed

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
