"""What a theorem is, and how one is checked on a run: hypotheses first, conclusions only where all of them are met."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from ._certificate import Certificate, Curves
from ._check import Check
from ._claim import Claim
from ._evidence import Evidence
from ._verdict import Verdict

_TINY = 1e-300


@dataclasses.dataclass(frozen=True)
class Hypotheses:
    """**Attributes:** `checks`: one for each hypothesis; `constants`: what they were computed from, by name."""

    checks: tuple[Check, ...]
    constants: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """**Attributes:** `claims`: what the theorem predicts against what was observed; `constants`; `curves`: for the figure."""

    claims: tuple[Claim, ...]
    constants: Mapping[str, float] = dataclasses.field(default_factory=dict)
    curves: tuple[Curves, ...] = ()


class AbstractTheorem(abc.ABC):
    """A theorem that can be checked on a run. Subclasses are frozen dataclasses whose fields are its parameters.

    **Attributes:** `name`: what tables call it; `statement`: a sentence; `reference`: paper and number, and the page with
    the proof; `own_runs`: whether checking it takes further runs beyond the evidence's second one; such a theorem is checked
    where it is asked for by name.
    """

    name: ClassVar[str]
    statement: ClassVar[str]
    reference: ClassVar[str]
    own_runs: ClassVar[bool] = False

    @abc.abstractmethod
    def hypotheses(self, evidence: Evidence) -> Hypotheses:
        """Every assumption, evaluated on the run. The first that fails is named in the certificate."""

    @abc.abstractmethod
    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """Prediction against observation; called only where every hypothesis is met."""

    def certify(self, evidence: Evidence) -> Certificate:
        """Check the theorem on a run."""
        hypotheses = self.hypotheses(evidence)
        failed = [check for check in hypotheses.checks if check.met is False]
        unclear = [check for check in hypotheses.checks if check.met is None]
        if failed:
            return self._certificate(Verdict.ASSUMPTIONS_NOT_MET, _why(failed[0]), hypotheses)
        if unclear:
            return self._certificate(Verdict.UNDECIDED, f"the error leaves open whether {unclear[0].name}", hypotheses)
        conclusion = self.conclusion(evidence, hypotheses)
        verdict, reason = _verdict_of(conclusion.claims)
        estimates = [check.name for check in hypotheses.checks if not check.rigorous]
        if estimates and verdict != Verdict.UNDECIDED:
            reason += f" (hypotheses known by estimates, not bounds: {'; '.join(estimates)})"
        return self._certificate(verdict, reason, hypotheses, conclusion)

    def _certificate(
        self, verdict: Verdict, reason: str, hypotheses: Hypotheses, conclusion: Conclusion | None = None
    ) -> Certificate:
        conclusion = Conclusion(()) if conclusion is None else conclusion
        return Certificate(
            theorem=self.name,
            statement=self.statement,
            reference=self.reference,
            verdict=verdict,
            reason=reason,
            checks=hypotheses.checks,
            claims=conclusion.claims,
            constants={**hypotheses.constants, **conclusion.constants},
            curves=conclusion.curves,
        )


def _why(check: Check) -> str:
    numbers = "" if check.relation == "==" else f": {check.value:.4g} is not {check.relation} {check.threshold:.4g}"
    remark = f" ({check.remark})" if check.remark else ""
    return f"not met: {check.name}{numbers}{remark}"


def _verdict_of(claims: tuple[Claim, ...]) -> tuple[Verdict, str]:
    """The worst verdict of the claims, and the sentence that says which claim gave it."""
    for verdict in (Verdict.VIOLATED, Verdict.UNDECIDED):
        for claim in claims:
            if claim.verdict == verdict:
                where = f" {claim.where}" if claim.where else ""
                numbers = f"slack {claim.slack:.3g}, error {claim.tolerance:.3g}, at most {claim.error_bound:.3g}"
                return verdict, f"{claim.name}: {numbers}{where}"
    if not claims:
        return Verdict.UNDECIDED, "the run gives nothing to compare"
    closest = min(claims, key=lambda claim: claim.slack / max(claim.error_bound, _TINY))
    numbers = f"slack {closest.slack:.3g}, error {closest.tolerance:.3g}"
    return Verdict.HOLDS, f"{len(claims)} conclusions; closest to its bound: {closest.name}, {numbers}"
