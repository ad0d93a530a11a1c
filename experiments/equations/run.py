"""Residual flows for equations, beside Adam, L-BFGS and energy natural gradient: docs/residuals_study.md.

    python experiments/equations/run.py [PART ...] [--out DIR] [--smoke]

PART is poisson, heat, burgers, allen_cahn or helmholtz (every flow and optimiser on one equation), engd (Poisson with the
points of arXiv 2302.13163: their steps in NumPy, and the flow), phase (boundary weight against scale of first weights) or cost
(what a velocity is made of); all of them if none is named. results/ keeps the numbers, from which report.py makes tables and
figures.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)
sys.path.append(str(Path(__file__).parent))

import engd  # noqa: E402 (after the setting)
import equinox as eqx  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

import gnflow as gn  # noqa: E402
from gnflow.simulate import versions  # noqa: E402

HERE = Path(__file__).parent
# Options of the problem, the network, the flow time and the first damping of Gauss-Newton flow.
EQUATIONS: dict[str, tuple[dict[str, Any], dict[str, int], float, float]] = {
    "poisson": ({"points_per_axis": 20, "boundary_weight": 100.0}, {"width": 32, "depth": 1}, 20.0, 1.0),
    "heat": (
        {"points_per_axis": 16, "boundary_weight": 100.0, "initial_weight": 100.0},
        {"width": 32, "depth": 1},
        20.0,
        1.0,
    ),
    "burgers": (
        {"points_per_axis": 24, "boundary_weight": 100.0, "initial_weight": 100.0},
        {"width": 20, "depth": 2},
        16.0,
        1e-2,
    ),
    "allen_cahn": (
        {"diffusivity": 0.01, "points_per_axis": 20, "boundary_weight": 100.0, "initial_weight": 100.0},
        {"width": 16, "depth": 2},
        18.0,
        1e-2,
    ),
    "helmholtz": ({"points_per_axis": 20, "boundary_weight": 100.0}, {"width": 32, "depth": 1}, 20.0, 1.0),
}
MOST_STEPS = 3000
MOST_SECONDS = 300.0  # of an optimiser
OPTIMISERS = ("Adam", "L-BFGS")
# A solver by its name does not give way to a dearer one where it has used up its steps, and hours become minutes.
SOLVERS = {
    "Gauss-Newton": "tsit5",
    "gradient flow": "exponential",
    "spectral 1/2": "exponential",
    "dual, gamma = 1e4": "exponential",
}
LIMITS: dict[str, Any] = {"max_steps": 1000, "rtol": 1e-3}
LIMITS_OF_PHASE: dict[str, Any] = {"max_steps": 400, "rtol": 1e-3}


def damping(start: float) -> gn.damping.AbstractDamping:
    """Falls as the loss does under undamped Gauss-Newton flow."""
    return gn.damping.Exponential(start=start, rate=2.0, floor=1e-20)


def flows(end: float, start: float) -> dict[str, tuple[Any, float]]:
    """The flows with the flow time that each may take, in its own units."""
    return {
        "Gauss-Newton": (gn.flows.GaussNewtonFlow(damping=damping(start)), end),
        "gradient flow": (gn.flows.GradientFlow(), 1e7),
        "spectral 1/2": (gn.flows.SpectralFlow(power=0.5, damping=gn.damping.Constant(1e-10)), 1e6),
        "dual, gamma = 1e4": (gn.flows.DualGaussNewtonFlow(gamma=1e4), 1e5),
    }


def network(seed: int, width: int, depth: int, scale: float = 1.0) -> Any:
    key = jax.random.key(seed)
    return gn.models.MLP(2, width, depth, 1, "tanh", init_scale=scale, key=key)


def spectrum(problem: Any, model: Any) -> dict[str, float]:
    """The largest eigenvalue of A, and over the smallest of the min(R, P) that need not be 0: from singular values of J."""
    system = gn.System(problem, model)
    values = np.linalg.svd(system.tangent(system.weights(model)).jacobian(), compute_uv=False) ** 2
    return {"largest": float(values[0]), "condition_number": float(values[0] / values[-1])}


def by_flow(problem: Any, model: Any, flow: Any, end: float, **options: Any) -> dict[str, Any]:
    """A run of a flow: its curves, the seconds without compilation, how it ended. `options` limit it."""
    run = gn.simulate(problem, model, flow, t1=end, throw=False, **{"max_steps": MOST_STEPS, **options})
    seconds, compiling = run.stats["wall_seconds"], run.stats["compile_seconds"]
    return {
        "time": run.data.time.values.tolist(),
        "train_loss": run.data.train_loss.values.tolist(),
        "relative_l2": run.data.relative_l2.values.tolist(),
        "ntk_at_start": spectrum(problem, model),
        "ntk_at_end": spectrum(problem, run.model),
        "seconds": seconds - compiling,
        "compile_seconds": compiling,
        "num_steps": run.stats["num_steps"],
        "solver": run.stats["solver"],
        "limits": options,
        "result": str(run.result.code),
    }


def by_optimiser(problem: Any, model: Any, kind: str, seconds: float) -> dict[str, Any]:
    """Adam or L-BFGS for so many seconds, compilation not counted."""
    system = gn.System(problem, model)
    weights, error = system.weights(model), problem.test["relative_l2"]
    lbfgs = kind == "L-BFGS"
    method: Any = optax.lbfgs() if lbfgs else optax.adam(optax.cosine_decay_schedule(1e-2, 20_000, 1e-2))

    @eqx.filter_jit
    def steps(carry: Any) -> Any:
        def one(carry: Any, _: Any) -> Any:
            weights, state = carry
            value, gradient = jax.value_and_grad(system.train_loss)(weights)
            more = {"value": value, "grad": gradient, "value_fn": system.train_loss} if lbfgs else {}
            update, state = method.update(gradient, state, weights, **more)
            return (optax.apply_updates(weights, update), state), None

        return jax.lax.scan(one, carry, None, length=20 if lbfgs else 200)[0]

    measure = eqx.filter_jit(lambda weights: (system.train_loss(weights), error(system.model(weights))))
    carry = (weights, method.init(weights))
    jax.block_until_ready((steps(carry), measure(weights)))  # compiles
    record: dict[str, list[float]] = {"seconds": [0.0], "train_loss": [], "relative_l2": []}
    count, spent = 0, 0.0
    while True:
        loss, off = measure(carry[0])
        record["train_loss"].append(float(loss))
        record["relative_l2"].append(float(off))
        if spent >= seconds:
            return {**record, "num_steps": count}
        began = time.perf_counter()
        carry = jax.block_until_ready(steps(carry))
        spent += time.perf_counter() - began
        count += 20 if lbfgs else 200
        record["seconds"].append(spent)


def equation(
    name: str,
    seeds: tuple[int, ...],
    smoke: bool,
    save: Callable[[dict[str, Any]], None],
    known: dict[str, Any],
    methods: list[str],
    limited: bool = False,
) -> dict[str, Any]:
    """The methods, flows first; `save` is called after each, so that nothing is lost if the rest is.

    `known` has the runs, by seed and method, that are stored already: with `methods` the others are kept as they are.
    """
    options, sizes, end, start = EQUATIONS[name]
    options = {**options, "points_per_axis": 6} if smoke else options
    problem = getattr(gn.problems, name)(**options)
    record: dict[str, Any] = {"options": options, "network": sizes, "runs": known}
    for seed in seeds:
        model = network(seed, **sizes)
        runs: dict[str, Any] = record["runs"].setdefault(str(seed), {})
        for label, (flow, longest) in flows(end, start).items():
            if label in methods:
                limits = {"solver": SOLVERS[label], **LIMITS} if limited else {}
                runs[label] = by_flow(problem, model, flow, 0.1 if smoke else longest, **limits)
                _say(name, seed, label, runs[label])
                save(record)
        slowest = max(run["seconds"] for run in runs.values() if "time" in run)
        for kind in (kind for kind in OPTIMISERS if kind in methods):
            runs[kind] = by_optimiser(problem, model, kind, 0.1 if smoke else min(slowest, MOST_SECONDS))
            _say(name, seed, kind, runs[kind])
            save(record)
    return record


def engd_setting(seeds: tuple[int, ...], smoke: bool, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Their points and network, by their method and by the flow, from the flow's first weights and from theirs."""
    inside, sides = engd.grid(8 if smoke else 30)
    packaged = gn.problems.poisson(points_per_axis=2)
    interior, boundary = (term.residual for term in packaged.terms)
    problem = gn.ResidualProblem(
        [gn.ResidualTerm("interior", interior, inside), gn.ResidualTerm("boundary", boundary, sides, weight=4.0)],
        test=packaged.test,
        name="poisson",
    )
    record: dict[str, Any] = {"runs": {}}
    for seed in seeds:
        descent = engd.descend(seed, 2 if smoke else 100)
        flow = gn.flows.GaussNewtonFlow(damping=damping(1.0))
        run = by_flow(problem, network(seed, 32, 1), flow, 0.1 if smoke else 20.0)
        record["runs"][str(seed)] = {"ENGD": descent, "Gauss-Newton": run}
        _say("engd", seed, "ENGD", descent)
        _say("engd", seed, "Gauss-Newton", run)
        save(record)
    return record


def phase(seeds: tuple[int, ...], smoke: bool, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The relative error of Gauss-Newton and gradient flow over boundary weight and scale of first weights (Poisson)."""
    weights, scales = [1.0, 10.0, 100.0, 1000.0], [0.25, 0.5, 1.0, 2.0, 4.0]
    if smoke:
        weights, scales = weights[:1], scales[:1]
    record: dict[str, Any] = {"boundary_weight": weights, "init_scale": scales, "limits": LIMITS_OF_PHASE, "result": {}}
    for label, (flow, end) in list(flows(20.0, 1.0).items())[:2]:
        errors = np.full((len(weights), len(scales)), np.nan)
        results: list[str] = []
        for i, weight in enumerate(weights):
            problem = gn.problems.poisson(points_per_axis=12, boundary_weight=weight)
            for j, scale in enumerate(scales):
                reach = 0.1 if smoke else min(end, 1e5)
                model, limits = network(seeds[0], 32, 1, scale), {"solver": SOLVERS[label], **LIMITS_OF_PHASE}
                found = by_flow(problem, model, flow, reach, **limits)
                errors[i, j] = found["relative_l2"][-1]
                results.append(found["result"])
                _say("phase", seeds[0], f"{label}, weight {weight:g}, scale {scale:g}", found)
        record[label] = errors.tolist()
        record["result"][label] = {code: results.count(code) for code in sorted(set(results))}
        save(record)
    return record


def cost(seeds: tuple[int, ...], smoke: bool, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """What a step is made of (Poisson, warm): derivatives of the network are a small part of a velocity."""
    options, sizes, _, _ = EQUATIONS["poisson"]
    problem, model = gn.problems.poisson(**options), network(seeds[0], **sizes)
    flow = gn.flows.GaussNewtonFlow(damping=damping(1.0))
    system = flow.system(problem, model)
    weights, start = system.weights(model), jnp.zeros(())
    factor = system.loss.hessian_factor(system.outputs(weights), system.problem.y_train)
    parts: dict[str, Callable[[Any], Any]] = {
        "residuals": system.outputs,
        "J, by automatic differentiation": lambda w: system.tangent(w).jacobian(),
        "modes, from the singular values of J": lambda w: (
            gn.directions.dense_modes(system.tangent(w), factor).eigenvalues
        ),
        "modes, from the eigenvalues of A": lambda w: jnp.linalg.eigh(system.tangent(w).gram()),
        "velocity": lambda w: flow.velocity(start, w, system),
    }
    compiled = {name: eqx.filter_jit(part) for name, part in parts.items()}
    times: dict[str, list[float]] = {name: [] for name in parts}
    for repeat in range(2 if smoke else 20):
        for name, part in compiled.items():
            began = time.perf_counter()
            jax.block_until_ready(part(weights))
            times[name] += [time.perf_counter() - began] if repeat else []
    median = {name: statistics.median(taken) for name, taken in times.items()}
    for name, seconds in median.items():
        print(f"cost       {name:42} {1e3 * seconds:8.2f} ms", flush=True)
    return {
        "rows": sum(system.problem.rows.values()),
        "weights": sum(leaf.size for leaf in jax.tree.leaves(weights)),
        "seconds": median,
    }


def thinned(record: Any, most: int = 200) -> Any:
    """The record with at most so many numbers of each curve, evenly spread, with both ends."""
    if isinstance(record, dict):
        return {name: thinned(part, most) for name, part in record.items()}
    if isinstance(record, list) and len(record) > most:
        return [record[index] for index in np.linspace(0, len(record) - 1, most).round().astype(int)]
    return record


def _say(part: str, seed: int, label: str, run: dict[str, Any]) -> None:
    seconds = run["seconds"] if isinstance(run["seconds"], float) else run["seconds"][-1]
    print(f"{part:10} seed {seed}  {label:42} relative L2 {run['relative_l2'][-1]:.2e}  {seconds:7.1f} s", flush=True)


def main() -> None:
    parts: dict[str, Callable[..., dict[str, Any]]] = {
        **{
            name: lambda *rest, name=name: equation(name, *rest, *stored(name), arguments.limited) for name in EQUATIONS
        },
        "engd": engd_setting,
        "phase": phase,
        "cost": cost,
    }
    parser = argparse.ArgumentParser(description="Flows and optimisers on equations.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all by default")
    parser.add_argument("--out", default=str(HERE / "results"), help="folder of the results")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="seeds of the network")
    parser.add_argument("--methods", nargs="+", choices=[*SOLVERS, *OPTIMISERS], help="only these, of the equations")
    parser.add_argument("--limited", action="store_true", help="solvers by name and 1000 steps, for the equations")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it works")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(parts)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}; expected some of {', '.join(parts)}")
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)

    def stored(name: str) -> tuple[dict[str, Any], list[str]]:
        """The stored runs that stay, and the methods to run."""
        file = out / f"{name}.json"
        if arguments.methods is None or not file.is_file():
            return {}, arguments.methods or [*SOLVERS, *OPTIMISERS]
        return json.loads(file.read_text(encoding="utf-8"))["runs"], arguments.methods

    for name in arguments.parts or list(parts):
        began = time.perf_counter()
        command = f"python experiments/equations/run.py {name} --seeds {' '.join(map(str, arguments.seeds))}"
        if name in EQUATIONS:
            command += f" --methods {' '.join(map(repr, arguments.methods))}" if arguments.methods else ""
            command += " --limited" if arguments.limited else ""
            file = out / f"{name}.json"
            if arguments.methods and file.is_file():  # some of what is there stays, with its command
                command = f"{json.loads(file.read_text(encoding='utf-8'))['command']} && {command}"

        def save(record: dict[str, Any], name: str = name, began: float = began, command: str = command) -> None:
            about = {"command": command, "seconds_in_all": time.perf_counter() - began, "versions": versions()}
            text = json.dumps(thinned(record | about), indent=1) + "\n"
            (out / f"{name}.json").write_text(text, encoding="utf-8")

        save(parts[name](tuple(arguments.seeds), arguments.smoke, save))


if __name__ == "__main__":
    main()
