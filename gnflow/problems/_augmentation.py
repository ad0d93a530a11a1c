"""Random changes of images that are drawn anew for each step."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._core import ConfigError, integer_field, require_bool


class AbstractAugmentation(eqx.Module):
    """Changes the inputs of a batch at random, for `gnflow.iterate(augment=...)`."""

    @abc.abstractmethod
    def __call__(self, key: Any, x: Float[Array, "samples ..."]) -> Float[Array, "samples ..."]:
        """Changed inputs of the same shape. The method is traced by JAX.

        **Arguments:**

        - `key`: a JAX key, another one for each step.
        - `x`: the inputs of the batch (n, ...) in the units of the data, before they were standardised.
        """


class CropAndFlip(AbstractAugmentation):
    """Each image is shifted by up to `padding` pixels along both axes, and mirrored left to right with probability 1/2.

    What is shifted in is 0. All shifts are equally likely: this is the usual random crop of an image with a border of zeros
    (Krizhevsky, Sutskever, Hinton 2012; He et al. 2016, Section 4.2). Images are rows of `channels` x `height` x `width`
    numbers, one colour after the other, as those of `mnist` and `cifar10`, or arrays (height, width, channels).

    **Arguments:**

    - `height`, `width`: the numbers of pixels.
    - `channels`: the number of colours.
    - `padding`: the largest shift, at least 0.
    - `flip`: whether images are mirrored.

    **Raises:** `ConfigError` for other numbers, and for inputs of another size.
    """

    height: int = integer_field("CropAndFlip: height", static=True)
    width: int = integer_field("CropAndFlip: width", static=True)
    channels: int = integer_field("CropAndFlip: channels", default=1, static=True)
    padding: int = integer_field("CropAndFlip: padding", default=4, static=True, least=0)
    flip: bool = eqx.field(default=True, static=True)

    def __check_init__(self):
        require_bool(ConfigError, flip=self.flip)

    def __call__(self, key: Any, x: Float[Array, "samples ..."]) -> Float[Array, "samples ..."]:
        """The shifted and mirrored images."""
        rows, images = (self.channels, self.height, self.width), (self.height, self.width, self.channels)
        if x.ndim == 2 and x.shape[1] == self.channels * self.height * self.width:
            planes = x.reshape(len(x), *rows)
        elif x.shape[1:] == images:
            planes = jnp.moveaxis(x, 3, 1)
        else:
            raise ConfigError(
                f"CropAndFlip takes images of {self.channels} x {self.height} x {self.width} numbers in a row, or of the shape "
                f"{images}, but the inputs have the shape {x.shape[1:]}."
            )
        of_shifts, of_flips = jr.split(key)
        shifts = jr.randint(of_shifts, (len(x), 2), 0, 2 * self.padding + 1)
        flips = jr.bernoulli(of_flips, shape=(len(x),)) if self.flip else jnp.zeros(len(x), bool)
        changed = jax.vmap(self._of_image)(planes, shifts, flips)
        return changed.reshape(x.shape) if x.ndim == 2 else jnp.moveaxis(changed, 1, 3)

    def _of_image(self, planes: Array, shift: Array, mirrored: Array) -> Array:
        border = (self.padding, self.padding)
        padded = jnp.pad(planes, ((0, 0), border, border))
        part = jax.lax.dynamic_slice(padded, (0, shift[0], shift[1]), planes.shape)
        return jnp.where(mirrored, part[:, :, ::-1], part)


augmentation_kinds: dict[str, Callable[..., Any]] = {"crop_and_flip": CropAndFlip}
