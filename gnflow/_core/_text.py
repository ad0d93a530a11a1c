"""Text in columns."""

from collections.abc import Sequence


def aligned_columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines with the cells of each column aligned to the left.

    **Arguments:** `rows`: at least one, all of one length.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
