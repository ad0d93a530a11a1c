"""Slow, obvious implementations: the whole Jacobian by forward mode, everything else in NumPy.

Nothing of gnflow is imported here. Index of output c of sample n: n C + c; weights in the order of the given leaves.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

# Tiny functions run once or twice: optimising them takes longer than running them.
QUICK = {"xla_backend_optimization_level": 0}
EPSILON = np.finfo(np.float64).eps


def flat(arrays: list[Any]) -> np.ndarray:
    """The numbers of all arrays in one vector."""
    return np.concatenate([np.asarray(array).reshape(-1) for array in arrays])


def quickly(function: Callable, *arguments: Any) -> Any:
    """`function(*arguments)`, compiled as one piece without optimisation; it returns a tree of arrays."""
    arrays, rest = eqx.partition(arguments, eqx.is_array)
    compiled = jax.jit(lambda given: function(*eqx.combine(given, rest)), compiler_options=QUICK)
    return compiled(arrays)


def jacobian(model: Any, leaves: Callable[[Any], list[Any]], x: Any) -> np.ndarray:
    """J (nC, P) with respect to the arrays `leaves(model)`, column by column (forward mode)."""
    return np.asarray(jacobian_function(model, leaves, x)(jnp.asarray(flat(leaves(model))))[0])


def jacobian_function(model: Any, leaves: Callable[[Any], list[Any]], x: Any) -> Callable:
    """The vector of weights -> (J, outputs (n, C)): a JAX function, so that J can be differentiated again."""
    shapes = [array.shape for array in leaves(model)]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    x = jnp.asarray(x)

    def all_outputs(vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        parts = [part.reshape(shape) for part, shape in zip(jnp.split(vector, ends), shapes, strict=True)]
        outputs = jax.vmap(eqx.tree_at(leaves, model, parts))(x).reshape(x.shape[0], -1)
        return outputs.reshape(-1), outputs

    return jax.jit(jax.jacfwd(all_outputs, has_aux=True), compiler_options=QUICK)


@dataclasses.dataclass(frozen=True)
class DenseCase:
    """A case's outputs (n, C) and Jacobians (nC, P) on training and test inputs, and the loss's gradient (NC,)."""

    outputs: np.ndarray
    jacobian: np.ndarray
    test_outputs: np.ndarray
    test_jacobian: np.ndarray
    gradient: np.ndarray


@functools.cache
def dense_case(case: Any) -> DenseCase:
    """The oracle for one of `oracles.cases.CASES`; one compilation, kept for the whole session."""
    problem = case.problem
    function = jacobian_function(case.model, case.leaves, np.concatenate([problem.x_train, problem.x_test]))
    both, outputs = map(np.asarray, function(jnp.asarray(flat(case.leaves(case.model)))))
    samples, rows = problem.x_train.shape[0], problem.y_train.size
    gradient = loss_gradient(problem.loss, outputs[:samples], problem.y_train)
    return DenseCase(outputs[:samples], both[:rows], outputs[samples:], both[rows:], gradient)


def two_layer_outputs(u: Any, b: Any, v: Any, s: Callable, scale: float, exponent: float, x: Any) -> np.ndarray:
    """f(x) = (scale / M^exponent) sum_i v_i s(u_i . x + b_i), (n, C), particle by particle."""
    u, v, x = np.asarray(u), np.asarray(v), np.asarray(x)
    total = np.zeros((x.shape[0], v.shape[1]))
    for i in range(u.shape[0]):
        bias = 0.0 if b is None else float(b[i])
        for n in range(x.shape[0]):
            total[n] += v[i] * s(float(np.dot(u[i], x[n])) + bias)
    return scale / u.shape[0] ** exponent * total


def two_layer_gram(u: Any, b: Any, v: Any, s: Callable, derivative: Callable, factor: float, x: Any) -> np.ndarray:
    """A = J J^T of the two-layer network of `two_layer_outputs`, from J written out row by row."""
    u, v, x = np.asarray(u), np.asarray(v), np.asarray(x)
    num_outputs = v.shape[1]
    rows = []
    for n in range(x.shape[0]):
        for c in range(num_outputs):
            row = []
            for i in range(u.shape[0]):
                z = float(np.dot(u[i], x[n])) + (0.0 if b is None else float(b[i]))
                slope = v[i, c] * derivative(z)
                row += [*(slope * x[n]), *([] if b is None else [slope])]
                row += [s(z) if e == c else 0.0 for e in range(num_outputs)]
            rows.append(factor * np.array(row))
    jac = np.stack(rows)
    return jac @ jac.T


def loss_gradient(loss: Any, f: Any, y: Any) -> np.ndarray:
    """The gradient (NC,) of `loss.value` in the outputs f (N, C), by automatic differentiation."""
    return np.asarray(quickly(jax.grad(loss.value), jnp.asarray(f), jnp.asarray(y))).reshape(-1)


def hessian_matrix(loss: Any, f: Any, y: Any) -> np.ndarray:
    """The Hessian (NC, NC) of `loss.value` in the outputs f (N, C), by differentiating twice."""
    matrix = quickly(jax.hessian(loss.value), jnp.asarray(f), jnp.asarray(y))
    return np.asarray(matrix).reshape(np.size(f), np.size(f))


def fisher_matrix(loss_name: str, f: np.ndarray, delta: float = 1.0) -> np.ndarray:
    """E_y[grad l grad l^T] / N, block by block: sums over the outcomes, or a fine Riemann sum for real targets."""
    num_samples, num_outputs = f.shape
    blocks = np.zeros((f.size, f.size))
    for n in range(num_samples):
        here = slice(n * num_outputs, (n + 1) * num_outputs)
        if loss_name == "softmax":
            p = np.exp(f[n] - np.max(f[n]))
            p /= p.sum()
            scores = p[None, :] - np.eye(num_outputs)
            block = sum(p[k] * np.outer(scores[k], scores[k]) for k in range(num_outputs))
        elif loss_name == "logistic":
            p = 1 / (1 + np.exp(-f[n]))
            block = np.diag(p * (p - 1) ** 2 + (1 - p) * p**2)
        else:
            block = _fisher_of_residual(np.inf if loss_name == "squared" else delta) * np.eye(num_outputs)
        blocks[here, here] = block / num_samples
    return blocks


@functools.cache
def _fisher_of_residual(delta: float) -> float:
    r = np.linspace(-60, 60, 1_200_001)
    size = np.abs(r)
    density = np.exp(
        -np.where(size <= delta, size**2 / 2, np.minimum(delta, 1e3) * (size - np.minimum(delta, 1e3) / 2))
    )
    return float(np.sum(np.clip(r, -delta, delta) ** 2 * density) / np.sum(density))


def symmetric_power(matrix: np.ndarray, power: float, shift: float = 0.0) -> np.ndarray:
    """(matrix + shift)^power on the modes above the rank cut-off, 0 on the others."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    kept = np.maximum(eigenvalues, 0) + shift > len(eigenvalues) * EPSILON * np.max(np.abs(eigenvalues))
    values = np.where(kept, np.where(kept, np.maximum(eigenvalues, 0) + shift, 1.0) ** power, 0.0)
    return vectors @ np.diag(values) @ vectors.T


def primal_gauss_newton(jac: np.ndarray, metric: np.ndarray, gradient: np.ndarray, damping: float) -> np.ndarray:
    """-(J^T H J + eps I)^(-1) J^T g, the P x P form; with eps = 0 the pseudo-inverse."""
    matrix = jac.T @ metric @ jac
    right = jac.T @ gradient
    if damping > 0:
        return -np.linalg.solve(matrix + damping * np.eye(matrix.shape[0]), right)
    return -np.linalg.pinv(matrix, rcond=1e-12, hermitian=True) @ right


def image_projection(metric: np.ndarray) -> np.ndarray:
    """The orthogonal projection onto the image of a symmetric matrix."""
    return metric @ np.linalg.pinv(metric, rcond=1e-12, hermitian=True)


def prox_linear_direction(
    jac: np.ndarray, outputs: np.ndarray, gradient: Callable, hessian: Callable, gamma: float
) -> np.ndarray:
    """argmin_d L(f + J d) + ||d||^2/(2 gamma), (P,), in the coordinates of J's right singular vectors.

    Newton's method with every matrix formed, gamma growing to its value in small factors; each step by a QR factorisation of
    (H^(1/2) J; I/sqrt(gamma)), whose condition number is the root of the Hessian's, and refined once.

    **Arguments:** `gradient`, `hessian`: of L as functions of outputs (N, C): (N, C) and (N, C, N, C).
    """
    left, sizes, right = np.linalg.svd(jac, full_matrices=False)
    kept = sizes > 1e-13 * sizes[0]
    jac, right = left[:, kept] * sizes[kept], right[kept]
    d = np.zeros(jac.shape[1])
    for strength in np.geomspace(min(1e-3, gamma), gamma, max(2, int(2 * np.log10(gamma * 1e3)))):

        def slope(d: np.ndarray, strength: float = strength) -> np.ndarray:
            changed = outputs + (jac @ d).reshape(outputs.shape)
            return jac.T @ np.asarray(gradient(changed)).reshape(-1) + d / strength

        for _ in range(200):
            metric = np.asarray(hessian(outputs + (jac @ d).reshape(outputs.shape))).reshape(outputs.size, -1)
            stacked = np.concatenate([symmetric_power(metric, 0.5) @ jac, np.eye(len(d)) / np.sqrt(strength)])
            upper = np.linalg.qr(stacked, mode="r")
            step = np.zeros_like(d)
            for _ in range(2):
                left_over = -slope(d) - stacked.T @ (stacked @ step)
                step = step + np.linalg.solve(upper, np.linalg.solve(upper.T, left_over))
            low, high = 0.0, 1.0
            if step @ slope(d + step) > 1e-3 * abs(step @ slope(d)):
                for _ in range(50):
                    middle = (low + high) / 2
                    low, high = (low, middle) if step @ slope(d + middle * step) > 0 else (middle, high)
                step = low * step
            d = d + step
            if np.linalg.norm(step) <= 1e-13 * np.linalg.norm(d):
                break
    return right.T @ d
