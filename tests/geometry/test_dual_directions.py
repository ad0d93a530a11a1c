"""Dual directions: both models against dense formulas and SciPy, the theorems about cut-off iterations, and what is chosen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import dense
from oracles.cases import LOSSES, NUM_TRAIN, Case

from gnflow._core import ConfigError
from gnflow.geometry import System
from gnflow.geometry.dual import ExactOracle, QuadraticOracle, gram_products
from gnflow.geometry.dual._conjugate_gradients import conjugate_gradients
from gnflow.geometry.dual._products import GramProducts
from gnflow.losses import ScaledIdentity
from gnflow.models import MeanFieldNetwork
from gnflow.problems import Problem

GAMMA = 30.0
COUNTS = (0, 1, 2, 3, 8)


class Setting:
    """One mean-field network, P = 30 and NC = 12, with everything dense."""

    def __init__(self, name):
        case = Case("mean field silu", name, 3, seed=31)
        self.loss, self.y = case.problem.loss, case.problem.y_train
        self.system = System(case.problem, case.model)
        self.tangent = self.system.tangent(self.system.weights(case.model))
        oracle = dense.dense_case(case)
        self.f, self.g, self.gram = oracle.outputs, oracle.gradient, oracle.jacobian @ oracle.jacobian.T
        self.hessian = dense.hessian_matrix(self.loss, self.f, self.y)

    def quadratic_objective(self, a):
        """(1/N) sum q_n(f_n + J_n d) + ||d||^2/(2 gamma) at d = -gamma J^T a, without the constant L(f)."""
        change = -GAMMA * self.gram @ a
        return self.g @ change + change @ self.hessian @ change / 2 + GAMMA / 2 * a @ self.gram @ a

    def exact_objective(self, a, gamma=GAMMA):
        """The same with l_n for q_n, whole."""
        outputs = jnp.asarray(self.f - gamma * (self.gram @ a).reshape(self.f.shape))
        return float(self.loss.value(outputs, self.y)) + gamma / 2 * a @ self.gram @ a

    def dual_objective(self, a, gamma=GAMMA):
        """-(1/N) sum l*(alpha_n) + <alpha, f>/N - gamma/(2 N^2) ||J^T alpha||^2 at alpha = N a."""
        conjugates = self.loss.conjugate(NUM_TRAIN * jnp.asarray(a).reshape(self.f.shape), self.y)
        return -float(jnp.mean(conjugates)) + a @ self.f.reshape(-1) - gamma / 2 * a @ self.gram @ a


@functools.cache
def setting(name):
    return Setting(name)


def solve(oracle, name, gamma=GAMMA, initial=None):
    here = setting(name)
    return dense.quickly(
        lambda tangent, y, start: oracle.solve(tangent, here.loss, y, gamma, start), here.tangent, here.y, initial
    )


def coefficients(direction):
    return np.asarray(direction.coefficients).reshape(-1)


@functools.cache
def solutions(name):
    """The directions after COUNTS iterations, and those of the whole solve by each way, in one program."""
    here = setting(name)
    oracles = {f"{count} iterations": QuadraticOracle(count, products="dense") for count in COUNTS} | {
        "direct": QuadraticOracle(products="dense"),
        "dense": QuadraticOracle(100, 1e-13, "dense"),
        "matrix_free": QuadraticOracle(None, 1e-13, "matrix_free"),
        "exact": ExactOracle(tol=1e-12, products="dense"),
        "exact, 3": ExactOracle(3, products="dense"),
    }
    if name == "softmax":
        oracles["exact, matrix_free"] = ExactOracle(tol=1e-12, products="matrix_free")

    def all_of_them(tangent, y):
        return {key: oracle.solve(tangent, here.loss, y, GAMMA) for key, oracle in oracles.items()}

    return dense.quickly(all_of_them, here.tangent, here.y)


def after(name, count):
    return solutions(name)[f"{count} iterations"]


def check_the_quadratic_direction_is_damped_gauss_newton(name):
    here = setting(name)
    expected = np.linalg.solve(np.eye(len(here.g)) + GAMMA * here.hessian @ here.gram, here.g)
    for way in ("direct", "dense", "matrix_free"):
        found = solutions(name)[way]
        np.testing.assert_allclose(coefficients(found), expected, rtol=0, atol=1e-11 * np.abs(expected).max())
        how = found.diagnostics
        assert bool(how.success)
        assert float(how.damping) == pytest.approx(1 / GAMMA)
        assert 0 <= float(how.relative_residual) < 1e-12
        assert 0 <= float(how.duality_gap) < 1e-20
    assert solutions(name)["direct"].diagnostics.iterations is None
    # Huber's Hessian sees two outputs here; conjugate gradients end there of themselves.
    seen = np.linalg.matrix_rank(here.hessian)
    assert int(solutions(name)["dense"].diagnostics.iterations) <= seen + 2
    assert seen == {"squared": 12, "softmax": 8, "logistic": 12, "huber": 2}[name]


def check_the_displacement_is_minus_gamma_times_the_gradient_of_the_coefficients(name):
    here, found = setting(name), solutions(name)["direct"]
    change = here.tangent.jvp(found.displacement(here.tangent))
    np.testing.assert_allclose(
        np.asarray(change).reshape(-1), -GAMMA * here.gram @ coefficients(found), rtol=1e-9, atol=1e-11
    )


def check_any_number_of_iterations_descends_and_none_is_the_gradient(name):
    here = setting(name)
    np.testing.assert_allclose(coefficients(after(name, 0)), here.g, rtol=1e-12)
    assert int(after(name, 0).diagnostics.iterations) == 0
    for count in COUNTS:
        assert here.g @ here.gram @ coefficients(after(name, count)) > 0
        assert bool(after(name, count).diagnostics.success)  # cutting off is what was asked for


def check_each_iteration_lowers_the_prox_linear_objective_and_the_gap_bounds_it(name):
    here, found = setting(name), solutions(name)
    least = here.quadratic_objective(coefficients(found["direct"]))
    objectives = [here.quadratic_objective(coefficients(after(name, count))) for count in COUNTS]
    gaps = [float(after(name, count).diagnostics.duality_gap) for count in COUNTS]
    rounding = 1e-13 * abs(objectives[0])
    falls = -np.diff(objectives)
    assert np.all(falls >= -rounding)
    assert np.all(falls[:2] > 1e-6 * abs(least))
    for objective, gap in zip(objectives, gaps, strict=True):
        assert gap >= objective - least - rounding
    assert gaps[0] > 1e-3
    assert gaps[-1] < 0.02 * gaps[0]
    # The dual objective rises meanwhile: the two enclose the optimum.
    assert np.all(np.diff(np.array(objectives) - np.array(gaps)) >= -rounding)


def check_an_iterate_is_the_best_of_its_krylov_space(name):
    """a = g + sum of (H A)^j g, j = 1..k, that minimises the objective: dense, with orthonormal columns."""
    here = setting(name)
    quadratic = GAMMA**2 * here.gram @ here.hessian @ here.gram + GAMMA * here.gram
    for count in (1, 2, 3):
        if name == "huber" and count > 2:
            continue
        columns = [here.g]
        for _ in range(count):
            columns.append(here.hessian @ here.gram @ columns[-1])
            columns[-1] /= np.linalg.norm(columns[-1])
        basis = np.linalg.qr(np.stack(columns[1:], axis=1))[0]
        slope = quadratic @ here.g - GAMMA * here.gram @ here.g
        best = here.g - basis @ np.linalg.solve(basis.T @ quadratic @ basis, basis.T @ slope)
        np.testing.assert_allclose(
            coefficients(after(name, count)), best, rtol=0, atol=1e-8 * np.abs(here.g).max(), err_msg=str(count)
        )


def check_the_exact_direction_is_the_fixed_point_of_its_dual_variables(name):
    here = setting(name)
    for way, rtol in (("exact", 1e-11), ("exact, matrix_free", 1e-7)):
        if way not in solutions(name):
            continue
        found = solutions(name)[way]
        a, how = coefficients(found), found.diagnostics
        predicted = here.f - GAMMA * (here.gram @ a).reshape(here.f.shape)
        expected = dense.loss_gradient(here.loss, predicted, here.y)
        np.testing.assert_allclose(a, expected, rtol=0, atol=rtol * np.abs(expected).max())
        np.testing.assert_allclose(found.hessian_outputs, predicted, rtol=0, atol=1e-7)
        assert bool(jnp.all(here.loss.in_conjugate_domain(found.dual_variables, here.y)))
        # Primal and dual objective meet.
        assert here.exact_objective(a) == pytest.approx(here.dual_objective(a), rel=1e-9)
        assert bool(how.success)
        assert 0 <= float(how.relative_residual) < 1e-8
        assert 0 <= float(how.duality_gap) < 1e-10
        assert here.exact_objective(a) < here.exact_objective(np.zeros_like(a))
    if name == "squared":
        np.testing.assert_allclose(coefficients(found), coefficients(solutions(name)["direct"]), rtol=1e-8)
    else:  # the two models differ
        assert np.abs(a - coefficients(solutions(name)["direct"])).max() > 1e-3 * np.abs(a).max()


def check_an_exact_solve_that_is_cut_off_descends_and_bounds_what_is_missing(name):
    here, found = setting(name), solutions(name)["exact, 3"]
    a = coefficients(found)
    assert int(found.diagnostics.iterations) <= 3
    assert here.g @ here.gram @ a > 0
    missing = here.exact_objective(a) - here.exact_objective(coefficients(solutions(name)["exact"]))
    assert -1e-13 <= missing <= float(found.diagnostics.duality_gap) + 1e-13


# One test a loss, so that parallel workers do not compile the same program.
@pytest.mark.parametrize(
    "name",
    [  # One singular Hessian always; the same is seen in every flow of tests/flows/test_dual_gauss_newton.py.
        pytest.param(name, marks=[] if name == "huber" else pytest.mark.slow) for name in LOSSES
    ],
)
def test_what_dual_directions_promise(name):
    check_the_quadratic_direction_is_damped_gauss_newton(name)
    check_the_displacement_is_minus_gamma_times_the_gradient_of_the_coefficients(name)
    check_any_number_of_iterations_descends_and_none_is_the_gradient(name)
    check_each_iteration_lowers_the_prox_linear_objective_and_the_gap_bounds_it(name)
    check_an_iterate_is_the_best_of_its_krylov_space(name)
    check_the_exact_direction_is_the_fixed_point_of_its_dual_variables(name)
    check_an_exact_solve_that_is_cut_off_descends_and_bounds_what_is_missing(name)


def test_where_no_step_can_be_made_the_direction_is_the_gradient(monkeypatch):
    here = setting("squared")
    monkeypatch.setattr("gnflow.geometry.dual._exact.step_length", lambda slope: jnp.zeros(()))
    for oracle in (ExactOracle(2, products="dense"), ExactOracle(products="dense")):
        found = solve(oracle, "squared")
        np.testing.assert_allclose(coefficients(found), here.g, rtol=1e-12)
        assert float(found.diagnostics.relative_residual) > 1.0
        missing = here.exact_objective(here.g) - here.exact_objective(coefficients(solve(QuadraticOracle(), "squared")))
        assert 0 < missing <= float(found.diagnostics.duality_gap)
        assert bool(found.diagnostics.success) == (oracle.max_iterations == 2)


def test_iterations_that_have_lost_their_orthogonality_descend():
    """With gamma ||A|| = 1e7 to 1e8 rounding makes a few of these 16th iterates ascend, by 1e-4 of the cosine."""

    unused = setting("squared").tangent

    def cosine(gram, g, gamma):
        factor = ScaledIdentity(jnp.ones(()))
        found = conjugate_gradients(GramProducts(unused, gram), factor, g, gamma, 0.0, 16)
        a, pulled = g + found.whitened, gram @ g
        return jnp.sum(pulled * a) / jnp.sqrt(jnp.sum(pulled * g) * jnp.sum(a * (gram @ a)))

    draws = [np.random.default_rng(seed) for seed in range(12)]
    bases = np.stack([np.linalg.qr(draw.normal(size=(20, 20)))[0] for draw in draws])
    grams = bases * np.logspace(0, -2, 20) @ bases.transpose(0, 2, 1)
    gradients = np.stack([draw.normal(size=(20, 1)) for draw in draws])
    over_draws = jax.vmap(cosine, (0, 0, None))
    cosines = jax.jit(jax.vmap(over_draws, (None, None, 0)))(grams, gradients, jnp.array([1e7, 1e8]))
    assert cosines.shape == (2, 12)
    assert np.all(cosines >= 0)
    assert np.all(cosines < 1)


def test_a_warm_start_that_ascends_gives_way_to_the_gradient():
    """Solved in the large mode and far off in the small one: less is left of the system than at z = 0, and d ascends."""
    gram, g, gamma = jnp.diag(jnp.array([1.0, 0.01])), jnp.ones((2, 1)), jnp.asarray(1e4)
    solution = -gamma * (gram @ g) / (1 + gamma * jnp.diagonal(gram)[:, None])
    products, factor = GramProducts(setting("squared").tangent, gram), ScaledIdentity(jnp.ones(()))

    def cut_off(far):
        start = solution + far * jnp.array([[0.0], [1.0]])
        return conjugate_gradients(products, factor, g, gamma, 0.0, 0, start).whitened - start

    np.testing.assert_array_equal(cut_off(90.0), 0.0)  # descends
    np.testing.assert_allclose(cut_off(-90.0), -solution + 90.0 * jnp.array([[0.0], [1.0]]), rtol=1e-12)


@pytest.mark.parametrize("model", ["quadratic", "exact"])
def test_a_warm_start_saves_iterations_and_a_bad_one_costs_none(model):
    oracle = {"quadratic": QuadraticOracle(None, 1e-8, "matrix_free"), "exact": ExactOracle(products="dense")}[model]
    here = setting("logistic")
    cold = solve(oracle, "logistic")
    count = int(cold.diagnostics.iterations)
    warm = solve(oracle, "logistic", initial=cold.dual_variables)
    bad = solve(oracle, "logistic", initial=-1e3 * cold.dual_variables)
    assert count >= 4
    assert int(warm.diagnostics.iterations) <= count - 3
    assert int(bad.diagnostics.iterations) == count
    for found in (warm, bad):
        np.testing.assert_allclose(found.dual_variables, cold.dual_variables, rtol=0, atol=1e-6)
    assert np.abs(cold.dual_variables - NUM_TRAIN * here.g.reshape(here.f.shape)).max() > 1e-2


def test_a_tolerance_that_is_out_of_reach_is_said():
    found = solve(QuadraticOracle(None, 0.0, "matrix_free"), "softmax")
    assert not bool(found.diagnostics.success)
    assert float(found.diagnostics.relative_residual) < 1e-12
    loose = solve(QuadraticOracle(None, 1e-2, "matrix_free"), "squared").diagnostics
    assert bool(loose.success)
    assert 1e-6 < float(loose.relative_residual) <= 1e-2
    assert not bool(solve(ExactOracle(tol=0.0, products="dense"), "squared").diagnostics.success)


@pytest.mark.parametrize("oracle", [QuadraticOracle(3), QuadraticOracle(products="dense"), ExactOracle()], ids=str)
def test_at_the_minimum_there_is_no_direction(oracle):
    here = setting("squared")
    found = dense.quickly(
        lambda tangent, y: oracle.solve(tangent, here.loss, y, GAMMA), here.tangent, here.tangent.outputs
    )
    np.testing.assert_array_equal(found.dual_variables, jnp.zeros_like(here.y))
    assert float(found.diagnostics.relative_residual) == 0
    assert float(found.diagnostics.duality_gap) == 0
    assert bool(found.diagnostics.success)


def is_dense(num_samples, num_outputs, width, products, iterations):
    """Whether A is formed for a two-layer network of these sizes; nothing is computed."""

    def choose(x):
        model = MeanFieldNetwork(2, width, num_outputs, key=jax.random.key(0))
        system = System(Problem(np.zeros((1, 2)), np.zeros((1, num_outputs))), model)
        return gram_products(system.tangent(system.weights(model), x), products, iterations).gram

    return jax.eval_shape(choose, jnp.zeros((num_samples, 2))) is not None


def test_the_cheaper_products_are_chosen():
    for iterations in (None, 20):
        assert is_dense(10, 1, 4000, "auto", iterations)
    assert not is_dense(400, 10, 3, "auto", 10)
    assert not is_dense(2100, 2, 3, "auto", None)  # beyond 4096 outputs
    assert is_dense(400, 10, 3, "dense", 10)
    assert not is_dense(10, 1, 4000, "matrix_free", None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QuadraticOracle(max_iterations=-1), "max_iterations = -1; expected an integer"),
        (lambda: ExactOracle(max_iterations=0), "max_iterations = 0; the exact model needs one at least"),
        (lambda: QuadraticOracle(tol=-1e-3), "tol = -0.001"),
        (lambda: gram_products(setting("squared").tangent, "sparse", 1), "products = 'sparse'; expected one of 'auto'"),
    ],
)
def test_numbers_and_names_that_make_no_oracle(make, message, monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no beartype to say it
    with pytest.raises(ConfigError, match=message):
        make()
