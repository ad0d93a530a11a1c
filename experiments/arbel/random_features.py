"""Random features three ways, in closed form: the model is linear, so that each mode of the features goes its own way.

- `exact`: the interpolation of least norm, over all modes above the rank cut-off of rounding.
- `released`: as in the released code of Arbel et al. 2023: least squares of least norm with eigenvalues up to 1e-10 of the
  largest cut off, then at most 999 Gauss-Newton steps of lambda = 100 on the output layer, damped by max(1e-7, smallest
  eigenvalue), to a relative loss of 1e-8.
- `damped`: Gauss-Newton flow of the output layer with that damping, to the same loss (`trainable = "output"` in TOML).

The last two as runs: `gn.iterate` from `gn.geometry.fit_output_layer`, and `gn.simulate`, of `gn.flows.Frozen(flow, "output")`.
`check` compares with both.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.optimize import brentq

import gnflow as gn

CUTOFF, FLOOR, STEP_SIZE, NUM_STEPS, TARGET = 1e-10, 1e-7, 100.0, 999, 1e-8


class Fit(NamedTuple):
    """What one way leaves: losses, and its steps (released) or flow time (damped)."""

    train_loss: float
    test_loss: float
    length: float


class Modes:
    """The features of a model on a problem, their Gram matrix A of the output layer, and its modes."""

    def __init__(self, problem: gn.Problem, model: gn.models.MeanFieldNetwork):
        self.y, self.y_test = np.asarray(problem.y_train)[:, 0], np.asarray(problem.y_test)[:, 0]
        features = jax.jit(jax.vmap(model.hidden_features))
        self.train = model.output_factor * np.asarray(features(problem.x_train))
        # Batches: 10,000 test points of 5000 particles are 400 MB.
        batches = np.array_split(np.asarray(problem.x_test), max(1, len(self.y_test) // 1000))
        products = [model.output_factor * np.asarray(features(batch)) @ self.train.T for batch in batches]
        self.cross = np.concatenate(products)
        values, self.vectors = np.linalg.eigh(self.train @ self.train.T)
        self.eigenvalues = np.maximum(values, 0.0)
        self.amplitudes = self.vectors.T @ self.y
        self.damping = max(FLOOR, self.eigenvalues[0])
        self.first_loss = 0.5 * np.mean(self.y**2)

    def fit(self, coefficients: np.ndarray, length: float = 0.0) -> Fit:
        """The losses of v = F^T Q c."""
        residual = self.eigenvalues * coefficients - self.amplitudes
        outputs = self.cross @ (self.vectors @ coefficients)
        return Fit(0.5 * np.sum(residual**2) / len(self.y), 0.5 * np.mean((outputs - self.y_test) ** 2), length)

    def least_squares(self, cutoff: float) -> np.ndarray:
        """c of least squares of least norm: y/lambda of the modes above `cutoff` times the largest."""
        kept = self.eigenvalues > cutoff * self.eigenvalues[-1]
        return np.where(kept, self.amplitudes / np.where(kept, self.eigenvalues, 1.0), 0.0)

    def exact(self) -> Fit:
        """All modes that rounding leaves."""
        return self.fit(self.least_squares(len(self.y) * np.finfo(float).eps))

    def released(self) -> Fit:
        """Least squares, then steps as long as the loss is above the target. The first modes are done, the others go on."""
        start = self.least_squares(CUTOFF)
        rate = STEP_SIZE / len(self.y) / (self.eigenvalues + self.damping)  # of c, for a residual of 1
        left, factor = self.amplitudes - self.eigenvalues * start, 1 - self.eigenvalues * rate
        for steps in range(NUM_STEPS + 1):
            if 0.5 * np.mean((left * factor**steps) ** 2) <= TARGET * self.first_loss:
                break
        # sum_j (1 - lambda rate)^j rate left = (1 - (1 - lambda rate)^n)/lambda left, without cancellation for a small lambda
        small = self.eigenvalues * rate < 0.5
        gone = -np.expm1(steps * np.log1p(-np.where(small, self.eigenvalues * rate, 0.0)))
        gone = np.where(small, gone, 1 - factor**steps)
        positive = self.eigenvalues > 0
        amount = np.where(positive, gone / np.where(positive, self.eigenvalues, 1.0), steps * rate)
        return self.fit(start + amount * left, steps)

    def damped(self) -> Fit:
        """The flow until the loss is at the target."""
        rate = self.eigenvalues / (self.eigenvalues + self.damping) / len(self.y)

        def excess(log_time: float) -> float:
            left = self.amplitudes * np.exp(-rate * np.exp(log_time))
            return np.log(0.5 * np.mean(left**2)) - np.log(TARGET * self.first_loss)

        time = np.exp(brentq(excess, 0.0, 80.0, xtol=1e-12))
        factor = np.where(
            rate * time > 1e-12,
            -np.expm1(-rate * time) / np.where(self.eigenvalues > 0, self.eigenvalues, 1.0),
            time / (len(self.y) * self.damping),
        )
        return self.fit(factor * self.amplitudes, time)


def three_ways(problem: gn.Problem, model: gn.models.MeanFieldNetwork) -> dict[str, Any]:
    """A row: train and test loss of each way, and the steps and flow time."""
    modes = Modes(problem, model)
    row: dict[str, Any] = {"damping": modes.damping, "kept_modes": int(np.count_nonzero(modes.least_squares(CUTOFF)))}
    for name in ("exact", "released", "damped"):
        fit = getattr(modes, name)()
        row |= {f"{name}_train_loss": fit.train_loss / modes.first_loss, f"{name}_test_loss": fit.test_loss}
        row |= {f"{name}_length": fit.length} if fit.length else {}
    return row


def check(problem: gn.Problem, model: gn.models.MeanFieldNetwork) -> dict[str, float]:
    """The relative differences of the test losses of gnflow's runs to the closed form."""
    flow = gn.flows.Frozen(gn.flows.GaussNewtonFlow(damping=gn.damping.SmallestEigenvalue(1.0, FLOOR)), "output")
    modes = Modes(problem, model)
    start = gn.geometry.fit_output_layer(model, problem, CUTOFF)
    released, damped = modes.released(), modes.damped()
    steps = int(released.length)
    run = gn.iterate(
        problem, start, flow, step_size=STEP_SIZE, num_steps=max(1, steps), save_every=max(1, steps), stop=None
    )
    whole = gn.simulate(problem, model, flow, stop=gn.RelativeLoss(TARGET))
    ends = {"released": (run, released), "damped": (whole, damped)}
    return {name: abs(float(of.data.test_loss[-1]) / fit.test_loss - 1) for name, (of, fit) in ends.items()}
