"""One exponential step against the sum of its parts: two N x M x N products, one eigh, its velocity evaluations."""

import equinox as eqx
import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402 (after the setting)
from _record import interleaved_seconds, peak_memory_gib, store, table  # noqa: E402
from paper_problem import paper_problem  # noqa: E402

import gnflow as gn  # noqa: E402


def main() -> None:
    n_train, width = 500, 5000
    problem, model, gauss_newton = paper_problem(n_train, width)
    model = eqx.tree_at(lambda m: m.output_weight, model, jax.random.normal(jax.random.key(1), (width, 1)))
    solver = gn.solvers.ExponentialRungeKutta()
    left = jax.random.normal(jax.random.key(2), (n_train, width))
    product = jax.jit(lambda a: a @ a.T)
    eigh = jax.jit(jnp.linalg.eigh)
    numbers, rows = {}, []
    for name, flow in (("gradient", gn.flows.GradientFlow()), ("gauss_newton", gauss_newton)):
        system = flow.system(problem, model)
        weights = system.weights(model)
        term = gn.solvers.LinearisedTerm(flow, system)
        gram = eqx.filter_jit(lambda w, system=system: system.tangent(w).gram())(weights)
        velocity = eqx.filter_jit(lambda term, w: term.vf(0.0, w, None))

        @eqx.filter_jit
        def step(term, w):
            return solver.step(term, jnp.asarray(0.0), jnp.asarray(1.0), w, None, None, False)[:2]

        seconds = interleaved_seconds(
            {
                "product": lambda: product(left),
                "eigh": lambda gram=gram: eigh(gram),
                "velocity": lambda velocity=velocity, term=term, weights=weights: velocity(term, weights),
                "step": lambda step=step, term=term, weights=weights: step(term, weights),
            },
            repeats=15,
        )
        # The first of the four velocities comes with the linearisation: of it only what is not Gram matrix and eigh.
        parts = 2 * seconds["product"] + seconds["eigh"] + 3 * seconds["velocity"]
        temporary = step.lower(term, weights).compile().compiled.memory_analysis().temp_size_in_bytes / 2**20
        numbers[name] = {
            "seconds": seconds,
            "parts_seconds": parts,
            "ratio": seconds["step"] / parts,
            "temporary_mib": temporary,
        }
        rows += [(f"{name}: {part} [s]", f"{value:.4f}") for part, value in seconds.items()]
        rows += [(f"{name}: ratio to the sum of the parts", f"{numbers[name]['ratio']:.2f}")]
        rows += [(f"{name}: temporary memory [MiB]", f"{temporary:.0f}")]
    store("step_cost", {"n_train": n_train, "width": width, **numbers, "peak_gib": peak_memory_gib()})
    print(table(rows))


if __name__ == "__main__":
    main()
