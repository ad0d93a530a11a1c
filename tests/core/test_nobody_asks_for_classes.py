"""A flow, a loss, a damping rule or a solver states its own laws: outside of its package nobody asks what class it is."""

import ast
from pathlib import Path

import pytest

import gnflow
from gnflow.flows import flow_kinds
from gnflow.geometry import output_metrics
from gnflow.geometry.damping import Schedule, damping_kinds
from gnflow.geometry.directions import direction_solver_kinds, preconditioner_kinds
from gnflow.losses import loss_kinds
from gnflow.solvers import ExplicitRungeKutta, solver_kinds

ROOT = Path(gnflow.__file__).parent
HOMES = {
    "flows": [*flow_kinds.values()],
    "losses": [*loss_kinds.values()],
    "geometry": [*damping_kinds.values(), Schedule, *direction_solver_kinds.values(), *preconditioner_kinds.values()],
    "solvers": [*(kind for kind in solver_kinds.values() if kind.__module__.startswith("gnflow")), ExplicitRungeKutta],
}
HOMES["geometry"] += [type(metric) for metric in output_metrics.values()]
CONCRETE = {kind.__name__: home for home, kinds in HOMES.items() for kind in kinds if isinstance(kind, type)}
# A theorem about the directions of one flow takes that flow's own numbers.
ALLOWED = {("theory/_dual_directions.py", "DualGaussNewtonFlow")}
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def asked(source: str) -> set[str]:
    """The names of classes that a source compares with: in isinstance and issubclass, by `type(x) is`, by their name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
        ):
            found |= {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
            found |= {part.attr for part in ast.walk(node.args[1]) if isinstance(part, ast.Attribute)}
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            of_type = any(
                isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "type"
                for side in sides
                for part in ast.walk(side)
            )
            if of_type:
                found |= {part.id for side in sides for part in ast.walk(side) if isinstance(part, ast.Name)}
                found |= {
                    str(part.value) for side in sides for part in ast.walk(side) if isinstance(part, ast.Constant)
                }
        if isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name):
            found.add(node.cls.id)
    return found


@pytest.mark.parametrize("file", FILES)
def test_nobody_asks(file):
    here = {
        name
        for name in asked((ROOT / file).read_text(encoding="utf-8")) & CONCRETE.keys()
        if not file.startswith(CONCRETE[name] + "/") and (file, name) not in ALLOWED
    }
    assert not here, f"{file} asks for {sorted(here)}: let the class state what is asked for."


@pytest.mark.parametrize(
    "source",
    [
        "isinstance(flow, GradientFlow)",
        "isinstance(flow.dynamics, A | GradientFlow)",
        "isinstance(flow, (A, flows.GradientFlow))",
        "type(flow) is GradientFlow",
        "type(flow).__name__ == 'GradientFlow'",
        "match flow:\n    case GradientFlow():\n        pass",
    ],
)
def test_the_check_sees_who_asks(source):
    assert "GradientFlow" in asked(source)
