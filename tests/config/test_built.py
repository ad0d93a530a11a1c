"""What is made once is made once, and does not fill the memory."""

import jax.numpy as jnp
import pytest

from gnflow.config import _built
from gnflow.config._built import built_once


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(_built, "_kept", type(_built._kept)())
    monkeypatch.setattr(_built, "_MOST_BYTES", 100)


def numbers(count):
    return lambda: jnp.zeros(count)  # 8 bytes each


def test_the_same_key_gives_the_same_object():
    assert built_once("a", numbers(2)) is built_once("a", numbers(2))
    assert built_once("a", numbers(2)) is not built_once("b", numbers(2))


def test_what_was_not_used_for_longest_is_forgotten_first():
    first, second = built_once("a", numbers(5)), built_once("b", numbers(5))
    assert built_once("a", numbers(5)) is first
    built_once("c", numbers(5))  # 120 bytes together
    assert built_once("a", numbers(5)) is first
    assert built_once("b", numbers(5)) is not second


def test_what_is_too_large_is_not_kept_and_takes_no_others_place():
    small = built_once("a", numbers(2))
    assert built_once("b", numbers(20)) is not built_once("b", numbers(20))
    assert built_once("a", numbers(2)) is small


def test_an_error_is_not_kept():
    with pytest.raises(ZeroDivisionError):
        built_once("a", lambda: 1 / 0)
    assert built_once("a", lambda: "made") == "made"
