"""Time integrators that a run can name: exponential, implicit and explicit Runge-Kutta methods as Diffrax solvers."""

from ..geometry import Decomposition as Decomposition
from ._choice import Situation as Situation, choose_solver as choose_solver
from ._explicit import ExplicitRungeKutta as ExplicitRungeKutta
from ._exponential import ExponentialRungeKutta as ExponentialRungeKutta
from ._exponential_rosenbrock import ExponentialRosenbrock as ExponentialRosenbrock
from ._implicit import LowRankKvaerno5 as LowRankKvaerno5
from ._kinds import (
    Change as Change,
    SolverChoice as SolverChoice,
    check_solver as check_solver,
    solver_kinds as solver_kinds,
    stages_per_step as stages_per_step,
)
from ._linearised import (
    AbstractErrorCarryingSolver as AbstractErrorCarryingSolver,
    AbstractLinearisedSolver as AbstractLinearisedSolver,
)
from ._phi import phi_functions as phi_functions
from ._reporting import AbstractReportingSolver as AbstractReportingSolver, StepReport as StepReport
from ._stabilised import StabilisedRungeKutta as StabilisedRungeKutta
from ._term import LinearisedTerm as LinearisedTerm, PairTerm as PairTerm
from ._wrapping import AbstractWrappingSolver as AbstractWrappingSolver
