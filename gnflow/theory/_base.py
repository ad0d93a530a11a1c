"""What a theorem is, and how one is checked on a run: hypotheses first, conclusions only where all of them are met."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

from ._certificate import AGREES, Certificate, Curves
from ._check import Check
from ._claim import Claim
from ._description import description, steps_taken
from ._evidence import Evidence, OtherModelError
from ._record import record_claims, record_facts, start_claims, what_is_compared
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
    the proof; `own_runs`: whether checking it takes further runs beyond the evidence's two; such a theorem is checked
    where it is asked for by name; `allows_decay`: whether it is true of flows with weight decay, w' = -J^T a - D w; where not,
    such a run is none it is about; `about`: what of the record is part of the claim, and so compared: the whole "run", its
    "start", or nothing but the "parts" that it was made of.
    """

    name: ClassVar[str]
    statement: ClassVar[str]
    reference: ClassVar[str]
    own_runs: ClassVar[bool] = False
    allows_decay: ClassVar[bool] = False
    about: ClassVar[Literal["run", "start", "parts"]] = "run"

    @abc.abstractmethod
    def hypotheses(self, evidence: Evidence) -> Hypotheses:
        """Every assumption, evaluated on the run. The first that fails is named in the certificate."""

    @abc.abstractmethod
    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """Prediction against observation; called only where every hypothesis is met."""

    def certify(self, evidence: Evidence) -> Certificate:
        """Check the theorem on a run, and that the record is one of this flow."""
        run_over_time = self.about == "run" and evidence.is_continuous
        hypotheses = self._checked(evidence)
        if run_over_time and not any(check.met is False for check in hypotheses.checks):
            facts = record_facts(evidence)
            sound = all(check.met for check in facts)
            again = (evidence.repeated(),) if sound and all(check.met for check in hypotheses.checks) else ()
            checks = {check.name: check for check in (*facts, *hypotheses.checks, *again)}
            hypotheses = dataclasses.replace(hypotheses, checks=tuple(checks.values()))
        failed = [check for check in hypotheses.checks if check.met is False]
        unclear = [check for check in hypotheses.checks if check.met is None]
        if failed:
            return self._certificate(Verdict.ASSUMPTIONS_NOT_MET, _why(failed[0]), hypotheses)
        if unclear:
            remark = f" ({unclear[0].remark})" if unclear[0].remark else ""
            reason = f"the error leaves open whether {unclear[0].name}{remark}"
            return self._certificate(Verdict.UNDECIDED, reason, hypotheses)
        conclusion = self.conclusion(evidence, hypotheses)
        verdict, reason = _verdict_of(conclusion.claims)
        record, compared = self._of_the_record(evidence)
        found = [(verdict, reason), *([_verdict_of(record)] if record else [])]
        if run_over_time:
            described, steps = description(evidence), steps_taken(evidence)
            found = [*_doubts(found[-1][0], described, steps), *found]
            hypotheses = dataclasses.replace(hypotheses, checks=(*hypotheses.checks, *described, *steps))
        verdict, reason = _worse(*found)
        estimates = [check.name for check in hypotheses.checks if not check.rigorous]
        if estimates and verdict != Verdict.UNDECIDED:
            reason += f" (hypotheses known by estimates, not bounds: {'; '.join(estimates)})"
        return self._certificate(verdict, reason, hypotheses, conclusion, record, compared)

    def _checked(self, evidence: Evidence) -> Hypotheses:
        """The hypotheses, that nothing stands beside -J^T a, and that the record has last weights, where it is about these."""
        try:
            if evidence.decays and not self.allows_decay:
                return Hypotheses((Check.fact("the flow is -J^T a, without weight decay", False, repr(evidence.flow)),))
            hypotheses = self.hypotheses(evidence)
            if self.about != "start" and not any(check.met is False for check in hypotheses.checks):
                evidence.end  # noqa: B018 (raises)
        except OtherModelError as error:
            return Hypotheses((Check.fact(error.hypothesis, False),))
        return hypotheses

    def _of_the_record(self, evidence: Evidence) -> tuple[tuple[Claim, ...], str]:
        """What shows that the record is what it says, as far as the theorem is about it; and a sentence on how far that is."""
        if self.about == "run":
            return record_claims(evidence), what_is_compared(evidence)
        if self.about == "start":
            return start_claims(
                evidence
            ), "Certified: the first weights and losses. Not certified: the rest of the record."
        return (
            (),
            "Certified: problem, model at the start and flow. Not certified: the record, of which only its end is read.",
        )

    def _certificate(
        self,
        verdict: Verdict,
        reason: str,
        hypotheses: Hypotheses,
        conclusion: Conclusion | None = None,
        record: tuple[Claim, ...] = (),
        compared: str = "",
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
            record=record,
            compared=compared,
        )


def _why(check: Check) -> str:
    if check.relation == "==":
        is_fact = check.threshold == 1 and check.value in (0, 1)
        numbers = "" if is_fact else f": {check.value:.4g}, not {check.threshold:.4g}"
    else:
        numbers = f": {check.value:.4g} is not {check.relation} {check.threshold:.4g}"
    remark = f" ({check.remark})" if check.remark else ""
    return f"not met: {check.name}{numbers}{remark}"


def _doubts(record: Verdict, described: tuple[Check, ...], steps: tuple[Check, ...]) -> list[tuple[Verdict, str]]:
    """Why nothing is known of a record that does not come from its settings; empty where it does, or where it agrees with the
    reference whatever steps it took."""
    unmet = [check for check in described if not check.met]
    if unmet:
        return [(Verdict.UNDECIDED, f"the record does not come from its settings; {_why(unmet[0])}")]
    if record == Verdict.UNDECIDED and not all(check.met for check in steps):
        return [(record, f"the record comes from other settings or another machine; {_why(steps[0])}")]
    return []


def _worse(*found: tuple[Verdict, str]) -> tuple[Verdict, str]:
    """The first of the verdicts that is the worst."""
    order = (Verdict.VIOLATED, Verdict.UNDECIDED, Verdict.HOLDS)
    return min(found, key=lambda one: order.index(one[0]))


def _verdict_of(claims: tuple[Claim, ...]) -> tuple[Verdict, str]:
    """The worst verdict of the claims, and the sentence that says which claim gave it."""
    for verdict in (Verdict.VIOLATED, Verdict.UNDECIDED):
        for claim in claims:
            if claim.verdict == verdict:
                where = f" {claim.where}" if claim.where else ""
                numbers = f"slack {claim.slack:.3g}, error {claim.tolerance:.3g}, at most {claim.error_bound:.3g}"
                beyond = ": an error beyond what it tests" if claim.is_silent else ""
                return verdict, f"{claim.name}: {numbers}{where}{beyond}"
    if not claims:
        return Verdict.UNDECIDED, "the run gives nothing to compare"
    closest = min(claims, key=lambda claim: claim.slack / max(claim.error_bound, _TINY))
    by = f"slack {closest.slack:.3g}, error {closest.tolerance:.3g}, slack/error {closest.slack_over_error:.3g}"
    numbers = f"which {AGREES} ({by})" if closest.only_agrees else by
    return Verdict.HOLDS, f"{len(claims)} conclusions; closest to its bound: {closest.name}, {numbers}"
