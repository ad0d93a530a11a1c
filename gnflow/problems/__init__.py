"""Problems: data joined with a loss, from arrays, from files, synthetic, and the real data sets of scikit-learn."""

from collections.abc import Callable

from .._core import ConfigError, nearest_name
from ._diabetes import diabetes as diabetes
from ._digits import digits as digits
from ._files import from_file as from_file
from ._problem import Problem as Problem
from ._teacher_student import teacher_student as teacher_student

problem_kinds: dict[str, Callable[..., Problem]] = {
    "teacher_student": teacher_student,
    "digits": digits,
    "diabetes": diabetes,
    "file": from_file,
}


def get_problem(kind: str) -> Callable[..., Problem]:
    """The function that makes the problem configurations call `kind`, from keyword arguments and `key`.

    **Raises:** `ConfigError` for an unknown kind, with the nearest valid one.
    """
    if kind not in problem_kinds:
        raise ConfigError(f"unknown problem kind {kind!r}; {nearest_name(kind, problem_kinds)}")
    return problem_kinds[kind]
