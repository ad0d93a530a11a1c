"""What flows of the form w' = -J^T a conserve in networks that are homogeneous from layer to layer."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from .._core import tree_size
from ..models import MLP, MeanFieldNetwork
from ._accuracy import ROUNDING
from ._base import AbstractTheorem, Conclusion, Hypotheses, in_stages
from ._claim import Check, Claim, compare
from ._evidence import Evidence
from ._hypotheses import along_jacobian, continuous_time
from ._rate_band import has_band

_RESOLUTION = 0.05  # of how much the two sides of a law changed
_ROWS = 512  # of a matrix law at once


@dataclasses.dataclass(frozen=True)
class Conservation(AbstractTheorem):
    """Theorem C of docs/theorems/conservation.md, exact fact 4 of docs/theory.md.

    A hidden layer has incoming weights W~ = (W, b), (n, fan_in + 1), and outgoing ones V, (fan_out, n). A flow w' =
    -J^T a of all weights (gradient flow, but Gauss-Newton and the spectral family as well) conserves the diagonal of
    V^T V - W~ W~^T where the activation is positively homogeneous, and all of it where the activation is the identity.
    For gradient flow without biases: Du, Hu, Lee 2018 (arXiv 1806.00900).
    """

    name: ClassVar[str] = "conservation"
    statement: ClassVar[str] = (
        "V^T V - W~ W~^T is constant: its diagonal for a homogeneous activation, the whole for linear networks"
    )
    reference: ClassVar[str] = (
        "docs/theorems/conservation.md, Theorem C; docs/theory.md, exact fact 4; Du, Hu, Lee 2018 (arXiv 1806.00900)"
    )

    @in_stages
    def hypotheses(self, evidence: Evidence):
        """A flow along J^T, a network of homogeneous layers, all weights moving."""
        model, flow = evidence.trajectory.initial_model, evidence.flow
        layered = isinstance(model, MeanFieldNetwork | MLP)
        name = "the model is a two-layer network or a multilayer perceptron"
        yield (
            continuous_time(evidence),
            along_jacobian(flow, remark=type(flow).__name__),
            Check.fact(name, layered, remark=type(model).__name__),
        )
        activation, moving = model.activation, float(tree_size(evidence.start))
        every = float(tree_size([leaf for leaf in jax.tree.leaves(model) if hasattr(leaf, "dtype")]))
        name, remark = "the activation is positively homogeneous", f"it is {activation.name}"
        homogeneous = Check.fact(name, activation.homogeneous, remark)
        yield homogeneous, Check("all weights move", moving, ">=", every), {"number of weights": every}
        # Of other flows nothing is known that says how errors of integration go on.
        name, known = "it is known how errors of integration go on", has_band(flow, evidence.system)
        yield (Check.fact(name, known, "" if known else f"not for {flow!r}, which has no gain"),)
        yield (evidence.repeated(),)

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """One claim for each hidden layer, between the first and the last weights of the reference."""
        start, run, again = evidence.trajectory.initial_model, evidence.flow_run, evidence.replicate_run
        whole = start.activation.is_identity
        models = (start, run.model, again.model)
        claims, constants = [], {}
        layers = zip(*(_sides(model) for model in models), strict=True)
        for layer, (first, last, other) in enumerate(layers, start=1):
            claim, change = _claim(evidence, layer, first, last, other, whole)
            claims.append(claim)
            constants[f"norm of the change of V^T V and of W~ W~^T, layer {layer}"] = change
        return Conclusion(tuple(claims), constants)


class _Sides(NamedTuple):
    """Weights on both sides of a hidden layer: `incoming` W~ (n, fan_in + 1), `outgoing` V (fan_out, n)."""

    incoming: np.ndarray
    outgoing: np.ndarray

    @property
    def norm(self) -> float:
        """sqrt(||V||^2 + ||W~||^2)."""
        return float(np.hypot(np.linalg.norm(self.incoming), np.linalg.norm(self.outgoing)))

    @property
    def largest_unit(self) -> float:
        """The largest sqrt(||v_i||^2 + ||w~_i||^2) over the units i."""
        return float(np.sqrt(np.max(np.sum(self.incoming**2, axis=1) + np.sum(self.outgoing**2, axis=0))))

    def blocks(self, whole: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """V^T V and W~ W~^T by blocks of rows, or their diagonals."""
        if not whole:
            yield np.sum(self.outgoing**2, axis=0), np.sum(self.incoming**2, axis=1)
            return
        for first in range(0, len(self.incoming), _ROWS):
            rows = slice(first, first + _ROWS)
            yield self.outgoing[:, rows].T @ self.outgoing, self.incoming[rows] @ self.incoming.T


def _sides(model: Any) -> list[_Sides]:
    """The weights on both sides of every hidden layer. Fixed factors of layers do not enter (docs/theorems/conservation.md)."""
    if isinstance(model, MeanFieldNetwork):
        return [_Sides(_with_bias(model.hidden_weight, model.hidden_bias), np.asarray(model.output_weight).T)]
    assert isinstance(model, MLP)
    pairs = zip(model.layers[:-1], model.layers[1:], strict=True)
    return [_Sides(_with_bias(lower.weight, lower.bias), np.asarray(upper.weight)) for lower, upper in pairs]


def _with_bias(weight: Any, bias: Any) -> np.ndarray:
    weight = np.asarray(weight)
    return weight if bias is None else np.concatenate([weight, np.asarray(bias)[:, None]], axis=1)


def _claim(
    evidence: Evidence, layer: int, start: _Sides, end: _Sides, again: _Sides, whole: bool
) -> tuple[Claim, float]:
    """The norm of the change of V^T V - W~ W~^T over the sum of the norms of the changes of its two parts."""
    drift = spread = deviation = moved_out = moved_in = size = 0.0
    for first, last, other in zip(start.blocks(whole), end.blocks(whole), again.blocks(whole), strict=True):
        out, inner = last[0] - first[0], last[1] - first[1]
        moved_out += float(np.sum(out**2))
        moved_in += float(np.sum(inner**2))
        drift += float(np.sum((out - inner) ** 2))
        spread += float(np.sum(((last[0] - last[1]) - (other[0] - other[1])) ** 2))
        deviation += float(np.sum(((other[0] - other[1]) - (first[0] - first[1])) ** 2))
        size += float(np.sum(last[0] ** 2 + last[1] ** 2 + first[0] ** 2 + first[1] ** 2))
    moved = moved_out**0.5 + moved_in**0.5
    rounding = ROUNDING * start.incoming.shape[1] * size**0.5
    if moved == 0:  # nothing to compare with
        moved = float("nan")
    promised = _promised(evidence, start, end, whole) / moved
    error = evidence.accuracy.agreement(spread**0.5 / moved, deviation**0.5 / moved, promised, _RESOLUTION)
    part = "V^T V - W~ W~^T" if whole else "||v_i||^2 - ||w~_i||^2 of every unit i"
    name = f"layer {layer}: {part} does not change (norm, relative to the change of its parts)"
    return compare(
        name, drift**0.5 / moved, "==", 0.0, error + rounding / moved, _RESOLUTION, "from start to end"
    ), moved


def _promised(evidence: Evidence, start: _Sides, end: _Sides, whole: bool) -> float:
    """The norm of the change if every step errs as the solver promises: steps (2 |w| e + e^2), e = rtol ||w|| + atol sqrt(P).

    An error e of the weights changes the law's matrix by 2 |w| e + e^2 at most, with |w| the norm of both sides'
    weights, or for a diagonal the largest of one unit. The exact flow from there on conserves the changed value: errors
    of steps add up and never grow.
    """
    error = evidence.accuracy.weight_step
    weight = max(side.norm if whole else side.largest_unit for side in (start, end))
    return evidence.accuracy.steps * (2 * weight * error + error**2)
