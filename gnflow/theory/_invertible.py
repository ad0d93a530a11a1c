"""Whether the NTK Gram matrix is invertible along a run, as far as eigenvalues tell."""

import numpy as np

from ._check import Check
from ._evidence import Evidence


def invertibility(evidence: Evidence) -> tuple[list[Check], dict[str, float]]:
    """The check that A is invertible at every time the reference measures, and its extreme eigenvalues."""
    checks = [evidence.repeated()]
    if not checks[0].met:
        return checks, {}
    data = evidence.flow_run.data
    smallest, error = (data[f"band_{name}"].to_numpy() for name in ("smallest", "eigenvalue_error"))
    least = int(np.argmin(smallest - error))
    checks.append(
        Check(
            "sigma_min > 0 along the run",
            float(smallest[least]),
            ">",
            0.0,
            error=float(error[least]),
            rigorous=False,
            remark=f"least at t = {float(data.time[least]):.4g}, of {len(smallest)} measured times; "
            "error NC eps sigma_max of the eigendecomposition",
        )
    )
    return checks, {
        "least sigma_min": float(smallest.min()),
        "largest sigma_max": float(data.band_largest.max()),
    }
