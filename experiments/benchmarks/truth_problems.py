"""The 200 small problems of the table of truth: 25 combinations of parts, each a program, times eight kinds of data."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import gnflow as gn
from gnflow.geometry.damping import Constant, Exponential

NUM_TEST = 20
_SEED = 20230206

_LOSSES = {
    "squared": gn.losses.SquaredLoss(),
    "huber": gn.losses.HuberLoss(delta=1.0),
    "softmax": gn.losses.SoftmaxCrossEntropy(),
    "logistic": gn.losses.LogisticLoss(),
}

# What is varied within a combination: the same program on other numbers.
DATA_KINDS = (
    "plain",
    "inputs",  # all columns times one power of ten
    "columns",  # every column times its own
    "targets",  # all targets times one (labels: the first weights instead)
    "duplicates",  # a quarter of the samples twice, with the same targets
    "conflict",  # the same with other targets
    "constant_column",  # the last column is 1e4
    "columns_and_targets",
)


@dataclasses.dataclass(frozen=True)
class Combination:
    """Parts that make one compiled program: everything but numbers.

    **Attributes:** `shape`: (N, M, C), samples, units of a hidden layer, outputs; `input_dim`: d; `flow`: a word of
    `FLOWS`; `network`: "mean_field", "ntk", "deep_mean_field" or "reversible"; `spans`: the end of the runs, from and to, in
    time scales of the first loss decrease.
    """

    name: str
    shape: tuple[int, int, int]
    input_dim: int
    loss: str
    flow: str
    activation: str
    network: str = "mean_field"
    spans: tuple[float, float] = (5.0, 30.0)


@dataclasses.dataclass(frozen=True)
class Row:
    """One problem of the table.

    **Attributes:** `seed`: of data and weights; `data`: a word of `DATA_KINDS`; `input_powers`: the power of ten of each
    column; `target_power`: of the targets; `span`: the end, in time scales of the first loss decrease; `stop`: the relative
    loss at which the run ends, None to go on to the end.
    """

    index: int
    combination: Combination
    seed: int
    data: str
    input_powers: tuple[float, ...]
    target_power: float
    span: float
    stop: float | None

    @property
    def has_kinks(self) -> bool:
        """Whether the field is discontinuous where a unit switches or, in Huber's Hessian, a sample changes its zone."""
        parts = self.combination
        return parts.activation == "relu" or (parts.loss == "huber" and parts.flow.endswith("_hessian"))

    @property
    def has_rank(self) -> bool:
        """Whether the flow leaves out modes below the rank cut-off, so that it changes where the numerical rank does."""
        return self.combination.flow.startswith(("gauss_newton", "spectral"))

    @property
    def key(self) -> str:
        """A hash of everything that the reference depends on but the code."""
        stated = dataclasses.asdict(self)
        del stated["index"]
        return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """A line that tells it from the others."""
        scales = ",".join(f"{power:+.0f}" for power in self.input_powers) + f"|{self.target_power:+.0f}"
        return f"{self.index:3d} {self.combination.name} {self.data} [{scales}]"


FLOWS: dict[str, Callable[[], gn.flows.AbstractFlow]] = {
    "gradient": lambda: gn.flows.GradientFlow(),
    "gauss_newton": lambda: gn.flows.GaussNewtonFlow(),
    "gauss_newton_undamped": lambda: gn.flows.GaussNewtonFlow(damping=Constant(0.0)),
    "gauss_newton_lifted": lambda: gn.flows.GaussNewtonFlow(damping=Exponential(1.0, 0.3, 1e-6)),
    "gauss_newton_hessian": lambda: gn.flows.GaussNewtonFlow("hessian", Constant(1e-3)),
    "gauss_newton_fisher": lambda: gn.flows.GaussNewtonFlow("fisher", Constant(1e-2)),
    "spectral": lambda: gn.flows.SpectralFlow(0.5, Constant(1e-4)),
    "spectral_undamped": lambda: gn.flows.SpectralFlow(0.7),
    "dual": lambda: gn.flows.DualGaussNewtonFlow(gamma=10.0),
    "reversible": lambda: gn.flows.ReversibleGaussNewtonFlow(),
    "frozen_gradient": lambda: gn.flows.Frozen(gn.flows.GradientFlow(), trainable="output"),
}

_LONG = (10.0, 1000.0)

# Eleven shapes (N, M, C); in the fourth the network has fewer weights than samples.
_A, _B, _C, _D = (12, 30, 1), (8, 60, 1), (20, 50, 1), (40, 10, 1)
_E, _F, _G, _H = (10, 200, 1), (5, 10, 1), (16, 24, 3), (15, 40, 1)
_I, _J, _K = (8, 16, 1), (9, 20, 2), (30, 100, 1)


def _combination(name: str, *parts: Any, **options: Any) -> Combination:
    return Combination(name, *parts, **options)


COMBINATIONS: tuple[Combination, ...] = (
    _combination("gn-silu", _A, 3, "squared", "gauss_newton", "silu"),
    _combination("gn-relu", _A, 3, "squared", "gauss_newton", "relu"),
    _combination("gradient-tanh", _A, 3, "squared", "gradient", "tanh", spans=_LONG),
    _combination("gn0-relu", _B, 3, "squared", "gauss_newton_undamped", "relu"),
    _combination("gn0-tanh", _F, 2, "squared", "gauss_newton_undamped", "tanh"),
    _combination("spectral-gelu", _C, 2, "squared", "spectral", "gelu", spans=_LONG),
    _combination("frozen-silu", _C, 2, "squared", "frozen_gradient", "silu", spans=_LONG),
    _combination("gradient-small-tanh", _D, 1, "squared", "gradient", "tanh", spans=_LONG),
    _combination("gn-small-silu", _D, 1, "squared", "gauss_newton", "silu"),
    _combination("hessian-softplus", _E, 2, "squared", "gauss_newton_hessian", "softplus"),
    _combination("gradient-silu", _E, 1, "squared", "gradient", "silu", spans=_LONG),
    _combination("gradient-relu", _F, 2, "squared", "gradient", "relu", spans=_LONG),
    _combination("lifted-gelu", _B, 3, "squared", "gauss_newton_lifted", "gelu"),
    _combination("dual-silu", _A, 3, "squared", "dual", "silu", spans=_LONG),
    _combination("reversible-tanh", _F, 8, "squared", "reversible", "tanh", network="reversible"),
    _combination("gradient-deep-tanh", _I, 2, "squared", "gradient", "tanh", network="ntk", spans=_LONG),
    _combination("gn-deep-softplus", _J, 3, "squared", "gauss_newton", "softplus", network="deep_mean_field"),
    _combination("huber-gradient-gelu", _A, 3, "huber", "gradient", "gelu", spans=_LONG),
    _combination("huber-gn-silu", _C, 2, "huber", "gauss_newton", "silu"),
    _combination("huber-hessian-tanh", _C, 2, "huber", "gauss_newton_hessian", "tanh"),
    _combination("softmax-fisher-tanh", _G, 2, "softmax", "gauss_newton_fisher", "tanh"),
    _combination("softmax-gn-silu", _G, 2, "softmax", "gauss_newton", "silu"),
    _combination("softmax-gradient-gelu", _J, 3, "softmax", "gradient", "gelu", spans=_LONG),
    _combination("logistic-hessian-gelu", _H, 2, "logistic", "gauss_newton_hessian", "gelu"),
    _combination("logistic-spectral-softplus", _K, 2, "logistic", "spectral_undamped", "softplus"),
)


def rows() -> tuple[Row, ...]:
    """All 200, the same ones every time: combination by combination."""
    return tuple(
        _row(number * len(DATA_KINDS) + place, combination, data)
        for number, combination in enumerate(COMBINATIONS)
        for place, data in enumerate(DATA_KINDS)
    )


def _row(index: int, combination: Combination, data: str) -> Row:
    rng = np.random.default_rng([_SEED, index])
    powers = np.zeros(combination.input_dim)
    if data == "inputs":
        powers[:] = rng.uniform(-6, 6)
    if data.startswith("columns"):
        powers = rng.uniform(-6, 6, combination.input_dim)
    target_power = float(rng.uniform(-6, 6)) if "targets" in data else 0.0
    first, last = np.log(combination.spans)
    return Row(
        index,
        combination,
        seed=int(rng.integers(2**31)),
        data=data,
        input_powers=tuple(round(float(power), 3) for power in powers),
        target_power=round(target_power, 3),
        span=round(float(np.exp(rng.uniform(first, last))), 2),
        stop=1e-3 if COMBINATIONS.index(combination) % 5 == 4 else None,  # a rule is a part of the program
    )


def build(row: Row) -> tuple[gn.Problem, Any, gn.flows.AbstractFlow]:
    """Problem, model and flow of a row."""
    return _problem(row), _model(row), FLOWS[row.combination.flow]()


def _problem(row: Row) -> gn.Problem:
    parts = row.combination
    num_train, _, num_outputs = parts.shape
    rng = np.random.default_rng(row.seed)
    x = rng.standard_normal((num_train + NUM_TEST, parts.input_dim))
    # Outputs differ by their phase; the noise makes labels that no small network gives for free.
    phases = np.arange(num_outputs)
    y = np.sin(1.5 * x[:, :1] + phases) + x[:, -1:] * np.cos(phases) + 0.1 * rng.standard_normal((len(x), num_outputs))
    if row.data in ("duplicates", "conflict"):
        again = max(1, num_train // 4)
        x[:again] = x[again : 2 * again]
        if row.data == "duplicates":
            y[:again] = y[again : 2 * again]
    if row.data == "constant_column":
        x[:, -1] = 1e4
    x = x * 10.0 ** np.asarray(row.input_powers)
    targets = _targets(y, row)
    return gn.Problem(x[:num_train], targets[:num_train], x[num_train:], targets[num_train:], loss=_LOSSES[parts.loss])


def _targets(y: np.ndarray, row: Row) -> np.ndarray:
    if row.combination.loss == "softmax":
        return np.eye(y.shape[1])[np.argmax(y, axis=1)]
    if row.combination.loss == "logistic":
        return (y[:, 0] > 0).astype(int)
    return y * 10.0**row.target_power


def _model(row: Row) -> Any:
    parts = row.combination
    _, width, num_outputs = parts.shape
    key = jax.random.key(row.seed)
    options = {"output_dim": num_outputs, "activation": parts.activation, "key": key}
    if parts.network == "reversible":
        return gn.models.ReversibleMLP(parts.input_dim, width, 2, linear_blocks=(), **options)
    # Labels have no scale: there the power is of the first weights.
    scale = 1.0 if parts.loss in ("squared", "huber") else 10.0 ** (row.target_power / 6)
    options["init_scale"] = scale
    if parts.network == "mean_field":
        return gn.models.MeanFieldNetwork(parts.input_dim, width, **options)
    parametrisation = {"ntk": "ntk", "deep_mean_field": "mean_field"}[parts.network]
    return gn.models.MLP(parts.input_dim, width, depth=2, parametrisation=parametrisation, **options)
