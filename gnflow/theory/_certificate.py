"""What checking a theorem on a run gives back: every number behind the verdict, as a table, JSON, Markdown or a figure."""

import dataclasses
import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import aligned_columns
from ._check import Check
from ._claim import Claim
from ._verdict import Verdict

if TYPE_CHECKING:
    import matplotlib.figure


@dataclasses.dataclass(frozen=True)
class Curves:
    """What a certificate plots: observation and bounds over time (or width, or step size).

    **Attributes:** `x`, `x_label`; `y_label`; `observed`, `lower`, `upper`: arrays like `x`, or None; `log_x`, `log_y`.
    """

    x: np.ndarray
    x_label: str
    y_label: str
    observed: np.ndarray
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    log_x: bool = True
    log_y: bool = True


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A theorem checked on a run.

    **Attributes:** `theorem`: its short name; `statement`: what it says, in a sentence; `reference`: paper and number, or
    the page of docs/theorems with the proof; `verdict` and `reason`; `checks`: the hypotheses; `claims`: the conclusions
    (empty where a hypothesis fails: then nothing is claimed); `constants`: every constant by name; `curves`: what `plot` draws;
    `record`: the comparisons that show the record to be a run of its flow; `compared`: what of the record is certified.
    """

    theorem: str
    statement: str
    reference: str
    verdict: Verdict
    reason: str
    checks: tuple[Check, ...]
    claims: tuple[Claim, ...]
    constants: Mapping[str, float]
    curves: tuple[Curves, ...] = ()
    record: tuple[Claim, ...] = ()
    compared: str = ""

    def __str__(self) -> str:
        """Verdict, hypotheses, conclusions and constants in 80 columns: a line of words, and one of numbers below it."""
        lines = [f"{self.theorem}: {self.verdict}"]
        lines += [
            line for text in (self.statement, self.reference, self.reason, self.compared) for line in _wrapped(text)
        ]
        tables = (
            ("hypotheses", _SHORT_CHECK_HEADING, self._short_check_rows()),
            ("conclusions", _SHORT_CLAIM_HEADING, _short_claim_rows(self.claims)),
            ("the record", _SHORT_CLAIM_HEADING, _short_claim_rows(self.record)),
        )
        for title, heading, rows in tables:
            if rows:
                columns = aligned_columns([heading, *(numbers for _, numbers in rows)])
                lines += ["", f"  {title}", f"    {columns[0]}"]
                for (words, _), numbers in zip(rows, columns[1:], strict=True):
                    lines += [*_wrapped(words), f"    {numbers}"]
        if self.constants:
            lines += ["", "  constants"]
            lines += [f"  {_number(value):<14}{name}" for name, value in self.constants.items()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the curves, of JSON's types; numbers that JSON does not have as strings."""
        return {
            "theorem": self.theorem,
            "statement": self.statement,
            "reference": self.reference,
            "verdict": str(self.verdict),
            "reason": self.reason,
            "compared": self.compared,
            "checks": [_plain(dataclasses.asdict(c) | {"slack": c.slack, "met": c.met}) for c in self.checks],
            "claims": [_claim_record(claim) for claim in self.claims],
            "record": [_claim_record(claim) for claim in self.record],
            "constants": _plain(dict(self.constants)),
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1)

    def to_markdown(self) -> str:
        """A section with a table of hypotheses and one of conclusions."""
        parts = [f"### {self.theorem}: {self.verdict}", f"{self.statement} ({self.reference})", self.reason]
        if self.compared:
            parts.append(self.compared)
        if self.checks:
            parts.append(_markdown_table(_CHECK_HEADING, self._check_rows()))
        for claims in (self.claims, self.record):
            if claims:
                parts.append(_markdown_table(_CLAIM_HEADING, _claim_rows(claims)))
        if self.constants:
            parts.append(_markdown_table(("constant", "value"), [(n, _number(v)) for n, v in self.constants.items()]))
        return "\n\n".join(parts) + "\n"

    def plot(self) -> "matplotlib.figure.Figure":
        """Bounds and observation, one panel for each of the certificate's curves; an empty figure says there are none."""
        from ._plot import certificate_figure

        return certificate_figure(self)

    def _check_rows(self) -> list[tuple[str, ...]]:
        met = {True: "yes", False: "NO", None: "unclear"}
        return [
            (
                check.name,
                _number(check.value),
                check.relation,
                _number(check.threshold),
                _number(check.slack),
                _number(check.error),
                "bound" if check.rigorous else "estimate",
                met[check.met],
                check.remark,
            )
            for check in self.checks
        ]

    def _short_check_rows(self) -> list[tuple[str, tuple[str, ...]]]:
        rows = self._check_rows()
        return [(f"{name} ({remark})" if remark else name, tuple(numbers)) for name, *numbers, remark in rows]


@dataclasses.dataclass(frozen=True)
class Certificates(Sequence[Certificate]):
    """Certificates of several theorems on one run."""

    items: tuple[Certificate, ...]

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Certificate]:
        return iter(self.items)

    def __str__(self) -> str:
        """One line for each theorem."""
        rows = [(c.theorem, str(c.verdict), c.reason) for c in self.items]
        return "\n".join(aligned_columns([("theorem", "verdict", "because"), *rows]))

    @property
    def violated(self) -> tuple[Certificate, ...]:
        """Those whose verdict is `violated`."""
        return tuple(c for c in self.items if c.verdict == Verdict.VIOLATED)

    def by_name(self, theorem: str) -> Certificate:
        """The certificate of one theorem. **Raises:** `KeyError` if it is not among them."""
        for certificate in self.items:
            if certificate.theorem == theorem:
                return certificate
        raise KeyError(f"no certificate of {theorem!r}; there are {', '.join(c.theorem for c in self.items)}")

    def to_json(self) -> str:
        """A list with an object for each theorem."""
        return json.dumps([c.to_dict() for c in self.items], indent=1)

    def to_markdown(self) -> str:
        """The table of verdicts, then a section for each theorem."""
        rows = [(c.theorem, str(c.verdict), c.reason) for c in self.items]
        table = _markdown_table(("theorem", "verdict", "because"), rows)
        return "\n\n".join([table, *(c.to_markdown() for c in self.items)])


# How a claim that holds reads where its slack is no larger than its error.
AGREES = "agrees within the error"
_CHECK_HEADING = ("hypothesis", "value", "", "threshold", "slack", "error", "kind", "met", "remark")
_CLAIM_HEADING = (
    "conclusion",
    "observed",
    "bound",
    "slack",
    "error",
    "slack/error",
    "error at worst",
    "could fail",
    "verdict",
    "reading",
    "where",
)
_SHORT_CHECK_HEADING = ("value", "", "threshold", "slack", "error", "kind", "met")
_SHORT_CLAIM_HEADING = ("observed", "bound", "slack", "error", "slack/error", "verdict")
_WIDTH = 80


def _claim_rows(claims: Sequence[Claim]) -> list[tuple[str, ...]]:
    return [
        (
            claim.name,
            _number(claim.observed),
            _number(claim.bound),
            _number(claim.slack),
            _number(claim.tolerance),
            _number(claim.slack_over_error),
            _number(claim.error_bound),
            f"{claim.telling} of {claim.places}",
            str(claim.verdict),
            AGREES if claim.only_agrees else "",
            claim.where,
        )
        for claim in claims
    ]


def _short_claim_rows(claims: Sequence[Claim]) -> list[tuple[str, tuple[str, ...]]]:
    rows = []
    for claim in claims:
        count = f"{claim.telling} of {claim.places} points could fail" if claim.places > 1 else ""
        agrees = AGREES if claim.only_agrees else ""
        remark = ", ".join(part for part in (claim.where.strip(" ()"), agrees, count) if part)
        numbers = (claim.observed, claim.bound, claim.slack, claim.tolerance, claim.slack_over_error)
        words = f"{claim.name} ({remark})" if remark else claim.name
        rows.append((words, (*(f"{number + 0.0:.4g}" for number in numbers), str(claim.verdict))))
    return rows


def _claim_record(claim: Claim) -> dict[str, Any]:
    numbers = {"slack_over_error": claim.slack_over_error, "verdict": str(claim.verdict)}
    numbers |= {"agrees_within_the_error": claim.only_agrees}
    return _plain(dataclasses.asdict(claim) | numbers)


def _number(value: float) -> str:
    return f"{value + 0.0:.6g}" if math.isfinite(value) else str(value)  # no minus zero


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def _markdown_table(heading: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heading, tuple("---" for _ in heading), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
