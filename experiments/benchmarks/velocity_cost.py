"""One Gauss-Newton velocity against its floor: two N x M x N products and the eigendecomposition it needs."""

import equinox as eqx
import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402 (after the setting)
from _record import interleaved_seconds, peak_memory_gib, store, table  # noqa: E402
from paper_problem import paper_problem  # noqa: E402

import gnflow as gn  # noqa: E402


def main() -> None:
    n_train, width = 500, 5000
    problem, model, flow = paper_problem(n_train, width)
    # Away from v = 0, where half of the Gram matrix would vanish.
    model = eqx.tree_at(lambda m: m.output_weight, model, jax.random.normal(jax.random.key(1), (width, 1)))
    system = flow.system(problem, model)
    weights = system.weights(model)
    left = jax.random.normal(jax.random.key(2), (n_train, width))
    gram = eqx.filter_jit(lambda w: system.tangent(w).gram())(weights)
    velocity = eqx.filter_jit(lambda w: flow.velocity(0.0, w, system))
    product = jax.jit(lambda a: a @ a.T)
    eigh = jax.jit(jnp.linalg.eigh)
    gradient = eqx.filter_jit(lambda w: gn.flows.GradientFlow().velocity(0.0, w, system))
    seconds = interleaved_seconds(
        {
            "product": lambda: product(left),
            "eigh": lambda: eigh(gram),
            "velocity": lambda: velocity(weights),
            "gradient_flow_velocity": lambda: gradient(weights),
        },
        repeats=15,
    )
    floor = 2 * seconds["product"] + seconds["eigh"]
    ratio = seconds["velocity"] / floor
    temporary = velocity.lower(weights).compile().compiled.memory_analysis().temp_size_in_bytes / 2**20
    jacobian = n_train * width * 12 * 8 / 2**20
    store(
        "velocity_cost",
        {
            "n_train": n_train,
            "width": width,
            "seconds": seconds,
            "floor_seconds": floor,
            "ratio_to_floor": ratio,
            "product_gflops": 2e-9 * n_train**2 * width / seconds["product"],
            "temporary_mib": temporary,
            "jacobian_mib": jacobian,
            "peak_gib": peak_memory_gib(),
        },
    )
    print(
        table(
            [
                ("N x M x N product [s]", f"{seconds['product']:.4f}"),
                ("eigh of the Gram matrix [s]", f"{seconds['eigh']:.4f}"),
                ("Gauss-Newton velocity [s]", f"{seconds['velocity']:.4f}"),
                ("gradient-flow velocity [s]", f"{seconds['gradient_flow_velocity']:.4f}"),
                ("ratio to two products + eigh", f"{ratio:.2f}"),
                ("temporary memory [MiB]", f"{temporary:.0f}"),
                ("an N x M(d+2) Jacobian would be [MiB]", f"{jacobian:.0f}"),
            ]
        )
    )


if __name__ == "__main__":
    main()
