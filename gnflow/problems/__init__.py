"""Problems: data and a loss, from arrays, files and packages; residuals, such as those of differential equations."""

from collections.abc import Callable
from pathlib import Path

from .._core import look_up
from ._augmentation import (
    AbstractAugmentation as AbstractAugmentation,
    CropAndFlip as CropAndFlip,
    augmentation_kinds as augmentation_kinds,
)
from ._base import (
    OF_A_TERM as OF_A_TERM,
    OF_A_TEST as OF_A_TEST,
    AbstractProblem as AbstractProblem,
    Observable as Observable,
)
from ._cifar10 import cifar10 as cifar10, cifar10_files
from ._collocation import Collocation as Collocation, ResidualTerm as ResidualTerm
from ._diabetes import diabetes as diabetes
from ._digits import digits as digits
from ._files import data_file, from_file as from_file
from ._frame import from_frame as from_frame
from ._mnist import mnist as mnist, mnist_files
from ._mnist_5k import mnist_5k as mnist_5k
from ._names import Names as Names
from ._problem import Problem as Problem
from ._residual_problem import ResidualProblem as ResidualProblem
from ._standardise import Standardisation as Standardisation
from ._teacher_student import teacher_student as teacher_student
from .equations import (
    Box as Box,
    RelativeError as RelativeError,
    allen_cahn as allen_cahn,
    burgers as burgers,
    heat as heat,
    helmholtz as helmholtz,
    laplacian as laplacian,
    poisson as poisson,
    scalar as scalar,
    second_derivative as second_derivative,
)

problem_kinds: dict[str, Callable[..., AbstractProblem]] = {
    "teacher_student": teacher_student,
    "digits": digits,
    "diabetes": diabetes,
    "mnist": mnist,
    "mnist_5k": mnist_5k,
    "cifar10": cifar10,
    "file": from_file,
    "poisson": poisson,
    "heat": heat,
    "burgers": burgers,
    "allen_cahn": allen_cahn,
    "helmholtz": helmholtz,
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
