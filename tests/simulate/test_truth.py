"""A sample of the table of truth (docs/truth.md): default runs against stored solutions that are not gnflow's.

The references lie in `truth_references`, made by `python experiments/benchmarks/truth.py --references-only --rows ...
--references tests/simulate/truth_references`.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "experiments" / "benchmarks"))

from truth_problems import COMBINATIONS, DATA_KINDS, FLOWS, rows  # noqa: E402 (after the path)
from truth_reference import is_of_field, load  # noqa: E402
from truth_run import PROMISE, REFUSED, RIGHT, SILENT, UNDECIDED, compare, verdict  # noqa: E402
from truth_vector import Field  # noqa: E402

from gnflow.losses import loss_kinds  # noqa: E402

REFERENCES = Path(__file__).parent / "truth_references"
# One combination, so that all share their programs: plain, all inputs scaled, targets scaled, samples twice, with one and with
# two targets, columns and targets scaled.
SAMPLE = (0, 1, 3, 4, 5, 7)
SLOW = (16, 17, 19, 20, 21, 32, 33, 35, 36, 37)


def stored(index):
    row = rows()[index]
    return row, load(REFERENCES / f"{row.key}.npz")


@pytest.mark.parametrize("index", SAMPLE)
def test_a_default_run_is_right_or_says_that_it_is_not(index):
    row, reference = stored(index)
    assert reference.status == "confirmed"
    assert is_of_field(reference, Field(row)), "the flow itself has changed: make the references anew"
    record = compare(row, reference)
    assert record["verdict"] == RIGHT, record
    assert record["saves"] == len(reference.times) or record["result"] == "stop_rule_met"


@pytest.mark.slow
@pytest.mark.parametrize("index", SLOW)
def test_more_rows_of_the_table(index):
    row, reference = stored(index)
    assert is_of_field(reference, Field(row)), "the flow itself has changed: make the references anew"
    assert compare(row, reference)["verdict"] in (RIGHT, REFUSED)


def test_the_verdict_sees_an_error():
    record = {"failed": False, "reference": "confirmed", "error_beyond_rounding": 0.5 * PROMISE}
    assert verdict(record) == RIGHT
    assert verdict({**record, "test_output_error": 2 * PROMISE}) == SILENT
    assert verdict({**record, "stop_error": 2 * PROMISE}) == SILENT
    assert verdict({**record, "error_beyond_rounding": 2 * PROMISE}) == SILENT
    assert verdict({**record, "error_beyond_rounding": np.nan}) == SILENT
    assert verdict({**record, "error_beyond_rounding": 2 * PROMISE, "failed": True}) == REFUSED
    assert verdict({**record, "reference": "time limit"}) == UNDECIDED
    assert verdict({"failed": False, "reference": "confirmed"}) == SILENT  # nothing was compared


def test_a_drifted_run_is_wrong_in_silence():
    """The same run beside a reference that is off at one save by more than is promised."""
    row, reference = stored(SAMPLE[0])
    residuals = reference.residuals.copy()
    residuals[4] *= 1 + 1.2 * PROMISE
    drifted = type(reference)(**{**vars(reference), "residuals": residuals})
    assert compare(row, drifted)["verdict"] == SILENT


def test_the_table_covers_what_it_says():
    table = rows()
    assert len(table) == len(COMBINATIONS) * len(DATA_KINDS) == 200
    assert len({row.key for row in table}) == 200
    assert len({parts.shape for parts in COMBINATIONS}) <= 12
    assert {"squared", "huber", "softmax", "logistic"} == {parts.loss for parts in COMBINATIONS}
    assert len(loss_kinds) == 4
    assert {parts.flow for parts in COMBINATIONS} == set(FLOWS)
    assert len({parts.activation for parts in COMBINATIONS}) == 5
    assert all(5 <= parts.shape[0] <= 40 and 10 <= parts.shape[1] <= 200 for parts in COMBINATIONS)
