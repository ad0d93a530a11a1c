"""Choose by a number that is measured along the whole training set's run."""

import abc

import numpy as np

from ...problems import AbstractProblem
from ._choice import AbstractFeatureChoice, Decision, Probe
from ._readout_metric import ReadoutMetric


class AbstractScoredChoice(AbstractFeatureChoice):
    """A rule that runs the flow once to the end of the first stage, and then again to the saved time that it prefers."""

    @abc.abstractmethod
    def metric(self, readout: str, cutoff: float) -> ReadoutMetric:
        """The metric with one variable, the score."""

    @abc.abstractmethod
    def prefer(self, times: np.ndarray, scores: np.ndarray) -> int:
        """The place of the preferred time, given the saved flow times (n,), from 0 on, and the scores there (n,)."""

    def decide(self, problem: AbstractProblem, readout: str, cutoff: float, probe: Probe) -> Decision:
        """The preferred time."""
        metric = self.metric(readout, cutoff)
        run = probe(problem, (metric,))
        name = metric.variables(run.system)[0].name
        times, scores = run.data.time.to_numpy(), run.data[name].to_numpy()
        place = self.prefer(times, scores)
        losses = run.data.train_loss.to_numpy()
        found = {"chosen_relative_loss": float(losses[place] / losses[0]), name: float(scores[place])}
        return Decision(t1=float(times[place]), cutoff=cutoff, probes=(run,), found=found)
