"""What every problem that gnflow makes promises, and the particulars of each."""

import inspect
import sys
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import pytest
from problems.image_files import folder_of, made_mnist_5k

from gnflow._core import ConfigError, DataError, ModelError, PrecisionError
from gnflow.losses import SoftmaxCrossEntropy, SquaredLoss
from gnflow.models import MeanFieldNetwork
from gnflow.problems import (
    Problem,
    cifar10,
    diabetes,
    digits,
    get_problem,
    mnist,
    problem_kinds,
    teacher_student,
)

ORACLES = Path(__file__).resolve().parents[3] / "shared" / "oracles"

# name: (factory, d, C, samples there are)
generated = {
    "teacher_student": (teacher_student, 10, 1, None),
    "digits": (digits, 64, 10, 1797),
    "digits_regression": (lambda **settings: digits(task="regression", **settings), 64, 10, 1797),
    "diabetes": (diabetes, 10, 1, 442),
    # Training and test samples come from files of their own, so that no number is common to both.
    "mnist": (lambda **settings: mnist(folder_of("mnist"), **settings), 784, 10, None),
    "mnist_5k": (made_mnist_5k, 784, 10, 2000),
    "cifar10": (lambda **settings: cifar10(folder_of("cifar10"), **settings), 3072, 10, None),
}
each = pytest.mark.parametrize("name", generated)
finite = pytest.mark.parametrize("name", [name for name in generated if generated[name][3]])


@each
def test_shapes_and_precision(name, key):
    make, input_dim, num_outputs, _ = generated[name]
    problem = make(n_train=12, n_test=7, key=key)
    assert isinstance(problem, Problem)
    assert problem.x_train.shape == (12, input_dim)
    assert problem.y_train.shape == (12, num_outputs)
    assert problem.x_test.shape == (7, input_dim)
    assert problem.y_test.shape == (7, num_outputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(problem)} == {np.dtype(np.float64)}


@each
def test_defaults_make_a_problem_with_test_data(name, key):
    make, *_ = generated[name]
    problem = make(key=key)
    assert problem.num_train >= 100
    assert problem.x_test.shape[0] >= 100


@each
def test_the_key_alone_decides(name, key):
    make, *_ = generated[name]
    first, again, other = (make(n_train=12, n_test=7, key=k) for k in (key, key, jr.fold_in(key, 1)))
    for field in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
        assert not np.array_equal(getattr(first, field), getattr(other, field))


@each
def test_old_style_keys_work(name):
    make, *_ = generated[name]
    assert make(n_train=3, n_test=2, key=jr.PRNGKey(0)).num_train == 3


@each
def test_no_test_data(name, key):
    make, *_ = generated[name]
    problem = make(n_train=5, n_test=0, key=key)
    assert problem.x_test is None
    assert problem.y_test is None


@pytest.mark.parametrize("name", ["teacher_student", "digits", "digits_regression", "mnist", "mnist_5k", "cifar10"])
def test_sets_nest(name, key):
    make, *_ = generated[name]
    small, large = make(n_train=6, n_test=4, key=key), make(n_train=20, n_test=9, key=key)
    np.testing.assert_array_equal(large.x_train[:6], small.x_train)
    np.testing.assert_array_equal(large.x_test[:4], small.x_test)
    np.testing.assert_array_equal(large.y_train[:6], small.y_train)
    np.testing.assert_array_equal(large.y_test[:4], small.y_test)


def test_teacher_student_sets_nest_over_several_blocks(key):
    small, large = (teacher_student(n_train=n, n_test=n + 1, input_dim=2, key=key) for n in (300, 1100))
    np.testing.assert_array_equal(large.x_train[:300], small.x_train)
    np.testing.assert_array_equal(large.y_train[:300], small.y_train)
    np.testing.assert_array_equal(large.x_test[:301], small.x_test)
    np.testing.assert_array_equal(large.y_test[:301], small.y_test)
    assert large.x_train.shape == (1100, 2)
    assert len(np.unique(np.concatenate([large.x_train, large.x_test]), axis=0)) == 1100 + 1101


def test_diabetes_sets_nest_up_to_the_standardisation(key):
    small, large = diabetes(n_train=30, n_test=20, key=key), diabetes(n_train=200, n_test=40, key=key)
    for field, count in (("x_train", 30), ("y_train", 30), ("x_test", 20), ("y_test", 20)):
        one, other = np.asarray(getattr(small, field)), np.asarray(getattr(large, field))[:count]
        for column in range(one.shape[1]):
            # An affine map with positive slope, and nothing else, takes one to the other.
            np.testing.assert_allclose(np.corrcoef(one[:, column], other[:, column])[0, 1], 1.0, atol=1e-12)


@finite
def test_train_and_test_hold_every_sample_once(name, key):
    make, _, _, total = generated[name]
    problem = make(n_train=total - 100, n_test=100, key=key)
    rows = np.concatenate([problem.x_train, problem.x_test])
    # Samples that are equal in the data set itself are the reason to compare with it, not with `total`.
    assert rows.shape[0] == total
    distinct = len(np.unique(rows, axis=0))
    everything = np.asarray(make(n_train=total, n_test=0, key=key).x_train)
    assert distinct == len(np.unique(everything, axis=0))
    assert distinct > 0.99 * total


@finite
def test_more_samples_than_there_are(name, key):
    make, _, _, total = generated[name]
    with pytest.raises(DataError, match=f"{total} samples"):
        make(n_train=total, n_test=1, key=key)


@each
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"n_train": 0}, "n_train = 0"),
        ({"n_train": -3}, "n_train = -3"),
        ({"n_test": -1}, "n_test = -1"),
        ({"n_train": True}, "n_train = True"),
    ],
)
def test_counts_that_are_none(name, counts, message, key):
    make, *_ = generated[name]
    with pytest.raises(DataError, match=message):
        make(key=key, **counts)


@each
def test_needs_double_precision(name, key):
    make, *_ = generated[name]
    with jax.enable_x64(False), pytest.raises(PrecisionError, match="jax_enable_x64"):
        make(n_train=3, n_test=2, key=key)


@pytest.mark.parametrize("make", [digits, diabetes])
def test_says_how_to_install_scikit_learn(make, key, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match=r'pip install "gnflow\[data\]"'):
        make(n_train=3, n_test=2, key=key)


# teacher_student


def test_inputs_of_unit_norm_are_the_directions_of_the_others(key):
    sizes = {"n_train": 8, "n_test": 6, "n_validation": 5, "input_dim": 3, "teacher_width": 2, "key": key}
    plain, unit = teacher_student(**sizes), teacher_student(**sizes, unit_norm=True)
    for part in ("train", "validation", "test"):
        x, own = (np.asarray(getattr(problem, f"x_{part}")) for problem in (plain, unit))
        np.testing.assert_allclose(own, x / np.linalg.norm(x, axis=1)[:, None], rtol=1e-14)
        np.testing.assert_allclose(getattr(unit, f"y_{part}"), jax.vmap(unit.teacher)(own), rtol=1e-12, err_msg=part)
    np.testing.assert_array_equal(unit.teacher.hidden_weight, plain.teacher.hidden_weight)


def test_teacher_reproduces_the_targets(key):
    problem = teacher_student(n_train=8, n_test=6, input_dim=3, teacher_width=4, activation="tanh", key=key)
    teacher = problem.teacher
    assert isinstance(teacher, MeanFieldNetwork)
    for x, y in ((problem.x_train, problem.y_train), (problem.x_test, problem.y_test)):
        hidden = np.tanh(np.asarray(x) @ np.asarray(teacher.hidden_weight).T + np.asarray(teacher.hidden_bias))
        np.testing.assert_allclose(y, hidden @ np.asarray(teacher.output_weight) / 4, rtol=1e-13, atol=1e-15)


def test_teacher_and_test_data_do_not_depend_on_the_training_set(key):
    small, large = teacher_student(n_train=3, n_test=5, key=key), teacher_student(n_train=30, n_test=5, key=key)
    assert jax.tree.all(jax.tree.map(np.array_equal, small.teacher, large.teacher))
    np.testing.assert_array_equal(small.x_test, large.x_test)
    np.testing.assert_array_equal(small.y_test, large.y_test)


def test_training_and_test_inputs_differ(key):
    problem = teacher_student(n_train=20, n_test=20, key=key)
    rows = np.concatenate([problem.x_train, problem.x_test])
    assert len(np.unique(rows, axis=0)) == 40


def assert_standard_normal(sample):
    """Mean, variance and fourth moment within 4.5 standard deviations of N(0, 1)'s."""
    sample = np.ravel(sample)
    for power, expected, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (4, 3.0, 96.0)):
        assert abs(np.mean(sample**power) - expected) < 4.5 * (variance / sample.size) ** 0.5


def test_inputs_and_teacher_have_the_distribution_of_the_oracle(key):
    paths = sorted(ORACLES.glob("two_layer_*.npz"))
    if not paths:
        pytest.skip(f"no two_layer_*.npz in {ORACLES}")
    oracles = [np.load(path) for path in paths]
    teacher_arrays = ("hidden_weight", "hidden_bias", "output_weight")

    ours = teacher_student(n_train=400, n_test=400, teacher_width=400, key=key)
    theirs = np.concatenate([np.ravel(oracle[name]) for oracle in oracles for name in ("X_train", "X_test")])
    assert_standard_normal(theirs)
    assert_standard_normal(ours.x_train)
    assert_standard_normal(ours.x_test)
    # Not on the sphere: ||x||^2 is chi-squared with d degrees of freedom, of variance 2 d.
    for squared_norms, dim in ((np.sum(oracles[0]["X_test"] ** 2, axis=1), 10), (jnp.sum(ours.x_train**2, axis=1), 10)):
        assert 0.7 * 2 * dim < np.var(squared_norms) < 1.3 * 2 * dim

    their_teachers = np.concatenate(
        [np.ravel(oracle[f"teacher_{name}"]) for oracle in oracles for name in teacher_arrays]
    )
    assert_standard_normal(their_teachers)
    for name in teacher_arrays:
        assert_standard_normal(getattr(ours.teacher, name))


def test_targets_of_the_oracle_come_from_a_teacher_of_the_same_form():
    paths = sorted(ORACLES.glob("two_layer_*.npz"))
    if not paths:
        pytest.skip(f"no two_layer_*.npz in {ORACLES}")
    for path in paths:
        oracle = np.load(path)
        names = ("hidden_weight", "hidden_bias", "output_weight")
        teacher = MeanFieldNetwork.from_arrays(*(oracle[f"teacher_{name}"] for name in names), activation="silu")
        ours = teacher_student(n_train=2, n_test=0, input_dim=oracle["X_train"].shape[1], key=jr.key(0)).teacher
        assert jax.tree.structure(ours) == jax.tree.structure(teacher)
        assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, teacher)
        np.testing.assert_allclose(jax.vmap(teacher)(oracle["X_train"]), oracle["Y_train"], rtol=1e-13, atol=1e-15)


def test_wrong_teachers(key):
    with pytest.raises(ModelError, match="did you mean 'silu'"):
        teacher_student(activation="sillu", key=key)
    with pytest.raises(ModelError, match="width = 0"):
        teacher_student(teacher_width=0, key=key)


# digits


def test_digits_are_scaled_pixels_and_one_hot_labels(key):
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    problem = digits(n_train=40, n_test=30, key=key)
    everything = {tuple(image): label for image, label in zip(pixels, labels, strict=True)}
    for x, y in ((problem.x_train, problem.y_train), (problem.x_test, problem.y_test)):
        found = [everything[tuple(image)] for image in np.asarray(x) * 16]
        np.testing.assert_array_equal(y, np.eye(10)[found])


def test_digits_tasks_share_the_samples_and_differ_in_the_loss(key):
    classification = digits(n_train=9, n_test=4, key=key)
    regression = digits(n_train=9, n_test=4, task="regression", key=key)
    assert isinstance(classification.loss, SoftmaxCrossEntropy)
    assert isinstance(regression.loss, SquaredLoss)
    for field in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(classification, field), getattr(regression, field))


def test_digits_have_ten_outputs_even_for_one_sample(key):
    assert digits(n_train=1, n_test=0, key=key).num_outputs == 10


def test_digits_training_set_is_shuffled(key):
    # scikit-learn's first ten digits are 0, 1, ..., 9 in order.
    labels = np.argmax(digits(n_train=10, n_test=0, key=key).y_train, axis=1)
    assert not np.array_equal(labels, np.arange(10))


def test_digits_unknown_task(key, monkeypatch):
    # Outside the tests nothing checks the Literal before digits itself does.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match="did you mean 'regression'"):
        digits(task="regresion", key=key)


# diabetes


def test_diabetes_is_standardised_by_its_training_samples(key):
    problem = diabetes(n_train=50, n_test=300, key=key)
    for array in (problem.x_train, problem.y_train):
        np.testing.assert_allclose(jnp.mean(array, axis=0), 0.0, atol=1e-13)
        np.testing.assert_allclose(jnp.std(array, axis=0), 1.0, rtol=1e-13)
    # The test samples go through the same map, so they are not standardised exactly.
    assert np.max(np.abs(np.mean(problem.x_test, axis=0))) > 1e-3
    assert np.max(np.abs(np.std(problem.x_test, axis=0) - 1)) > 1e-3


def test_diabetes_matches_the_raw_data(key):
    from sklearn.datasets import load_diabetes

    raw, progression = load_diabetes(return_X_y=True, scaled=False)
    problem = diabetes(n_train=442, n_test=0, key=key)
    standardised = np.column_stack([raw, progression])
    standardised = (standardised - standardised.mean(axis=0)) / standardised.std(axis=0)
    ours = np.column_stack([problem.x_train, problem.y_train])

    def order(rows):
        return rows[np.lexsort(np.round(rows, 9).T)]

    np.testing.assert_allclose(order(ours), order(standardised), atol=1e-11)


def test_diabetes_of_one_sample_is_finite(key):
    problem = diabetes(n_train=1, n_test=10, key=key)
    np.testing.assert_array_equal(problem.x_train, np.zeros((1, 10)))
    assert bool(jnp.all(jnp.isfinite(problem.x_test)))


# the registry


@pytest.mark.parametrize("kind", problem_kinds)
def test_registry(kind):
    factory = get_problem(kind)
    assert factory is problem_kinds[kind]
    parameters = inspect.signature(factory).parameters
    assert parameters["key"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["key"].default in (inspect.Parameter.empty, None)
    assert all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    assert set(typing.get_type_hints(factory)) == {*parameters, "return"}


def test_registry_holds_data_sets_and_equations():
    data = {"teacher_student", "digits", "diabetes", "mnist", "mnist_5k", "cifar10", "file"}
    assert set(problem_kinds) == data | {"poisson", "heat", "burgers", "allen_cahn", "helmholtz"}


def test_registry_unknown_kind():
    with pytest.raises(ConfigError, match="did you mean 'teacher_student'"):
        get_problem("teacher-student")
