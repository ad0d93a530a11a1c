"""The cells of the study: data, network, seeds. The protocol is in docs/features_first.md."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gnflow as gn

INPUT_DIM = 10


@dataclasses.dataclass(frozen=True)
class Cell:
    """One set of data and one network; what the seed draws is the data and the first weights.

    **Attributes:**

    - `name`: its name in the results.
    - `data`: "teacher_student", "diabetes", "wine", "iris" or "digits".
    - `n_train`, `n_test`: the numbers of samples.
    - `tau0`: the standard deviation of the first hidden weights.
    - `width`: the number of particles.
    - `teacher_width`: the number of the teacher's particles.
    - `noise`: the standard deviation of the noise on training targets, in units of theirs. Test targets have none.
    """

    name: str
    data: str = "teacher_student"
    n_train: int = 200
    n_test: int = 2000
    tau0: float = 0.01
    width: int = 1000
    teacher_width: int = 5
    noise: float = 0.0

    def problem(self, seed: int) -> gn.Problem:
        """The training and test data of a seed."""
        key = jax.random.fold_in(jax.random.key(seed), 0)
        return _DATA[self.data](self, key)

    def model(self, seed: int, problem: gn.Problem) -> gn.models.MeanFieldNetwork:
        """The network at the start, with an output layer of zeros."""
        return gn.models.MeanFieldNetwork(
            problem.input_dim,
            self.width,
            problem.num_outputs,
            init_scale=self.tau0,
            key=jax.random.fold_in(jax.random.key(seed), 1),
        )


def _teacher_student(cell: Cell, key: Any) -> gn.Problem:
    clean = gn.problems.teacher_student(
        cell.n_train, cell.n_test, input_dim=INPUT_DIM, teacher_width=cell.teacher_width, key=key
    )
    drawn = jax.random.normal(jax.random.fold_in(key, 2), clean.y_train.shape)
    noisy = clean.y_train + cell.noise * jnp.std(clean.y_train) * drawn
    return gn.Problem(clean.x_train, noisy, clean.x_test, clean.y_test, name="teacher_student")


def _diabetes(cell: Cell, key: Any) -> gn.Problem:
    return gn.problems.diabetes(cell.n_train, cell.n_test, key=key)


def _digits(cell: Cell, key: Any) -> gn.Problem:
    return gn.problems.digits(cell.n_train, cell.n_test, key=key, task="regression")


def _column(load: str, column: int) -> Callable[[Cell, Any], gn.Problem]:
    """A measured column of a data set of scikit-learn's from the others, its class left out; standardised."""

    def make(cell: Cell, key: Any) -> gn.Problem:
        from sklearn import datasets

        table = getattr(datasets, load)().data
        rows = np.asarray(jax.random.permutation(key, len(table)))
        train, test = rows[: cell.n_train], rows[len(rows) - cell.n_test :]
        x, y = np.delete(table, column, axis=1), table[:, column]
        return gn.Problem(x[train], y[train], x[test], y[test], standardise=True, name=load.removeprefix("load_"))

    return make


_DATA: dict[str, Callable[[Cell, Any], gn.Problem]] = {
    "teacher_student": _teacher_student,
    "diabetes": _diabetes,
    "digits": _digits,
    "wine": _column("load_wine", 0),  # alcohol from twelve other measurements
    "iris": _column("load_iris", 3),  # petal width from three other lengths
}

# In the order in which they are run.
LAPTOP = (
    Cell("N 200, tau0 0.01"),
    Cell("N 100, tau0 0.01", n_train=100),
    Cell("N 200, tau0 0.1", tau0=0.1),
    Cell("N 100, tau0 0.1", n_train=100, tau0=0.1),
    Cell("noise 0.1", noise=0.1),
    Cell("noise 0.3", noise=0.3),
    Cell("diabetes", "diabetes", n_train=300, n_test=142),
    Cell("wine", "wine", n_train=120, n_test=58),
    Cell("iris", "iris", n_train=100, n_test=50),
    Cell("teacher of 2", teacher_width=2),
    Cell("teacher of 20", teacher_width=20),
    Cell("N 200, tau0 1", tau0=1.0),
    Cell("digits", "digits", n_train=100, n_test=1000),
    Cell("N 500, tau0 0.01", n_train=500),
)
PAPER = (
    *(
        Cell(f"N {n}, tau0 {tau0:g}", n_train=n, n_test=10_000, tau0=tau0, width=5000)
        for n in (100, 500, 1000, 2000)
        for tau0 in (0.01, 0.1, 1.0)
    ),
    *(Cell(f"teacher of {m}", n_train=500, n_test=10_000, width=5000, teacher_width=m) for m in (2, 10, 20)),
    *(Cell(f"noise {noise:g}", n_train=500, n_test=10_000, width=5000, noise=noise) for noise in (0.1, 0.3)),
)
SMOKE = (
    Cell("N 200, tau0 0.01", n_train=16, n_test=20, width=30),
    Cell("noise 0.1", n_train=16, n_test=20, width=30, noise=0.1),
    Cell("iris", "iris", n_train=16, n_test=20, width=30),
)
SIZES: dict[str, tuple[tuple[Cell, ...], tuple[int, ...]]] = {
    "smoke": (SMOKE, (100, 101)),
    "laptop": (LAPTOP, tuple(range(100, 110))),
    "paper": (PAPER, tuple(range(100, 110))),
}
