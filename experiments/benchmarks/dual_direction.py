"""A quadratic dual direction of an MLP against the gradient, over N, C and P, and whether "auto" takes the cheaper products."""

import equinox as eqx
import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402 (after the setting)
from _record import aligned, interleaved_seconds, peak_memory_gib, store  # noqa: E402

import gnflow as gn  # noqa: E402
from gnflow.geometry.dual import QuadraticOracle, gram_products  # noqa: E402

INPUT_DIM, ITERATIONS, GAMMA = 64, 10, 100.0
# (N, C, width, hidden layers). The first is the size at which the costs are promised: P = 1.07e6.
SIZES = (
    (500, 10, 1000, 2),
    (100, 10, 1000, 2),
    (500, 10, 300, 2),
    (500, 10, 100, 2),
    (2000, 10, 300, 2),
    (500, 1, 1000, 2),
    (500, 1, 300, 2),
    (2000, 1, 300, 2),
    (100, 1, 300, 2),
    (32, 10, 100, 2),
    (8, 1, 1000, 2),
)
DENSE_LIMIT = 5000  # outputs NC beyond which the dense way is not timed


def measure(samples: int, classes: int, width: int, depth: int) -> dict:
    """Seconds and temporary memory of the gradient and of the direction by each way, at one size."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, INPUT_DIM))
    if classes > 1:
        y, loss = np.eye(classes)[rng.integers(classes, size=samples)], gn.losses.SoftmaxCrossEntropy()
    else:
        y, loss = rng.normal(size=(samples, 1)), gn.losses.SquaredLoss()
    problem = gn.Problem(x, y, loss=loss)
    model = gn.models.MLP(INPUT_DIM, width, depth, classes, key=jax.random.key(1))
    system = gn.System(problem, model)
    weights = system.weights(model)
    ways = ["matrix_free"] + (["dense"] if samples * classes <= DENSE_LIMIT else [])
    programs = {"gradient": eqx.filter_jit(lambda w, s: jax.grad(s.train_loss)(w))}
    programs |= {way: eqx.filter_jit(_direction(way)) for way in ways}
    seconds = interleaved_seconds(
        {name: lambda program=program: program(weights, system) for name, program in programs.items()}, repeats=5
    )
    mib = {
        name: program.lower(weights, system).compile().compiled.memory_analysis().temp_size_in_bytes / 2**20
        for name, program in programs.items()
    }
    chosen = jax.eval_shape(lambda w: gram_products(system.tangent(w), "auto", ITERATIONS).gram, weights)
    taken = "matrix_free" if chosen is None else "dense"
    return {
        "samples": samples,
        "outputs": classes,
        "num_weights": sum(leaf.size for leaf in jax.tree.leaves(weights)),
        "width": width,
        "iterations": int(programs["matrix_free"](weights, system)[1]),
        "seconds": seconds,
        "over_gradient": {way: seconds[way] / seconds["gradient"] for way in ways},
        "temporary_mib": mib,
        "memory_over_gradient": {way: mib[way] / mib["gradient"] for way in ways},
        "auto": taken,
        "auto_over_faster": seconds[taken] / min(seconds[way] for way in ways) if taken in seconds else None,
    }


def _direction(way: str):
    oracle = QuadraticOracle(ITERATIONS, 0.0, way)

    def direction(weights, system):
        tangent = system.tangent(weights)
        found = oracle.solve(tangent, system.loss, system.problem.y_train, GAMMA)
        return found.displacement(tangent), found.diagnostics.iterations

    return direction


def main() -> None:
    rows = []
    for size in SIZES:
        rows.append(measure(*size))
        print(rows[-1], flush=True)
    store(
        "dual_direction",
        {"gamma": GAMMA, "input_dim": INPUT_DIM, "rows": rows, "peak_gib": peak_memory_gib()},
    )
    header = ["N", "C", "P", "gradient [ms]", "free/grad", "dense/grad", "MiB/MiB", "auto", "over faster"]
    print(aligned(header, [_cells(row) for row in rows]))


def _cells(row: dict) -> list:
    over = row["over_gradient"]
    return [
        *(row[name] for name in ("samples", "outputs", "num_weights")),
        1e3 * row["seconds"]["gradient"],
        over["matrix_free"],
        over.get("dense", "-"),
        row["memory_over_gradient"]["matrix_free"],
        row["auto"],
        row["auto_over_faster"] or "-",
    ]


if __name__ == "__main__":
    main()
