"""Random shifts and mirror images, against all shifts that there are."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from gnflow import ConfigError
from gnflow.problems import CropAndFlip

HEIGHT, WIDTH, CHANNELS, PADDING = 3, 4, 2, 1
IMAGE = np.arange(1.0, 1 + CHANNELS * HEIGHT * WIDTH).reshape(CHANNELS, HEIGHT, WIDTH)
AUGMENT = CropAndFlip(HEIGHT, WIDTH, CHANNELS, padding=PADDING)


def all_changes(flips=(False, True)):
    """Every image that a shift and a mirror can make, as bytes."""
    padded = np.pad(IMAGE, ((0, 0), (PADDING, PADDING), (PADDING, PADDING)))
    shifted = (padded[:, i : i + HEIGHT, j : j + WIDTH] for i in range(3) for j in range(3))
    return {np.ascontiguousarray(part[:, :, ::-1] if flip else part).tobytes() for part in shifted for flip in flips}


def test_all_shifts_and_mirror_images_come_up_and_no_others():
    x = jnp.asarray(np.tile(IMAGE.ravel(), (400, 1)))
    changed = np.asarray(AUGMENT(jr.key(0), x))
    assert {row.tobytes() for row in changed} == all_changes()
    np.testing.assert_array_equal(changed, AUGMENT(jr.key(0), x))
    assert not np.array_equal(changed, AUGMENT(jr.key(1), x))


def test_images_with_the_colours_last_change_alike():
    x = jnp.asarray(np.tile(IMAGE.ravel(), (8, 1)))
    last = jnp.moveaxis(x.reshape(8, CHANNELS, HEIGHT, WIDTH), 1, 3)
    changed = jnp.moveaxis(AUGMENT(jr.key(2), last), 3, 1).reshape(8, -1)
    np.testing.assert_array_equal(changed, AUGMENT(jr.key(2), x))


def test_without_flips_or_shifts():
    x = jnp.asarray(np.tile(IMAGE.ravel(), (200, 1)))
    unmirrored = CropAndFlip(HEIGHT, WIDTH, CHANNELS, padding=PADDING, flip=False)(jr.key(0), x)
    assert {row.tobytes() for row in np.asarray(unmirrored)} == all_changes((False,))
    unshifted = np.asarray(CropAndFlip(HEIGHT, WIDTH, CHANNELS, padding=0, flip=False)(jr.key(0), x))
    np.testing.assert_array_equal(unshifted, x)


@pytest.mark.parametrize(
    ("options", "match"),
    [({"height": 0}, "height = 0"), ({"padding": -1}, "padding = -1"), ({"flip": 1}, "flip")],
)
def test_bad_numbers_are_named(options, match):
    with pytest.raises(Exception, match=match):  # beartype's for the last
        CropAndFlip(**{"height": 2, "width": 2, **options})


def test_images_of_another_size():
    with pytest.raises(ConfigError, match=r"2 x 3 x 4 numbers in a row, or of the shape \(3, 4, 2\), .*\(23,\)"):
        AUGMENT(jr.key(0), jnp.zeros((2, 23)))
