"""A student that begins with its teacher's units."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .._core import ModelError, require_integer
from ._mean_field import MeanFieldNetwork


def copy_teacher(model: Any, teacher: Any, copies: int = 2) -> MeanFieldNetwork:
    """The student with the teacher's hidden units as its first particles; all other hidden weights, and all v, are zero.

    The features of the teacher are there from the start, so that the output layer alone can fit the targets. With an activation
    that vanishes at 0 (SiLU, tanh, GELU, ReLU) the other particles have no feature and do not move: the network is one of
    `copies` * m particles. In a configuration: `copy_teacher = true` in `[model]`.

    **Arguments:**

    - `model`: the student, a `MeanFieldNetwork` of M particles.
    - `teacher`: a `MeanFieldNetwork` of m units for the same inputs, such as `problem.teacher`; with biases if the student has.
    - `copies`: how many particles each unit of the teacher becomes, at least 1; [A]'s released code makes 2.

    **Raises:** `ModelError` unless both are such networks and the copies fit into the student.

    Source: the released code of [A] (Arbel et al. 2023, arXiv 2302.02904), its option to copy the teacher's network.
    """
    copies = require_integer(ModelError, "copies", copies, least=1)
    for network, role in ((model, "model"), (teacher, "teacher")):
        if not isinstance(network, MeanFieldNetwork):
            raise ModelError(
                f"copy_teacher: the {role} is a {type(network).__name__}; expected a MeanFieldNetwork. A problem has a teacher "
                "if problems.teacher_student made it, or Problem(..., teacher=network) was given one."
            )
    (units, input_dim), (width, own_dim) = teacher.hidden_weight.shape, model.hidden_weight.shape
    if input_dim != own_dim or (teacher.hidden_bias is None) != (model.hidden_bias is None):
        raise ModelError(
            f"copy_teacher: the teacher takes {input_dim} inputs {_biases(teacher)}, the model {own_dim} {_biases(model)}; "
            "expected the same."
        )
    if copies * units > width:
        raise ModelError(
            f"copy_teacher: {copies} copies of {units} units do not fit into {width} particles; make the model wider."
        )

    def copied(own: Any, of_teacher: Any) -> Any:
        return jnp.zeros_like(own).at[: copies * units].set(jnp.concatenate([of_teacher] * copies))

    student = eqx.tree_at(
        lambda network: (network.hidden_weight, network.output_weight),
        model,
        (copied(model.hidden_weight, teacher.hidden_weight), jnp.zeros_like(model.output_weight)),
    )
    if model.hidden_bias is None:
        return student
    return eqx.tree_at(lambda network: network.hidden_bias, student, copied(model.hidden_bias, teacher.hidden_bias))


def _biases(network: MeanFieldNetwork) -> str:
    return "without biases" if network.hidden_bias is None else "with biases"
