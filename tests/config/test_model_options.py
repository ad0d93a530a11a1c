"""Options that any model of a configuration has: a teacher copied, outputs centred, the output layer fitted."""

import numpy as np
import pytest

import gnflow as gn
from gnflow.config import RunSpec, Specification

PROBLEM = {"kind": "teacher_student", "n_train": 8, "n_test": 0, "input_dim": 3, "teacher_width": 2}
MEAN_FIELD = {"kind": "mean_field", "width": 12}


def run_of(seeds=(0,), problem_seed=None, **model) -> RunSpec:
    table = {"problem": PROBLEM, "model": {**MEAN_FIELD, **model}, "flows": {"gradient": {"kind": "gradient"}}}
    table |= (
        {"seeds": list(seeds)} if problem_seed is None else {"model_seeds": list(seeds), "problem_seed": problem_seed}
    )
    return Specification.from_dict(table).cells[0]


def test_the_output_layer_is_fitted_to_the_problem():
    made = run_of(fit_output=True).prepare()
    bare = run_of().prepare()
    np.testing.assert_array_equal(made.model.hidden_weight, bare.model.hidden_weight)
    expected = gn.geometry.fit_output_layer(bare.model, made.problem)
    np.testing.assert_allclose(made.model.output_weight, expected.output_weight, rtol=1e-12)
    other = run_of(problem_seed=7, fit_output=True).prepare()  # the same draw of the model for another problem
    np.testing.assert_array_equal(other.model.hidden_weight, bare.model.hidden_weight)
    assert np.abs(other.model.output_weight - made.model.output_weight).max() > 1e-3


def test_teacher_then_centred_then_fitted():
    made = run_of(copy_teacher=True, centred=True, fit_output=True).prepare()
    np.testing.assert_array_equal(made.model.model.hidden_weight[:2], made.problem.teacher.hidden_weight)
    system = gn.flows.GradientFlow().system(made.problem, made.model)
    assert float(system.train_loss(system.weights(made.model))) < 1e-8


def test_false_is_the_same_content_as_nothing():
    names = ("copy_teacher", "centred", "fit_output")
    assert run_of(**dict.fromkeys(names, False)).content_hash() == run_of().content_hash()
    hashes = {run_of(**{name: True}).content_hash() for name in names}
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"fit_output": 1}, r"model\.fit_output = 1 is an integer; expected true or false"),
        ({"copy_teacher": True, "width": 3}, r"model\.copy_teacher: .*do not fit into 3 particles"),
    ],
)
def test_refusals_name_the_entry(options, match):
    with pytest.raises(gn.ConfigError, match=match):
        run_of(**options).prepare()
