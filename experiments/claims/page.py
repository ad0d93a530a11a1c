"""docs/claims.md from the rows in this folder: each claim of each paper, as it was seen or not.

    python experiments/claims/page.py

A paper is a script beside this one (arbel.py) that writes NAME.json from stored results: {"paper": its name, "rows": rows}. A
row has the keys of COLUMNS, all of them text. Another paper needs its script and the marks of its table on the page.
"""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import pages

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "claims.md"
COLUMNS = ("claim", "version", "size", "what is measured", "numbers", "seen?", "command")


def write(name: str, paper: str, rows: list[dict[str, str]]) -> None:
    """The rows of a paper as NAME.json. **Raises:** `ValueError` for a row that has not all columns."""
    wrong = [row for row in rows if tuple(row) != COLUMNS]
    if wrong:
        raise ValueError(f"a row has the columns {COLUMNS}, in this order; got {tuple(wrong[0])}")
    text = json.dumps({"paper": paper, "rows": rows}, indent=1, ensure_ascii=False)
    (HERE / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def tables() -> dict[str, list[str]]:
    """The lines of each paper's table, by the name of its file."""
    found = {}
    for path in sorted(HERE.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        rows = [[row[column] for column in COLUMNS] for row in stored["rows"]]
        found[path.stem] = pages.markdown_table(COLUMNS, rows)
    return found


def main() -> None:
    """Put the tables into the page."""
    for name, lines in tables().items():
        pages.insert(PAGE, name, lines)


if __name__ == "__main__":
    main()
