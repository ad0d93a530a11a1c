"""Problems: data joined with a loss, from arrays, from files, synthetic, and real: scikit-learn's, MNIST and CIFAR-10."""

from collections.abc import Callable
from pathlib import Path

from .._core import ConfigError, nearest_name
from ._cifar10 import cifar10 as cifar10, cifar10_files
from ._diabetes import diabetes as diabetes
from ._digits import digits as digits
from ._files import from_file as from_file, the_file
from ._mnist import mnist as mnist, mnist_files
from ._problem import Problem as Problem
from ._teacher_student import teacher_student as teacher_student

problem_kinds: dict[str, Callable[..., Problem]] = {
    "teacher_student": teacher_student,
    "digits": digits,
    "diabetes": diabetes,
    "mnist": mnist,
    "cifar10": cifar10,
    "file": from_file,
}

# For the kinds that read files of the user's: which ones, in a fixed order, from the options of the problem.
data_file_kinds: dict[str, Callable[..., tuple[Path, ...]]] = {
    "mnist": mnist_files,
    "cifar10": cifar10_files,
    "file": the_file,
}


def get_problem(kind: str) -> Callable[..., Problem]:
    """The function that makes the problem configurations call `kind`, from keyword arguments and `key`.

    **Raises:** `ConfigError` for an unknown kind, with the nearest valid one.
    """
    if kind not in problem_kinds:
        raise ConfigError(f"unknown problem kind {kind!r}; {nearest_name(kind, problem_kinds)}")
    return problem_kinds[kind]
