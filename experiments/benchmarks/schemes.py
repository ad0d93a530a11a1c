"""Exponential schemes of orders 3 and 4 and the implicit competitor, with the same linearisation, control and tolerances."""

import sys
import time
from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)

from _record import aligned, peak_memory_gib, store  # noqa: E402 (after the setting)
from paper_problem import paper_problem  # noqa: E402

import gnflow as gn  # noqa: E402
from gnflow._core import tree_add_scaled, tree_scale  # noqa: E402
from gnflow.solvers import Decomposition, ExponentialRungeKutta, LinearisedTerm, LowRankKvaerno5  # noqa: E402
from gnflow.solvers._exponential import remainder_at  # noqa: E402
from gnflow.solvers._reduced import apply_functions, combination, reduce  # noqa: E402
from gnflow.solvers._term import unwrap  # noqa: E402


class _Scheme(diffrax.AbstractAdaptiveSolver):
    """What the competitors share; only step counts and end points are compared, so dense output is no more than linear."""

    term_structure: ClassVar = LinearisedTerm
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation
    decomposition: Decomposition = Decomposition()

    def init(self, terms, t0, t1, y0, args):
        return None

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        terms = unwrap(terms)
        weights, integrals = terms.split(y0)
        length = t1 - t0
        linearisation = terms.linearise(t0, weights, self.decomposition)
        start = reduce(linearisation, None, -linearisation.direction.coefficients.reshape(-1))

        def stage(node: float, sums: list[tuple[float, list[Any]]]):
            """D at w + node h phi_1(node z) F + sum of h c psi(c z) x over (c, parts)."""
            moved, amplitudes = jax.tree.map(jnp.zeros_like, weights), 0.0
            for c, parts in [(node, [({1: 1.0}, start)]), *sums]:
                ((increment, reached),) = apply_functions(linearisation, c * length, [parts])
                moved, amplitudes = tree_add_scaled(moved, c * length, increment), amplitudes + c * length * reached
            return remainder_at(terms, linearisation, t0 + node * length, weights, 1.0, moved, amplitudes)

        solution, error = self._combine(stage, start)
        (increment, _), (difference, _) = apply_functions(linearisation, length, [solution, error])
        y1 = terms.join(tree_add_scaled(weights, length, increment), integrals)
        y_error = terms.join(tree_scale(length, difference), {name: 0.0 * value for name, value in integrals.items()})
        return y1, y_error, {"y0": y0, "y1": y1}, None, diffrax.RESULTS.successful


class ThirdOrder(_Scheme):
    """Hochbruck and Ostermann, Acta Numerica 2010, equation (2.45): three stages, c_2 = 1/2, c_3 = 2/3, embedded order 2."""

    def order(self, terms):
        """3."""
        return 3

    def _combine(self, stage, start):
        second = stage(1 / 2, [])
        third = stage(2 / 3, [(2 / 3, [({2: 4 / 3}, second)])])
        return (
            [({1: 1.0}, start), ({2: 1.5}, third)],
            [({2: 1.5}, third), ({2: -2.0}, second)],
        )


class StiffFourthOrder(_Scheme):
    """Hochbruck and Ostermann's method of stiff order 4 with five stages, SIAM J. Numer. Anal. 2005, Section 5."""

    def order(self, terms):
        """4."""
        return 4

    def _combine(self, stage, start):
        second = stage(1 / 2, [])
        third = stage(1 / 2, [(1 / 2, [({2: 2.0}, second)])])
        pair = combination((second, third), (1.0, 1.0))
        fourth = stage(1.0, [(1.0, [({2: 1.0}, pair)])])
        fifth = stage(
            1 / 2,
            [
                (1 / 2, [({2: 1.0, 3: -1.0}, pair), ({2: -0.5, 3: 1.0}, fourth)]),
                (1.0, [({2: 0.25, 3: -1.0}, pair), ({2: -0.25, 3: 1.0}, fourth)]),
            ],
        )
        return (
            [({1: 1.0}, start), ({2: -1.0, 3: 4.0}, fourth), ({2: 4.0, 3: -8.0}, fifth)],
            [({2: 4.0, 3: -8.0}, combination((fifth, third), (1.0, -1.0)))],
        )


SOLVERS = {
    "order 3 (3 stages)": ThirdOrder(),
    "order 4, Krogstad (4 stages)": ExponentialRungeKutta(),
    "stiff order 4 (5 stages)": StiffFourthOrder(),
    "Kvaerno5, low-rank chord": LowRankKvaerno5(),
}
CASES = [("gradient", 1.0), ("gradient", 0.1), ("gauss_newton", 1.0)]
RTOL = [5e-3, 5e-4]


def main(n_train: int, width: int) -> None:
    rows = []
    for flow_name, init_scale in CASES:
        problem, model, gauss_newton = paper_problem(n_train, width, init_scale)
        flow = gauss_newton if flow_name == "gauss_newton" else gn.flows.GradientFlow()

        # All runs end at one flow time, that of a relative loss of 1e-6, so that no dense output is compared.
        tight = gn.simulate(problem, model, flow, stop=gn.RelativeLoss(1e-6), solver="exponential", rtol=1e-6)
        end, reference = float(tight.data.time[-1]), float(tight.data.test_loss[-1])

        def run(solver, rtol, problem=problem, model=model, flow=flow, end=end):
            options = {"stop": None, "t1": end, "saveat": [end / 2], "throw": False}
            return gn.simulate(problem, model, flow, solver=solver, rtol=rtol, **options)

        for name, solver in SOLVERS.items():
            for rtol in RTOL:
                run(solver, rtol)  # compiles
                began = time.perf_counter()
                trajectory = run(solver, rtol)
                seconds = time.perf_counter() - began
                rows.append(
                    {
                        "flow": flow_name,
                        "init_scale": init_scale,
                        "solver": name,
                        "rtol": rtol,
                        "result": str(trajectory.result.code),
                        "steps": trajectory.stats["num_accepted_steps"],
                        "rejected": trajectory.stats["num_rejected_steps"],
                        "seconds": seconds,
                        "test_loss_error": abs(float(trajectory.data.test_loss[-1]) / reference - 1),
                    }
                )
                print(rows[-1], flush=True)
    store("schemes", {"n_train": n_train, "width": width, "rows": rows, "peak_gib": peak_memory_gib()})
    print(aligned(list(rows[0]), [list(row.values()) for row in rows]))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:] or (100, 1000)))
