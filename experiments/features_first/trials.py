"""The trials that chose the protocol of docs/features_first.md, on seeds that count for nothing else.

    python experiments/features_first/trials.py

Along Gauss-Newton flow on all samples ("whole") and on four fifths of them ("part") the output layer is solved at 60 times,
with each of four cut-offs, and its test and held-out losses are kept beside the share of the first training loss. A line of
results/trials.jsonl for each seed, which is not run again if it is there.
"""

import json
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402 (after the setting)

import gnflow as gn  # noqa: E402
from gnflow._core import stream  # noqa: E402

HERE = Path(__file__).parent
CUTOFFS = (1e-4, 1e-6, 1e-8, 1e-10)
# (N, tau0, noise in units of the targets' standard deviation, seeds)
TRIALS = ((200, 0.01, 0.0, range(5)), (200, 0.1, 0.0, range(3)), (200, 0.01, 0.1, range(3)))


def features(model: Any, x: Any) -> np.ndarray:
    return np.asarray(jax.vmap(model.hidden_features)(x))


def solution(phi: np.ndarray, y: np.ndarray, cutoff: float) -> np.ndarray:
    """The least-squares output weights of minimum norm."""
    eigenvalues, modes = np.linalg.eigh(phi @ phi.T)
    kept = eigenvalues > cutoff * eigenvalues[-1]
    return phi.T @ (modes[:, kept] @ ((modes[:, kept].T @ y) / eigenvalues[kept][:, None]))


def loss(f: np.ndarray, y: np.ndarray) -> float:
    return float(0.5 * np.mean(np.sum((f - y) ** 2, axis=1)))


def along(problem: gn.Problem, model: Any, num_train: int) -> dict[str, Any]:
    """The losses of the solved output layer along Gauss-Newton flow, by cut-off."""
    times = np.geomspace(0.05, 12 * num_train, 60)
    run = gn.simulate(
        problem, model, gn.flows.GaussNewtonFlow(), stop=gn.RelativeLoss(1e-3), saveat_weights=times, throw=False
    )
    saved, training = run.data.time.to_numpy(), run.data.train_loss.to_numpy()
    found: dict[str, Any] = {"share": [], "test": [], "held_out": []}
    for time in times[times <= saved[-1]]:
        state = run.model_at(float(time))
        phi, test = features(state, problem.x_train), features(state, problem.x_test)
        solved = [solution(phi, np.asarray(problem.y_train), cutoff) for cutoff in CUTOFFS]
        found["share"].append(float(training[np.argmin(np.abs(saved - time))] / training[0]))
        found["test"].append([loss(test @ v, np.asarray(problem.y_test)) for v in solved])
        if problem.x_validation is not None:
            held = features(state, problem.x_validation)
            found["held_out"].append([loss(held @ v, np.asarray(problem.y_validation)) for v in solved])
    return found | {"end": float(run.data.test_loss[-1])}


def trial(num_train: int, tau0: float, noise: float, seed: int) -> dict[str, Any]:
    key = jax.random.key(seed)
    clean = gn.problems.teacher_student(num_train, 2000, input_dim=10, teacher_width=5, key=stream(key, "problem"))
    x, y, x_test, y_test = map(np.asarray, (clean.x_train, clean.y_train, clean.x_test, clean.y_test))
    y = y + noise * y.std() * np.random.default_rng(seed).normal(size=y.shape)
    model = gn.models.MeanFieldNetwork(10, 1000, init_scale=tau0, key=stream(key, "model"))
    order = np.random.default_rng(1000 + seed).permutation(num_train)
    held, kept = order[: num_train // 5], order[num_train // 5 :]
    whole = gn.Problem(x, y, x_test, y_test)
    part = gn.Problem(x[kept], y[kept], x_test, y_test, x_validation=x[held], y_validation=y[held])
    descent = gn.simulate(whole, model, gn.flows.GradientFlow(), stop=gn.RelativeLoss(1e-8), throw=False)
    return {
        "n_train": num_train,
        "tau0": tau0,
        "noise": noise,
        "seed": seed,
        "gradient_flow": float(descent.data.test_loss[-1]),
        "whole": along(whole, model, num_train),
        "part": along(part, model, num_train),
    }


def main() -> None:
    file = HERE / "results" / "trials.jsonl"
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    done = {(record["n_train"], record["tau0"], record["noise"], record["seed"]) for record in known}
    for num_train, tau0, noise, seeds in TRIALS:
        for seed in seeds:
            if (num_train, tau0, noise, seed) not in done:
                with file.open("a") as lines:
                    lines.write(json.dumps(trial(num_train, tau0, noise, seed)) + "\n")


if __name__ == "__main__":
    main()
