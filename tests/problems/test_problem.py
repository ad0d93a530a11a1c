import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnflow._core import DataError, PrecisionError
from gnflow.losses import HuberLoss, LogisticLoss, SoftmaxCrossEntropy, SquaredLoss
from gnflow.problems import Problem


def arrays(num_train=5, num_test=3, input_dim=2, num_outputs=1):
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.normal(size=(num_train, input_dim)),
        "y_train": rng.normal(size=(num_train, num_outputs)),
        "x_test": rng.normal(size=(num_test, input_dim)),
        "y_test": rng.normal(size=(num_test, num_outputs)),
    }


def test_keeps_the_numbers_and_the_sizes():
    data = arrays(num_train=5, num_test=3, input_dim=2, num_outputs=4)
    problem = Problem(**data)
    for name, array in data.items():
        stored = getattr(problem, name)
        assert isinstance(stored, jax.Array)
        assert stored.dtype == jnp.float64
        np.testing.assert_array_equal(stored, array)
    assert (problem.num_train, problem.input_dim, problem.num_outputs) == (5, 2, 4)
    assert isinstance(problem.loss, SquaredLoss)
    assert problem.teacher is None
    assert problem.name == "arrays"


def test_a_list_of_targets_becomes_one_column_and_test_data_are_optional():
    problem = Problem([[0.0], [1.0]], [0.5, -0.5])
    np.testing.assert_array_equal(problem.y_train, [[0.5], [-0.5]])
    assert problem.x_test is None
    assert problem.y_test is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, jnp.bfloat16, np.int8, np.int64, np.uint8, bool])
@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_narrower_inputs_are_embedded_exactly(dtype, convert):
    x = convert(np.array([[0.1, 1.0], [3.0, 0.0]]), dtype=dtype)
    problem = Problem(x, np.zeros(2))
    assert problem.x_train.dtype == jnp.float64
    np.testing.assert_array_equal(np.asarray(problem.x_train).astype(dtype), np.asarray(x))


def test_float32_targets_are_embedded_exactly():
    y = np.array([0.1, 0.2], np.float32)
    np.testing.assert_array_equal(Problem(np.zeros((2, 1)), y).y_train[:, 0], y.astype(np.float64))


def test_the_loss_makes_the_targets_canonical():
    x = np.zeros((3, 1))
    softmax = Problem(x, [0, 2, 1], x[:1], [3], loss=SoftmaxCrossEntropy())
    np.testing.assert_array_equal(softmax.y_train, np.eye(4)[[0, 2, 1]])
    np.testing.assert_array_equal(softmax.y_test, np.eye(4)[[3]])
    logistic = Problem(x, [True, False, True], loss=LogisticLoss())
    np.testing.assert_array_equal(logistic.y_train, [[1.0], [0.0], [1.0]])


def test_integer_labels_do_not_slip_into_the_squared_loss():
    with pytest.raises(DataError, match="class labels"):
        Problem(np.zeros((3, 1)), [0, 1, 2])


def test_is_a_pytree_with_a_static_name():
    problem = Problem(**arrays(), name="mine")
    leaves, structure = jax.tree.flatten(problem)
    assert len(leaves) == 4
    again = jax.tree.unflatten(structure, leaves)
    assert eqx.tree_equal(again, problem)
    assert again.name == "mine"


def changed(**changes):
    return {**arrays(), **changes}


ones = np.ones((5, 2))
with_nan = ones.copy()
with_nan[3, 1] = np.nan
with_nan[4, 0] = np.nan
masked = np.ma.masked_array(ones, mask=np.eye(5, 2, k=1))

wrong_data = {
    "no samples": (changed(x_train=np.ones((0, 2)), y_train=np.ones((0, 1))), r"x_train.*\(0, 2\).*no samples"),
    "no test samples": (changed(x_test=np.ones((0, 2)), y_test=np.ones((0, 1))), r"x_test.*no samples.*None"),
    "no features": (changed(x_train=np.ones((5, 0))), r"x_train.*\(5, 0\).*features"),
    "NaN in x_train": (changed(x_train=with_nan), r"x_train\[3, 1\] = nan.*2 of 10"),
    "inf in x_test": (changed(x_test=[[1, 2], [-np.inf, 0], [0, 0]]), r"x_test\[1, 0\] = -inf"),
    "NaN in y_train": (changed(y_train=[0.0, 0.0, np.nan, 0.0, 0.0]), r"y_train\[2\] = nan"),
    "inf in y_test": (changed(y_test=[[0.0], [np.inf], [0.0]]), r"y_test\[1, 0\] = inf"),
    "float32 NaN": (changed(x_train=jnp.asarray(with_nan, jnp.float32)), r"x_train\[3, 1\] = nan"),
    "x a vector": (changed(x_train=np.ones(5)), r"x_train.*\(5,\).*x_train\[:, None\]"),
    "x_test no images": (changed(x_train=np.ones((5, 2, 2))), r"x_test has 2 features .* inputs of the shape \(2, 2\)"),
    "images without pixels": (changed(x_train=np.ones((5, 2, 0))), r"x_train.*\(5, 2, 0\).*features"),
    "x a number": (changed(x_train=1.0), r"x_train.*\(\).*\(N, d\)"),
    "y of three axes": (changed(y_train=np.ones((5, 1, 1))), r"y_train.*\(5, 1, 1\)"),
    "y a number": (changed(y_train=1.0), r"y_train.*\(\)"),
    "train rows differ": (changed(y_train=np.ones(4)), r"y_train has 4 rows .* x_train has 5"),
    "test rows differ": (changed(y_test=np.ones((2, 1))), r"y_test has 2 rows .* x_test has 3"),
    "transposed targets": (changed(y_train=np.ones((1, 5))), r"y_train has 1 rows"),
    "x_test alone": (changed(y_test=None), r"x_test is given without y_test"),
    "y_test alone": (changed(x_test=None), r"y_test is given without x_test"),
    "features differ": (changed(x_test=np.ones((3, 7))), r"x_test has 7 features .* x_train has 2"),
    "outputs differ": (changed(y_test=np.ones((3, 2))), r"y_train has 1 columns but y_test has 2"),
    "text": (changed(x_train=[["a", "b"]] * 5), r"x_train has dtype <U1"),
    "text targets": (changed(y_train=["cat"] * 5), r"y_train has dtype <U3"),
    "objects": (changed(x_train=[[None, 1.0]] * 5), r"x_train is of type object and holds None"),
    "complex": (changed(y_train=np.ones(5) * 1j), r"y_train has dtype complex128"),
    "dates": (changed(x_train=np.ones((5, 2), "datetime64[D]")), r"x_train has dtype datetime64"),
    "records": (changed(x_train=np.ones(5, [("a", float)])), r"x_train has dtype \[\('a'"),
    "ragged": (changed(x_train=[[1.0], [1.0, 2.0]]), r"x_train is not a rectangular array"),
    "masked": (changed(x_train=masked), r"x_train\[0, 1\] is masked"),
    "huge integers": (changed(x_train=np.array([[0, 2**53 + 1]] * 5)), r"x_train\[0, 1\] = 9007199254740993"),
    "huge negative": (changed(x_train=np.array([[0, -(2**53) - 1]] * 5)), r"x_train\[0, 1\] = -9007199254740993"),
    "huge unsigned": (changed(y_train=np.array([2**64 - 1] * 5, np.uint64)), r"y_train\[0\] = 18446744073709551615"),
    "a teacher that is no model": (changed(teacher="net"), r"teacher = 'net'.*model"),
    "loss by its name": (changed(loss="huber"), r"'huber' is a name.*HuberLoss\(\)"),
    "loss by a wrong name": (changed(loss="squard"), r"did you mean 'squared'"),
    "loss as a class": (changed(loss=LogisticLoss), r"class LogisticLoss.*LogisticLoss\(\)"),
    "loss as a function": (changed(loss=lambda f, y: 0.0), r"function.*AbstractLoss"),
    "loss None": (changed(loss=None), r"NoneType.*AbstractLoss"),
    "labels for the loss": (changed(loss=SoftmaxCrossEntropy(), y_train=[0, -1, 0, 0, 0], y_test=[0] * 3), r"y_train"),
}


@pytest.mark.parametrize("case", wrong_data)
def test_refuses(case):
    arguments, message = wrong_data[case]
    with pytest.raises(DataError, match=message):
        Problem(**arguments)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="no float wider than float64 on this machine")
def test_refuses_floats_wider_than_float64():
    with pytest.raises(DataError, match="wider than float64"):
        Problem(np.ones((2, 1), np.longdouble), np.ones(2))


def test_integers_up_to_2_to_53_are_exact():
    problem = Problem(np.array([[2**53], [-(2**53)]]), np.zeros(2))
    assert [int(number) for number in problem.x_train[:, 0]] == [2**53, -(2**53)]


def test_needs_double_precision():
    with jax.enable_x64(False), pytest.raises(PrecisionError, match="jax_enable_x64"):
        Problem(**arrays())


def test_does_not_see_later_changes_of_the_users_array():
    data = arrays()
    problem = Problem(**data)
    before = np.array(problem.x_train)
    data["x_train"][:] = 7.0
    np.testing.assert_array_equal(problem.x_train, before)


TRACED = [  # loss, targets of five samples
    (SquaredLoss(), np.linspace(-1, 1, 5)),
    (SquaredLoss(), np.linspace(-1, 1, 10, dtype=np.float32).reshape(5, 2)),
    (HuberLoss(), np.linspace(-1, 1, 10).reshape(5, 2)),
    (LogisticLoss(), np.array([0, 1, 1, 0, 1])),
    (LogisticLoss(), np.array([True, False, False, True, True])),
    (SoftmaxCrossEntropy(), np.eye(3)[[0, 2, 1, 1, 0]]),
    (SoftmaxCrossEntropy(), np.eye(3, dtype=np.float32)[[0, 2, 1, 1, 0]] * 0.7 + 0.1),
]


@pytest.mark.parametrize(("loss", "y"), TRACED)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32])
def test_inside_a_compiled_program_it_holds_the_same_numbers(loss, y, dtype):
    x = (4 * arrays()["x_train"]).astype(dtype)
    outside = Problem(x, y, x, y, loss=loss)
    make = jax.jit(lambda x, y: Problem(x, y, x, y, loss=loss), compiler_options={"xla_backend_optimization_level": 0})
    inside = make(jnp.asarray(x), jnp.asarray(y))
    assert jax.tree.structure(inside) == jax.tree.structure(outside)
    for there, here in zip(jax.tree.leaves(inside), jax.tree.leaves(outside), strict=True):
        assert there.dtype == jnp.float64
        np.testing.assert_array_equal(there, here)


@pytest.mark.parametrize(
    ("x", "y", "loss", "message"),
    [
        (np.zeros(3), np.zeros(3), SquaredLoss(), r"x_train has shape \(3,\).*x_train\[:, None\]"),
        (np.zeros((3, 0)), np.zeros(3), SquaredLoss(), "samples without features"),
        (np.zeros((3, 1)), np.zeros(4), SquaredLoss(), r"y_train has 4 rows .* but x_train has 3"),
        (np.zeros((3, 1)), np.zeros((3, 1, 1)), SquaredLoss(), r"y_train has shape \(3, 1, 1\)"),
        (np.zeros((3, 1), complex), np.zeros(3), SquaredLoss(), "x_train has dtype complex128, but numbers are needed"),
        (np.zeros((3, 1)), np.zeros(3, complex), SquaredLoss(), "y_train has dtype complex128, but numbers are needed"),
        (np.zeros((3, 1)), np.zeros(3, int), SquaredLoss(), "y_train has dtype int64, but SquaredLoss fits real"),
        (np.zeros((3, 1)), np.zeros(3, int), SoftmaxCrossEntropy(), r"number of classes.*jax\.nn\.one_hot\(y_train, C"),
        (np.zeros((3, 1)), np.zeros((3, 1)), SoftmaxCrossEntropy(), "at least two columns"),
    ],
)
def test_inside_a_compiled_program_shapes_and_dtypes_are_checked(x, y, loss, message):
    with pytest.raises(DataError, match=message):
        jax.eval_shape(lambda x, y: Problem(x, y, loss=loss).y_train, x, y)


def test_what_is_not_known_inside_a_compiled_program_is_not_checked():
    """As the docstring says; the same numbers are refused outside."""
    x, y = np.array([[1.0], [np.nan]]), np.array([0.0, 7.0])
    with pytest.raises(DataError, match="must be finite"):
        Problem(x, y, loss=LogisticLoss())
    inside = jax.jit(lambda x, y: Problem(x, y, loss=LogisticLoss()))(x, y)
    np.testing.assert_array_equal(inside.x_train, x)
    np.testing.assert_array_equal(inside.y_train[:, 0], y)
