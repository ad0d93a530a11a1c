"""A user's own module whose gradient flow is known in closed form, and a place where it fails."""

import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import gnflow as gn


class Linear(eqx.Module):
    """f(x) = w . x with an output of shape (), which is nan where 100 w_0 > edge."""

    w: jax.Array
    edge: jax.Array  # integer, so it is not trained

    @classmethod
    def at(cls, w, edge=10**6):
        return cls(jnp.asarray(w, dtype=float), jnp.asarray(edge, dtype=int))

    def __call__(self, x):
        return jnp.where(100 * self.w[0] > self.edge, jnp.nan, jnp.vdot(self.w, x))


class Axes:
    """Two samples on the axes, without test data: each weight has its own residual r_k, and N = 2.

    Under gradient flow of mobility 1, r_k(t) = r_k(0) exp(-scale_k^2 t / 2).
    """

    def __init__(self, scales=(1.0, 1.0), targets=(3.0, 4.0)):
        self.scales, self.targets = np.array(scales), np.array(targets)
        self.problem = gn.Problem(np.diag(self.scales), self.targets)

    def weights(self, time, start=(0.0, 0.0)):
        limit = self.targets / self.scales
        return limit + (np.array(start) - limit) * np.exp(-(self.scales**2) * time / 2)

    def loss(self, time, start=(0.0, 0.0)):
        return np.sum((self.scales * self.weights(time, start) - self.targets) ** 2) / 4


def flow_down(axes=None, model=None, flow=None, **options):
    """A run of gradient flow with the defaults of `simulate`."""
    axes = Axes() if axes is None else axes
    model = Linear.at([0.0, 0.0]) if model is None else model
    return gn.simulate(axes.problem, model, gn.flows.GradientFlow(1.0) if flow is None else flow, **options)


def arguments_of_a_controller(system):
    """What a controller reads of a run of gradient flow without stop rules and test data."""
    return types.SimpleNamespace(
        system=system,
        probe=None,
        time_scale=1.0,
        horizon=9.0,
        rules=(),
        stop_memories=(),
        first_margins=(),
        measurement=types.SimpleNamespace(flow=gn.flows.GradientFlow()),
    )
