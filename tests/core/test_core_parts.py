"""Random streams, tree algebra, results, names, checks and precision."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from gnflow._core import (
    ConfigError,
    DataError,
    GnflowError,
    ModelError,
    PrecisionError,
    Result,
    ResultCode,
    RunFolderError,
    look_up,
    nearest_name,
    require_float64,
    require_non_negative,
    require_positive_int,
    stream,
    tree_add_scaled,
    tree_dot,
    tree_norm,
    tree_rms,
    tree_scale,
    tree_size,
    tree_subtract,
)

TREE = {"a": jnp.asarray([[1.0, 2.0], [3.0, 4.0]]), "fixed": None, "b": (jnp.asarray([-1.0]),)}
OTHER = {"a": jnp.asarray([[0.5, 0.0], [-1.0, 2.0]]), "fixed": None, "b": (jnp.asarray([3.0]),)}


def flat(tree):
    return np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(tree)])


def test_tree_algebra_is_that_of_the_flat_vectors():
    left, right = flat(TREE), flat(OTHER)
    assert tree_size(TREE) == 5
    np.testing.assert_allclose(tree_dot(TREE, OTHER), left @ right)
    np.testing.assert_allclose(tree_norm(TREE), np.linalg.norm(left))
    np.testing.assert_allclose(tree_rms(TREE), np.sqrt(np.mean(left**2)))
    np.testing.assert_allclose(flat(tree_scale(-2.0, TREE)), -2 * left)
    np.testing.assert_allclose(flat(tree_subtract(TREE, OTHER)), left - right)
    np.testing.assert_allclose(flat(tree_add_scaled(TREE, 0.5, OTHER)), left + 0.5 * right)
    for result in (tree_scale(2.0, TREE), tree_subtract(TREE, OTHER), tree_add_scaled(TREE, 1.0, OTHER)):
        assert jax.tree.structure(result) == jax.tree.structure(TREE)  # None stays None
    assert float(tree_dot({}, {})) == 0.0
    assert float(tree_rms({"fixed": None})) == 0.0


@pytest.mark.parametrize("make_key", [jr.key, jr.PRNGKey])
def test_streams_depend_on_the_seed_and_on_the_name_only(make_key):
    def bits(seed, name):
        return tuple(int(n) for n in jax.random.bits(stream(make_key(seed), name), (2,)))

    names = ["x_train", "x_test", "teacher", "hidden_weight", "hidden_bias", "output_weight", "shuffle", ""]
    drawn = [bits(seed, name) for seed in range(3) for name in names]
    assert len(set(drawn)) == len(drawn)
    assert bits(0, "teacher") == bits(0, "teacher")
    assert bits(0, "teacher") != tuple(int(n) for n in jax.random.bits(make_key(0), (2,)))


def test_streams_are_the_same_in_every_process_and_version():
    # Python's own hash of a string changes from process to process; these numbers must not.
    assert jr.key_data(stream(jr.key(0), "teacher")).tolist() == PINNED
    assert stream(jr.PRNGKey(0), "teacher").tolist() == PINNED


PINNED = [1381669686, 1443336698]


def test_streams_are_independent():
    left = np.asarray(jr.normal(stream(jr.key(1), "x_train"), (4000,)))
    right = np.asarray(jr.normal(stream(jr.key(1), "x_test"), (4000,)))
    assert abs(np.corrcoef(left, right)[0, 1]) < 4 / np.sqrt(4000)


def test_results():
    failures = {code for code in ResultCode if code.failed}
    assert failures == {
        ResultCode.HORIZON_REACHED,
        ResultCode.INACCURATE,
        ResultCode.INTERRUPTED,
        ResultCode.MAX_STEPS_REACHED,
        ResultCode.STEP_SIZE_TOO_SMALL,
        ResultCode.NON_FINITE,
        ResultCode.DIRECTION_FAILED,
        ResultCode.SOLVER_FAILED,
    }
    result = Result(ResultCode.MAX_STEPS_REACHED, "allow more", 1.5)
    assert result.failed
    assert str(result) == "max_steps_reached: allow more"
    assert ResultCode(str(result.code)) is ResultCode.MAX_STEPS_REACHED  # what a file holds is read back
    assert not Result(ResultCode.STOP_RULE_MET, "", 0.0).failed
    assert not Result(ResultCode.STATIONARY, "", 0.0).failed
    with pytest.raises(AttributeError):
        result.time = 2.0  # pyright: ignore[reportAttributeAccessIssue]


def test_names():
    assert nearest_name("sliu", ["relu", "silu"]) == "did you mean 'silu'? Known names: relu, silu."
    assert nearest_name("zzz", ["relu", "silu"]) == "Known names: relu, silu."
    assert look_up("silu", {"silu": 1}, "activation") == 1
    with pytest.raises(ConfigError, match=r"unknown activation 'sliu'; did you mean 'silu'\?"):
        look_up("sliu", {"silu": 1}, "activation")
    with pytest.raises(ModelError, match="unknown activation 3"):
        look_up(3, {"silu": 1}, "activation", ModelError)


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "3", None])
def test_sizes_that_are_none(size):
    with pytest.raises(ModelError, match=r"width = .*integer of at least 1"):
        require_positive_int.__wrapped__(ModelError, width=size)


@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf"), True, "1"])
def test_scales_that_are_none(value):
    with pytest.raises(ConfigError, match=r"scale = .*at least 0"):
        require_non_negative.__wrapped__(ConfigError, scale=value)


def test_sizes_and_scales_that_are_right():
    require_positive_int(ModelError, width=1, depth=7)
    require_non_negative(ModelError, scale=0.0, other=1.5)


def test_double_precision_is_required_by_name():
    require_float64({"a": jnp.ones(2), "i": jnp.arange(2), "text": "x"}, "weights ")
    with pytest.raises(PrecisionError, match=r"weights \['a'\]\[1\] is float32.*float64 is needed"):
        require_float64({"a": [jnp.ones(2), jnp.ones(2, jnp.float32)]}, "weights ")
    with pytest.raises(PrecisionError, match="bfloat16"):
        require_float64(jnp.ones(2, jnp.bfloat16), "x")


def test_without_double_precision_the_message_says_how_to_turn_it_on():
    try:
        jax.config.update("jax_enable_x64", False)
        with pytest.raises(PrecisionError, match=r'MLP needs float64.*jax.config.update\("jax_enable_x64", True\)'):
            require_float64((), "MLP")
    finally:
        jax.config.update("jax_enable_x64", True)


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (DataError, ValueError),
        (ModelError, ValueError),
        (ConfigError, ValueError),
        (PrecisionError, TypeError),
        (RunFolderError, OSError),
    ],
)
def test_errors_are_caught_as_gnflows_and_as_pythons(error, base):
    for kind in (GnflowError, base):
        with pytest.raises(kind, match="why"):
            raise error("why")
