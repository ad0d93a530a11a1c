"""What the estimate of a run's error costs: whole runs, warm, with and without it, in turn.

Without it the integration carries nothing along and looks at no test inputs; everything else is the same program.
"""

import sys
from unittest import mock

import equinox as eqx
import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402 (after the setting)
from _record import aligned, interleaved_seconds, peak_memory_gib, store  # noqa: E402
from error_pages import PAGE, insert, markdown_table  # noqa: E402
from paper_problem import paper_problem  # noqa: E402

import gnflow as gn  # noqa: E402
from gnflow.simulate import _controller, _global_error, _integrate, _segments  # noqa: E402

MOST = 1.3


class Blind(_global_error.ErrorCarryingSolver):
    """The inner solver alone, in the form that the controller takes."""

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step of the inner solver, and no error."""
        before = solver_state
        y1, local, dense_info, state, result = self.inner.step(terms, t0, t1, y0, args, before.inner, made_jump)
        last = _global_error.LastStep(t0, t1, dense_info)
        behind = _global_error.CarriedState(state, before.error, before.added, before.loss, last)
        nothing = jax.tree.map(jnp.zeros_like, before.error)
        return y1, _global_error.StepErrors(local, nothing), dense_info, behind, result


def nothing_known(controller, args, weights, tangent, carried, loss, movement):
    """In place of the controller's estimates of the run's errors."""
    return movement, jnp.zeros(2)


def versions_of_advance():
    """The compiled segments with the estimate and without."""
    plain = _segments.advance.__wrapped__

    def without(*args):
        with (
            mock.patch.object(_segments, "ErrorCarryingSolver", Blind),
            mock.patch.object(_controller.ResidualController, "_run_errors", nothing_known),
        ):
            return plain(*args)

    return {"with": _segments.advance, "without": eqx.filter_jit(without)}


def problems():
    """name -> (problem, model, flow, arguments of simulate)."""
    key = jax.random.key(0)
    stop = {"stop": gn.RelativeLoss(1e-6)}
    for n_train, width in ((50, 500), (500, 5000)):
        problem, model, gauss_newton = paper_problem(n_train, width)
        size = f"N={n_train} M={width}"
        yield f"gradient {size}", (problem, model, gn.flows.GradientFlow(), stop)
        yield f"Gauss-Newton {size}", (problem, model, gauss_newton, stop)
        if n_train == 50:
            for solver in ("tsit5", "dopri8", "kvaerno5"):
                yield f"Gauss-Newton {size} {solver}", (problem, model, gauss_newton, {**stop, "solver": solver})
    digits = gn.problems.digits(n_train=100, n_test=100, key=key)
    deep = gn.models.MLP(input_dim=64, width=128, depth=2, output_dim=10, activation="tanh", key=key)
    half = {"stop": gn.RelativeLoss(0.3)}
    yield "gradient digits MLP tsit5", (digits, deep, gn.flows.GradientFlow(), {**half, "solver": "tsit5"})
    small = gn.problems.digits(n_train=30, n_test=30, key=key)
    yield "gradient digits MLP N=30", (small, deep, gn.flows.GradientFlow(), half)
    yield "spectral 1/2 digits MLP N=30", (small, deep, gn.flows.SpectralFlow(0.5, gn.damping.Constant(1e-4)), half)


def main(repeats: int) -> None:
    versions = versions_of_advance()
    rows, numbers = [], {}
    for name, (problem, model, flow, arguments) in problems():
        last = {}

        def run(version, problem=problem, model=model, flow=flow, arguments=arguments, last=last):
            _integrate.advance = versions[version]
            last[version] = gn.simulate(problem, model, flow, throw=False, **arguments)

        seconds = interleaved_seconds({v: (lambda v=v: run(v)) for v in versions}, repeats=repeats)
        stats = last["with"].stats
        ratio = seconds["with"] / seconds["without"]
        numbers[name] = {
            "seconds": seconds,
            "ratio": ratio,
            "estimated_error": stats["estimated_error"],
            "num_solutions": stats["num_solutions"],
            "steps": stats["num_steps"],
            "solver": stats["solver"],
        }
        counts = [stats["estimated_error"], stats["num_solutions"]]
        rows.append([name, stats["solver"], stats["num_steps"], seconds["without"], ratio, *counts])
        print(aligned(["run", "solver", "steps", "s without", "ratio", "error", "solutions"], rows[-1:]), flush=True)
    store("error_estimate", {"most": MOST, "runs": numbers, "peak_gib": peak_memory_gib()})
    heads = ["run", "steps", "without [s]", "ratio with the estimate", "estimated error"]
    lines = markdown_table(
        heads, [[str(row[0]), str(row[2]), f"{row[3]:.3g}", f"{row[4]:.2f}", f"{row[5]:.1e}"] for row in rows]
    )
    insert(PAGE, "error_estimate", lines)
    print(aligned(["run", "solver", "steps", "s without", "ratio", "error", "solutions"], rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
