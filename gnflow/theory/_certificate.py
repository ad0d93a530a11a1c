"""The certificate of a theorem on a run: every number behind the verdict, as a table, JSON, Markdown or a figure."""

import dataclasses
import json
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._core import aligned_columns
from ._claim import Check, Claim, Verdict
from ._curves import Curves, draw
from ._verdict import AGREES

if TYPE_CHECKING:
    import matplotlib.figure


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A theorem checked on a run.

    **Attributes:**

    - `theorem`: the short name of the theorem.
    - `statement`: the theorem in a sentence.
    - `reference`: paper and number, or the page of docs/theorems with the proof.
    - `verdict`, `reason`: the verdict, and why.
    - `checks`: the hypotheses.
    - `claims`: the conclusions. They are empty if a hypothesis fails, because then nothing is claimed.
    - `constants`: every constant, by name.
    - `curves`: the curves that `plot` draws.
    - `record`: the comparisons that show that the record is a run of its flow.
    - `compared`: which part of the record is certified, as a sentence.
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
        """Verdict, hypotheses, conclusions and constants in 80 columns, each with a line of words above a line of numbers."""
        lines = [f"{self.theorem}: {self.verdict}"]
        for text in (self.statement, self.reference, self.reason, self.compared):
            lines += _wrapped(text)
        tables = (
            ("hypotheses", tuple(_CHECK_COLUMNS)[1:-1], _short_check_rows(self.checks)),
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
        """Everything except the curves, in JSON types. Numbers that JSON does not have become strings."""
        words = ("theorem", "statement", "reference", "verdict", "reason", "compared")
        return {name: str(getattr(self, name)) for name in words} | {
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
        tables = ((_CHECK_COLUMNS, self.checks), (_CLAIM_COLUMNS, self.claims), (_CLAIM_COLUMNS, self.record))
        parts += [_markdown_table(tuple(columns), _rows(columns, items)) for columns, items in tables if items]
        if self.constants:
            parts.append(_markdown_table(("constant", "value"), [(n, _number(v)) for n, v in self.constants.items()]))
        return "\n\n".join(parts) + "\n"

    def plot(self) -> "matplotlib.figure.Figure":
        """A figure of bounds and observation, with a panel for each of the curves. Without curves it shows the reason."""
        return draw(f"{self.theorem}: {self.verdict}", self.curves, instead=self.reason)


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
        """The certificates whose verdict is `violated`."""
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


_MET = {True: "yes", False: "NO", None: "unclear"}
# The columns of a certificate's tables, by their headings.
_CHECK_COLUMNS: dict[str, Callable[[Check], str]] = {
    "hypothesis": lambda check: check.name,
    "value": lambda check: _number(check.value),
    "": lambda check: check.relation,
    "threshold": lambda check: _number(check.threshold),
    "slack": lambda check: _number(check.slack),
    "error": lambda check: _number(check.error),
    "kind": lambda check: "bound" if check.rigorous else "estimate",
    "met": lambda check: _MET[check.met],
    "remark": lambda check: check.remark,
}
_CLAIM_COLUMNS: dict[str, Callable[[Claim], str]] = {
    "conclusion": lambda claim: claim.name,
    "observed": lambda claim: _number(claim.observed),
    "bound": lambda claim: _number(claim.bound),
    "slack": lambda claim: _number(claim.slack),
    "error": lambda claim: _number(claim.tolerance),
    "slack/error": lambda claim: _number(claim.slack_over_error),
    "error at worst": lambda claim: _number(claim.error_bound),
    "could fail": lambda claim: f"{claim.telling} of {claim.places}",
    "verdict": lambda claim: str(claim.verdict),
    "reading": lambda claim: AGREES if claim.only_agrees else "",
    "where": lambda claim: claim.where,
}
_SHORT_CLAIM_HEADING = ("observed", "bound", "slack", "error", "slack/error", "verdict")
_WIDTH = 80


def _rows(columns: Mapping[str, Callable[[Any], str]], items: Sequence[Any]) -> list[tuple[str, ...]]:
    return [tuple(cell(item) for cell in columns.values()) for item in items]


def _short_check_rows(checks: Sequence[Check]) -> list[tuple[str, tuple[str, ...]]]:
    rows = _rows(_CHECK_COLUMNS, checks)
    return [(f"{name} ({remark})" if remark else name, tuple(numbers)) for name, *numbers, remark in rows]


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
