"""Residual problems: the loss, the tangent against dense Jacobians, runs, records, what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gnflow as gn
from gnflow._core import ConfigError, DataError, ModelError, PrecisionError
from gnflow.geometry import System, _generic
from gnflow.problems import Problem, ResidualProblem, ResidualTerm, scalar, second_derivative

_X = np.linspace(0.0, 1.0, 9)[:, None]


def _bend(model, x):
    return second_derivative(scalar(model), x, 0) + jnp.sin(jnp.pi * x[0])


def _pair(model, point):
    x, y = point["x"], point["y"]
    return jnp.stack([model(x)[0] - y, model(2 * x)[0] * y])


def _problem(weight=3.0):
    quadrature = np.linspace(1.0, 2.0, 9)
    terms = [
        ResidualTerm("interior", _bend, _X, quadrature=quadrature),
        ResidualTerm("data", _pair, {"x": _X[:2], "y": np.array([0.5, -1.0])}, weight=weight),
    ]
    return ResidualProblem(terms, test={"middle": lambda model: model(jnp.array([0.5]))[0]})


def _model(width=4, seed=0):
    return gn.models.MLP(1, width, 1, 1, "tanh", key=jax.random.key(seed))


def _rows_by_hand(model, weight=3.0):
    """The scaled residuals in plain loops."""
    q = np.linspace(1.0, 2.0, 9)
    rows = [jnp.sqrt(q[i] / q.sum()) * _bend(model, jnp.asarray(_X[i])) for i in range(9)]
    for i, y in ((0, 0.5), (1, -1.0)):
        rows += list(jnp.sqrt(weight / 2) * _pair(model, {"x": jnp.asarray(_X[i]), "y": jnp.asarray(y)}))
    return jnp.stack(rows)


def _dense(system, weights):
    """The rows and their Jacobian (R, P), by one forward derivative for each weight."""
    flat, back = ravel_pytree(weights)

    def rows(vector):
        return _rows_by_hand(system.model(back(vector)))

    return rows(flat), jax.jacfwd(rows)(flat), back


def test_loss_is_the_weighted_mean_of_squares():
    system, model = System(_problem(), _model()), _model()
    rows = _rows_by_hand(model)
    weights = system.weights(model)
    np.testing.assert_allclose(system.outputs(weights)[0], rows, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(system.train_loss(weights), jnp.sum(rows**2) / 2, rtol=1e-12)
    losses = [float(term.loss(model)) for term in system.problem.terms]
    np.testing.assert_allclose(sum(losses), system.train_loss(weights), rtol=1e-12)
    assert system.problem.rows == {"interior": 9, "data": 4}
    assert system.has_kinks is False


@pytest.mark.parametrize("chunk", [None, 200])
def test_tangent_is_that_of_the_dense_jacobian(chunk, monkeypatch):
    if chunk is not None:  # rows in several blocks
        monkeypatch.setattr(_generic, "MOST_BYTES_OF_ROWS", chunk)
    model = _model()
    system = System(_problem(), model)
    weights = system.weights(model)
    _, jacobian, back = _dense(system, weights)
    tangent = system.tangent(weights)
    np.testing.assert_allclose(tangent.gram(), jacobian @ jacobian.T, rtol=1e-10, atol=1e-12)
    assert tangent.jacobian_width == (jacobian.shape[1] if chunk is None else None)
    if chunk is None:
        np.testing.assert_allclose(tangent.jacobian(), jacobian, rtol=1e-10, atol=1e-12)
    step = jnp.arange(1.0, 1 + jacobian.shape[1])
    np.testing.assert_allclose(tangent.jvp(back(step))[0], jacobian @ step, rtol=1e-10)
    pulled = ravel_pytree(tangent.vjp(jnp.ones((1, 13))))[0]
    np.testing.assert_allclose(pulled, jacobian.T @ jnp.ones(13), rtol=1e-9, atol=1e-12)
    other = System(_problem(weight=1.0), model).tangent(weights)
    np.testing.assert_allclose(
        tangent.cross_gram(other)[:9, :9], (jacobian @ jacobian.T)[:9, :9], rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("damping", [0.0, 1e-3])
@pytest.mark.parametrize("width", [1, 4])
def test_directions_are_those_of_dense_least_squares(damping, width):
    # With width 1 there are 4 weights for 13 rows: the decomposition of J takes the place of that of A.
    model = _model(width)
    system = System(_problem(), model)
    weights = system.weights(model)
    rows, jacobian, _ = _dense(system, weights)
    flow = gn.flows.GaussNewtonFlow(damping=gn.damping.Constant(damping))
    velocity, diagnostics = flow.velocity_and_diagnostics(0.0, weights, system)
    left, values, right = np.linalg.svd(np.asarray(jacobian), full_matrices=False)
    kept = values**2 > 13 * np.finfo(float).eps * values[0] ** 2
    gains = np.where(kept, values / (values**2 + damping), 0.0)
    expected = -right.T @ (gains * (left.T @ np.asarray(rows)))
    found = ravel_pytree(velocity)[0]
    if width == 1:
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    else:  # the Gram matrix has squared the condition number, 1e6, of J: outputs move rightly, weights to four digits
        np.testing.assert_allclose(jacobian @ found, jacobian @ expected, atol=1e-5)
    assert diagnostics.rank == kept.sum()
    reached = left[:, kept] @ (left[:, kept].T @ np.asarray(rows))
    unreached = np.linalg.norm(rows - reached) / np.linalg.norm(rows) if damping == 0 else 0.0
    np.testing.assert_allclose(diagnostics.relative_residual, unreached, atol=1e-7)


class _Line(eqx.Module):
    """A line whose slope is counted in a unit of 1e6: the columns of J differ by as much."""

    numbers: jax.Array

    def __call__(self, x):
        return self.numbers[0] + 1e-6 * self.numbers[1] * x


def test_few_weights_keep_the_digits_that_the_gram_matrix_loses():
    model, x = _Line(jnp.array([0.5, 2.0])), _X[:, 0]
    system = System(ResidualProblem([ResidualTerm("data", lambda m, x: m(x)[0] - jnp.sin(x[0]), _X)]), model)
    velocity = gn.flows.GaussNewtonFlow(damping=gn.damping.Constant(0.0)).velocity(0.0, system.weights(model), system)
    jacobian, rows = np.stack([np.ones(9), 1e-6 * x], axis=1), 0.5 + 2e-6 * x - np.sin(x)
    expected = -np.linalg.lstsq(jacobian, rows, rcond=None)[0]
    np.testing.assert_allclose(velocity.numbers[1], expected[1], rtol=1e-7)  # 4e-4 by the eigenvalues of A
    # In w' = -J^T a the numbers of a are large, of order 1/lam_min, and cancel: the constant keeps three digits.
    np.testing.assert_allclose(velocity.numbers[0], expected[0], rtol=1e-2)


@pytest.mark.slow
def test_derivative_of_a_direction_with_few_weights():
    model = _model(1)
    system = System(_problem(), model)
    weights = system.weights(model)
    flow = gn.flows.GaussNewtonFlow(damping=gn.damping.Constant(1e-2))
    direction = jax.tree.map(jnp.ones_like, weights)
    _, along = jax.jvp(lambda w: flow.velocity(0.0, w, system), (weights,), (direction,))

    def at(step):
        return flow.velocity(0.0, jax.tree.map(lambda w, d: w + step * d, weights, direction), system)

    differences = jax.tree.map(lambda a, b: (a - b) / 2e-5, at(1e-5), at(-1e-5))
    for found, expected in zip(jax.tree.leaves(along), jax.tree.leaves(differences), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def run():
    flow = gn.flows.GaussNewtonFlow(damping=gn.damping.Constant(1e-6))
    return gn.simulate(_problem(), _model(16), flow, t1=2.0, metrics=(gn.metrics.TermNTK(),))


def test_run_records_terms_and_functionals(run):
    data = run.data
    np.testing.assert_allclose(data.loss_interior + data.loss_data, data.train_loss, rtol=1e-10)
    np.testing.assert_allclose(data.middle[-1], run.model(jnp.array([0.5]))[0])
    np.testing.assert_allclose(data.middle[0], run.initial_model(jnp.array([0.5]))[0])
    system = run.flow.system(run.problem, run.initial_model)
    gram = np.asarray(system.tangent(system.weights(run.initial_model)).gram())
    np.testing.assert_allclose(data.ntk_trace_interior[0], np.trace(gram[:9, :9]))
    np.testing.assert_allclose(data.ntk_largest_eigenvalue_data[0], np.linalg.eigvalsh(gram[9:, 9:])[-1])
    assert float(data.train_loss[-1]) < float(data.train_loss[0])


def test_run_is_saved_and_loaded_with_its_problem(run, tmp_path):
    run.save(tmp_path / "run")
    with pytest.raises(gn.RunFolderError, match="function"):
        gn.load(tmp_path / "run")
    again = gn.load(tmp_path / "run", problem=_problem())
    assert eqx.tree_equal(again.model, run.model)
    other = _problem(weight=2.0)
    with pytest.raises(gn.RunFolderError, match=r"x_train\.terms.*weight"):
        gn.load(tmp_path / "run", problem=other)


def test_packaged_equation_is_loaded_without_help(tmp_path):
    problem = gn.problems.poisson(dimension=1, points_per_axis=4, test_points_per_axis=5)
    run = gn.simulate(problem, _model(), gn.flows.GradientFlow(), t1=0.01)
    run.save(tmp_path / "run")
    again = gn.load(tmp_path / "run")
    assert eqx.tree_equal(again.problem, problem)
    assert "relative_l2" in again.data


@pytest.mark.slow
def test_certificates_apply_where_they_are_true(run):
    data = ResidualProblem([ResidualTerm("data", _pair, {"x": _X[3:5], "y": np.array([0.5, -1.0])})])
    flow = gn.flows.GaussNewtonFlow(damping=gn.damping.Constant(0.0))
    regular = gn.simulate(data, _model(16), flow, t1=2.0)
    assert {one.theorem: str(one.verdict) for one in gn.theory.verify(regular)} == {
        **dict.fromkeys(("sandwich", "exact rate"), "holds"),
        **dict.fromkeys(
            ("a priori", "feature Gram", "kernel dynamics", "conservation", "dual directions"), "assumptions not met"
        ),
    }
    table = {one.theorem: one for one in gn.theory.verify(run)}
    assert table["sandwich"].verdict == "undecided"  # the Gram matrix is singular to rounding
    for name in ("a priori", "kernel dynamics", "conservation"):
        assert table[name].verdict == "assumptions not met"
        assert "training inputs" in table[name].reason


def test_default_end_is_where_a_run_stands_still():
    # Two residuals that contradict each other: the infimum is 1/2.
    problem = ResidualProblem([ResidualTerm("both", lambda m, x: jnp.stack([m(x)[0], m(x)[0] - 2.0]), np.ones((1, 1)))])
    run = gn.simulate(problem, _model(), gn.flows.GaussNewtonFlow(damping=gn.damping.Constant(1e-6)))
    assert run.result.code == gn.ResultCode.STATIONARY
    np.testing.assert_allclose(run.data.train_loss[-1], 1.0, rtol=1e-6)
    given = gn.simulate(problem, _model(), gn.flows.GradientFlow(), stop=gn.RelativeLoss(0.9), t1=50.0)
    assert given.result.code in (gn.ResultCode.STOP_RULE_MET, gn.ResultCode.STATIONARY)


def test_kinks_of_residuals():
    kinked = gn.models.MLP(1, 4, 1, 1, "relu", key=jax.random.key(0))
    assert System(_problem(), kinked).has_kinks is True
    step = ResidualTerm("step", lambda m, x: m(x)[0] - jnp.where(x[0] > 0.5, 1.0, 0.0), _X)
    assert System(ResidualProblem([step]), _model()).has_kinks is False  # the data jump, not the weights
    folded = ResidualTerm("folded", lambda m, x: jnp.abs(m(x)[0]), _X)
    assert System(ResidualProblem([folded]), _model()).has_kinks is None


_ONE = np.ones((2, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResidualTerm("two words", _bend, _ONE), "expected a word"),
        (lambda: ResidualTerm("a", 3.0, _ONE), "expected a function"),
        (lambda: ResidualTerm("a", _bend, np.zeros((0, 1))), "at least one point"),
        (lambda: ResidualTerm("a", _bend, np.array([[np.nan]])), "finite"),
        (lambda: ResidualTerm("a", _bend, (_ONE, np.ones(3))), "same number of rows"),
        (lambda: ResidualTerm("a", _bend, _ONE, weight=-1.0), "weight"),
        (lambda: ResidualTerm("a", _bend, _ONE, quadrature=np.array([1.0, 0.0])), "positive"),
        (lambda: ResidualTerm("a", _bend, _ONE, quadrature=np.ones(3)), r"expected \(2,\)"),
        (lambda: ResidualProblem([]), "at least one"),
        (lambda: ResidualProblem([_bend]), r"terms\[0\]"),
        (lambda: ResidualProblem([ResidualTerm("a", _bend, _ONE)] * 2), "two terms are called 'a'"),
        (lambda: ResidualProblem([ResidualTerm("a", _bend, _ONE, weight=0.0)]), "weight 0"),
        (lambda: ResidualProblem([ResidualTerm("a", _bend, _ONE)], test={"train_loss": _bend}), "train_loss"),
        (lambda: ResidualProblem([ResidualTerm("a", _bend, _ONE)], test={"loss_a": _bend}), "loss_a"),
        (lambda: ResidualProblem([ResidualTerm("a", _bend, _ONE)], test=[_bend]), "dictionary"),
    ],
)
def test_bad_parts_are_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()


@pytest.mark.parametrize(
    ("residual", "error", "message"),
    [
        (lambda m, x: jax.grad(m)(x), ModelError, "term 'a' cannot be computed"),
        (lambda m, x: jnp.ones((2, 2)) * m(x)[0], ModelError, r"array \(2, 2\)"),
        (lambda m, x: m(x).astype(jnp.float32), PrecisionError, "float32"),
        (lambda m, x: (m(x), x), ModelError, "a tuple"),
        (lambda m, x: m(x)[1:], ModelError, r"array \(0,\)"),
        # A coordinate that is not there has derivatives that JAX takes for zero.
        (lambda m, x: second_derivative(scalar(m), x, 1), ModelError, "axis = 1; expected .* at most 0. Coordinates"),
    ],
)
def test_residuals_that_do_not_fit_are_refused(residual, error, message):
    with pytest.raises(error, match=message):
        System(ResidualProblem([ResidualTerm("a", residual, _ONE)]), _model())


def test_residuals_that_are_not_finite_are_named():
    logarithm = ResidualTerm("log", lambda m, x: jnp.stack([m(x)[0], 0 * m(x)[0] + jnp.log(x[0] - 0.2)]), _X)
    problem = ResidualProblem([ResidualTerm("interior", _bend, _X), logarithm])
    named = r"the residual of term 'log' at its point 0, \[0.0\], component 1 is nan \(2 of 27 are not finite\)"
    for run in (gn.simulate, gn.iterate):
        options = {"t1": 0.1} if run is gn.simulate else {"step_size": 0.1, "num_steps": 2}
        with pytest.raises(gn.SimulationError, match=named):
            run(problem, _model(), gn.flows.GradientFlow(), **options)


def test_a_term_without_weight_has_no_condition_number():
    terms = [ResidualTerm("interior", _bend, _X), ResidualTerm("off", _bend, _X[:2], weight=0.0)]
    system = System(ResidualProblem(terms), _model())
    snapshot = gn.geometry.Snapshot(jnp.zeros(()), system.weights(_model()), system, lambda: (None, None))
    values = gn.metrics.TermNTK().evaluate(snapshot, None)
    assert float(values["ntk_rank_off"]) == 0
    assert float(values["ntk_condition_number_off"]) == np.inf
    assert 1 < float(values["ntk_condition_number_interior"]) < np.inf


def test_what_needs_samples_refuses_residuals():
    flow = gn.flows.GradientFlow()
    with pytest.raises(ConfigError, match="batch_size"):
        gn.iterate(_problem(), _model(), flow, step_size=0.1, num_steps=2, batch_size=1, key=jax.random.key(0))
    with pytest.raises(DataError, match="HiddenLearning"):
        gn.simulate(_problem(), _model(), flow, t1=0.1, metrics=(gn.metrics.HiddenLearning(),))
    with pytest.raises(DataError, match="TermNTK"):
        gn.simulate(Problem(_X, _X[:, 0]), _model(), flow, t1=0.1, metrics=(gn.metrics.TermNTK(),))
    with pytest.raises(DataError, match="depends on the model"):
        _ = _problem().y_train
    bad = ResidualProblem([ResidualTerm("a", _bend, _X)], test={"pair": lambda model: model(jnp.ones(1)) * jnp.ones(2)})
    with pytest.raises(ModelError, match="pair"):
        System(bad, _model())


def test_terms_and_tests_are_drawn(run):
    figure = gn.plots.residuals_figure({"Gauss-Newton": run.data})
    upper, lower = figure.axes
    assert [len(panel.lines) for panel in (upper, lower)] == [2, 1]
    plain = gn.simulate(Problem(_X, _X[:, 0]), _model(), gn.flows.GradientFlow(), t1=0.1)
    assert gn.plots.residuals_figure({"gradient flow": plain.data}) is None
