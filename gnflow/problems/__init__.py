"""Problems (data and a loss): from arrays and files, synthetic, from scikit-learn, MNIST and CIFAR-10."""

from collections.abc import Callable
from pathlib import Path

from .._core import look_up
from ._base import AbstractProblem as AbstractProblem, Observable as Observable
from ._cifar10 import cifar10 as cifar10, cifar10_files
from ._collocation import Collocation as Collocation, ResidualTerm as ResidualTerm
from ._diabetes import diabetes as diabetes
from ._digits import digits as digits
from ._files import data_file, from_file as from_file
from ._mnist import mnist as mnist, mnist_files
from ._problem import Problem as Problem
from ._residual_problem import ResidualProblem as ResidualProblem
from ._teacher_student import teacher_student as teacher_student

problem_kinds: dict[str, Callable[..., AbstractProblem]] = {
    "teacher_student": teacher_student,
    "digits": digits,
    "diabetes": diabetes,
    "mnist": mnist,
    "cifar10": cifar10,
    "file": from_file,
}

# For the kinds that read the user's files: a function of the problem's options that returns these files, in a fixed order.
data_file_kinds: dict[str, Callable[..., tuple[Path, ...]]] = {
    "mnist": mnist_files,
    "cifar10": cifar10_files,
    "file": data_file,
}


def get_problem(kind: str) -> Callable[..., AbstractProblem]:
    """The function that makes the problem that configurations call `kind`, from keyword arguments and `key`.

    **Raises:** `ConfigError` for an unknown kind, with the nearest valid one.
    """
    return look_up(kind, problem_kinds, "problem kind")
