"""One hypothesis of a theorem, evaluated on a run."""

import dataclasses
import math
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Check:
    """A hypothesis `value relation threshold`, with how surely the value is known.

    **Attributes:** `name`: the hypothesis as a formula or a clause; `value`, `threshold`; `relation`; `error`: bound or
    estimate of the error of value - threshold; `rigorous`: whether value and error are bounds and not estimates;
    `remark`: where they come from, or what to do.
    """

    name: str
    value: float
    relation: Literal["<", "<=", ">", ">=", "=="]
    threshold: float
    error: float = 0.0
    rigorous: bool = True
    remark: str = ""

    @classmethod
    def fact(cls, name: str, true: bool, remark: str = "") -> "Check":
        """A hypothesis that is true or false of the run's parts, without a number."""
        return cls(name, float(true), "==", 1.0, remark=remark)

    @property
    def slack(self) -> float:
        """How far the value is on the right side of the threshold; negative on the wrong one."""
        if self.relation == "==":
            return -abs(self.value - self.threshold)
        return self.threshold - self.value if self.relation in ("<", "<=") else self.value - self.threshold

    @property
    def met(self) -> bool | None:
        """True or False where the slack is larger than its error, None where the error leaves it open."""
        if math.isnan(self.slack) or math.isnan(self.error):
            return None
        if self.relation == "==":
            return -self.slack <= self.error
        if self.slack > self.error:
            return True
        if self.slack < -self.error:
            return False
        if self.error == 0:  # on the threshold, exactly known
            return self.relation in ("<=", ">=")
        return None
