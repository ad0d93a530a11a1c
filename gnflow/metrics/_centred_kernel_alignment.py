"""The similarity of two representations of the same inputs."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def centred_kernel_alignment(
    features_a: Float[Array, "samples features_a"], features_b: Float[Array, "samples features_b"]
) -> Float[Array, ""]:
    """Linear CKA, ||X^T Y||^2 / (||X^T X|| ||Y^T Y||) (Frobenius norms), of features X, Y centred over the samples.

    It is between 0 and 1, and is 1 for features that are equal up to rotation, reflection, scale and shift. So it can compare
    representations of different widths, times and runs. It is computed from the k x k matrices above or from the n x n
    matrices X X^T and Y Y^T (<X X^T, Y Y^T> = ||X^T Y||^2), whichever are smaller.

    **Arguments:**

    - `features_a`: features (n, k).
    - `features_b`: features (n, l) on the same n inputs, in the same order.

    **Returns:** a scalar, dimensionless; nan if one of the two does not vary over the inputs.

    Source: Kornblith et al. 2019, "Similarity of neural network representations revisited", Section 3.
    """
    x, y = _centred(features_a), _centred(features_b)
    if x.shape[0] <= max(x.shape[1], y.shape[1]):
        kernel_x, kernel_y = x @ x.T, y @ y.T
        return jnp.vdot(kernel_x, kernel_y) / (jnp.linalg.norm(kernel_x) * jnp.linalg.norm(kernel_y))
    likeness = jnp.sum((x.T @ y) ** 2)
    return likeness / (jnp.linalg.norm(x.T @ x) * jnp.linalg.norm(y.T @ y))


def _centred(features: Float[Array, "samples features"]) -> Float[Array, "samples features"]:
    # CKA does not depend on the scale, and with norm one the fourth powers of very small or large features stay in range.
    centred = features - jnp.mean(features, axis=0, keepdims=True)
    return centred / jnp.linalg.norm(centred)
