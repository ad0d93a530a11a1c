"""The synthetic regression of [A]: Gaussian inputs, and targets from a small two-layer teacher."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float64

from .._core import DataError, require_bool, require_float64, require_integer, require_memory, stream
from ..models import MeanFieldNetwork
from ._problem import Problem

_BLOCK_SIZE = 256


def teacher_student(
    n_train: int = 500,
    n_test: int = 2000,
    input_dim: int = 10,
    teacher_width: int = 5,
    activation: str = "silu",
    *,
    key: Any,
    n_validation: int = 0,
    unit_norm: bool = False,
) -> Problem:
    """Noiseless regression on a teacher y = (1/m) sum_j v_j s(u_j.x + b_j) of m units, with the squared loss.

    Inputs are x ~ N(0, I_d), or with `unit_norm` their directions x/||x||; all weights u, b, v of the teacher are ~ N(0, 1).
    The teacher is kept as `problem.teacher`, a `MeanFieldNetwork`, so that feature recovery can be measured against it.

    Each part has its own random stream: the teacher, the validation and the test data do not depend on `n_train`, and a smaller
    training (test) set is exactly the beginning of a larger one.

    **Arguments:**

    - `n_train`: the number N of training samples, at least 1.
    - `n_test`: the number of test samples, at least 0 (0: no test data).
    - `input_dim`: the number d of features of an input, at least 1.
    - `teacher_width`: the number m of the teacher's units, at least 1.
    - `activation`: the teacher's activation, by name (`gnflow.models.activation_names`).
    - `key`: a JAX key.
    - `n_validation`: the number of validation samples, at least 0 (0: no validation data).
    - `unit_norm`: whether inputs have the Euclidean norm 1, an option of [A]'s released code.

    **Returns:** a `Problem` with C = 1 output.

    **Raises:** `DataError` for counts that are not such integers, `ModelError` for sizes or an activation with which no teacher
    can be made, `PrecisionError` without float64.

    Source: [A] (arXiv 2302.02904), whose released code draws from the same distributions, with d = 10, m = 5, N = 500 and
    10,000 test samples. The numbers differ because its random generator is another one.
    """
    require_float64((), "teacher_student")
    n_train = require_integer(DataError, "n_train", n_train, least=1)
    n_test = require_integer(DataError, "n_test", n_test, least=0)
    n_validation = require_integer(DataError, "n_validation", n_validation, least=0)
    input_dim = require_integer(DataError, "input_dim", input_dim)
    (unit_norm,) = require_bool(DataError, unit_norm=unit_norm)
    size = 8.0 * (n_train + n_test + n_validation) * input_dim
    counted = "n_train + n_test" + (" + n_validation" if n_validation else "")
    what = f"{counted} = {n_train + n_test + n_validation} samples of {input_dim} features"
    require_memory(DataError, what, size, "Ask for fewer.")
    teacher = MeanFieldNetwork(
        input_dim=input_dim,
        width=teacher_width,
        activation=activation,
        init_scale=1.0,
        output_init_scale=1.0,
        key=stream(key, "teacher"),
    )
    data: dict[str, Any] = {}
    for which, count in (("train", n_train), ("validation", n_validation), ("test", n_test)):
        if count:
            data[f"x_{which}"], data[f"y_{which}"] = _draw_samples(teacher, stream(key, f"x_{which}"), count, unit_norm)
    return Problem(**data, teacher=teacher, name="teacher_student")


def _draw_samples(
    teacher: MeanFieldNetwork, key: Any, num_samples: int, unit_norm: bool
) -> tuple[np.ndarray, np.ndarray]:
    # Whole blocks are drawn and cut at the end. Every block has its own key and the same shape for any number of samples, so
    # that a smaller set is the beginning of a larger one to the last bit, and one program serves all sizes.
    blocks = [
        _draw_block(teacher, jr.fold_in(key, index), unit_norm) for index in range(-(-num_samples // _BLOCK_SIZE))
    ]
    x, y = (np.concatenate(arrays)[:num_samples] for arrays in zip(*blocks, strict=True))
    return x, y


@eqx.filter_jit
def _draw_block(
    teacher: MeanFieldNetwork, key: Any, unit_norm: bool
) -> tuple[Float64[Array, "block input_dim"], Float64[Array, "block 1"]]:
    x = jr.normal(key, (_BLOCK_SIZE, teacher.hidden_weight.shape[1]), dtype=jnp.float64)
    if unit_norm:
        x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    return x, jax.vmap(teacher)(x)
