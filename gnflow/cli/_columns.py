"""Columns of text under headings of two lines."""

from collections.abc import Sequence

MOST_ERRORS = 4  # error functionals in one table
_WIDEST_WORD = 12


def columns_under(
    headings: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], are_texts: Sequence[bool], between: str = "  "
) -> list[str]:
    """Two lines of headings, a rule, and a line for each row.

    **Arguments:**

    - `headings`: the two lines of the heading of each column.
    - `rows`: the cells of each row.
    - `are_texts`: whether each column is aligned to the left, as text is; numbers are aligned to the right.
    - `between`: what stands between columns.
    """
    columns = [[*heading, *(row[number] for row in rows)] for number, heading in enumerate(headings)]
    widths = [max(map(len, cells)) for cells in columns]
    lines = [
        between.join(
            cells[line].ljust(width) if is_text else cells[line].rjust(width)
            for cells, width, is_text in zip(columns, widths, are_texts, strict=True)
        ).rstrip()
        for line in range(len(rows) + 2)
    ]
    return [*lines[:2], between.join("-" * width for width in widths), *lines[2:]]


def width_of(lines: Sequence[str]) -> int:
    """The number of characters of the longest line."""
    return max(map(len, lines))


def clipped(text: str, longest: int) -> str:
    """`text`, with "~" in the place of its middle if it has more than `longest` characters."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]}~{text[len(text) - (longest - 1) // 2 :]}"


def error_heading(name: str) -> tuple[str, str]:
    """The two lines of the heading of an error functional: its name, broken at an underscore into halves of like length."""
    words = name.split("_")
    pairs = [("_".join(words[:place]), "_".join(words[place:])) for place in range(len(words))]
    first, second = min(pairs, key=lambda pair: max(map(len, pair)))
    return clipped(first, _WIDEST_WORD), clipped(second, _WIDEST_WORD)
