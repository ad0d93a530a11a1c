"""The versions of gnflow that computed the cells of a folder."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def versions_in(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The versions in these records, each once, in alphabetical order."""
    return sorted({record["gnflow"] for record in records})


def say_if_mixed(versions: Iterable[str], folder: Path) -> None:
    """Print a note on the standard error output if there is more than one version."""
    several = sorted(set(versions))
    if len(several) > 1:
        print(
            f"gnflow: the cells in {folder} are of several versions of gnflow: {', '.join(several)}. Their numbers may differ "
            "for that reason alone; compute all of them with one version, in another folder, before you compare them.",
            file=sys.stderr,
        )
