"""A module as a user might write it, and how a test forgets that it was imported."""

import contextlib
import sys
import textwrap
from pathlib import Path

from gnflow.config import _modules

NAME = "parts_of_a_test"
TEXT = '''
import equinox as eqx
import jax
import jax.numpy as jnp

import gnflow as gn


class Normalised(gn.flows.AbstractOutputFlow):
    """w' = -J^T g/||g||^power."""

    power: float = 1.0

    def direction(self, time, tangent, system):
        gradient = system.loss.gradient(tangent.outputs, system.problem.y_train)
        return gn.geometry.Direction(gradient / jnp.linalg.norm(gradient) ** self.power, diagnostics=None)


class Damped(Normalised):
    damping: gn.damping.AbstractDamping = gn.damping.Constant(0.1)


class Unfinished(gn.flows.AbstractOutputFlow):
    pass


class Taken(Normalised):
    stop: float = 1.0


class LogCosh(gn.losses.AbstractLoss):
    """Log cosh of the residual over a scale."""

    scale: float = 1.0

    def canonical_targets(self, y_train, y_test=None):
        return gn.losses.SquaredLoss().canonical_targets(y_train, y_test)

    def value(self, f, y):
        r = jnp.abs(f - y) / self.scale
        return jnp.sum(r + jnp.log1p(jnp.exp(-2 * r)) - jnp.log(2.0)) / f.shape[0]

    def minimum(self, y):
        return jnp.zeros(())


def power_loss(f, y, power=2.0, weight: float = 1.0):
    return weight * jnp.sum(jnp.abs(f - y) ** power, axis=1)


def offset_loss(f, y, offset: float):
    return jnp.sum((f - y) ** 2, axis=1) + offset


def least(y, offset):
    return offset


def swish(z, beta: float = 1.0):
    return z * jax.nn.sigmoid(beta * z)


class Network(eqx.Module):
    """Two layers, the last of which begins at zero."""

    inner: jax.Array
    outer: jax.Array

    def __init__(self, input_dim, output_dim, width: int, *, key):
        self.inner = jax.random.normal(key, (width, input_dim))
        self.outer = jnp.zeros((output_dim, width))

    def __call__(self, x):
        return self.outer @ jnp.tanh(self.inner @ x)


class Shifted(Network):
    centred: bool = False

    def __init__(self, input_dim, output_dim, width: int, centred: bool = False, *, key):
        super().__init__(input_dim, output_dim, width, key=key)
        self.centred = centred


class Relative(gn.damping.AbstractDamping):
    """A share of the largest eigenvalue."""

    has_jumps = False
    depends_on_time = False
    factor: float = 1e-3

    def __call__(self, time, spectrum):
        return self.factor * spectrum.largest


class WeightNorm(gn.metrics.AbstractMetric):
    """The norm of the weights."""

    order: int = 2

    def variables(self, system):
        return (gn.metrics.Variable("weight_norm", "norm of the weights", "1", "a test"),)

    def evaluate(self, snapshot, memory):
        leaves = jax.tree.leaves(snapshot.weights)
        return {"weight_norm": sum(jnp.sum(jnp.abs(leaf) ** self.order) for leaf in leaves) ** (1 / self.order)}


def sine(n_train: int, frequency: float = 1.0, *, key):
    x = jax.random.normal(key, (n_train, 2))
    return gn.Problem(x, jnp.sin(frequency * x[:, 0]))


def decay(n_points: int = 3, rate: float = 1.0):
    """u' = -rate u, u(0) = 1, as residuals."""

    def equation(model, point):
        value, slope = jax.jvp(model, (point,), (jnp.ones(1),))
        return slope + rate * value

    terms = [
        gn.ResidualTerm("equation", equation, jnp.linspace(0.0, 1.0, n_points)[:, None]),
        gn.ResidualTerm("initial", lambda model, point: model(point) - 1.0, jnp.zeros((1, 1))),
    ]
    return gn.ResidualProblem(terms)


def rows(path: str, columns: tuple[int, ...] = (0,)):
    with open(path) as file:
        numbers = jnp.asarray([[float(cell) for cell in line.split(",")] for line in file])
    return gn.Problem(numbers[:, list(columns)], numbers[:, -1])


def broken(size: int = 0):
    return jnp.zeros(3)[[1, 2][size]] + {}["height"]


def nothing():
    return 3


loss_object = LogCosh()
'''

TABLE = {
    "problem": {"kind": f"{NAME}:sine", "n_train": 5},
    "model": {"kind": "mean_field", "width": 4},
    "flows": {"mine": {"kind": f"{NAME}:Normalised", "power": 0.5}},
    "integration": {"method": "iterate", "step_size": 0.5, "num_steps": 2},
}


def write(folder, name=NAME, text=TEXT):
    """The module as a file in `folder`."""
    file = folder / f"{name}.py"
    file.write_text(textwrap.dedent(text))
    return file


@contextlib.contextmanager
def as_in_a_new_process():
    """Modules that are imported within are forgotten afterwards, and those imported before are not known within."""
    modules, path, imported, added = dict(sys.modules), list(sys.path), dict(_modules._imported), set(_modules._added)
    for name in imported:
        del sys.modules[name]
    _modules._imported.clear()
    _modules._added.clear()
    sys.path[:] = [entry for entry in path if Path(entry) not in added]
    try:
        yield
    finally:
        for name in _modules._imported:
            sys.modules.pop(name, None)
        sys.modules |= {name: modules[name] for name in imported}
        _modules._imported.clear()
        _modules._imported.update(imported)
        _modules._added.clear()
        _modules._added.update(added)
        sys.path[:] = path
