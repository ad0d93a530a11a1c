"""Gauss-Newton and gradient flow of a two-layer ReLU network from kink to kink, in NumPy: patterns of s' are held between
the kinks, and at each one the velocities on both sides are compared."""

import dataclasses

import numpy as np
from scipy.integrate import solve_ivp


@dataclasses.dataclass(frozen=True)
class Network:
    """f_n = factor sum_i v_i max(z_ni, 0), z_ni = u_i . x_n + b_i, weights in the order (u~ = (u, b) by particle, v)."""

    inputs: np.ndarray  # x~ = (x, 1), (N, d + 1)
    targets: np.ndarray  # (N,)
    width: int
    factor: float

    def split(self, w):
        """u~ (M, d + 1) and v (M,)."""
        incoming = w[: -self.width].reshape(self.width, -1)
        return incoming, w[-self.width :]

    def arguments(self, w):
        """z, (N, M)."""
        return self.inputs @ self.split(w)[0].T

    def outputs(self, w, pattern):
        """f with s(z) = pattern z, (N,)."""
        return self.factor * (pattern * self.arguments(w)) @ self.split(w)[1]

    def jacobian(self, w, pattern):
        """J with s' = pattern, (N, P)."""
        incoming = self.factor * (pattern * self.split(w)[1])[:, :, None] * self.inputs[:, None, :]
        outgoing = self.factor * pattern * self.arguments(w)
        return np.concatenate([incoming.reshape(len(pattern), -1), outgoing], axis=1)

    def gauss_newton(self, w, pattern, damping=0.0):
        """-J^T (A/N + eps)^-1 g with H = I/N: the Hessian metric of the squared loss."""
        jacobian, count = self.jacobian(w, pattern), len(pattern)
        gradient = (self.outputs(w, pattern) - self.targets) / count
        return -jacobian.T @ np.linalg.solve(jacobian @ jacobian.T / count + damping * np.eye(count), gradient)

    def gradient_flow(self, w, pattern, mobility=1.0):
        """-m J^T g."""
        gradient = (self.outputs(w, pattern) - self.targets) / len(pattern)
        return -mobility * self.jacobian(w, pattern).T @ gradient

    def rate(self, velocity, pair):
        """z' of the pair (n, i)."""
        return self.inputs[pair[0]] @ self.split(velocity)[0][pair[1]]


def first_slide(network, velocity, start, end, rtol=1e-9):
    """The first time in [0, end] from which a pair stays on its kink, with the pair; None if every kink is passed."""
    time, w = 0.0, start
    pattern = (network.arguments(w) > 0).astype(float)
    while time < end:
        time, w, pair = _to_next_kink(network, velocity, pattern, time, w, end, rtol)
        if pair is None:
            return None
        beyond = pattern.copy()
        beyond[pair] = 1 - beyond[pair]
        near, far = (network.rate(velocity(w, one), pair) for one in (pattern, beyond))
        if near * far < 0:
            return time, (int(pair[0]), int(pair[1]))
        pattern = beyond
    return None


def _to_next_kink(network, velocity, pattern, time, w, end, rtol):
    """Where the flow with this pattern comes to a kink, and whose; None for the pair at the end."""

    def distances(state):
        return (2 * pattern - 1) * network.arguments(state)

    def event(_, state):
        return distances(state).min() + 1e-12  # pairs that were just passed are on the kink, up to rounding

    event.terminal, event.direction = True, -1
    found = solve_ivp(
        lambda _, state: velocity(state, pattern), (time, end), w, "DOP853", rtol=rtol, atol=1e-12, events=event
    )
    time, w = float(found.t[-1]), found.y[:, -1]
    return time, w, np.unravel_index(np.argmin(distances(w)), pattern.shape) if found.status == 1 else None
