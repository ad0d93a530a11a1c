"""Where the benchmarks of errors put their tables."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pages import insert, markdown_table

__all__ = ["PAGE", "insert", "markdown_table"]

PAGE = Path(__file__).parents[2] / "docs" / "devdocs" / "benchmarks.md"
