"""The rows of J of a model without a closed form: of all samples at once, and one sample after the other."""

import functools
import time
from typing import Any

import equinox as eqx
import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402 (after the setting)
import jax.random as jr  # noqa: E402
from _record import aligned, interleaved_seconds, peak_memory_gib, store  # noqa: E402
from choice_problems import SmallCNN  # noqa: E402

import gnflow as gn  # noqa: E402
from gnflow._core import jit_for_steps, tree_size  # noqa: E402

KEY = jr.key(20230206)
NAMES = ("at once", "one by one", "gnflow")


class WiderCNN(eqx.Module):
    """Two convolutions without strides, each with SiLU and a pooling of 2 x 2 pixels, and a linear layer."""

    layers: tuple[eqx.nn.Conv2d, ...]
    last: eqx.nn.Linear
    side: int = eqx.field(static=True)

    def __init__(self, side: int, channels: int, *, key: Any):
        first, second, last = jr.split(key, 3)
        self.layers = (
            eqx.nn.Conv2d(1, channels, 3, padding=1, key=first),
            eqx.nn.Conv2d(channels, 2 * channels, 3, padding=1, key=second),
        )
        self.last = eqx.nn.Linear(2 * channels * (side // 4) ** 2, 10, key=last)
        self.side = side

    def __call__(self, x: jax.Array) -> jax.Array:
        """The outputs (C,) of one image (d,)."""
        hidden = x.reshape(1, self.side, self.side)
        for layer in self.layers:
            hidden = eqx.nn.AvgPool2d(2, 2)(jax.nn.silu(layer(hidden)))
        return self.last(hidden.reshape(-1))


class Attention(eqx.Module):
    """An image as eight rows of pixels: an embedding, attention, LayerNorm, a perceptron, and the mean of the rows."""

    embedding: eqx.nn.Linear
    attention: eqx.nn.MultiheadAttention
    norm: eqx.nn.LayerNorm
    perceptron: eqx.nn.MLP
    last: eqx.nn.Linear

    def __init__(self, *, key: Any, size: int = 32):
        keys = jr.split(key, 4)
        self.embedding = eqx.nn.Linear(8, size, key=keys[0])
        self.attention = eqx.nn.MultiheadAttention(4, size, key=keys[1])
        self.norm = eqx.nn.LayerNorm(size)
        self.perceptron = eqx.nn.MLP(size, size, 2 * size, 1, key=keys[2])
        self.last = eqx.nn.Linear(size, 10, key=keys[3])

    def __call__(self, x: jax.Array) -> jax.Array:
        """The outputs (C,) of one image (64,)."""
        rows = jax.vmap(self.embedding)(x.reshape(8, 8))
        rows = rows + self.attention(rows, rows, rows)
        rows = rows + jax.vmap(self.perceptron)(jax.vmap(self.norm)(rows))
        return self.last(jnp.mean(rows, axis=0))


CASES = {
    "convolutions with strides, 8 x 8": (SmallCNN(10, key=KEY), 64, 100),
    "convolutions, 8 x 8, 8 and 16 channels": (WiderCNN(8, 8, key=KEY), 64, 100),
    "convolutions, 8 x 8, 32 and 64 channels": (WiderCNN(8, 32, key=KEY), 64, 100),
    "convolutions, 16 x 16, 8 and 16 channels": (WiderCNN(16, 8, key=KEY), 256, 100),
    "attention": (Attention(key=KEY), 64, 100),
    "perceptron, width 128": (eqx.nn.MLP(64, 10, 128, 2, key=KEY), 64, 100),
    "perceptron, width 16, one output": (eqx.nn.MLP(10, 1, 16, 2, key=KEY), 10, 2000),
}


def main() -> None:
    rows = []
    for name, (model, size, samples) in CASES.items():
        rows.append({"case": name, **measured(model, size, samples)})
        print(rows[-1], flush=True)
        store("jacobian_rows", {"rows": rows, "peak_gib": peak_memory_gib()})
    header = ["model", "rows", "weights", *NAMES, "ratio", *(f"cold: {name}" for name in NAMES)]
    cells = [
        [
            row["case"],
            row["num_rows"],
            row["num_weights"],
            *(row["seconds"][name] for name in NAMES),
            row["ratio"],
            *(row["cold_seconds"][name] for name in NAMES),
        ]
        for row in rows
    ]
    print(aligned(header, cells))


def measured(model: Any, size: int, samples: int) -> dict[str, Any]:
    x = jr.normal(KEY, (samples, size))
    outputs = jax.eval_shape(model, x[0]).shape[0]
    system = gn.System(gn.Problem(x, jnp.zeros((samples, outputs))), model)
    weights, structure = system.weights(model), system.structure

    def of_one(weights: Any, one: jax.Array) -> Any:
        return jax.jacrev(lambda w: eqx.combine(w, structure)(one))(weights)

    # They return one number each, so that no time goes into handing over large arrays.
    programs = {
        "at once": jit_for_steps(lambda w, x: _norm(jax.vmap(of_one, (None, 0))(w, x))),
        "one by one": jit_for_steps(lambda w, x: _norm(jax.lax.map(lambda one: of_one(w, one), x))),
        "gnflow": jit_for_steps(lambda w, x: _norm(system.tangent(w, x)._jacobian_rows(x))),
    }
    cold = {}
    for kind, program in programs.items():
        began = time.perf_counter()
        jax.block_until_ready(program(weights, x))
        cold[kind] = time.perf_counter() - began
    seconds = interleaved_seconds({kind: functools.partial(run, weights, x) for kind, run in programs.items()}, 3)
    return {
        "num_weights": tree_size(weights),
        "num_rows": samples * outputs,
        "seconds": seconds,
        "cold_seconds": cold,
        "ratio": seconds["at once"] / seconds["one by one"],
    }


def _norm(rows: Any) -> jax.Array:
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(rows))


if __name__ == "__main__":
    main()
