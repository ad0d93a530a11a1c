"""The verdict from checks and claims, with a sentence for its reason."""

from ._claim import Check, Claim, Verdict

# How a claim that holds reads where its slack is no larger than its error.
AGREES = "agrees within the error"
_TINY = 1e-300


def why_not_met(check: Check) -> str:
    """What a hypothesis that is not met asks for, and what was found instead."""
    if check.relation == "==":
        is_fact = check.threshold == 1 and check.value in (0, 1)
        numbers = "" if is_fact else f": {check.value:.4g}, not {check.threshold:.4g}"
    else:
        numbers = f": {check.value:.4g} is not {check.relation} {check.threshold:.4g}"
    return f"not met: {check.name}{numbers}{_in_brackets(check.remark)}"


def of_hypotheses(checks: tuple[Check, ...]) -> tuple[Verdict, str] | None:
    """The verdict that the first hypothesis gives which fails, else the first that is open; None where all are met."""
    failed = [check for check in checks if check.met is False]
    if failed:
        return Verdict.ASSUMPTIONS_NOT_MET, why_not_met(failed[0])
    unclear = [check for check in checks if check.met is None]
    if unclear:
        name, remark = unclear[0].name, unclear[0].remark
        return Verdict.UNDECIDED, f"the error leaves open whether {name}{_in_brackets(remark)}"
    return None


def of_claims(claims: tuple[Claim, ...]) -> tuple[Verdict, str]:
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


def worst_of(*found: tuple[Verdict, str]) -> tuple[Verdict, str]:
    """The first of the verdicts that is the worst."""
    order = (Verdict.VIOLATED, Verdict.UNDECIDED, Verdict.HOLDS)
    return min(found, key=lambda one: order.index(one[0]))


def with_estimates(verdict: Verdict, reason: str, checks: tuple[Check, ...]) -> str:
    """The reason of a verdict that is decided, with the hypotheses that are known by estimates alone."""
    estimates = [check.name for check in checks if not check.rigorous]
    if not estimates or verdict == Verdict.UNDECIDED:
        return reason
    return f"{reason} (hypotheses known by estimates, not bounds: {'; '.join(estimates)})"


def _in_brackets(remark: str) -> str:
    return f" ({remark})" if remark else ""
