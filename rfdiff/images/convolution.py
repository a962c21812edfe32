"""Convolutions of 3 x 3 pixels, whose gradients a CPU computes as fast inside a loop of training steps as the values.

With zeros around the image, a kernel w and the gradient g of the output y = x * w:

    ∂x = g * w(mirrored, channels exchanged),   ∂w = x(images as channels) * g(as a kernel of the size of the image)

XLA's own gradients ask for these two with the axes in another order, for which its CPU backend has no fast code inside a loop of training
steps (measured: 30 times the processor time). Here they are asked for in the order of the values. On other devices they are XLA's own.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

SIDE = 3  # pixels of a kernel
AXES = ("NHWC", "HWIO", "NHWC")  # of x, kernel and output: images, rows, columns, channels

Gradients = tuple[jax.Array, jax.Array]  # of x and of the kernel


class Conv(nn.Module):
    """A convolution of 3 x 3 pixels with a bias: parameters and values of `flax.linen.Conv`.

    Args:
        channels: of the output.
        stride: 1 or 2 pixels.
        dtype: floating type of the arithmetic; parameters are float32 always.
    """

    channels: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n r s c"]) -> Float[Array, "n r1 s1 o"]:
        """The output, of ⌈side/stride⌉ pixels a side."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (SIDE, SIDE, x.shape[-1], self.channels))
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        x, kernel, bias = (array.astype(self.dtype) for array in (x, kernel, bias))
        return convolved(x, kernel, self.stride) + bias


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolved(x: Float[Array, "n r s c"], kernel: Float[Array, "3 3 c o"], stride: int) -> Float[Array, "n r1 s1 o"]:
    """x * kernel with zeros around the images, at every stride-th pixel."""
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=AXES)


def _forwards(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, Gradients]:
    return convolved(x, kernel, stride), (x, kernel)


def _backwards(stride: int, kept: Gradients, g: jax.Array) -> Gradients:
    on_cpu = _plain_gradients if stride == 1 else partial(_product_gradients, stride)
    chosen: Gradients = jax.lax.platform_dependent(*kept, g, cpu=on_cpu, default=partial(own_gradients, stride))
    return chosen


convolved.defvjp(_forwards, _backwards)


def own_gradients(stride: int, x: Float[Array, "n r s c"], kernel: Float[Array, "3 3 c o"], g: Float[Array, "n r1 s1 o"]) -> Gradients:
    """Gradients of x and of the kernel as XLA has them."""
    convolution = partial(jax.lax.conv_general_dilated, window_strides=(stride, stride), padding="SAME", dimension_numbers=AXES)
    of_x, of_kernel = jax.vjp(convolution, x, kernel)[1](g)
    return of_x, of_kernel


def _plain_gradients(x: jax.Array, kernel: jax.Array, g: jax.Array) -> Gradients:
    """Each as a convolution of stride 1 in the order of the values."""
    mirrored = kernel[::-1, ::-1].swapaxes(2, 3)
    images_last, as_kernel = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
    zeros = [(SIDE // 2, SIDE // 2)] * 2
    of_kernel = jax.lax.conv_general_dilated(images_last, as_kernel, (1, 1), zeros, dimension_numbers=AXES)
    return convolved(g, mirrored, 1), of_kernel.transpose(1, 2, 0, 3)


def _product_gradients(stride: int, x: jax.Array, kernel: jax.Array, g: jax.Array) -> Gradients:
    """As products with the matrix of the 3 x 3 pixels around each pixel of the output."""
    rows, columns = g.shape[1:3]

    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        zeros = [_zeros_around(own, out, stride) for own, out in zip(x.shape[1:3], (rows, columns), strict=True)]
        padded = jnp.pad(x, [(0, 0), *zeros, (0, 0)])
        around = [padded[:, i::stride, j::stride][:, :rows, :columns] for i in range(SIDE) for j in range(SIDE)]
        return jnp.concatenate(around, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])

    of_x, of_kernel = jax.vjp(product, x, kernel)[1](g)
    return of_x, of_kernel


def _zeros_around(own: int, out: int, stride: int) -> tuple[int, int]:
    """Zeros before and after a side of `own` pixels, of which the output has `out`: where they are odd in number, one more after."""
    total = max(stride * (out - 1) + SIDE - own, 0)
    return total // 2, total - total // 2
