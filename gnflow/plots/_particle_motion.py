"""The motion of particles in a plane, at common stages of the runs of several flows."""

import numpy as np
import xarray as xr

from .._core import ConfigError, look_up
from ._drawable import bounded

HIDDEN = "particle_hidden_weight"
OUTPUT = "particle_output_weight"
TEACHER = "teacher_hidden_weight"
_TIME = "flow_time"
_LOSS = "train_loss"

_CLOCKS = {
    "path": "each flow after the same share of its particles' way",
    "loss": "flows at the same training loss",
    "time": "each flow after the same share of its logarithmic time",
}


def clock_words(clock: str) -> str:
    """What flows have in common in a frame, in words. **Raises:** `ConfigError` for an unknown clock."""
    return look_up(clock, _CLOCKS, "clock of the particles")


def particle_motion(curves: xr.Dataset, num_frames: int = 40, clock: str = "path") -> xr.Dataset:
    """Unit directions of the particles of each flow, projected on a plane, frame by frame.

    The plane is spanned by the two leading principal directions of the teacher's units if there are two or more, and otherwise
    of the particles at the end, weighted by their norm. The `share` of a particle is |u_i| |v_i|, what it can contribute to the
    function, relative to the largest of its flow over all frames. Between saved times weights are interpolated linearly.

    Flows measure time in different units, so frames are aligned by a `clock`:

    - "path": each flow after the same share of the path of its particles' directions. Every frame moves, also while the loss
      stands still.
    - "loss": all flows at the same training loss, in equal steps of its logarithm. A flow that ends sooner waits at its end.
    - "time": each flow after the same share of the logarithm of its flow time.

    **Arguments:**

    - `curves`: what the metric `particles` recorded, as `gnflow.sweeps.load_curves` returns it for one position of the axes and
      one seed: `particle_hidden_weight`, `particle_output_weight`, `flow_time`, `train_loss` and, with a teacher,
      `teacher_hidden_weight`, over "save" and, for several flows, "flow".
    - `num_frames`: the number of frames, at least 2.
    - `clock`: how frames are aligned.

    **Returns:** a data set with `x`, `y`, `share` and the `sign` of v_i (0 for several outputs) over (flow, frame, particle),
    `flow_time` and `relative_loss` over (flow, frame), and with a teacher `teacher_x` and `teacher_y` over "teacher_unit".
    `attrs["clock"]` is the clock. Flows without finite weights are left out.

    **Raises:** `ConfigError` if variables are missing, other axes have several values, the clock is unknown, or no weights are
    finite.
    """
    clock_words(clock)
    if not isinstance(num_frames, int) or num_frames < 2:
        raise ConfigError(f"num_frames = {num_frames!r}; expected an integer of at least 2.")
    for name in (HIDDEN, OUTPUT, _TIME, _LOSS):
        if name not in curves:
            raise ConfigError(
                f"the curves have no {name}; particles are recorded by the metric 'particles', and read by "
                f"load_curves(folder, ['{_LOSS}', '{HIDDEN}', '{OUTPUT}'], ...)."
            )
    runs = _runs(curves)
    plane = _plane(curves, runs)
    totals = [np.log(run["loss"][0] / run["loss"].min()) for run in runs.values()]
    furthest = max(totals)
    frames = {name: _frames(run, plane, num_frames, clock, furthest) for name, run in runs.items()}
    data = xr.concat(frames.values(), dim="flow").assign_coords(flow=list(frames))
    largest = data["share"].max(["frame", "particle"])
    data["share"] = data["share"] / largest.where(largest > 0, 1.0)
    teacher = _teacher(curves)
    if teacher is not None:
        data["teacher_x"], data["teacher_y"] = (("teacher_unit", column) for column in (_unit(teacher) @ plane).T)
    return data.assign_attrs(clock=clock)


def _runs(curves: xr.Dataset) -> dict[str, dict[str, np.ndarray]]:
    """The rows of each flow that are finite: time (T,), loss (T,), hidden (T, K, d), output (T, K, C)."""
    kept = ("flow", "save", "particle", "coordinate", "output", "teacher_unit")
    several = {str(dim): size for dim, size in curves.sizes.items() if dim not in kept and size > 1}
    if several:
        raise ConfigError(
            f"particles are drawn at one position, but the curves vary along {several}; select one value of each."
        )
    data = curves.isel({dim: 0 for dim in curves.dims if dim not in kept}, drop=True)
    data = data if "flow" in data.dims else data.expand_dims(flow=["flow"])
    runs = {}
    for index, name in enumerate(data["flow"].to_numpy().tolist()):
        own = data.isel(flow=index)
        hidden = own[HIDDEN].transpose("save", "particle", "coordinate").to_numpy()
        output = own[OUTPUT].transpose("save", "particle", "output").to_numpy()
        time, loss = own[_TIME].to_numpy(), own[_LOSS].to_numpy()
        rows = (
            np.isfinite(time)
            & np.isfinite(loss)
            & (loss > 0)
            & np.isfinite(bounded(hidden)).all((1, 2))
            & np.isfinite(bounded(output)).all((1, 2))
        )
        if np.count_nonzero(rows) > 1:
            runs[str(name)] = {"time": time[rows], "loss": loss[rows], "hidden": hidden[rows], "output": output[rows]}
    if not runs:
        raise ConfigError("no flow has finite particles at two saved times or more; choose another position.")
    if next(iter(runs.values()))["hidden"].shape[2] < 2:
        raise ConfigError(
            "the particles live in one dimension, and have no directions to draw; take an input of two or more."
        )
    return runs


def _teacher(curves: xr.Dataset) -> np.ndarray | None:
    """The teacher's hidden weights (m, d), which are the same in every run and at every time; None without a teacher."""
    if TEACHER not in curves:
        return None
    values = curves[TEACHER].transpose(..., "teacher_unit", "coordinate").to_numpy()
    flat = values.reshape(-1, *values.shape[-2:])
    finite = flat[np.isfinite(flat).all((1, 2))]
    return finite[0] if len(finite) else None


def _plane(curves: xr.Dataset, runs: dict[str, dict[str, np.ndarray]]) -> np.ndarray:
    """Two orthonormal directions (d, 2) that span the plane."""
    teacher = _teacher(curves)
    vectors = _unit(teacher) if teacher is not None and len(teacher) > 1 else list(runs.values())[-1]["hidden"][-1]
    # With rows of zeros the decomposition completes the plane, also if there are fewer than two vectors.
    padded = np.concatenate([vectors, np.zeros((2, vectors.shape[1]))])
    plane = np.linalg.svd(padded, full_matrices=False)[2][:2].T
    # The sign of a principal direction is arbitrary. It is chosen so that most vectors lie on the positive side.
    return plane * np.where(np.sum(vectors @ plane, axis=0) < 0, -1.0, 1.0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def _frames(run: dict[str, np.ndarray], plane: np.ndarray, num_frames: int, clock: str, furthest: float) -> xr.Dataset:
    progress = _progress(run, clock, furthest)
    # For each stage the last row before it, and the share of the way to the next row.
    stages = np.linspace(0.0, 1.0, num_frames)
    rows = np.interp(stages, progress, np.arange(progress.size, dtype=float))
    before = np.minimum(rows.astype(int), progress.size - 2)
    part = rows - before

    def at(values: np.ndarray) -> np.ndarray:
        weight = part.reshape(-1, *[1] * (values.ndim - 1))
        return (1 - weight) * values[before] + weight * values[before + 1]

    hidden, output = at(run["hidden"]), at(run["output"])
    places = _unit(hidden) @ plane
    over = ("frame", "particle")
    sign = np.sign(output[..., 0]) if output.shape[-1] == 1 else np.zeros(output.shape[:2])
    return xr.Dataset(
        {
            "x": (over, places[..., 0]),
            "y": (over, places[..., 1]),
            "share": (over, np.linalg.norm(hidden, axis=-1) * np.linalg.norm(output, axis=-1)),
            "sign": (over, sign),
            "flow_time": ("frame", at(run["time"])),
            "relative_loss": ("frame", np.exp(at(np.log(run["loss"] / run["loss"][0])))),
        }
    )


def _progress(run: dict[str, np.ndarray], clock: str, furthest: float) -> np.ndarray:
    """The progress at each row (T,), from 0 at the start to 1. It increases strictly."""
    if clock == "loss":
        # While the loss rises, the progress stands still instead of going back.
        gone = np.maximum.accumulate(np.log(run["loss"][0] / run["loss"]))
        progress = gone / (furthest or 1.0)
    elif clock == "time":
        positive = np.log(np.maximum(run["time"], run["time"][1]))
        # The start at time 0 has no logarithm. It is put one logarithmic step before the first saved time.
        positive[0] = 2 * positive[1] - positive[2] if positive.size > 2 else positive[1] - 1
        progress = (positive - positive[0]) / (positive[-1] - positive[0])
    else:
        steps = np.sqrt(np.mean(np.sum(np.diff(_unit(run["hidden"]), axis=0) ** 2, axis=-1), axis=-1))
        total = float(steps.sum())
        # Frozen particles have no path. They are shown at equal numbers of saved times.
        steps = steps / total if total > 0 else np.full(steps.shape, 1 / steps.size)
        progress = np.concatenate([[0.0], np.cumsum(steps)])
    # Ties would make the inverse of the progress ambiguous, so equal rows are separated by rounding.
    return progress + np.arange(progress.size) * 1e-12
