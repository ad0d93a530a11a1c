"""The limit of infinite width of gradient flow and Gauss-Newton flow on one problem, and what its intervals are worth.

    python experiments/infinite_width/run.py [smoke | laptop] [OUT]

Carries out two sweeps in OUT (by default runs/infinite_width) and writes results/SIZE.json, results/table-SIZE.md and, for
laptop, the figures docs/images/infinite_width_*.png.

- widths: both flows over widths that double, with one network a seed at each width, eps = EPS/M;
- blocks: gradient flow with as many networks a seed at each width as use all particles of the largest one.

The problem has 40 samples in 4 dimensions and a teacher of 3 neurons, from key 0.
"""

import datetime
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402 (after the setting)

import gnflow as gn  # noqa: E402
from gnflow.plots import save  # noqa: E402
from gnflow.simulate import versions  # noqa: E402
from gnflow.theory._width_fit import fit_widths  # noqa: E402

HERE = Path(__file__).parent
EPS = 0.1  # times 1/M: the damping of the Gauss-Newton flow
TIMES = (1.0, 10.0, 100.0)  # of the tables
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"widths": [10, 20, 40], "seeds": 4, "end": 10.0},
    "laptop": {"widths": [50, 100, 200, 400, 800, 1600], "seeds": 16, "end": 100.0},
}
FLOWS = {"gradient_flow": "gradient flow", "gauss_newton": "Gauss-Newton flow"}
BLOCKS = 4  # widths of the second sweep, the smallest ones


def main(name: str, out: Path) -> None:
    size = SIZES[name]
    out.mkdir(parents=True, exist_ok=True)
    problem = gn.problems.teacher_student(n_train=40, n_test=400, input_dim=4, teacher_width=3, key=jax.random.key(0))
    arrays = {part: np.asarray(getattr(problem, part)) for part in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(out / "data.npz", **arrays)
    gn.sweep(widths_table(size, out), out / "widths", progress=True)
    gn.sweep(blocks_table(size, out), out / "blocks", progress=True)
    times = [time for time in TIMES if time <= size["end"]]
    limits = gn.theory.infinite_width(out / "widths")
    narrow = size["widths"][:BLOCKS]
    same_widths = gn.load(out / "widths").sel(flow="gradient_flow", width=narrow)
    compared = {
        "one network": gn.theory.infinite_width(same_widths),
        "blocks": gn.theory.infinite_width(out / "blocks", flow="gradient_flow"),
    }
    for limit in (limits, *compared.values()):
        print(limit, "\n")
    record = {
        "command": f"python experiments/infinite_width/run.py {name}",
        "widths": size["widths"],
        "seeds": size["seeds"],
        "eps": f"{EPS}/M",
        "limits": {flow: rows(limits, times, flow=flow) for flow in FLOWS},
        "in_words": dict(limits.cases),
        "compared": {one: rows(limit, times) for one, limit in compared.items()},
        "compared_widths": narrow,
        "coverage": coverage(),
        "versions": versions(),
        "cores": os.cpu_count(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (results / f"table-{name}.md").write_text(tables(record))
    if name == "laptop":
        for flow in FLOWS:
            save(limits.plot(flow=flow), HERE.parents[1] / "docs" / "images" / f"infinite_width_{flow}.png")


def widths_table(size: dict[str, Any], out: Path) -> dict[str, Any]:
    widths = size["widths"]
    values = {"model.width": widths, "flows.gauss_newton.damping.value": [EPS / width for width in widths]}
    flows = {
        "gradient_flow": {"kind": "gradient"},
        "gauss_newton": {"kind": "gauss_newton", "damping": {"kind": "constant", "value": EPS}},
    }
    return {**common(size, out), "name": "widths", "flows": flows, "axes": {"width": {"values": values}}}


def blocks_table(size: dict[str, Any], out: Path) -> dict[str, Any]:
    widths = size["widths"][:BLOCKS]
    pairs = [(width, block) for width in widths for block in range(widths[-1] // width)]
    axis = {
        "values": {"model.width": [width for width, _ in pairs], "model.block": [block for _, block in pairs]},
        "labels": [f"{width}, block {block}" for width, block in pairs],
    }
    return {
        **common(size, out),
        "name": "blocks",
        "flows": {"gradient_flow": {"kind": "gradient"}},
        "axes": {"width": axis},
    }


def common(size: dict[str, Any], out: Path) -> dict[str, Any]:
    return {
        "problem_seed": 0,
        "model_seeds": list(range(size["seeds"])),
        "problem": {"kind": "file", "path": str(out.absolute() / "data.npz")},
        "model": {"kind": "mean_field"},
        "integration": {
            "t1": size["end"],
            "rtol": 1e-5,
            "saveat": np.geomspace(0.1, size["end"], 3 * len(TIMES) + 1).round(6),
        },
    }


def rows(limit: gn.theory.InfiniteWidth, times: list[float], **positions: Any) -> list[dict[str, float]]:
    """Limit, half of its interval, beta, half of its interval, and the p-value, at each time."""
    found = []
    for time in times:
        point = limit.data.sel(positions).sel(time=time, method="nearest")
        half = float(point.upper - point.limit)
        quantile = half / float(point.standard_error)
        found.append(
            {
                "time": float(point.time),
                "limit": float(point.limit),
                "half": half,
                "beta": float(point.slope),
                "beta_half": quantile * float(point.slope_error),
                "p": float(point.p_value),
            }
        )
    return found


def coverage(trials: int = 4000) -> list[dict[str, float]]:
    """How often 95% intervals cover the limit, and how often a law that holds is denied at 5%, on samples of known law.

    y = 1 + 5/M + xi + 2 (z^2 - 1)/M with z normal and xi the mean of M standard normal particles, which the widths of a seed
    share.
    """
    widths = np.asarray([50.0, 100.0, 200.0, 400.0])
    rng = np.random.default_rng(0)
    found = []
    for seeds in (2, 4, 8, 16):
        shape = (seeds, len(widths), trials)
        particles = np.sqrt(np.diff([0.0, *widths]))[:, None]
        xi = np.cumsum(rng.normal(size=shape) * particles, axis=1) / widths[:, None]
        values = 1 + (5 / widths)[:, None] + xi + 2 * (rng.normal(size=shape) ** 2 - 1) / widths[:, None]
        fit = fit_widths(widths, values, 0.95)
        covered = np.abs(fit.limit - 1) <= fit.quantile * fit.limit_error
        found.append({"seeds": seeds, "covered": float(np.mean(covered)), "denied": float(np.mean(fit.p_value < 0.05))})
    return found


def tables(record: dict[str, Any]) -> str:
    lines = ["| flow | t | L | beta | p |", "|---|---|---|---|---|"]
    for flow, found in record["limits"].items():
        lines += [f"| {FLOWS[flow]} | {row(one)} |" for one in found]
    lines += ["", f"| widths {record['compared_widths']} | t | L | beta | p |", "|---|---|---|---|---|"]
    for what, found in record["compared"].items():
        lines += [f"| {what} | {row(one)} |" for one in found]
    lines += [
        "",
        "| seeds | 95% intervals that cover the limit | laws that hold and are denied at 5% |",
        "|---|---|---|",
    ]
    lines += [f"| {one['seeds']} | {one['covered']:.1%} | {one['denied']:.1%} |" for one in record["coverage"]]
    return "\n".join(lines) + "\n"


def row(one: dict[str, float]) -> str:
    digits = max(3, math.ceil(math.log10(abs(one["limit"]) / one["half"])) + 2)
    numbers = (
        f"{one['limit']:.{digits}g} +- {one['half']:.2g} | {one['beta']:.3g} +- {one['beta_half']:.2g} | {one['p']:.2g}"
    )
    return f"{one['time']:g} | {numbers}"


if __name__ == "__main__":
    name, out, *_ = [*sys.argv[1:], *["laptop", "runs/infinite_width"][len(sys.argv) - 1 :]]
    main(name, Path(out))
