"""A loss that states its value, its minimum and its targets: derivatives against the closed forms of gnflow's own losses."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from test_loss_contract import binary, dense, one_hot, real, soft

import gnflow as gn
from gnflow._core import ConfigError, DataError
from gnflow.losses import AbstractLoss, BlockFactor, HuberLoss, LogisticLoss, SoftmaxCrossEntropy, SquaredLoss
from gnflow.simulate._standstill import why_still


class ValueOf(AbstractLoss):
    """Another loss, of which it has no derivatives."""

    of: AbstractLoss

    def canonical_targets(self, y_train, y_test=None):
        return self.of.canonical_targets(y_train, y_test)

    def value(self, f, y):
        return self.of.value(f, y)

    def minimum(self, y):
        return self.of.minimum(y)


class LogCosh(AbstractLoss):
    """l(r) = log cosh r: no closed forms are given."""

    is_smooth = True
    gradient_in_hessian_image = True

    def canonical_targets(self, y_train, y_test=None):
        return SquaredLoss().canonical_targets(y_train, y_test)

    def value(self, f, y):
        r = jnp.abs(f - y)
        return jnp.sum(r + jnp.log1p(jnp.exp(-2 * r)) - jnp.log(2.0)) / f.shape[0]

    def minimum(self, y):
        return jnp.zeros(())


class OwnSquared(LogCosh):
    """The squared loss, written by a user."""

    has_constant_hessian = True

    def value(self, f, y):
        return jnp.sum((f - y) ** 2) / 2 / f.shape[0]

    def smoothness(self, num_samples):
        return 1 / num_samples

    def strong_convexity(self, num_samples):
        return 1 / num_samples


class SumOfSamples(LogCosh):
    def value(self, f, y):
        return super().value(f, y) * f.shape[0]


class SeesOthers(LogCosh):
    def value(self, f, y):
        return super().value(f - jnp.mean(f, axis=0, keepdims=True), y)


class OneForEach(LogCosh):
    def value(self, f, y):
        return jnp.mean((f - y) ** 2, axis=1)


class Cauchy(LogCosh):
    """Not convex far out."""

    def value(self, f, y):
        return jnp.sum(jnp.log1p((f - y) ** 2)) / f.shape[0]


class OnlyPositive(LogCosh):
    def value(self, f, y):
        return jnp.mean(f - y * jnp.log(f))


class WrongMinimum(LogCosh):
    def minimum(self, y):
        return jnp.ones(()) * 3


CASES = {
    "squared": (SquaredLoss(), real),
    "softmax one-hot": (SoftmaxCrossEntropy(), one_hot),
    "softmax soft": (SoftmaxCrossEntropy(), soft),
    "logistic": (LogisticLoss(), binary),
    "huber": (HuberLoss(0.7), real),
}
SHAPE = (4, 3)


def example(case):
    loss, targets = CASES[case]
    k1, k2, k3 = jr.split(jr.key(0), 3)
    return loss, ValueOf(loss), 2 * jr.normal(k1, SHAPE), targets(k2, SHAPE), jr.normal(k3, SHAPE)


def assert_close(actual, expected, tolerance=1e-11):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1e-300, float(np.max(np.abs(expected)))))


@pytest.mark.parametrize("case", CASES)
def test_derivatives_are_those_of_the_closed_forms(case):
    closed, own, f, y, v = example(case)
    assert_close(own.gradient(f, y), closed.gradient(f, y))
    assert_close(own.hessian_product(f, y, v), closed.hessian_product(f, y, v))
    assert_close(
        dense(lambda u: own.hessian_pinv_product(f, y, u), SHAPE),
        dense(lambda u: closed.hessian_pinv_product(f, y, u), SHAPE),
    )
    factor, expected = own.hessian_factor(f, y), closed.hessian_factor(f, y)
    root, root_expected = (dense(one.product, SHAPE) for one in (factor, expected))
    assert_close(root @ root.T, root_expected @ root_expected.T)
    assert_close(dense(factor.transpose_product, SHAPE), root.T)
    g = closed.gradient(f, y)
    assert_close(factor.unseen(g) + factor.product(factor.whiten(g)), g)
    assert_close(factor.unseen(g) + g, expected.unseen(g) + g)
    # Two roots of one metric differ by a rotation: the norm of the whitened gradient is the metric's.
    assert float(jnp.linalg.norm(factor.whiten(g))) == pytest.approx(
        float(jnp.linalg.norm(expected.whiten(g))), rel=1e-11
    )


@pytest.mark.parametrize("case", ["squared", "softmax soft", "logistic"])
def test_what_a_flow_takes_from_the_factor_has_its_derivative(case):
    """Equal eigenvalues (squared loss) and singular blocks (softmax) too, of which eigenvectors have no derivative."""
    closed, own, f, y, v = example(case)

    def pulled_back(loss):
        """R R^T v + (R^T)^+ R^+ g of the outputs: what no rotation of R changes."""

        def of(outputs):
            factor = loss.hessian_factor(outputs, y)
            return factor.product(factor.transpose_product(v)) + loss.hessian_pinv_product(
                outputs, y, own.gradient(outputs, y)
            )

        return of

    _, expected = jax.jvp(pulled_back(closed), (f,), (v,))
    _, found = jax.jvp(pulled_back(own), (f,), (v,))
    assert_close(found, expected, 1e-9)
    transposed = jax.vjp(pulled_back(own), f)[1](v)[0]
    assert float(jnp.vdot(transposed, v)) == pytest.approx(float(jnp.vdot(v, found)), rel=1e-9)


def test_the_roots_of_a_block_whose_kernel_turns_have_their_derivatives():
    """H = u u^T has the root u u^T/|u| and R^+ = u u^T/|u|^3."""
    u, change = jr.normal(jr.key(0), (2, 2, 3))

    def outer(u):
        return u[:, :, None] * u[:, None, :]

    def closed(u):
        length = jnp.linalg.norm(u, axis=1)[:, None, None]
        return outer(u) / length, outer(u) / length**3

    def found(u):
        factor = BlockFactor.of(outer(u))
        return factor.root, factor.inverse

    for ours, expected in zip(jax.jvp(found, (u,), (change,)), jax.jvp(closed, (u,), (change,)), strict=True):
        for one, other in zip(ours, expected, strict=True):
            assert_close(one, other)


def test_a_block_that_is_not_positive_has_no_root():
    blocks = jnp.stack([jnp.eye(2), jnp.diag(jnp.asarray([1.0, -1e-3])), jnp.diag(jnp.asarray([1.0, -1e-17]))])
    product = np.asarray(BlockFactor.of(blocks).product(jnp.ones((3, 2))))
    assert np.all(np.isfinite(product[[0, 2]]))
    assert np.all(np.isnan(product[1]))


def problem_of(loss, num_outputs=2):
    random = np.random.default_rng(0)
    return gn.Problem(random.standard_normal((12, 3)), random.standard_normal((12, num_outputs)), loss=loss)


@pytest.mark.parametrize(
    "flow", [gn.flows.GradientFlow(), gn.flows.GaussNewtonFlow(metric="hessian")], ids=lambda f: type(f).__name__
)
def test_flows_run_with_a_value_alone_as_with_closed_forms(flow):
    model = gn.models.MLP(3, 20, 1, 2, key=jr.key(0))
    ends = [
        gn.simulate(problem_of(loss), model, flow, stop=gn.RelativeLoss(1e-2)) for loss in (OwnSquared(), SquaredLoss())
    ]
    first, second = (float(run.data.train_loss[-1]) for run in ends)
    assert first == pytest.approx(second, rel=1e-6)


def test_a_fisher_metric_is_not_made_up():
    model = gn.models.MLP(3, 20, 1, 2, key=jr.key(0))
    with pytest.raises(ConfigError, match=r"Fisher metric of LogCosh is not known.*fisher_factor"):
        gn.simulate(problem_of(LogCosh()), model, gn.flows.GaussNewtonFlow(metric="fisher"))


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (SumOfSamples(), "mean of one value per sample"),
        (SeesOthers(), "mean of one value per sample"),
        (OneForEach(), r"shape \(4,\); expected a number"),
        (Cauchy(), "not convex"),
        (OnlyPositive(), "finite number for all outputs"),
        (WrongMinimum(), "minimum is 3"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, AbstractLoss) else "",
)
def test_a_value_that_is_no_convex_mean_over_samples_is_refused(loss, says):
    with pytest.raises(DataError, match=says):
        problem_of(loss)


def test_a_problem_with_an_own_value_can_be_made_inside_jit():
    x, y = jnp.ones((6, 3)), jnp.ones((6, 2))

    @jax.jit
    def value(f):
        problem = gn.Problem(x, y, loss=LogCosh())
        return problem.loss.value(f, problem.y_train)

    assert float(value(y)) == 0.0


def test_a_run_that_stands_still_does_not_claim_an_infimum_that_it_cannot_find():
    """The steps that descend to it need the smoothness of the loss."""
    x = np.asarray([[1.0], [1.0], [2.0]])
    problem = gn.Problem(x, np.asarray([[0.0], [1.0], [0.5]]), loss=LogCosh())
    model = gn.models.MLP(1, 20, 1, 1, key=jr.key(0))
    system = gn.System(problem, model)
    reasons = " ".join(why_still(system, system.weights(model)))
    assert "2 inputs occur more than once with different targets" in reasons or "1 input occurs" in reasons
    assert "infimum" not in reasons
    assert "keeps the loss" not in reasons
