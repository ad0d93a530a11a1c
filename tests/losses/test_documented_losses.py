"""The losses of docs/extending.md are what the page says of them."""

import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import gnflow as gn
from gnflow.losses import from_function

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
WANTED = {"quantile", "least_quantile", "bend", "plain_focal", "focal"}


def defined_on_the_page():
    """The functions of the page by name; nothing else of its examples is executed."""
    names = {"jax": jax, "jnp": jnp, "gn": gn}
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        tree = ast.parse(code)
        tree.body = [
            node
            for node in tree.body
            if (isinstance(node, ast.FunctionDef) and node.name in WANTED)
            or (isinstance(node, ast.ImportFrom) and node.module == "scipy.optimize")
        ]
        exec(compile(tree, "docs/extending.md", "exec"), names)
    return names


LOSSES = defined_on_the_page()


def along(loss, **options):
    """The loss of one output for the target 1, as a function of numbers."""
    return jax.vmap(lambda z: loss(z[None, None], jnp.ones((1, 1)), **options)[0])


@pytest.mark.parametrize(("level", "width"), [(0.9, 0.1), (0.5, 0.3), (0.1, 0.02)])
def test_the_smoothed_quantile_loss(level, width):
    value = along(LOSSES["quantile"], level=level, width=width)
    found = minimize_scalar(lambda z: float(value(jnp.asarray([z]))[0]), bracket=(0.5, 1.5), tol=1e-12)
    assert found.x == pytest.approx(1 + width * np.log(level / (1 - level)), abs=1e-5)
    assert found.fun == pytest.approx(float(LOSSES["least_quantile"](jnp.ones((1, 1)), level, width)), rel=1e-9)
    z = jnp.linspace(-3, 5, 9)
    kinked = jnp.maximum(level * (1 - z), (level - 1) * (1 - z))
    assert float(jnp.max(jnp.abs(value(z) - kinked))) <= width * np.log(2) + 1e-15


@pytest.mark.parametrize(
    ("gamma", "bend"), [pytest.param(0.5, -4.02, marks=pytest.mark.slow), (1.0, -3.10), (2.0, -2.79)]
)
def test_focal_loss_is_convex_from_a_margin_on_and_continued_before(gamma, bend):
    start = LOSSES["bend"](gamma)
    assert start == pytest.approx(bend, abs=0.005)
    plain = jax.vmap(lambda m: LOSSES["plain_focal"](m, gamma))
    second = jax.vmap(jax.grad(jax.grad(lambda m: LOSSES["plain_focal"](m, gamma))))
    m = jnp.linspace(-12.0, 12.0, 481)
    q, s = jax.nn.sigmoid(-m), jax.nn.softplus(-m)
    formula = q**gamma * (1 - q) * (gamma**2 * (1 - q) * s + (2 * gamma + 1) * q - gamma * q * s)
    np.testing.assert_allclose(second(m), formula, rtol=1e-9, atol=1e-13)
    np.testing.assert_array_equal(np.asarray(second(m) > 0), np.asarray(m > start))
    continued = along(LOSSES["focal"], gamma=gamma)  # the label 1, whose margin is the output
    np.testing.assert_allclose(continued(m)[m > start], plain(m)[m > start], rtol=1e-14)
    assert float(jnp.min(jnp.diff(continued(m), n=2))) > -1e-13


def test_a_problem_takes_the_continued_focal_loss_alone():
    labels = jnp.asarray([0.0, 1.0, 1.0])
    gn.Problem(jnp.eye(3), labels, loss=from_function(LOSSES["focal"], minimum=0.0))

    def focal_itself(f, y):
        return LOSSES["plain_focal"]((2 * y - 1) * f, 2.0)[:, 0]

    with pytest.raises(gn.DataError, match="value of focal_itself is not convex"):
        gn.Problem(jnp.eye(3), labels, loss=from_function(focal_itself, minimum=0.0))
