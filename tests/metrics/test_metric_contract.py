"""What every metric must do, on every kind of model: names, shapes, values at the start, refusals."""

import functools

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from gnflow import metrics
from gnflow._core import DataError, ModelError
from gnflow.geometry import System
from gnflow.losses import LogisticLoss, SoftmaxCrossEntropy, SquaredLoss
from gnflow.metrics import AbstractMetric, DirectionDistance, metric_kinds
from gnflow.models import MLP, Linearised, MeanFieldNetwork, RandomFeatures
from gnflow.problems import Problem

N, N_TEST, D = 5, 4, 3


class _Wrapper(eqx.Module):
    """A model of which gnflow knows nothing."""

    network: eqx.nn.MLP

    def __call__(self, x):
        return self.network(x)


def _network(outputs=1, seed=0, width=6):
    return MeanFieldNetwork(D, width, outputs, output_init_scale=1.0, key=jr.key(seed))


def _problem(loss, outputs, test=True, teacher=True):
    x, x_test = jr.normal(jr.key(3), (N, D)), jr.normal(jr.key(4), (N_TEST, D))
    if isinstance(loss, SquaredLoss):
        y, y_test = jnp.sin(x[:, :outputs]), jnp.sin(x_test[:, :outputs])
    elif isinstance(loss, LogisticLoss):
        y, y_test = x[:, :outputs] > 0, x_test[:, :outputs] > 0
    else:
        y, y_test = jnp.arange(N) % outputs, jnp.arange(N_TEST) % outputs
    data = (x, y, x_test, y_test) if test else (x, y)
    return Problem(*data, loss=loss, teacher=_network(seed=9, width=2) if teacher else None)


_METRICS = {name: kind() for name, kind in metric_kinds.items()} | {"to teacher": DirectionDistance("teacher")}

_NO_DIRECTIONS = dict.fromkeys(
    ("direction_distance", "to teacher", "particles", "particle_spread", "subspace_distance"), ModelError
)
_NO_TEACHER = {"to teacher": DataError, "subspace_distance": DataError}
_NO_LAYERS = {"layer_alignment": ModelError}
_NO_FEATURES = {"feature_alignment": ModelError, "hidden_learning": ModelError} | _NO_LAYERS
_NO_CLASSES = {"accuracy": DataError}
_NO_SQUARES = {"hidden_learning": DataError}

# model, loss, outputs, whether there are test data and a teacher, the metrics that are not defined with their errors
_CASES = {
    "mean field": (_network(), SquaredLoss(), 1, True, _NO_CLASSES | _NO_LAYERS),
    "no test data, no teacher": (
        _network(),
        SquaredLoss(),
        1,
        False,
        _NO_CLASSES | _NO_LAYERS | _NO_TEACHER,
    ),
    "mean field, softmax": (_network(3), SoftmaxCrossEntropy(), 3, True, _NO_SQUARES | _NO_LAYERS),
    "mlp, two outputs": (MLP(D, 4, 2, 2, key=jr.key(5)), SquaredLoss(), 2, True, _NO_CLASSES | _NO_DIRECTIONS),
    "random features": (RandomFeatures.of(_network()), SquaredLoss(), 1, True, _NO_CLASSES | _NO_LAYERS),
    "linearised": (Linearised(_network()), SquaredLoss(), 1, True, _NO_CLASSES | _NO_DIRECTIONS | _NO_FEATURES),
    "unknown module, logistic": (
        _Wrapper(eqx.nn.MLP(D, "scalar", 4, 1, key=jr.key(6))),
        LogisticLoss(),
        1,
        True,
        _NO_DIRECTIONS | _NO_FEATURES | _NO_SQUARES,
    ),
}

_AT_START = {
    "kernel_distance": 0,
    "kernel_distance_estimate": 0,
    "kernel_distance_standard_error": 0,
    "relative_ntk_change": 0,
    "relative_weight_movement": 0,
    "linearisation_error": 0,
    "direction_distance_to_initial": 0,
    "feature_cka_train": 1,
    "feature_cka_test": 1,
    "layer_cka_train": 1,
    "layer_cka_test": 1,
    "weight_change_norm": 0,
    "weight_cosine": 1,
    "path_length": 0,
}


@functools.cache
def _system(case):
    model, loss, outputs, complete, _ = _CASES[case]
    return System(_problem(loss, outputs, complete, complete), model), model


def _defined(case):
    return [metric for name, metric in _METRICS.items() if name not in _refused(case)]


def _refused(case):
    """The errors of the metrics that are not defined. The terms of residual problems are measured in tests/problems."""
    return {"term_ntk": DataError, **_CASES[case][-1]}


@pytest.fixture(scope="module")
def values(snapshot_at, moved):
    """For a case: every metric that is defined, jitted, at the start and at other weights."""

    @functools.cache
    def run(case):
        system, model = _system(case)

        @eqx.filter_jit
        def evaluate(weights, start):
            at, first = snapshot_at(system, weights), snapshot_at(system, start)
            return [metric.evaluate(at, metric.prepare(first)) for metric in _defined(case)]

        start = system.weights(model)
        return evaluate(start, start), evaluate(moved(start), start)

    return run


@pytest.mark.parametrize("case", _CASES)
def test_values_are_what_variables_announces(case, values):
    system, _ = _system(case)
    sizes = {"eigenvalue": system.problem.y_train.size, "particle": 6, "coordinate": D, "teacher_unit": 2, "layer": 2}
    sizes["output"] = system.problem.y_train.shape[1]
    for at_time in values(case):
        for metric, given in zip(_defined(case), at_time, strict=True):
            announced = {variable.name: variable for variable in metric.variables(system)}
            # What only some flows' solves have is announced for all.
            optional = isinstance(metric, metrics.DirectionDiagnostics)
            assert given.keys() <= announced.keys() if optional else given.keys() == announced.keys()
            for name, value in given.items():
                assert value.shape == tuple(sizes[dim] for dim in announced[name].dims), name
                assert value.dtype == jnp.float64, name
                assert np.all(np.isfinite(value)), name


@pytest.mark.parametrize("case", _CASES)
def test_values_at_the_start(case, values):
    start, later = ({k: v for given in part for k, v in given.items()} for part in values(case))
    for name, value in start.items():
        expected = _AT_START.get(name, 0 if name.startswith("relative_weight_movement") else None)
        if expected is not None:
            np.testing.assert_allclose(value, expected, rtol=1e-13, atol=1e-14, err_msg=name)
    # ... and they do not stand still, or the line above would prove nothing.
    assert float(later["relative_weight_movement"]) > 0.01
    linear = case in ("linearised", "random features")
    for name in ("kernel_distance", "kernel_distance_estimate", "relative_ntk_change"):
        assert float(later[name]) < 1e-14 if linear else float(later[name]) > 1e-4, name
    assert float(later["linearisation_error"]) < 1e-12 if linear else float(later["linearisation_error"]) > 1e-3
    assert float(later["ntk_velocity"]) < 1e-14 if linear else float(later["ntk_velocity"]) > 1e-4


@pytest.mark.parametrize("case", _CASES)
def test_refusals_come_before_anything_is_computed(case):
    system, _ = _system(case)
    for name, metric in _METRICS.items():
        error = _refused(case).get(name)
        if error is None:
            for variable in metric.variables(system):
                assert variable.long_name, name
                assert variable.units, name
                assert variable.reference, name
        else:
            with pytest.raises(error, match=r"needs|no hidden_weight|refits|measures the terms"):
                metric.variables(system)


def test_test_data_decides_about_test_variables():
    complete, without = (_system(case)[0] for case in list(_CASES)[:2])
    for metric in (metrics.FeatureAlignment(), metrics.HiddenLearning()):
        names = [[variable.name for variable in metric.variables(system)] for system in (complete, without)]
        assert len(names[0]) == 2
        assert names[1] == names[0][:1]
        assert "train" in names[1][0]


def test_every_metric_has_a_name_for_configurations():
    concrete = {
        thing
        for thing in vars(metrics).values()
        if isinstance(thing, type) and issubclass(thing, AbstractMetric) and not thing.__name__.startswith("Abstract")
    }
    assert concrete == set(metric_kinds.values())


def test_variables_are_unique_over_all_metrics():
    names = [
        variable.name for metric in _defined("mean field") for variable in metric.variables(_system("mean field")[0])
    ]
    assert len(names) == len(set(names))
