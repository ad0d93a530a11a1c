"""The teacher copied into the student."""

import jax
import jax.random as jr
import numpy as np
import pytest

import gnflow as gn
from gnflow.geometry import fit_output_layer
from gnflow.models import MLP, MeanFieldNetwork, copy_teacher

PROBLEM = gn.problems.teacher_student(n_train=12, n_test=20, input_dim=3, teacher_width=2, key=jr.key(0))
STUDENT = MeanFieldNetwork(3, 7, output_init_scale=1.0, key=jr.key(1))


def test_units_are_copied_and_the_rest_is_zero():
    teacher, student = PROBLEM.teacher, copy_teacher(STUDENT, PROBLEM.teacher)
    for own, given in (
        (student.hidden_weight, teacher.hidden_weight),
        (student.hidden_bias, teacher.hidden_bias),
    ):
        np.testing.assert_array_equal(own[:2], given)
        np.testing.assert_array_equal(own[2:4], given)
        assert not np.any(own[4:])
    assert not np.any(student.output_weight)
    assert np.any(copy_teacher(STUDENT, teacher, copies=3).hidden_weight[4:6])


def test_its_features_suffice_on_test_data_too():
    fitted = fit_output_layer(copy_teacher(STUDENT, PROBLEM.teacher), PROBLEM)
    np.testing.assert_allclose(jax.vmap(fitted)(PROBLEM.x_test), PROBLEM.y_test, rtol=1e-6, atol=1e-8)


def test_networks_without_biases():
    teacher, student = (MeanFieldNetwork(3, width, bias=False, key=jr.key(2)) for width in (2, 5))
    np.testing.assert_array_equal(copy_teacher(student, teacher).hidden_weight[:2], teacher.hidden_weight)


@pytest.mark.parametrize(
    ("model", "teacher", "copies", "match"),
    [
        (MLP(3, 4, 1, key=jr.key(0)), PROBLEM.teacher, 2, "the model is a MLP"),
        (STUDENT, None, 2, "the teacher is a NoneType.*teacher_student"),
        (STUDENT, MeanFieldNetwork(2, 2, key=jr.key(0)), 2, "2 inputs with biases, the model 3 with"),
        (STUDENT, MeanFieldNetwork(3, 2, bias=False, key=jr.key(0)), 2, "without biases"),
        (STUDENT, PROBLEM.teacher, 4, "4 copies of 2 units do not fit into 7"),
        (STUDENT, PROBLEM.teacher, 0, "copies"),
    ],
)
def test_what_does_not_fit_is_refused(model, teacher, copies, match):
    with pytest.raises(gn.ModelError, match=match):
        copy_teacher(model, teacher, copies)
