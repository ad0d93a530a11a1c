"""Steps that each use a batch of the training samples."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._core import Result, jit_for_states, jit_for_steps, stream
from ..flows._distance import velocity_and_distance
from ..geometry import SolveDiagnostics, System
from ..metrics import DirectionDiagnostics, Variable
from ..problems import AbstractAugmentation, Problem
from ._arguments import batches_per_epoch
from ._measure import Measurement, Values
from ._outcome import step_failure
from ._start import remember
from ._steps import AbstractStep, AbstractStepLoop, SavedStep
from ._trajectory import make_dataset
from .stop import AbstractStopRule, evaluate_rules

if TYPE_CHECKING:
    import xarray

_SOURCE = "docs/time_units.md, Mini-batches"
_LOSSES = (
    Variable("batch_loss", "loss of the batch before its step", "1", _SOURCE),
    Variable("batch_loss_after", "loss of the batch after its step", "1", _SOURCE),
    Variable("next_batch_loss", "loss of the next batch before the step", "1", _SOURCE),
    Variable("next_batch_loss_after", "loss of the next batch after the step", "1", _SOURCE),
)


class Batches(eqx.Module):
    """The training samples in batches. Each epoch is a new shuffle, or an order that is given, cut into batches.

    Step k, counted from 0, takes batch k mod E of epoch k div E, where E is the number of batches in an epoch.

    **Attributes:**

    - `key`: the JAX key of the shuffles.
    - `num_samples`: the number N of training samples.
    - `size`: the number B of samples in a batch.
    - `keep_last`: whether what is left over is a shorter last batch of the epoch.
    - `orders`: orders of the samples (epochs, N) that take the place of the shuffles, one after the other, or None.
    - `augmentation`: a random change of each batch's inputs, or None.
    """

    key: Any
    num_samples: int = eqx.field(static=True)
    size: int = eqx.field(static=True)
    keep_last: bool = eqx.field(default=False, static=True)
    orders: Int[Array, "epochs samples"] | None = None
    augmentation: AbstractAugmentation | None = None

    @property
    def per_epoch(self) -> int:
        """E = floor(N/B), or ceil(N/B) with the shorter last batch."""
        return batches_per_epoch(self.num_samples, self.size, self.keep_last)

    @property
    def last_size(self) -> int:
        """The number of samples in the last batch of an epoch."""
        return min(self.size, self.num_samples - (self.per_epoch - 1) * self.size)

    def order(self, epoch: Int[Array, ""]) -> Int[Array, " samples"]:
        """The order (N,) of the samples in an epoch. Epochs are counted from 0."""
        if self.orders is not None:
            return self.orders[epoch % self.orders.shape[0]]
        return jax.random.permutation(jax.random.fold_in(self.key, epoch), self.num_samples)

    def next_order(self, step: Int[Array, ""], order: Int[Array, " samples"]) -> Int[Array, " samples"]:
        """The order (N,) at `step`, given the one at the step before."""
        epoch, place = jnp.divmod(step, self.per_epoch)
        return jax.lax.cond(place == 0, lambda: self.order(epoch), lambda: order)

    def of(
        self, system: System, step: Int[Array, ""], order: Int[Array, " samples"], function: Callable[[System], Any]
    ) -> Any:
        """`function` of `system` with the batch of `step` as its training samples.

        A shorter last batch has other shapes, so that a second form of the function is compiled for it.
        """
        place = step % self.per_epoch

        def of_size(size: int) -> Any:
            chosen = jax.lax.dynamic_slice_in_dim(order, place * self.size, size)
            x, y = self._augmented(system, step, system.problem.x_train[chosen]), system.problem.y_train[chosen]
            return function(eqx.tree_at(lambda s: (s.problem.x_train, s.problem.y_train), system, (x, y)))

        if self.last_size == self.size:
            return of_size(self.size)
        is_last = place == self.per_epoch - 1
        return jax.lax.cond(is_last, lambda: of_size(self.last_size), lambda: of_size(self.size))

    def _augmented(self, system: System, step: Int[Array, ""], x: Array) -> Array:
        """The inputs of the batch of `step`, changed in the units of the data. A batch has the same change whenever its loss
        is asked for."""
        if self.augmentation is None:
            return x
        scale = cast(Problem, system.problem).input_standardisation  # other problems have no batches
        key = jax.random.fold_in(stream(self.key, "augmentation"), step)
        raw = self.augmentation(key, x if scale is None else scale.invert(x))
        return raw if scale is None else scale.apply(raw)


class MiniBatch(AbstractStepLoop):
    """Takes steps along the velocity of the problem that has only the samples of a batch.

    **Arguments:**

    - `system`, `measurement`, `method`, `rules`: as for the base class.
    - `batches`: how the samples are cut into batches.
    - `longest_stride`: the most steps between two saves.
    """

    def __init__(
        self,
        system: System,
        measurement: Measurement,
        method: AbstractStep,
        rules: tuple[AbstractStopRule, ...],
        batches: Batches,
        longest_stride: int,
    ):
        super().__init__(system, measurement, method, rules)
        self.batches = batches
        self.longest_stride = longest_stride
        self._memories: tuple[PyTree, ...] = ()

    def start(self, weights: PyTree) -> SavedStep:
        """The state before any step."""
        memories, stop_memories, integrals = remember(weights, self.system, self.measurement, self.rules)
        self._memories = memories
        order, loss = _first_batch(weights, self.system, self.batches)
        # Zero steps: the program of the steps also measures the start, so that no second program is compiled.
        return self._advance(_State(weights, integrals, self.method.init(weights), order, loss, stop_memories), 0, 0)

    def advance(self, saved: SavedStep, stride: int) -> SavedStep:
        """The state `stride` steps later, or at the first of these steps that fails."""
        # A step that fails is known only after all of them were taken, so the steps up to it are taken once more.
        after = self._advance(saved.state, saved.step, stride)
        taken = stride if after.failure is None else int(after.failure.time) - saved.step
        return after if taken == stride else self._advance(saved.state, saved.step, taken)

    def _advance(self, state: "_State", step: int, stride: int) -> SavedStep:
        state, values, margins, rows = _advance(
            state,
            jnp.asarray(step),
            jnp.asarray(stride),
            self.longest_stride,
            self.method,
            self.batches,
            self.system,
            self.measurement,
            self._memories,
            self.rules,
        )
        losses, solves = jax.tree.map(lambda leaf: leaf[:stride], jax.device_get(rows))
        failure = _batch_failure(step, losses, solves, self.method.too_long)
        if failure is None:
            failure = step_failure(step + stride, self.method.too_long, None, float(values["train_loss"]))
        return SavedStep(step + stride, state, values, margins, solves, losses, failure)


def batch_dataset(
    losses: dict[str, np.ndarray], solves: SolveDiagnostics | None, batches: Batches, system: System
) -> "xarray.Dataset":
    """A data set of what was recorded of the batches.

    Its dimension is "batch", counted from 1, with the coordinate `epoch`.

    **Arguments:**

    - `losses`: the losses by name, (batches,).
    - `solves`: the diagnostics of the direction solves of all batches, with a first axis added to each field.
    - `batches`: how the samples are cut into batches.
    - `system`: the problem joined with the model's structure.
    """
    variables = {variable.name: variable for variable in _LOSSES}
    rows = dict(losses)
    for variable in DirectionDiagnostics().variables(system):
        values = getattr(solves, variable.name, None)
        if values is not None:
            name = f"batch_{variable.name}"
            rows[name] = np.asarray(values, dtype=float)
            variables[name] = Variable(
                name, f"{variable.long_name}, on the batch", variable.units, variable.reference, variable.dims
            )
    steps = np.arange(1, len(losses["batch_loss"]) + 1)
    attrs = {"long_name": "batch", "units": "1", "reference": _SOURCE}
    epochs = (steps - 1) // batches.per_epoch + 1
    data = make_dataset(rows, variables, "batch", steps, attrs)
    return data.assign_coords(epoch=("batch", epochs, {**attrs, "long_name": "epoch"}))


class _State(eqx.Module):
    """The state between two steps.

    **Attributes:**

    - `weights`, `integrals`: the weights, and the integrals over time.
    - `memory`: the memory of the method.
    - `order`: the order (N,) of the samples in the epoch of the next step.
    - `loss`: the loss of the batch of the next step.
    - `stop_memories`: the memories of the stop rules.
    """

    weights: PyTree
    integrals: dict[str, Array]
    memory: PyTree
    order: Int[Array, " samples"]
    loss: Float[Array, ""]
    stop_memories: tuple[PyTree, ...]


@jit_for_states
def _first_batch(weights: PyTree, system: System, batches: Batches) -> tuple[Int[Array, " samples"], Float[Array, ""]]:
    """The order (N,) of the first epoch, and the loss of its first batch."""
    step = jnp.zeros((), dtype=int)
    order = batches.order(step)
    return order, batches.of(system, step, order, lambda batch: batch.train_loss(weights))


@jit_for_steps
def _advance(
    state: _State,
    step: Int[Array, ""],
    stride: Int[Array, ""],
    longest_stride: int,
    method: AbstractStep,
    batches: Batches,
    system: System,
    measurement: Measurement,
    memories: tuple[PyTree, ...],
    rules: tuple[AbstractStopRule, ...],
) -> tuple[_State, Values, tuple[Array, ...], PyTree]:
    """Take `stride` steps from `state` at `step`.

    The velocity on all training samples is computed only if a metric asks for it.

    **Returns:** the state after the steps, what is measured there, the margins of the stop rules, and what was recorded of each
    batch (longest_stride, ...).
    """

    def one_step(number: Int[Array, ""], state: _State) -> tuple[_State, PyTree]:
        def take(batch: System) -> Any:
            velocity, solve = velocity_and_distance(measurement.flow, method.time(number), state.weights, batch)
            taken = method.take(number, state.weights, state.integrals, state.memory, velocity, measurement, batch)
            own = method.diagnostics(taken[2])
            return taken, solve if own is None else own, batch.train_loss(taken[0])

        (weights, integrals, memory), solve, loss_after = batches.of(system, number, state.order, take)
        order = batches.next_order(number + 1, state.order)
        next_loss, next_loss_after = batches.of(
            system, number + 1, order, lambda batch: (batch.train_loss(state.weights), batch.train_loss(weights))
        )
        losses = {
            "batch_loss": state.loss,
            "batch_loss_after": loss_after,
            "next_batch_loss": next_loss,
            "next_batch_loss_after": next_loss_after,
        }
        loss = losses["next_batch_loss_after"]
        return _State(weights, integrals, memory, order, loss, state.stop_memories), (losses, solve)

    def body(index: Array, carry: tuple[_State, PyTree]) -> tuple[_State, PyTree]:
        state, row = one_step(step + index, carry[0])
        return state, jax.tree.map(lambda rows, entry: rows.at[index].set(entry), carry[1], row)

    # The rows have the length of the longest stride, so that the last stride, which may be shorter, uses the same program.
    shapes = jax.eval_shape(one_step, step, state)[1]
    rows = jax.tree.map(lambda entry: jnp.zeros((longest_stride, *entry.shape), entry.dtype), shapes)
    state, rows = jax.lax.fori_loop(0, stride, body, (state, rows))
    now = method.time(step + stride)
    values = measurement.values(now, state.weights, state.integrals, system, memories)
    snapshot = measurement.snapshot(now, state.weights, system, state.integrals)
    stop_memories, margins = evaluate_rules(rules, snapshot, state.stop_memories)
    state = _State(state.weights, state.integrals, state.memory, state.order, state.loss, stop_memories)
    return state, values, margins, rows


def _batch_failure(
    step: int, losses: dict[str, np.ndarray], solves: SolveDiagnostics | None, too_long: str
) -> Result | None:
    """The failure of the first batch after `step` that went wrong, or None."""
    before = losses["batch_loss"]
    after = np.max(list(losses.values()), axis=0)  # finite where all are
    residuals = [None] * len(before) if solves is None else solves.relative_residual
    numbers = range(step + 1, step + 1 + len(before))
    failures = (
        step_failure(number, too_long, *of_batch, name="the loss of a batch")
        for number, *of_batch in zip(numbers, residuals, before, after, strict=True)
    )
    return next((failure for failure in failures if failure is not None), None)
