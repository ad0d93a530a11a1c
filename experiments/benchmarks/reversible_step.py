"""One exact Gauss-Newton step of a reversible network on digits against what it cannot do without; its memory over depth."""

import equinox as eqx
import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402 (after the setting)
import numpy as np  # noqa: E402
from _record import interleaved_seconds, peak_memory_gib, store, table  # noqa: E402

import gnflow as gn  # noqa: E402

SAMPLES, BOTTLENECK, BLOCKS = 512, 1000, 2
DEPTHS = (2, 8, 32)


def main() -> None:
    problem = gn.problems.digits(n_train=SAMPLES, n_test=0, key=jax.random.key(0))
    flow = gn.flows.ReversibleGaussNewtonFlow()

    def system_of(blocks: int):
        width = problem.input_dim
        model = gn.models.ReversibleMLP(width, BOTTLENECK, blocks, 10, key=jax.random.key(1))
        system = flow.system(problem, model)
        return model, system, system.weights(model)

    @eqx.filter_jit
    def step(weights, system):
        velocity, diagnostics = flow.velocity_and_diagnostics(0.0, weights, system)
        return jax.tree.map(lambda w, v: w + v, weights, velocity), diagnostics.half_block_rank

    model, system, weights = system_of(BLOCKS)
    features = model.scan(lambda x, block: (x, block[0].features_and_slopes(x[:, :32])[0]), problem.x_train)[1][0]
    gram = jax.jit(lambda a: a @ a.T + 1.0)(features)
    eigh = jax.jit(jnp.linalg.eigh)
    inverse = eqx.filter_jit(lambda model, x: model.inverse(x))
    outputs = eqx.filter_jit(lambda model, x: model.hidden_features(x))
    seconds = interleaved_seconds(
        {
            "step": lambda: step(weights, system),
            "eigh": lambda: eigh(gram),
            "product": lambda: jax.block_until_ready(_product(features)),
            "inverse": lambda: inverse(model, problem.x_train),
            "forward": lambda: outputs(model, problem.x_train),
            "pinv (NumPy)": lambda: np.linalg.pinv(np.asarray(features)),
        },
        repeats=7,
    )
    # Four features' Gram matrices and their decompositions, one pass to the outputs and one back.
    parts = 2 * BLOCKS * (seconds["eigh"] + seconds["product"]) + seconds["inverse"] + seconds["forward"]
    temporary = {}
    for blocks in DEPTHS:
        _, deep, deep_weights = system_of(blocks)
        compiled = step.lower(deep_weights, deep).compile().compiled
        temporary[blocks] = compiled.memory_analysis().temp_size_in_bytes / 2**20
    numbers = {
        "samples": SAMPLES,
        "bottleneck": BOTTLENECK,
        "blocks": BLOCKS,
        "seconds": seconds,
        "parts_seconds": parts,
        "ratio": seconds["step"] / parts,
        "ratio_to_decompositions": seconds["step"] / (2 * BLOCKS * seconds["eigh"]),
        "half_block_rank": np.asarray(step(weights, system)[1]).tolist(),
        "temporary_mib": temporary,
        "peak_gib": peak_memory_gib(),
    }
    store("reversible_step", numbers)
    rows = [(f"{part} [s]", f"{value:.4f}") for part, value in seconds.items()]
    rows += [("step over the parts it needs", f"{numbers['ratio']:.2f}")]
    rows += [("step over its four decompositions", f"{numbers['ratio_to_decompositions']:.2f}")]
    rows += [(f"temporary memory, {blocks} blocks [MiB]", f"{mib:.1f}") for blocks, mib in temporary.items()]
    print(table(rows))


@jax.jit
def _product(features):
    return features @ features.T


if __name__ == "__main__":
    main()
