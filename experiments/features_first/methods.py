"""The methods that are compared: each takes a problem and a model and returns numbers. None chooses by the test data."""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax

import gnflow as gn

FRACTION = 0.2
TARGET = gn.RelativeLoss(1e-6)  # what counts as convergence
MOST_STEPS = 4000
ADAM_RATES = (1e-3, 1e-2)
_CHUNK = 100

Record = dict[str, Any]
Earlier = Mapping[str, Record]  # the records of the same cell and seed that are there already, by method
Method = Callable[[Any, Any, int, Earlier], Record]


def numbers_of(run: gn.Trajectory) -> Record:
    loss = run.data.train_loss.to_numpy()
    return {
        "test_loss": float(run.data.test_loss[-1]),
        "relative_loss": float(loss[-1] / loss[0]),
        "flow_time": float(run.data.time[-1]),
        "compile_seconds": run.stats["compile_seconds"],
        "velocities": int(run.stats["num_velocity_evaluations"]),
        "steps": int(run.stats["num_steps"]),
        "result": str(run.result.code),
    }


def converged(flow: Any) -> Method:
    """A flow to convergence."""

    def method(problem: Any, model: Any, seed: int, earlier: Earlier) -> Record:
        run = gn.simulate(problem, model, flow, stop=TARGET, max_steps=MOST_STEPS, throw=False)
        curve = {name: run.data[name].to_numpy().tolist() for name in ("train_loss", "test_loss")}
        return numbers_of(run) | {"curve": curve}

    return method


def early_stopped(problem: Any, model: Any, seed: int, earlier: Earlier) -> Record:
    """Gradient flow stopped by the same hold-out: to the relative loss at which the smaller run's held-out loss is least."""
    inner = gn.HoldOut(FRACTION, seed=seed).split(problem)
    run = gn.simulate(inner, model, gn.flows.GradientFlow(), stop=TARGET, max_steps=MOST_STEPS, throw=False)
    place = int(np.argmin(run.data.validation_loss.to_numpy()))
    losses = run.data.train_loss.to_numpy()
    share = losses[place] / losses[0]
    whole = earlier["gradient flow"]
    shares = np.asarray(whole["curve"]["train_loss"]) / whole["curve"]["train_loss"][0]
    tests = np.log(whole["curve"]["test_loss"])
    found = np.exp(np.interp(-np.log(share), -np.log(shares), tests))
    return {
        "test_loss": float(found),
        "relative_loss": float(share),
        "compile_seconds": run.stats["compile_seconds"],
        "velocities": int(run.stats["num_velocity_evaluations"]) + whole["velocities"],
        "result": str(run.result.code),
    }


def features_first(choose: Any = None, flow: Any = None, **options: Any) -> Method:
    """The method; without `choose` by a hold-out whose samples the seed draws."""

    def method(problem: Any, model: Any, seed: int, earlier: Earlier) -> Record:
        rule = gn.HoldOut(FRACTION, seed=seed) if choose is None else choose(seed)
        moved = gn.flows.GaussNewtonFlow() if flow is None else flow
        run = gn.train_features_first(problem, model, moved, choose=rule, throw=False, **options)
        more = {
            name: run.stats[name]
            for name in ("feature_relative_loss", "readout_cutoff", "readout_rank")
            if name in run.stats
        }
        return numbers_of(run) | more

    return method


def adam(problem: Any, model: Any, seed: int, earlier: Earlier) -> Record:
    """Adam for the CPU seconds of gradient flow, at the rate (of two) that ends with the lower training loss."""
    system = gn.System(problem, model)
    weights = system.weights(model)
    budget = max(earlier["gradient flow"]["cpu_seconds"], 0.1)
    best: Record = {}
    for rate in ADAM_RATES:
        method = optax.adam(rate)
        carry = weights, method.init(weights)
        jax.block_until_ready(_adam_steps(carry, system, rate))  # compiles
        began, count = time.process_time(), 0
        while time.process_time() - began < budget:
            carry = jax.block_until_ready(_adam_steps(carry, system, rate))
            count += _CHUNK
        train = float(system.train_loss(carry[0]))
        if not best or train < best["train_loss"]:
            best = {
                "train_loss": train,
                "test_loss": float(system.test_loss(carry[0])),
                "rate": rate,
                "velocities": count,
            }
    first = float(system.train_loss(weights))
    return {**best, "relative_loss": best["train_loss"] / first, "budget": budget, "result": "time was up"}


@eqx.filter_jit
def _adam_steps(carry: Any, system: gn.System, rate: float) -> Any:
    method = optax.adam(rate)

    def one(carry: Any, _: Any) -> Any:
        weights, state = carry
        update, state = method.update(jax.grad(system.train_loss)(weights), state)
        return (optax.apply_updates(weights, update), state), None

    return jax.lax.scan(one, carry, None, length=_CHUNK)[0]


@eqx.filter_jit
def _gradient(system: gn.System, weights: Any) -> Any:
    return jax.grad(system.train_loss)(weights)


def gradient_seconds(problem: Any, model: Any) -> float:
    """The CPU time of one gradient, the mean of 50."""
    system = gn.System(problem, model)
    weights = system.weights(model)
    jax.block_until_ready(_gradient(system, weights))
    began = time.process_time()
    for _ in range(50):
        jax.block_until_ready(_gradient(system, weights))
    return (time.process_time() - began) / 50


_LATE = gn.RelativeLoss(1e-2)
# In tiers: the first of all cells come before the second of any.
TIERS: tuple[dict[str, Method], ...] = (
    {
        "gradient flow": converged(gn.flows.GradientFlow()),
        "early-stopped gradient flow": early_stopped,
        "Gauss-Newton": converged(gn.flows.GaussNewtonFlow()),
        "hold-out": features_first(),
        "relative loss 0.9": features_first(lambda seed: gn.RelativeLoss(0.9)),
    },
    {
        "spectral 1/2": converged(gn.flows.SpectralFlow(power=0.5)),
        "spectral 1/4": converged(gn.flows.SpectralFlow(power=0.25)),
        "Adam": adam,
        "hold-out, fixed cut-off": features_first(lambda seed: gn.HoldOut(FRACTION, seed=seed, cutoffs=None)),
        "feature rank": features_first(lambda seed: gn.FeatureRank(), stop=gn.RelativeLoss(0.5)),
    },
    {
        "hold-out, two cycles": features_first(cycles=2),
        "hold-out, gradient flow": features_first(flow=gn.flows.GradientFlow(), stop=_LATE),
        "hold-out, spectral 1/2": features_first(flow=gn.flows.SpectralFlow(power=0.5), stop=_LATE),
        "alignment": features_first(lambda seed: gn.AlignmentPeak()),
        "alignment velocity": features_first(lambda seed: gn.AlignmentPeak(velocity=True)),
        "leave one out": features_first(lambda seed: gn.LeaveOneOut()),
        "Gauss-Newton, slow output": converged(
            gn.flows.Scaled(gn.flows.GaussNewtonFlow(), {"output": 0.01}, where="metric")
        ),
        "gradient flow, slow output": converged(gn.flows.Scaled(gn.flows.GradientFlow(), {"output": 0.01})),
    },
)
ALL: dict[str, Method] = functools.reduce(lambda known, tier: known | tier, TIERS, {})
