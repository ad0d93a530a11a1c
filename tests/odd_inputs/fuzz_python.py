"""Odd values for every argument of every public constructor and of the runs: a clear error, or rightly accepted.

Not collected by itself: `test_python_face.py` runs it in a process without beartype, which would refuse them first.
Whatever is accepted goes on to where programs are compiled, and no further.
"""

import decimal
import fractions
import importlib
import inspect
import typing

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

import gnflow as gn
from gnflow.flows import flow_kinds
from gnflow.geometry import Decomposition
from gnflow.geometry.damping import damping_kinds
from gnflow.geometry.directions import direction_solver_kinds, preconditioner_kinds
from gnflow.losses import loss_kinds
from gnflow.models import model_kinds
from gnflow.optimisers import optimiser_kinds
from gnflow.simulate import feature_choice_kinds, stop_kinds
from gnflow.solvers import StabilisedRungeKutta

# Equinox says it of some odd values before gnflow refuses them.
pytestmark = pytest.mark.filterwarnings("ignore:A JAX array is being set as static")

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(6, 2)), rng.normal(size=6)
PROBLEM = gn.Problem(X, Y, X[:2], Y[:2])
MODEL = gn.models.MeanFieldNetwork(2, 3, key=0)
FLOW = gn.flows.GaussNewtonFlow(damping=gn.geometry.damping.Constant(0.1))


class Unprintable:
    """An object that cannot even be shown."""

    def __repr__(self):
        raise RuntimeError("no")


ODD = [
    *(None, True, False, "", "1", "nan", "1e-3", "model", "silu", "identity", "all", "a\0b", "x" * 300, b"1"),
    *(-1, 0, 1, 2, 3.0, 2.5, 1e-300, 1e308, float("nan"), float("inf"), -float("inf"), 10**30, -(2**63), 2**63, 1 + 2j),
    *(np.float32(0.5), np.float32("nan"), np.float32(-1), np.float64(2), np.int64(3), np.int8(-3), np.bool_(True)),
    *(
        np.array(1.0),
        np.array(2),
        np.array(True),
        np.ones(2),
        np.ones((2, 2)),
        np.array("a"),
        np.array(None),
        np.zeros(0),
    ),
    *(jnp.asarray(0.5), jnp.asarray(2), jnp.asarray(jnp.nan), jnp.ones(3), jnp.float32(0.5), jnp.bfloat16(0.5)),
    *([], [1], [None], (), (1, 2), ("output",), {}, {"a": 1}, {1}, range(3), slice(1), ..., NotImplemented),
    *(
        object(),
        Unprintable(),
        int,
        str,
        len,
        lambda x: x,
        Exception("x"),
        decimal.Decimal(1),
        fractions.Fraction(1, 2),
    ),
    *(gn.flows.GradientFlow, FLOW, gn.losses.SquaredLoss, gn.losses.SquaredLoss(), gn.metrics.KernelDistance()),
    *(gn.RelativeLoss, gn.RelativeLoss(0.5), gn.Problem, PROBLEM, gn.models.MLP, MODEL, jax.random.key(0)),
    *(jax.random.PRNGKey(0), jax.random.split(jax.random.key(0), 2), gn.geometry.damping.Constant(1.0), np.random),
]

MADE = {
    **{f"flow {name}": kind for name, kind in flow_kinds.items()},
    **{f"damping {name}": kind for name, kind in damping_kinds.items()},
    "damping schedule": gn.geometry.damping.Schedule,
    **{f"solver {name}": kind for name, kind in direction_solver_kinds.items()},
    **{f"preconditioner {name}": kind for name, kind in preconditioner_kinds.items()},
    **{f"loss {name}": kind for name, kind in loss_kinds.items()},
    **{f"stop rule {name}": kind for name, kind in stop_kinds.items()},
    **{f"rule {name}": kind for name, kind in feature_choice_kinds.items() if name not in stop_kinds},
    **{f"optimiser {name}": kind for name, kind in optimiser_kinds.items()},
    "optimiser optax": gn.optimisers.Optax,
    **{f"model {name}": kind for name, kind in model_kinds.items()},
    "model linearised": gn.models.Linearised,
    "problem": gn.Problem,
    "teacher student": gn.problems.teacher_student,
    "from file": gn.problems.from_file,
    "from frame": gn.problems.from_frame,
    "names": gn.problems.Names,
    "metric particles": gn.metrics.Particles,
    "metric estimate": gn.metrics.KernelDistanceEstimate,
    "decomposition": Decomposition,
    "stabilised": StabilisedRungeKutta,
    "system": gn.System,
    "simulate": gn.simulate,
    "iterate": gn.iterate,
    "load": gn.load,
}
# What makes each of them, were all of it right.
GIVEN: dict[str, dict[str, typing.Any]] = {
    "flow frozen": {"flow": FLOW},
    "flow weight_decay": {"flow": FLOW, "rate": 0.1},
    "flow scaled": {"flow": FLOW, "scale": 0.1},
    "damping constant": {"value": 1.0},
    "damping exponential": {"start": 1.0, "rate": 1.0},
    "damping schedule": {"function": lambda t: t},
    "stop rule relative_loss": {"tolerance": 0.1},
    "stop rule gradient_norm": {"tolerance": 0.1},
    "stop rule velocity_norm": {"tolerance": 0.1},
    "stop rule movement": {"tolerance": 0.1},
    "optimiser sgd": {"learning_rate": 0.1},
    "optimiser adam": {"learning_rate": 0.1},
    "optimiser optax": {"transformation": None},
    "model mean_field": {"input_dim": 2, "width": 3, "key": 0},
    "model mlp": {"input_dim": 2, "width": 3, "depth": 1, "key": 0},
    "model random_features": {"input_dim": 2, "width": 3, "key": 0},
    "model reversible": {"width": 2, "bottleneck": 2, "num_blocks": 1, "key": 0},
    "model linearised": {"base": MODEL},
    "problem": {"x_train": X, "y_train": Y},
    "teacher student": {"n_train": 3, "n_test": 2, "input_dim": 2, "teacher_width": 2, "key": 0},
    "from file": {"path": "nowhere.csv", "target": "y"},
    "from frame": {"frame": pd.DataFrame({"a": X[:, 0], "y": Y}), "target": "y"},
    "system": {"problem": PROBLEM, "model": MODEL},
    "simulate": {"problem": PROBLEM, "model": MODEL, "flow": FLOW, "t1": 1.0},
    "iterate": {"problem": PROBLEM, "model": MODEL, "flow": FLOW, "step_size": 0.1, "num_steps": 2},
    "load": {"folder": "nowhere"},
}
PLACES = [
    (name, parameter)
    for name, made in MADE.items()
    for parameter, stated in inspect.signature(made).parameters.items()
    if stated.kind is not inspect.Parameter.VAR_KEYWORD
]


class Reached(Exception):
    """Everything was accepted; what follows is compiled."""


@pytest.fixture(autouse=True, scope="module")
def nothing_is_compiled():
    """Stop at the first program of a run."""

    def reached(*_, **__):
        raise Reached

    with pytest.MonkeyPatch.context() as patched:
        # Not by dots: gnflow.simulate is the function.
        patched.setattr(importlib.import_module("gnflow.simulate._simulate"), "evaluate_start", reached)
        patched.setattr(importlib.import_module("gnflow.simulate._iterate"), "_take_steps", reached)
        yield


@settings(max_examples=600, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(PLACES), st.sampled_from(range(len(ODD))))
def test_one_odd_argument(tmp_path_factory, place, number):
    name, parameter = place
    arguments = {**GIVEN.get(name, {}), parameter: ODD[number]}
    if parameter == "checkpoint" and isinstance(ODD[number], str | bytes):
        return  # a name of a folder like any other, which would be made here
    try:
        made = MADE[name](**arguments)
    except Reached:
        return
    except gn.GnflowError as error:
        made = str(error)  # for people: a line or two that say something
        assert 20 < len(made) < 1500
    assert made is not None


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["simulate", "iterate"]),
    st.dictionaries(
        st.sampled_from(
            ["t1", "stop", "saveat", "solver", "rtol", "atol", "error_norm", "metrics", "max_steps", "flow", "model"]
        ),
        st.sampled_from(range(len(ODD))),
        min_size=2,
        max_size=4,
    ),
)
def test_several_odd_arguments(name, chosen):
    known = inspect.signature(MADE[name]).parameters
    arguments = {**GIVEN[name], **{key: ODD[number] for key, number in chosen.items() if key in known}}
    with pytest.raises((Reached, gn.GnflowError)):
        MADE[name](**arguments)
