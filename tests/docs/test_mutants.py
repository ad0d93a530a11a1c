"""The list of mutants against the tree: a text that no longer stands in its file would be tried for nothing."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MUTANTS = tomllib.loads((ROOT / "experiments/mutation/mutants.toml").read_text(encoding="utf-8"))["mutant"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant["name"])
def test_its_text_stands_once_in_its_file(mutant):
    assert (ROOT / mutant["file"]).read_text(encoding="utf-8").count(mutant["text"]) == 1
    assert mutant["replacement"] != mutant["text"]
    assert all((ROOT / test.partition("::")[0]).exists() for test in mutant["tests"])
