"""Writing objects as JSON plus arrays and reading them back; what a run file must not be able to do."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from oracles.cases import LOSSES, MODELS, make_problem

from gnflow._core import RunFolderError, decode as decode_as, encode, first_difference, known_classes
from gnflow.flows import Frozen, GaussNewtonFlow, GradientFlow, SpectralFlow, WeightDecay
from gnflow.geometry.damping import Constant, Exponential, LargestEigenvalue, Schedule, SmallestEigenvalue, Trace
from gnflow.geometry.directions import Cholesky, ConjugateGradients, MeanKernel, Nystrom, TruncatedEigh
from gnflow.losses import HuberLoss, SquaredLoss
from gnflow.models import MLP
from gnflow.problems import Names, Problem, teacher_student

GNFLOWS_MODELS = sorted(kind for kind in MODELS if "equinox" not in kind and kind != "convolutional")

FLOWS = {
    "gradient": GradientFlow(),
    "gradient, number": GradientFlow(mobility=2.5),
    "gauss-newton": GaussNewtonFlow(),
    "natural gradient": GaussNewtonFlow(metric="fisher", damping=Constant(1e-3), solver=Cholesky()),
    "levenberg-marquardt": GaussNewtonFlow(
        metric="hessian", damping=Exponential(1.0, 0.5, 1e-3), solver=ConjugateGradients(rtol=1e-6)
    ),
    "preconditioned": GaussNewtonFlow(
        "hessian", LargestEigenvalue(1e-3, 1e-9), ConjugateGradients(1e-2, 50, Nystrom(7))
    ),
    "by the trace": GaussNewtonFlow(damping=Trace(1e-3)),
    "mean kernel": GaussNewtonFlow(solver=ConjugateGradients(preconditioner=MeanKernel())),
    "spectral": SpectralFlow(power=0.25, damping=SmallestEigenvalue(2.0, 1e-9)),
    "frozen": Frozen(GaussNewtonFlow(solver=TruncatedEigh()), trainable=("output", "hidden_bias")),
    "weight decay": WeightDecay(Frozen(GradientFlow(2.0), "output"), 0.1),
    "weight decay by name": WeightDecay(SpectralFlow(), {"hidden": 0.1, "output_weight": 0.0}),
}


def decode(value, arrays):
    """What `gnflow.load` makes of it."""
    return decode_as(value, arrays, known_classes(eqx.Module), "0.1.0")


def there_and_back(value):
    arrays = {}
    text = json.dumps(encode(value, arrays, "value"))
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    return decode(json.loads(text), arrays)


def assert_same(again, value):
    leaves, structure = jax.tree.flatten(value)
    again_leaves, again_structure = jax.tree.flatten(again)
    assert again_structure == structure  # classes and static fields too
    for left, right in zip(again_leaves, leaves, strict=True):
        assert type(left) is type(right)
        assert getattr(left, "dtype", None) == getattr(right, "dtype", None)
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("kind", GNFLOWS_MODELS)
def test_models(kind):
    made = MODELS[kind]
    model = made.make(jr.key(0), made.output_counts[-1])
    again = there_and_back(model)
    assert_same(again, model)
    x = jnp.asarray([0.3, -0.7])
    np.testing.assert_array_equal(again(x), model(x))


@pytest.mark.parametrize("name", FLOWS)
def test_flows(name):
    assert_same(there_and_back(FLOWS[name]), FLOWS[name])
    assert there_and_back(FLOWS[name]).trainable == FLOWS[name].trainable


@pytest.mark.parametrize("loss", LOSSES)
def test_problems(loss):
    problem = make_problem(LOSSES[loss], 3, seed=1)
    assert_same(there_and_back(problem), problem)


def test_a_problem_with_its_teacher_and_one_without_test_data():
    problem = teacher_student(n_train=3, n_test=2, input_dim=2, key=jr.key(0))
    again = there_and_back(problem)
    assert_same(again, problem)
    assert (again.name, again.loss) == ("teacher_student", SquaredLoss())
    bare = Problem([[1.0]], [2.0], loss=HuberLoss(2.0))
    assert_same(there_and_back(bare), bare)
    assert there_and_back(bare).loss.delta == 2.0


def test_plain_data():
    value = {"a": [1, 2.5, None, True, "text"], "b": (1, ("x", 2)), "c": {"d": []}, "pi": 0.1 + 0.2}
    assert there_and_back(value) == value
    assert isinstance(there_and_back(value)["b"][1], tuple)
    arrays = there_and_back({"i": np.arange(3), "f": jnp.ones((2, 0)), "b": np.asarray(True)})
    assert [array.dtype for array in arrays.values()] == [jnp.int64, jnp.float64, jnp.bool_]
    assert arrays["f"].shape == (2, 0)


def test_objects_of_others_are_noted_and_asked_for():
    for value in (eqx.nn.MLP(2, 1, 3, 1, key=jr.key(0)), np.sin, Schedule(lambda time: time)):
        note = encode(value, {}, "value")
        json.dumps(note)
        with pytest.raises(RunFolderError, match=r"cannot rebuild from a file; pass it to load"):
            decode(note, {})


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "gnflowx.evil:Thing",
        "builtins:dict",
        "gnflow.no_such_module:Thing",
        "gnflow.losses._squared:NoSuchLoss",
        "gnflow._core._serialise:encode",
        "gnflow._core._errors:DataError",
    ],
)
def test_a_run_file_cannot_name_what_is_not_listed(name):
    with pytest.raises(RunFolderError, match="which is none that this version of gnflow reads back"):
        decode({"__class__": name, "argument": "rm"}, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mobility": None}, "mobility = None; expected"),
        ({"mobility": "nan"}, "mobility = 'nan'"),
        ({"mobility": -1.0}, "mobility = -1.0"),
        ({"speed": 1.0}, "a field 'speed', which this version of gnflow does not have"),
    ],
)
def test_fields_hold_what_the_constructor_takes(change, message):
    written = encode(GradientFlow(), {}, "flow")
    with pytest.raises(RunFolderError, match=message):
        decode({**written, **change}, {})


@pytest.mark.parametrize(
    ("field", "array"),
    [("x_train", np.zeros(3)), ("y_train", np.zeros((3, 1), dtype=int)), ("x_train", None)],
    ids=["another shape", "another dtype", "null"],
)
def test_arrays_have_the_shape_and_dtype_of_their_field(field, array):
    arrays = {}
    written = encode(make_problem(SquaredLoss(), 1, seed=1), arrays, "problem")
    if array is None:
        written[field] = None
    else:
        arrays[f"problem.{field}"] = array
    with pytest.raises(
        RunFolderError, match=rf"damaged: Problem(\.{field} = |: inputs and targets have the ).*expected"
    ):
        decode(written, arrays)


def test_a_damaged_run_file():
    arrays = {}
    written = encode(make_problem(SquaredLoss(), 1, seed=1), arrays, "problem")
    with pytest.raises(RunFolderError, match=r"array 'problem\.x_train' that it does not hold"):
        decode(written, {})
    del written["loss"]
    with pytest.raises(RunFolderError, match=r"Problem no loss; it is damaged"):
        decode(written, arrays)


def test_what_older_versions_wrote_means_what_it_meant():
    """Layers had no scale of their bias: it was 1. Other fields must be there all the same."""
    model = MLP(2, 16, 1, parametrisation="mean_field", key=jr.key(0))
    arrays = {}
    written = encode(model, arrays, "model")
    for layer in written["layers"]["__tuple__"]:
        del layer["bias_factor"]
    older = decode(json.loads(json.dumps(written)), arrays)
    assert [layer.bias_factor for layer in model.layers] == [1.0, 0.25]
    assert [layer.bias_factor for layer in older.layers] == [1.0, 1.0]
    np.testing.assert_array_equal(older.layers[1].weight, model.layers[1].weight)
    del written["layers"]["__tuple__"][1]["factor"]
    with pytest.raises(RunFolderError, match=r"ScaledLinear no factor; it is damaged"):
        decode(written, arrays)


def test_fields_that_an_older_folder_lacks_are_compared_by_their_numbers():
    x, y = jnp.ones((3, 2)), jnp.ones((3, 1))
    named = encode(Problem(x, y, names=Names(inputs=("age", "weight"))), {}, "problem")
    older = {key: value for key, value in named.items() if key != "names"}
    arrays = {"problem.x_train": x, "problem.y_train": y}
    assert first_difference(older, named, arrays, arrays, "problem") is None
    older = {key: value for key, value in named.items() if key != "x_test"}
    tested = {**named, "x_test": {"__array__": "problem.x_train"}}
    assert first_difference(older, tested, arrays, arrays, "problem") == "problem"
    assert first_difference(tested, older, arrays, arrays, "problem") == "problem"
