"""What is measured at a saved time: the losses and the metrics."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import ConfigError, require_instance, shown
from ..flows import AbstractFlow
from ..flows._distance import velocity_and_distance
from ..geometry import AbstractTangent, Snapshot, SolveDiagnostics, System
from ..metrics import AbstractMetric, Variable

# By variable name. The arrays are NumPy's once they have left the device.
Values = dict[str, Array | np.ndarray | np.floating]

_RESERVED = {"time", "step", "flow_time", "batch", "epoch"}
_LOSSES = (
    Variable("train_loss", "training loss", "1", "docs/theory.md, Objects"),
    Variable("test_loss", "test loss", "1", "docs/theory.md, Objects"),
    Variable("validation_loss", "validation loss", "1", "docs/theory.md, Objects"),
)


class Evaluation(eqx.Module):
    """What is measured at one state.

    **Attributes:**

    - `values`: the values of the variables, by name.
    - `velocity`: w'.
    - `diagnostics`: those of the direction solve, None for a flow without a solve.
    """

    values: Values
    velocity: PyTree
    diagnostics: SolveDiagnostics | None


class Measurement(eqx.Module):
    """Everything that is evaluated at a saved time, as one traceable function. `Measurement.of` makes it.

    **Attributes:**

    - `flow`, `metrics`: the flow and the metrics of the run.
    - `names`: the variables that each metric declares. Metrics may need concrete numbers to list them, so they are asked
      before anything is traced.
    """

    flow: AbstractFlow
    metrics: tuple[AbstractMetric, ...]
    names: tuple[tuple[str, ...], ...] = eqx.field(static=True)

    @classmethod
    def of(cls, flow: AbstractFlow, metrics: tuple[AbstractMetric, ...], system: System) -> "Measurement":
        """The measurement on `system`. **Raises:** the errors of metrics that are not defined for it."""
        return cls(flow, metrics, tuple(tuple(v.name for v in metric.variables(system)) for metric in metrics))

    def prepare(self, weights: PyTree, system: System) -> tuple[PyTree, ...]:
        """The memories of the metrics at the first state."""
        snapshot = self.snapshot(jnp.zeros(()), weights, system, {})
        return tuple(metric.prepare(snapshot) for metric in self.metrics)

    def initial_integrals(self, weights: PyTree) -> dict[str, Array]:
        """The first values of the integral metrics, which are 0."""
        return {name: jnp.zeros(()) for name in jax.eval_shape(self.integrands, weights)}

    def integrands(self, velocity: PyTree) -> dict[str, Float[Array, ""]]:
        """The rates of change of the integral metrics."""
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
        """All variables at one state. The velocity is computed only if a metric asks for it."""
        return self._values(self.snapshot(time, weights, system, integrals), memories)

    def _values(self, snapshot: Snapshot, memories: tuple[PyTree, ...]) -> Values:
        values: Values = {"train_loss": snapshot.train_loss}
        if snapshot.system.problem.x_test is not None:
            values["test_loss"] = snapshot.test_loss
        if snapshot.system.problem.x_validation is not None:
            values["validation_loss"] = snapshot.validation_loss
        for name, observable in snapshot.system.problem.observables.items():
            values[name] = observable.function(snapshot.model, snapshot.train_outputs)
        for metric, names, memory in zip(self.metrics, self.names, memories, strict=True):
            values.update(_declared(metric, names, metric.evaluate(snapshot, memory)))
        # All variables get the same dtype: rows that a run does not reach are filled with inf, which integers do not have.
        return {name: jnp.asarray(value, dtype=jnp.float64) for name, value in values.items()}

    def variables(self, system: System) -> dict[str, Variable]:
        """Every variable that may appear, by name.

        **Raises:** `ConfigError` if two metrics give the same variable or one uses a reserved name, and the errors of metrics
        that are not defined for `system`.
        """
        own = [
            Variable(name, observable.long_name, "1", observable.reference)
            for name, observable in system.problem.observables.items()
        ]
        listed = [*_LOSSES, *own, *(v for metric in self.metrics for v in metric.variables(system))]
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
        """The snapshot of a state. `tangent` is the tangent on the training inputs, if it is known already."""

        def velocity():
            return velocity_and_distance(self.flow, time, weights, system)

        dynamics = self.flow.dynamics
        rests, decay = dynamics.rests_with_gradient, dynamics.decay(weights, system)
        return Snapshot(time, weights, system, velocity, integrals, rests, tangent, decay)


def _declared(metric: AbstractMetric, names: tuple[str, ...], values: Any) -> Values:
    """`values`, after a check that they are the variables that the metric declares.

    **Raises:** `ConfigError`, while the first program of a run is traced.
    """
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
    """The metrics of a run as a tuple. **Raises:** `ConfigError` unless they are a tuple or list of metrics."""
    if not isinstance(metrics, tuple | list):
        raise ConfigError(f"metrics = {shown(metrics)}; expected a tuple, such as (gnflow.metrics.KernelDistance(),).")
    example = "a metric such as gnflow.metrics.KernelDistance()"
    return tuple(
        require_instance(ConfigError, f"metrics[{number}]", metric, AbstractMetric, example)
        for number, metric in enumerate(metrics)
    )


def numbers_as_arrays(tree: PyTree) -> PyTree:
    """`tree` with float64 arrays for Python's and NumPy's floats, so that other numbers use the same compiled program."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=jnp.float64) if isinstance(leaf, float) else leaf, tree)
