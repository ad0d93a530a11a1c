"""Inputs that were once misread, each refused with the value, what was expected and the remedy; and those that are right.

Not collected by itself: `test_python_face.py` runs it in a process without beartype, which would refuse them first.
"""

import fractions
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import gnflow as gn
from gnflow.flows import Frozen, GaussNewtonFlow, GradientFlow, SpectralFlow
from gnflow.geometry.damping import Constant, Exponential, SmallestEigenvalue

X = np.random.default_rng(0).normal(size=(6, 2))
Y = X[:, 0]
PROBLEM = gn.Problem(X, Y)
TWO_OUTPUTS = gn.Problem(X, X)
MODEL = gn.models.MeanFieldNetwork(2, 4, key=0)
FLOW = GradientFlow()
KEY = jax.random.key(0)


class Weights(eqx.Module):
    """A linear model whose outputs go through a function."""

    w: jax.Array
    change: object = eqx.field(static=True, default=lambda output: output)

    def __call__(self, x):
        return self.change(jnp.sum(self.w * x))


class WithBatchNorm(eqx.Module):
    """A network that keeps its running statistics."""

    linear: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    state: eqx.nn.State

    def __init__(self, key):
        self.linear = eqx.nn.Linear(2, 3, key=key)
        self.norm, self.state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="ema")

    def __call__(self, x):
        return jnp.sum(self.norm(self.linear(x), self.state)[0])


class WithoutState(eqx.Module):
    """One that forgot them."""

    norm: eqx.nn.BatchNorm

    def __call__(self, x):
        return self.norm(x)[0]


class Tied(eqx.Module):
    """Two layers with one weight matrix, as Equinox ties them."""

    shared: eqx.nn.Shared

    def __init__(self, key):
        layers = eqx.nn.Linear(2, 2, key=key), eqx.nn.Linear(2, 2, key=key)
        self.shared = eqx.nn.Shared(layers, lambda pair: pair[1].weight, lambda pair: pair[0].weight)

    def __call__(self, x):
        first, second = self.shared()
        return second(jnp.tanh(first(x)))


LAYER = eqx.nn.Linear(2, 2, key=KEY)
DROPOUT = eqx.nn.Sequential([eqx.nn.Linear(2, 1, key=KEY), eqx.nn.Dropout(0.5)])


def softmax(labels):
    return gn.Problem(X[: len(labels)], labels, loss=gn.losses.SoftmaxCrossEntropy())


def simulate(**options):
    return gn.simulate(PROBLEM, MODEL, **{"flow": FLOW, "t1": 1.0, **options})


def table(**columns):
    return gn.Problem(pd.DataFrame(columns), [1.0, 2.0])


class Mobile(eqx.Module):
    """A model with a mobility, names and a mask of its own."""

    w: jax.Array
    mobility: object = eqx.field(static=True, default=1.0)
    groups: tuple = eqx.field(static=True, default=())
    mask: object = eqx.field(static=True, default=None)

    @property
    def weight_groups(self):
        return dict(self.groups) if isinstance(self.groups, tuple) else self.groups

    def trainable_mask(self):
        return jax.tree.map(lambda _: True, self) if self.mask is None else self.mask(self)

    def __call__(self, x):
        return jnp.sum(self.w * x)


class OwnFlow(gn.flows.AbstractFlow):
    """Gradient flow, changed."""

    change: object = eqx.field(static=True)

    def velocity_and_diagnostics(self, time, weights, system):
        return self.change(FLOW.velocity(time, weights, system)), None


class OwnMetric(gn.metrics.AbstractMetric):
    """A metric that gives something."""

    name: str = eqx.field(static=True)
    give: object = eqx.field(static=True)

    def variables(self, system):
        return (gn.metrics.Variable(self.name, self.name, "1", "here"),)

    def evaluate(self, snapshot, memory):
        return self.give(snapshot)


class OwnLoss(gn.losses.SquaredLoss):
    """Another value, with the derivatives of the squared loss."""

    def value(self, f, y):
        return jnp.sum(jnp.abs(f - y))


def csv(text, **options):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.csv"
        file.write_text(text, encoding="utf-8")
        return gn.problems.from_file(file, **{"target": "y", "loss": gn.losses.SoftmaxCrossEntropy(), **options})


FRAME = pd.DataFrame(X, columns=["a", "b"])
TREE = "expected a tree like the weights"

REFUSED = {
    "test columns in another order": (lambda: gn.Problem(FRAME, Y, FRAME[["b", "a"]], Y), gn.DataError, r"\['a', 'b'\] and x_test \['b', 'a'\]"),
    "rows of other names": (lambda: gn.Problem(FRAME, pd.Series(Y, index=range(1, 7))), gn.DataError, "other names or another order"),
    "masked rows in a list": (lambda: gn.Problem([np.ma.array([1.0, 2.0], mask=[0, 1])], [1.0]), gn.DataError, "masked"),
    "2^53 + 1 beside floats": (lambda: table(i=[2**53 + 1, 2], f=[0.5, 1.0]), gn.DataError, "column 'i' .* 9007199254740993"),
    "2^53 + 1 in a list": (lambda: gn.Problem([[2**53 + 1, 0.5]], [1.0]), gn.DataError, "9007199254740993"),
    "a third": (lambda: gn.Problem([[fractions.Fraction(1, 3)]], [1.0]), gn.DataError, "cannot hold exactly"),
    "an empty row of a file": (lambda: csv("a,b,y\n1,2,u\n,,\n4,5,v\n"), gn.DataError, "row 1, column 'a' .* is missing"),
    "labels that look like numbers": (lambda: csv("a,y\n1,1_0\n2,2_0\n"), gn.DataError, "'1_0' in row 0, column 'y'"),
    "labels that are dates": (lambda: csv("a,y\n1,2020-01-01\n2,2021-01-01\n"), gn.DataError, "'2020-01-01' in row 0"),
    "2^53 + 1 in a file": (lambda: csv("a,y\n9007199254740993,u\n"), gn.DataError, "cannot hold exactly"),
    "a set of columns": (lambda: csv("a,y\n1,u\n", target={"y"}), gn.DataError, "several in a list"),
    "features 5": (lambda: csv("a,y\n1,u\n", features=5), gn.DataError, "columns = 5"),
    **{f"mobility {m} of a model": (lambda m=m: gn.System(PROBLEM, Mobile(jnp.ones(2), m)), gn.ModelError, "Mobile.mobility = .*above 0") for m in (-1.0, 0.0, True, None, "a", float("nan"))},
    "groups that are a list": (lambda: gn.System(PROBLEM, Mobile(jnp.ones(2), groups=frozenset("a")), "w"), gn.ModelError, "weight_groups"),
    "a group of None": (lambda: gn.System(PROBLEM, Mobile(jnp.ones(2), groups=(("output", None),)), "output"), gn.ModelError, r"weight_groups\['output'\] = None"),
    **{f"mask {n}": (lambda m=m: gn.System(PROBLEM, Mobile(jnp.ones(2), mask=m)), gn.ModelError, r"trainable_mask\(\)") for n, m in enumerate((lambda s: 1, lambda s: [True, True], lambda s: 1 / 0, lambda s: jax.tree.map(lambda _: 1, s)))},
    **{f"velocity {n}": (lambda c=c: simulate(flow=OwnFlow(c)), gn.ConfigError, TREE) for n, c in enumerate((lambda v: None, lambda v: [1.0], lambda v: jax.tree.map(lambda a: 1j * a, v), lambda v: jax.tree.map(lambda a: a.astype("float32"), v), lambda v: jax.tree.map(lambda a: a[:1], v), lambda v: 1 / 0))},
    "a loss of two halves": (lambda: gn.Problem(X, Y, loss=OwnLoss()), gn.DataError, "OwnLoss has a value of its own and the gradient"),
    "a metric called flow_time": (lambda: simulate(metrics=(OwnMetric("flow_time", lambda s: {}),)), gn.ConfigError, "the data set's own name"),
    **{f"a metric that gives {n}": (lambda g=g: simulate(metrics=(OwnMetric("m", g),)), gn.ConfigError, "OwnMetric") for n, g in enumerate((lambda s: None, lambda s: {}, lambda s: {"n": 1.0}, lambda s: {"m": "x"}, lambda s: {"m": 1j}))},
    "a time below all": (lambda: simulate(t1=1e-320), gn.ConfigError, "t1 = 1e-320; expected a finite number of at least 1e-300"),
    **{f"stated kinks {k}": (lambda k=k: gn.models.Activation.from_function(jnp.sin, kinks=k), gn.ModelError, "expected") for k in (0.0, "0", (None,), (float("nan"),), {0.0: 1})},
    "a stated homogeneity that is no boolean": (lambda: gn.models.Activation.from_function(jnp.abs, homogeneous=1), gn.ModelError, "homogeneous = 1; expected True or False"),
    **{f"stated bounds {b}": (lambda b=b: gn.models.Activation.from_function(jnp.sin, derivative_bounds=b), gn.ModelError, "expected DerivativeBounds") for b in (1.0, (1.0, 1.0))},
    "complex weights": (lambda: gn.System(PROBLEM, Weights(jnp.ones(2, complex))), gn.ModelError, "Weights.w is complex128.*float64"),
    "complex64": (lambda: gn.System(PROBLEM, Weights(jnp.ones(2, jnp.complex64))), gn.ModelError, "Weights.w is complex64"),
    "complex outputs": (lambda: gn.System(PROBLEM, Weights(jnp.ones(2), lambda f: 1j * f)), gn.ModelError, "dtype complex128.*real part"),
    "whole outputs": (lambda: gn.System(PROBLEM, Weights(jnp.ones(2), lambda f: (f > 0).astype(int))), gn.ModelError, "int64"),
    "float32 outputs": (lambda: gn.System(PROBLEM, Weights(jnp.ones(2), lambda f: f.astype("float32"))), gn.PrecisionError, "float32"),
    "batch norm in training": (lambda: gn.System(PROBLEM, WithBatchNorm(KEY)), gn.ModelError, "inference_mode"),
    "batch norm without state": (lambda: gn.System(TWO_OUTPUTS, WithoutState(eqx.nn.BatchNorm(2, "b", mode="ema"))), gn.ModelError, "eqx.nn.State"),
    "dropout": (lambda: gn.System(PROBLEM, DROPOUT), gn.ModelError, "requires a key.*inference_mode"),
    "one array twice": (
        lambda: gn.System(TWO_OUTPUTS, eqx.nn.Sequential([LAYER, LAYER])),
        gn.ModelError,
        r"layers\[0\].weight and Sequential.layers\[1\].weight are one array.*eqx.nn.Shared.*jnp.copy",
    ),
    "lambda": (lambda: gn.System(PROBLEM, lambda x: x[0]), gn.ModelError, "function <lambda>, not an equinox.Module.*wrap"),
    "jitted function": (lambda: gn.System(PROBLEM, jax.jit(lambda x: x[0])), gn.ModelError, "not an equinox.Module"),
    "class": (lambda: gn.System(PROBLEM, eqx.nn.MLP), gn.ModelError, r"the class MLP; expected an object of it: MLP\(...\)"),
    "text for a model": (lambda: gn.System(PROBLEM, "mlp"), gn.ModelError, "'mlp' is a str"),
    "problem for a model": (lambda: gn.System(PROBLEM, PROBLEM), gn.ModelError, "a Problem, which cannot be called"),
    "relative loss as text": (lambda: gn.RelativeLoss("1e-3"), gn.ConfigError, "tolerance = '1e-3'; expected a number above 0"),
    "negative NumPy": (lambda: gn.RelativeLoss(np.float32(-1)), gn.ConfigError, r"np.float32\(-1.0\)"),
    "relative loss 2": (lambda: gn.RelativeLoss(2), gn.ConfigError, "tolerance = 2; expected a number above 0 and of at most 1"),
    "nan": (lambda: gn.GradientNorm(float("nan")), gn.ConfigError, "tolerance = nan; expected a finite number above 0"),
    "spectral text": (lambda: SpectralFlow("a"), gn.ConfigError, "power = 'a'"),
    "spectral nan": (lambda: SpectralFlow(np.float32("nan")), gn.ConfigError, "power = np.float32"),
    "mobility None": (lambda: GradientFlow(None), gn.ConfigError, "mobility = None.*'model' takes the model's own"),
    "mobility negative": (lambda: GradientFlow(np.float32(-1)), gn.ConfigError, "mobility = "),
    "mobility True": (lambda: GradientFlow(True), gn.ConfigError, "mobility = True"),
    "mobility array": (lambda: GradientFlow(jnp.ones(2)), gn.ConfigError, "mobility = array"),
    "damping number": (lambda: GaussNewtonFlow(damping=0.1), gn.ConfigError, r"damping = 0.1; expected a damping rule such as .*Constant\(0.1\)"),
    "damping class": (lambda: GaussNewtonFlow(damping=SmallestEigenvalue), gn.ConfigError, "the class SmallestEigenvalue"),
    "damping of a spectral flow": (lambda: SpectralFlow(0.5, 0.1), gn.ConfigError, "damping = 0.1"),
    "solver text": (lambda: GaussNewtonFlow(solver="cholesky"), gn.ConfigError, "solver = 'cholesky'; expected a direction solver"),
    "frozen text": (lambda: Frozen("gradient"), gn.ConfigError, "flow of Frozen = 'gradient'; expected a flow such as"),
    "frozen names": (lambda: Frozen(FLOW, 3), gn.ModelError, "trainable = 3; expected a name"),
    "metric alone": (lambda: simulate(metrics=gn.metrics.KernelDistance()), gn.ConfigError, "expected a tuple"),
    "metric class": (lambda: simulate(metrics=(gn.metrics.KernelDistance,)), gn.ConfigError, r"metrics\[0\] is the class KernelDistance"),
    "flow class": (lambda: simulate(flow=GradientFlow), gn.ConfigError, "flow is the class GradientFlow"),
    "stop class": (lambda: simulate(stop=gn.RelativeLoss), gn.ConfigError, "stop is the class RelativeLoss"),
    "key text": (lambda: gn.models.MLP(2, 3, 1, key="a"), gn.ConfigError, "key = 'a'; expected a JAX key"),
    "key of 2^63": (lambda: gn.models.MLP(2, 3, 1, key=2**63), gn.ConfigError, "below 2\\^63"),
    "several keys": (lambda: gn.models.MLP(2, 3, 1, key=jax.random.split(KEY)), gn.ConfigError, r"shape \(2,\).*key\[0\]"),
    "init_scale 0": (lambda: gn.models.MeanFieldNetwork(2, 3, init_scale=0, key=0), gn.ModelError, "init_scale = 0; .*1e-3"),
    "max_steps 1e22": (lambda: simulate(max_steps=1e22), gn.ConfigError, r"max_steps = 1e\+22; expected an integer"),
    "max_steps 1e3": (lambda: simulate(max_steps=1e3), gn.ConfigError, "Write 1000"),
    "num_steps True": (lambda: gn.iterate(PROBLEM, MODEL, FLOW, step_size=0.1, num_steps=True), gn.ConfigError, "num_steps = True"),
    "width 1e12": (lambda: gn.models.MeanFieldNetwork(2, 10**12, key=0), gn.ModelError, "would take .* GiB, and .* GiB are free"),
    "n_train 1e12": (lambda: gn.problems.teacher_student(10**12, key=0), gn.DataError, "would take .* GiB"),
    "n_train 1e20": (lambda: gn.problems.teacher_student(10**20, key=0), gn.DataError, "at most 9223372036854775807"),
    "labels from 1": (lambda: softmax([1, 2, 3]), gn.DataError, "labels are 1 to 3.*renumber them from 0: y - 1"),
    "labels far apart": (lambda: softmax([0, 10**6, 0]), gn.DataError, "999999 classes would have no sample; renumber them from 0"),
    "label of 1e8": (lambda: softmax([0, 1, 10**8]), gn.DataError, "renumber them from 0"),
    "text column": (lambda: table(a=[1.0, 2.0], kind=["u", "v"]), gn.DataError, r"column 'kind' of x_train holds text \('u'\).*get_dummies\(frame, columns=\['kind'\]"),
    "missing integer": (lambda: table(a=pd.array([1, None], dtype="Int64")), gn.DataError, "column 'a' of x_train has no value in row 1"),
    "dates": (lambda: table(when=pd.to_datetime(["2020-01-01", "2021-01-01"])), gn.DataError, "column 'when' .*datetime64"),
    "categories of text": (lambda: table(c=pd.Categorical(["u", "v"])), gn.DataError, "column 'c' .*category"),
    "None in a list": (lambda: gn.Problem([[1.0, None], [2.0, 3.0]], [1.0, 2.0]), gn.DataError, r"holds None .* at \[0, 1\]"),
    "sparse and huge": (lambda: gn.Problem(sp.csr_matrix((10**7, 10**6)), Y), gn.DataError, "made dense, would take .* GiB"),
    "saveat beyond t1": (lambda: simulate(saveat=[0.5, 1.1]), gn.ConfigError, "saveat ends at 1.1, after t1 = 1.0"),
    "saveat of truths": (lambda: simulate(saveat=[True]), gn.ConfigError, "expected ascending"),
    "saveat_weights beyond t1": (lambda: simulate(saveat_weights=[1.1]), gn.ConfigError, "saveat_weights ends at 1.1, after t1"),
    "saveat_weights of text": (lambda: simulate(saveat_weights="end"), gn.ConfigError, "saveat_weights = 'end'; expected ascending"),
    "weights at a step of text": (
        lambda: gn.iterate(PROBLEM, MODEL, GradientFlow(), step_size=0.1, num_steps=1, saveat_weights=["1"]),
        gn.ConfigError,
        r"saveat_weights\[0\] = '1'; expected an integer",
    ),
    "simulate in jit": (lambda: jax.jit(lambda t: simulate(t1=t))(0.1), gn.ConfigError, "inside jax.jit.*gnflow.sweep.*LinearisedTerm"),
    "simulate in jit, nothing traced": (lambda: jax.jit(lambda: simulate())(), gn.ConfigError, "inside jax.jit"),
    "simulate in vmap": (lambda: jax.vmap(lambda m: simulate(flow=GradientFlow(m)))(jnp.ones(2)), gn.ConfigError, "inside jax.jit"),
    "iterate in grad": (
        lambda: jax.grad(lambda m: gn.iterate(PROBLEM, MODEL, GradientFlow(m), step_size=0.1, num_steps=1).data)(1.0),
        gn.ConfigError,
        "gnflow.iterate was called inside",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    make, error, message = REFUSED[name]
    with pytest.raises(error, match=f"(?s){message}"):
        make()


NUMBERS = [
    0.5,
    np.float32(0.5),
    np.float64(0.5),
    np.asarray(0.5),
    jnp.asarray(0.5),
    jnp.float32(0.5),
    jnp.bfloat16(0.5),
]


@pytest.mark.parametrize(
    "number", NUMBERS, ids=lambda number: f"{type(number).__name__} {getattr(number, 'dtype', '')}"
)
def test_scalars_are_numbers(number):
    for made, value in (
        (gn.RelativeLoss(number), lambda made: made.tolerance),
        (GradientFlow(number), lambda made: made.mobility),
        (SpectralFlow(number), lambda made: made.power),
        (Constant(number), lambda made: made.value),
        (Exponential(number, number), lambda made: made.rate),
        (gn.losses.HuberLoss(number), lambda made: made.delta),
        (gn.optimisers.SGD(number), lambda made: made.learning_rate),
        (gn.models.MeanFieldNetwork(2, 3, output_scale=number, key=0), lambda made: made.output_scale),
    ):
        assert type(value(made)) is float
        assert value(made) == 0.5


def test_whole_scalars_are_sizes():
    for size in (3, np.int8(3), np.asarray(3), jnp.asarray(3)):
        assert gn.models.MeanFieldNetwork(2, size, key=np.int64(0)).width == 3
        assert gn.metrics.Particles(size).max_count == 3


def test_running_statistics_are_not_trained():
    model = eqx.nn.inference_mode(WithBatchNorm(KEY))
    weights = gn.System(PROBLEM, model).weights(model)
    shapes = sorted(leaf.shape for leaf in jax.tree.leaves(weights))
    assert shapes == [(3,), (3,), (3,), (3, 2)]  # bias, scale and shift of the norm, weight
    assert gn.System(PROBLEM, eqx.nn.inference_mode(DROPOUT)).has_kinks is False


def test_tied_weights_stay_tied():
    model = Tied(KEY)
    run = gn.iterate(TWO_OUTPUTS, model, GradientFlow(1.0), step_size=0.1, num_steps=2)
    first, second = run.model.shared()
    np.testing.assert_array_equal(first.weight, second.weight)
    assert not np.array_equal(first.weight, model.shared()[0].weight)


def test_tables_of_numbers():
    frame = pd.DataFrame(
        {
            "flag": [True, False],
            "nullable": pd.array([1, 2], dtype="Int64"),
            "truth": pd.array([True, True], dtype="boolean"),
            "category": pd.Categorical([3, 4]),
            "objects": pd.Series([1, 2.5], dtype=object),
        }
    )
    expected = [[1, 1, 1, 3, 1], [0, 2, 1, 4, 2.5]]
    np.testing.assert_array_equal(gn.Problem(frame, [1.0, 2.0]).x_train, expected)
    for sparse in (sp.csr_matrix(X), sp.coo_array(X)):
        np.testing.assert_array_equal(gn.Problem(sparse, Y).x_train, X)
    labels = pd.Series([0, 1], dtype="Int64")
    assert softmax(labels).num_outputs == 2


def test_times_beyond_the_end_by_rounding_are_the_end():
    from gnflow.simulate._arguments import times_to_save

    given = np.arange(0, 0.31, 0.1)
    assert given[-1] > 0.3
    np.testing.assert_array_equal(times_to_save(given, 0.3), [0.0, 0.1, 0.2, 0.3])
    np.testing.assert_array_equal(times_to_save([0.1, 0.3, given[-1]], 0.3), [0.1, 0.3])
    with pytest.raises(gn.ConfigError):
        times_to_save([0.1, 0.3 + 1e-9], 0.3)


def test_a_few_empty_classes_are_classes():
    assert softmax([0, 5, 100]).num_outputs == 101
    assert softmax([1, 1]).num_outputs == 2
    assert softmax([0, 2]).num_outputs == 3


def test_a_model_that_inherits_is_computed_as_it_says():
    class Squared(gn.models.MLP):
        def __call__(self, x):
            return super().__call__(x) ** 2

    model = Squared(2, 3, 1, key=0)
    run = gn.iterate(PROBLEM, model, GradientFlow(1.0), step_size=1e-3, num_steps=1)
    loss = PROBLEM.loss.value(jax.vmap(model)(PROBLEM.x_train), PROBLEM.y_train)
    np.testing.assert_allclose(run.data.train_loss[0], loss, rtol=1e-12)
    assert run.data.train_loss[1] < run.data.train_loss[0]


def test_one_path_is_a_group():
    system = gn.System(PROBLEM, Mobile(jnp.ones(2), groups=(("output", "w"),)), "output")
    assert system.trainable == ("output",)


def test_frozen_leaves_may_be_complex_and_narrow(tmp_path):
    class Mixed(eqx.Module):
        w: jax.Array
        c: jax.Array
        h: jax.Array

        def __call__(self, x):
            return jnp.sum(self.w * x) + jnp.real(jnp.sum(self.c)) + jnp.sum(self.h.astype(float))

    model = Mixed(jnp.ones(2), jnp.ones(1, complex), jnp.full(2, 0.5, jnp.bfloat16))
    run = gn.iterate(PROBLEM, model, Frozen(FLOW, "w"), step_size=0.1, num_steps=1)
    run.save(tmp_path / "run")
    back = gn.load(tmp_path / "run", model=model)
    assert eqx.tree_equal(back.model, run.model)


def test_a_checkpoint_sees_code(tmp_path):
    class Curved(eqx.Module):
        w: jax.Array
        bend: object = eqx.field(static=True)

        def __call__(self, x):
            return self.bend(jnp.sum(self.w * x))

    from gnflow.simulate._checkpoint import identity_of

    first, again, other = (
        identity_of(model=Curved(jnp.ones(2), bend))
        for bend in (lambda v: jnp.tanh(v), lambda v: jnp.tanh(v), lambda v: jnp.sin(v))
    )
    assert first == again
    assert first != other
