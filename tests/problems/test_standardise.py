"""Standardised inputs and targets, the way back, and the names of columns and classes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from gnflow._core import DataError
from gnflow.losses import HuberLoss, LogisticLoss, SoftmaxCrossEntropy, SquaredLoss, from_function
from gnflow.problems import Names, Problem

RNG = np.random.default_rng(3)
X, X_TEST = RNG.normal([150.0, -2.0], [30.0, 1e-3], (9, 2)), RNG.normal([150.0, -2.0], [30.0, 1e-3], (4, 2))
Y, Y_TEST = RNG.normal(152.0, 77.0, (9, 1)), RNG.normal(152.0, 77.0, (4, 1))
OWN_LOSS = from_function(lambda f, y: jnp.mean(jnp.sum((f - y) ** 4, axis=1)), minimum=0.0)


def test_the_training_samples_get_mean_0_and_deviation_1_and_the_others_follow():
    problem = Problem(X, Y, X_TEST, Y_TEST, x_validation=X_TEST[:3], y_validation=Y_TEST[:3], standardise=True)
    np.testing.assert_allclose(problem.x_train, (X - X.mean(0)) / X.std(0), rtol=1e-13)
    np.testing.assert_allclose(problem.y_train, (Y - Y.mean(0)) / Y.std(0), rtol=1e-13)
    np.testing.assert_allclose(problem.x_test, (X_TEST - X.mean(0)) / X.std(0), rtol=1e-13)
    np.testing.assert_allclose(problem.y_test, (Y_TEST - Y.mean(0)) / Y.std(0), rtol=1e-13)
    np.testing.assert_array_equal(problem.x_validation, problem.x_test[:3])
    np.testing.assert_array_equal(problem.y_validation, problem.y_test[:3])


def test_there_is_a_way_into_the_problem_and_one_back():
    problem = Problem(X, Y, X_TEST, Y_TEST, standardise=True)
    np.testing.assert_array_equal(problem.prepare_inputs(X_TEST), problem.x_test)
    np.testing.assert_allclose(problem.restore_inputs(problem.x_test), X_TEST, rtol=1e-13)
    np.testing.assert_allclose(problem.restore_outputs(problem.y_test), Y_TEST, rtol=1e-13)
    plain = Problem(X / 100, Y / 100)
    np.testing.assert_array_equal(plain.prepare_inputs(X_TEST), X_TEST)
    assert plain.restore_inputs(X_TEST) is X_TEST
    assert plain.restore_outputs(Y_TEST) is Y_TEST
    assert (plain.input_standardisation, plain.target_standardisation) == (None, None)


@pytest.mark.parametrize(
    ("standardise", "loss", "inputs", "targets"),
    [
        (False, SquaredLoss(), False, False),
        (True, SquaredLoss(), True, True),
        (True, HuberLoss(delta=2.0), True, True),
        (True, OWN_LOSS, True, False),
        ("inputs", SquaredLoss(), True, False),
        ("targets", SquaredLoss(), False, True),
        ("both", OWN_LOSS, True, True),
    ],
)
def test_what_is_standardised(standardise, loss, inputs, targets):
    problem = Problem(X / 50, Y / 50, loss=loss, standardise=standardise)
    assert (problem.input_standardisation is not None, problem.target_standardisation is not None) == (inputs, targets)
    assert np.isclose(np.std(problem.x_train[:, 0]), 1.0) == inputs
    assert np.isclose(np.std(problem.y_train), 1.0) == targets


def test_classes_are_left_alone():
    for loss in (SoftmaxCrossEntropy(), LogisticLoss()):
        labels = np.arange(9) % 2
        problem = Problem(X, labels, loss=loss, standardise=True)
        assert set(np.unique(problem.y_train)) == {0.0, 1.0}
        assert problem.restore_outputs(Y) is Y
        with pytest.raises(DataError, match=r"standardise = 'both'.*classes or probabilities.*\"inputs\""):
            Problem(X, labels, loss=loss, standardise="both")


@pytest.mark.parametrize("standardise", ["yes", 1, None, np.ones(2)])
def test_other_values_are_refused(standardise):
    with pytest.raises(DataError, match=r'standardise = .*expected true or false.*"targets"'):
        Problem(X, Y, standardise=standardise)


def test_a_constant_column_is_centred_with_a_word():
    frame = pd.DataFrame({"age": X[:, 0], "unit": 7.3, "size": X[:, 1]})
    with pytest.warns(UserWarning, match=r"column 'unit' of x_train is constant over the 9 training samples") as told:
        problem = Problem(frame, Y, standardise=True)
    assert told[0].filename == __file__
    np.testing.assert_array_equal(problem.x_train[:, 1], 0.0)
    np.testing.assert_allclose(np.std(problem.x_train[:, [0, 2]], axis=0), 1.0)
    np.testing.assert_array_equal(problem.restore_inputs(problem.x_train)[:, 1], 7.3)


def test_a_column_that_differs_by_rounding_alone_is_constant():
    x = np.stack([np.arange(9.0), np.where(np.arange(9) % 2, 0.3, 0.1 + 0.2)], axis=1)
    assert np.ptp(x[:, 1]) > 0
    with pytest.warns(UserWarning, match="column 1 of x_train is constant"):
        problem = Problem(x, np.arange(9.0) - 4, standardise=True)
    assert float(jnp.max(jnp.abs(problem.x_train[:, 1]))) < 1e-15
    fine = np.stack([np.arange(9.0), 0.3 + 1e-12 * np.arange(9)], axis=1)  # small, and no rounding
    assert float(jnp.std(Problem(fine, np.arange(9.0) - 4, standardise=True).x_train[:, 1])) == pytest.approx(1.0)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_numbers_without_a_standard_deviation_in_float64_are_refused(scale):
    with pytest.raises(DataError, match=r"column 1 of x_train cannot be standardised.*float64.*unit"):
        Problem(X * [1.0, scale], Y, standardise=True)


def test_numbers_that_jax_traces_are_refused():
    with pytest.raises(DataError, match="while JAX traces"):
        jax.jit(lambda x: Problem(x, Y, standardise="inputs").x_train)(X)


def test_names_are_kept_and_serve_new_data():
    frame = pd.DataFrame(X, columns=["age", "size"])
    problem = Problem(frame, pd.Series(Y[:, 0], name="price"), standardise=True)
    assert problem.names == Names(("age", "size"), ("price",))
    new = pd.DataFrame({"size": X_TEST[:, 1], "colour": "red", "age": X_TEST[:, 0]})
    np.testing.assert_array_equal(problem.prepare_inputs(new), problem.prepare_inputs(X_TEST))
    with pytest.raises(DataError, match=r"x has no column 'age'.*did you mean 'ago'"):
        problem.prepare_inputs(new.rename(columns={"age": "ago"}))
    with pytest.raises(DataError, match=r"x has shape \(4, 1\).*\(n, 2\)"):
        problem.prepare_inputs(X_TEST[:, :1])
    own = Problem(X / 50, Y / 50, names=Names(inputs=("a", "b")))
    assert own.names.inputs == ("a", "b")
    with pytest.raises(DataError, match=r"1 inputs are named.*2 columns"):
        Problem(X / 50, Y / 50, names=Names(inputs=("a",)))
    assert Names(inputs=["a", "b"]) == own.names  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match=r"inputs = \(1, 'b'\); expected a tuple or list of texts"):
        Names(inputs=[1, "b"])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("make", [list, np.asarray, pd.Series, lambda labels: pd.DataFrame({"kind": labels})])
def test_text_is_classes_in_sorted_order(make):
    train, test = make(["dog", "cat", "dog"]), make(["eel"])
    problem = Problem(np.eye(3), train, np.zeros((1, 3)), test, loss=SoftmaxCrossEntropy())
    assert problem.names.classes == ("cat", "dog", "eel")
    np.testing.assert_array_equal(problem.y_train, np.eye(3)[[1, 0, 1]])
    np.testing.assert_array_equal(problem.y_test, np.eye(3)[[2]])


def test_categories_of_pandas_are_classes_in_sorted_order():
    labels = pd.Series(pd.Categorical(["no", "yes", "no"], categories=["yes", "no"]))
    problem = Problem(np.eye(3), labels, loss=LogisticLoss())
    assert problem.names.classes == ("no", "yes")
    np.testing.assert_array_equal(problem.y_train, [[0.0], [1.0], [0.0]])


def test_missing_labels_are_refused():
    with pytest.raises(DataError, match="y_train has no value in row 1"):
        Problem(np.eye(3), pd.Series(["a", None, "b"]), loss=SoftmaxCrossEntropy())


def test_text_columns_are_refused_by_name_with_the_remedy():
    frame = pd.DataFrame({"size": [1.0, 2.0], "colour": ["red", "blue"], "shop": pd.Categorical(["a", "b"])})
    with pytest.raises(DataError, match=r"columns 'colour', 'shop' of x_train holds text \('red'\)") as caught:
        Problem(frame, [1.0, 2.0])
    remedy = str(caught.value).partition("pandas.")[2].partition(" or polars")[0]
    encoded = eval(f"pd.{remedy}", {"pd": pd, "frame": frame})
    assert Problem(encoded, [1.0, 2.0]).names.inputs == ("size", "colour_blue", "colour_red", "shop_a", "shop_b")


def test_classes_of_the_validation_set_count():
    labels = {"y_train": [0, 1, 0], "y_validation": [2], "y_test": [3]}
    inputs = {"x_train": np.eye(3), "x_validation": np.zeros((1, 3)), "x_test": np.ones((1, 3))}
    problem = Problem(**inputs, **labels, loss=SoftmaxCrossEntropy())
    np.testing.assert_array_equal(problem.y_validation, np.eye(4)[[2]])
    np.testing.assert_array_equal(problem.y_test, np.eye(4)[[3]])
    assert problem.y_train.shape == (3, 4)
    alone = Problem(
        **{name: a for name, a in (inputs | labels).items() if "test" not in name}, loss=SoftmaxCrossEntropy()
    )
    assert alone.y_train.shape == (3, 3)
    for bad, message in ((-1, "y_validation"), ([0.5], "y_validation has")):
        with pytest.raises(DataError, match=message):
            Problem(**inputs, **(labels | {"y_validation": [bad]}), loss=SoftmaxCrossEntropy())


def test_validation_data_are_checked_like_test_data():
    data = {"x_train": X / 50, "y_train": Y / 50}
    for changed, message in (
        ({"x_validation": X_TEST}, "x_validation is given without y_validation"),
        ({"x_validation": X_TEST[:, :1], "y_validation": Y_TEST}, "x_validation has 1 features"),
        ({"x_validation": X_TEST, "y_validation": Y_TEST[:2]}, "y_validation has 2 rows"),
        ({"x_validation": X_TEST * np.nan, "y_validation": Y_TEST}, r"x_validation\[0, 0\] = nan"),
    ):
        with pytest.raises(DataError, match=message):
            Problem(**data, **changed)


def test_a_problem_is_a_pytree_with_its_standardisation():
    problem = Problem(X, Y, standardise=True)
    leaves, structure = jax.tree.flatten(problem)
    assert len(leaves) == 6
    assert eqx.tree_equal(jax.tree.unflatten(structure, leaves), problem)
