"""What is measured at a saved time: losses and the metrics asked for."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import ConfigError, require_instance, shown
from ..flows import AbstractFlow
from ..geometry import AbstractTangent, Snapshot, SolveDiagnostics, System
from ..metrics import AbstractMetric, Variable

# By variable; NumPy's once they have left the device.
Values = dict[str, Array | np.ndarray | np.floating]

_RESERVED = {"time", "step", "flow_time", "batch", "epoch"}
_LOSSES = (
    Variable("train_loss", "training loss", "1", "docs/theory.md, Objects"),
    Variable("test_loss", "test loss", "1", "docs/theory.md, Objects"),
)


class Evaluation(eqx.Module):
    """What one evaluation gives: the variables' `values` by name, w' and how it was solved for (None if it was not)."""

    values: Values
    velocity: PyTree
    diagnostics: SolveDiagnostics | None


class Measurement(eqx.Module):
    """Everything that is evaluated at a saved time, as one traceable function. `Measurement.of` makes it.

    `names`: the variables that each metric has declared. Metrics may look at numbers to say which, so that they are asked
    before anything is traced.
    """

    flow: AbstractFlow
    metrics: tuple[AbstractMetric, ...]
    names: tuple[tuple[str, ...], ...] = eqx.field(static=True)

    @classmethod
    def of(cls, flow: AbstractFlow, metrics: tuple[AbstractMetric, ...], system: System) -> "Measurement":
        """What the metrics give on `system`. **Raises:** what they raise where they are not defined for it."""
        return cls(flow, metrics, tuple(tuple(v.name for v in metric.variables(system)) for metric in metrics))

    def prepare(self, weights: PyTree, system: System) -> tuple[PyTree, ...]:
        """What the metrics remember of the first state."""
        snapshot = self.snapshot(jnp.zeros(()), weights, system, {})
        return tuple(metric.prepare(snapshot) for metric in self.metrics)

    def initial_integrals(self, weights: PyTree) -> dict[str, Array]:
        """A zero for each integral of the metrics."""
        return {name: jnp.zeros(()) for name in jax.eval_shape(self.integrands, weights)}

    def integrands(self, velocity: PyTree) -> dict[str, Float[Array, ""]]:
        """The rates of change of the integrals."""
        return {name: rate for metric in self.metrics for name, rate in metric.integrands(velocity).items()}

    def evaluate(
        self,
        time: Float[Array, ""],
        weights: PyTree,
        integrals: dict[str, Array],
        system: System,
        memories: tuple[PyTree, ...],
    ) -> Evaluation:
        """All variables and w' at one state."""
        snapshot = self.snapshot(time, weights, system, integrals)
        return Evaluation(self._values(snapshot, memories), snapshot.velocity, snapshot.diagnostics)

    def values(
        self,
        time: Float[Array, ""],
        weights: PyTree,
        integrals: dict[str, Array],
        system: System,
        memories: tuple[PyTree, ...],
    ) -> Values:
        """All variables at one state; the velocity is computed only if a metric asks for it."""
        return self._values(self.snapshot(time, weights, system, integrals), memories)

    def _values(self, snapshot: Snapshot, memories: tuple[PyTree, ...]) -> Values:
        values: Values = {"train_loss": snapshot.train_loss}
        if snapshot.system.problem.x_test is not None:
            values["test_loss"] = snapshot.test_loss
        for metric, names, memory in zip(self.metrics, self.names, memories, strict=True):
            values.update(_declared(metric, names, metric.evaluate(snapshot, memory)))
        # One dtype: rows that a run does not reach are filled with inf, which integers do not have.
        return {name: jnp.asarray(value, dtype=jnp.float64) for name, value in values.items()}

    def variables(self, system: System) -> dict[str, Variable]:
        """Every variable that may appear, by name.

        **Raises:** `ConfigError` if two metrics give the same variable; and what the metrics
        raise where they are not defined for `system`.
        """
        listed = [*_LOSSES, *(v for metric in self.metrics for v in metric.variables(system))]
        names = [variable.name for variable in listed]
        twice = {name for name in names if names.count(name) > 1}
        reserved = sorted(set(names) & _RESERVED)
        if reserved:
            raise ConfigError(
                f"a metric calls a variable {reserved[0]!r}, which is the data set's own name; choose another."
            )
        if twice:
            raise ConfigError(f"the variables {sorted(twice)} are given by two metrics; name each metric once.")
        return {variable.name: variable for variable in listed}

    def snapshot(
        self,
        time: Float[Array, ""],
        weights: PyTree,
        system: System,
        integrals: dict[str, Array],
        tangent: AbstractTangent | None = None,
    ) -> Snapshot:
        """The state at one time. **Arguments:** `tangent`: on the training inputs, where it is known already."""

        def velocity():
            return self.flow.velocity_and_diagnostics(time, weights, system)

        dynamics = self.flow.dynamics
        rests, decay = dynamics.rests_with_gradient, dynamics.decay(weights, system)
        return Snapshot(time, weights, system, velocity, integrals, rests, tangent, decay)


def _declared(metric: AbstractMetric, names: tuple[str, ...], values: Any) -> Values:
    """What a metric gives, if it is what it has declared. **Raises:** `ConfigError`, when a run's first program is traced."""
    if not isinstance(values, dict) or set(values) - set(names) or (set(names) - set(values) and not metric.may_omit):
        given = sorted(map(str, values)) if isinstance(values, dict) else shown(values)
        raise ConfigError(
            f"{type(metric).__name__}.evaluate gives {given}; expected a dictionary with the variables that it "
            f"declares, {list(names)}."
        )
    for name, value in values.items():
        kind = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
        if not any(jnp.issubdtype(kind, real) for real in (jnp.floating, jnp.integer, jnp.bool_)):
            raise ConfigError(f"{type(metric).__name__} gives {name!r} as {kind}; expected real numbers.")
    return values


def as_metrics(metrics: Any) -> tuple[AbstractMetric, ...]:
    """The metrics of a run as a tuple. **Raises:** `ConfigError` for what is no tuple or list of metrics."""
    if not isinstance(metrics, tuple | list):
        raise ConfigError(f"metrics = {shown(metrics)}; expected a tuple, such as (gnflow.metrics.KernelDistance(),).")
    example = "a metric such as gnflow.metrics.KernelDistance()"
    return tuple(
        require_instance(ConfigError, f"metrics[{number}]", metric, AbstractMetric, example)
        for number, metric in enumerate(metrics)
    )


def numbers_as_arrays(tree: PyTree) -> PyTree:
    """Python's and NumPy's floats made float64 arrays, so that another number is not another program to compile."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=jnp.float64) if isinstance(leaf, float) else leaf, tree)
