"""Energy natural gradient descent for Poisson's equation in NumPy, as Mueller and Zeinhofer state it (arXiv 2302.13163).

Independent of gnflow: the network, its Laplacian and all derivatives in the weights are written out by hand. The step is
-G^+ grad L with G = J^T J of the weighted residuals and L = |r|^2, and its length is the best of 2^0, ..., 2^-30. (As in
the released code, engd_poisson_2d.py: points, scale of first weights, cut-off of the pseudo-inverse, number of steps.)
"""

import time

import numpy as np


def grid(points_per_axis: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Their points: a grid without its edge (784, 2), and each side once (116, 2)."""
    axis = np.linspace(0.0, 1.0, points_per_axis)
    inside = np.stack(np.meshgrid(axis[1:-1], axis[1:-1], indexing="ij"), axis=-1).reshape(-1, 2)
    side, back = axis[:-1], axis[:0:-1]
    sides = [(side, 0 * side), (0 * side + 1, side), (back, 0 * side + 1), (0 * side, back)]
    return inside, np.concatenate([np.stack(pair, axis=1) for pair in sides])


def initial_weights(seed: int, width: int = 32) -> np.ndarray:
    """Normal numbers of standard deviation 0.1: hidden weights (M, 2), biases (M,), output weights (M,), bias."""
    return 0.1 * np.random.default_rng(seed).standard_normal(4 * width + 1)


def values(w: np.ndarray, x: np.ndarray, laplacian: bool) -> tuple[np.ndarray, np.ndarray]:
    """u (n,), or its Laplacian, and the Jacobian in the weights (n, P)."""
    width = (len(w) - 1) // 4
    hidden, bias, output = w[: 2 * width].reshape(width, 2), w[2 * width : 3 * width], w[3 * width : 4 * width]
    t = np.tanh(x @ hidden.T + bias)
    first = 1 - t**2
    if not laplacian:
        columns = output * first
        jacobian = [*(columns * x[:, axis, None] for axis in (0, 1)), columns, t, np.ones((len(x), 1))]
        return t @ output + w[-1], _in_order(jacobian, width)
    second, third = -2 * t * first, first * (6 * t**2 - 2)
    squares = np.sum(hidden**2, axis=1)
    columns = output * squares * third
    moved = [columns * x[:, axis, None] + 2 * output * hidden[:, axis] * second for axis in (0, 1)]
    return second @ (output * squares), _in_order([*moved, columns, second * squares, np.zeros((len(x), 1))], width)


def _in_order(parts: list[np.ndarray], width: int) -> np.ndarray:
    first = np.stack(parts[:2], axis=2).reshape(len(parts[0]), 2 * width)
    return np.concatenate([first, *parts[2:]], axis=1)


def residuals(w: np.ndarray, inside: np.ndarray, sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The residuals, scaled so that half their sum of squares is half of their loss, and the Jacobian."""
    source = 2 * np.pi**2 * np.prod(np.sin(np.pi * inside), axis=1)
    lap, lap_jacobian = values(w, inside, laplacian=True)
    u, u_jacobian = values(w, sides, laplacian=False)
    scale, edge = len(inside) ** -0.5, (4 / len(sides)) ** 0.5  # the square has the measure 1 and its boundary 4
    return np.concatenate([scale * (lap + source), edge * u]), np.concatenate([scale * lap_jacobian, edge * u_jacobian])


def relative_error(w: np.ndarray, points: np.ndarray) -> float:
    exact = np.prod(np.sin(np.pi * points), axis=1)
    return float(np.linalg.norm(values(w, points, laplacian=False)[0] - exact) / np.linalg.norm(exact))


def descend(seed: int, num_steps: int = 51) -> dict[str, list[float]]:
    """Loss, relative L2 error and seconds after each step."""
    inside, sides = grid()
    test = grid(202)[0]
    w, spent = initial_weights(seed), 0.0
    record: dict[str, list[float]] = {"loss": [], "relative_l2": [], "seconds": []}
    for step in range(num_steps + 1):
        if step:
            began = time.perf_counter()
            r, jacobian = residuals(w, inside, sides)
            direction = np.linalg.lstsq(jacobian.T @ jacobian, 2 * jacobian.T @ r, rcond=None)[0]
            lengths = 0.5 ** np.arange(31)
            losses = [np.sum(residuals(w - length * direction, inside, sides)[0] ** 2) for length in lengths]
            w = w - lengths[int(np.nanargmin(losses))] * direction
            spent += time.perf_counter() - began
        record["loss"].append(float(np.sum(residuals(w, inside, sides)[0] ** 2) / 2))
        record["relative_l2"].append(relative_error(w, test))
        record["seconds"].append(spent)
    return record
