"""The metric that keeps the first particles, against the model's own arrays."""

import jax.random as jr
import numpy as np
import pytest

import gnflow as gn
from gnflow.geometry import System
from gnflow.metrics import Particles
from gnflow.models import MeanFieldNetwork, RandomFeatures
from gnflow.problems import Problem, teacher_student


@pytest.fixture(scope="module")
def problem():
    return teacher_student(n_train=5, n_test=3, input_dim=3, teacher_width=2, key=jr.key(0))


def test_the_first_particles_as_they_are(problem, measure, moved):
    model = MeanFieldNetwork(3, 8, output_init_scale=1.0, key=jr.key(1))
    system = System(problem, model)
    weights = moved(system.weights(model))
    found = measure(Particles(max_count=5), system, weights, system.weights(model))
    np.testing.assert_array_equal(found["particle_hidden_weight"], weights.hidden_weight[:5])
    np.testing.assert_array_equal(found["particle_output_weight"], weights.output_weight[:5])
    np.testing.assert_array_equal(found["teacher_hidden_weight"], problem.teacher.hidden_weight)


def test_fixed_features_are_kept_too(problem, measure, moved):
    model = RandomFeatures.of(MeanFieldNetwork(3, 8, key=jr.key(1)))
    system = System(problem, model)
    weights = moved(system.weights(model))
    found = measure(Particles(), system, weights)
    np.testing.assert_array_equal(found["particle_hidden_weight"], model.features.hidden_weight)
    np.testing.assert_array_equal(found["particle_output_weight"], weights.output_weight)


def test_a_teacher_in_another_space_is_left_out(measure):
    teacher = MeanFieldNetwork(2, 2, key=jr.key(2))
    problem = Problem(jr.normal(jr.key(3), (5, 3)), jr.normal(jr.key(4), (5, 1)), teacher=lambda x: teacher(x[:2]))
    system = System(problem, MeanFieldNetwork(3, 4, key=jr.key(1)))
    assert [variable.name for variable in Particles().variables(system)] == [
        "particle_hidden_weight",
        "particle_output_weight",
    ]


def test_along_a_run_the_last_row_is_the_final_model(problem):
    model = MeanFieldNetwork(3, 8, key=jr.key(1))
    run = gn.iterate(problem, model, gn.flows.GradientFlow(), step_size=0.1, num_steps=3, metrics=(Particles(),))
    assert run.data["particle_hidden_weight"].dims == ("step", "particle", "coordinate")
    np.testing.assert_array_equal(run.data["particle_hidden_weight"][0], model.hidden_weight)
    np.testing.assert_array_equal(run.data["particle_hidden_weight"][-1], run.model.hidden_weight)
    np.testing.assert_array_equal(run.data["particle_output_weight"][-1], run.model.output_weight)


@pytest.mark.parametrize("count", [0, -1, 2.5])
def test_bad_counts_are_refused(count):
    with pytest.raises((gn.ConfigError, TypeError), match=r"max_count|int"):
        Particles(max_count=count)
