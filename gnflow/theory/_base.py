"""The base class of theorems, and how one is checked on a run: hypotheses first, conclusions only if all of them are met."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import equinox as eqx

from . import _verdict
from ._certificate import Certificate
from ._claim import Check, Claim, Verdict
from ._curves import Curves
from ._description import description, steps_taken
from ._evidence import Evidence, OtherModelError
from ._record import record_claims, record_facts, start_claims, what_is_compared


@dataclasses.dataclass(frozen=True)
class Hypotheses:
    """The hypotheses of a theorem, evaluated on a run.

    **Attributes:**

    - `checks`: one for each hypothesis.
    - `constants`: the numbers that they were computed from, by name.
    """

    checks: tuple[Check, ...]
    constants: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """The conclusions of a theorem, evaluated on a run.

    **Attributes:**

    - `claims`: predictions against observations.
    - `constants`: further numbers, by name.
    - `curves`: the curves of the figure.
    """

    claims: tuple[Claim, ...]
    constants: Mapping[str, float] = dataclasses.field(default_factory=dict)
    curves: tuple[Curves, ...] = ()


# What a generator of hypotheses yields: checks, and the constants that they were computed from.
Stage = tuple[Check | Mapping[str, float], ...]


def in_stages(generate: Callable[[Any, Evidence], Iterator[Stage]]) -> Callable[[Any, Evidence], Hypotheses]:
    """`AbstractTheorem.hypotheses` from a generator. The code after a `yield` runs only if all checks before it are met.

    It is for hypotheses that cannot be evaluated, or have no meaning, before others are known to be true.
    """

    @functools.wraps(generate)
    def hypotheses(theorem: Any, evidence: Evidence) -> Hypotheses:
        checks: list[Check] = []
        constants: dict[str, float] = {}
        for stage in generate(theorem, evidence):
            for found in stage:
                if isinstance(found, Check):
                    checks.append(found)
                else:
                    constants.update(found)
            if not all(check.met for check in checks):
                break
        return Hypotheses(tuple(checks), constants)

    return hypotheses


class AbstractTheorem(abc.ABC):
    """A theorem that can be checked on a run. Subclasses are frozen dataclasses whose fields are its parameters.

    **Attributes:**

    - `name`: its name in tables.
    - `statement`: the theorem in a sentence.
    - `reference`: paper and number, and the page with the proof.
    - `own_runs`: whether the check needs further runs beyond the two of the evidence. Such a theorem is checked only if it is
      asked for by name.
    - `allows_decay`: whether it is true for flows with weight decay, w' = -J^T a - D w. If not, its assumptions are not met by
      such a run.
    - `allows_residuals`: whether it is true for residual problems, whose outputs are not the model's values at inputs. If not,
      its assumptions are not met by such a run.
    - `about`: the part of the record that the claim is about, and that is compared: the whole "run", its "start", or only the
      "parts" that it was made of.
    """

    name: ClassVar[str]
    statement: ClassVar[str]
    reference: ClassVar[str]
    own_runs: ClassVar[bool] = False
    allows_decay: ClassVar[bool] = False
    allows_residuals: ClassVar[bool] = False
    about: ClassVar[Literal["run", "start", "parts"]] = "run"

    @abc.abstractmethod
    def hypotheses(self, evidence: Evidence, /) -> Hypotheses:
        """Evaluate every assumption on the run. The certificate names the first that fails. See `in_stages`."""

    @abc.abstractmethod
    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """Compare prediction and observation. This is called only if every hypothesis is met."""

    def certify(self, evidence: Evidence) -> Certificate:
        """Check the theorem on a run, and that the record is a run of this flow."""
        over_time = self.about == "run" and evidence.is_continuous
        hypotheses = self._checked(evidence)
        if over_time and not any(check.met is False for check in hypotheses.checks):
            facts = record_facts(evidence)
            all_met = all(check.met for check in (*facts, *hypotheses.checks))
            again = (evidence.repeated(),) if all_met else ()
            checks = {check.name: check for check in (*facts, *hypotheses.checks, *again)}
            hypotheses = dataclasses.replace(hypotheses, checks=tuple(checks.values()))
        unmet = _verdict.of_hypotheses(hypotheses.checks)
        if unmet is not None:
            return self._certificate(*unmet, hypotheses)
        conclusion = self.conclusion(evidence, hypotheses)
        record, compared = self._of_the_record(evidence)
        found = [_verdict.of_claims(claims) for claims in (conclusion.claims, record)[: 2 if record else 1]]
        if over_time:
            described, steps = description(evidence), steps_taken(evidence)
            found = [*_doubts(found[-1][0], described, steps), *found]
            hypotheses = dataclasses.replace(hypotheses, checks=(*hypotheses.checks, *described, *steps))
        verdict, reason = _verdict.worst_of(*found)
        reason = _verdict.with_estimates(verdict, reason, hypotheses.checks)
        return self._certificate(verdict, reason, hypotheses, conclusion, record, compared)

    def _checked(self, evidence: Evidence) -> Hypotheses:
        """The hypotheses, after those of all theorems: only the flow moves the weights, and the last model is readable."""
        try:
            if evidence.solves_readout:
                remark = "the output layer was solved exactly on the way"
                return Hypotheses((Check.fact("the weights move by the flow alone", False, remark),))
            if evidence.decays and not self.allows_decay:
                # In one line, as every remark: tables have a line for each certificate.
                remark = eqx.tree_pformat(evidence.flow, width=10**6)
                return Hypotheses((Check.fact("the flow is -J^T a, without weight decay", False, remark),))
            if not (evidence.system.problem.has_samples or self.allows_residuals):
                name = "the outputs are the model's values at the training inputs"
                return Hypotheses((Check.fact(name, False, type(evidence.system.problem).__name__),))
            hypotheses = self.hypotheses(evidence)
            if self.about != "start" and not any(check.met is False for check in hypotheses.checks):
                evidence.end  # noqa: B018 (raises)
        except OtherModelError as error:
            return Hypotheses((Check.fact(error.hypothesis, False),))
        return hypotheses

    def _of_the_record(self, evidence: Evidence) -> tuple[tuple[Claim, ...], str]:
        """Claims that compare the record with reruns, as far as the theorem is about it; and what is certified, in words."""
        if self.about == "run":
            return record_claims(evidence), what_is_compared(evidence)
        if self.about == "start":
            certified = "the first weights and losses. Not certified: the rest of the record."
            return start_claims(evidence), f"Certified: {certified}"
        certified = "problem, model at the start and flow. Not certified: the record, of which only its end is read."
        return (), f"Certified: {certified}"

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


def _doubts(record: Verdict, described: tuple[Check, ...], steps: tuple[Check, ...]) -> list[tuple[Verdict, str]]:
    """Why nothing is known about a record that does not come from its settings.

    Empty if it comes from them, or if it agrees with the reference although it took other steps.
    """
    unmet = [check for check in described if not check.met]
    if unmet:
        reason = f"the record does not come from its settings; {_verdict.why_not_met(unmet[0])}"
        return [(Verdict.UNDECIDED, reason)]
    if record == Verdict.UNDECIDED and not all(check.met for check in steps):
        reason = f"the record comes from other settings or another machine; {_verdict.why_not_met(steps[0])}"
        return [(record, reason)]
    return []
