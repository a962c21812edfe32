"""Convolutions with gradients of their own have the parameters, values and gradients of flax's and of XLA's."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import DTypeLike

from rfdiff.images import convolution, unet
from rfdiff.images.architecture import Architecture
from rfdiff.images.convolution import Conv, convolved, own_gradients
from rfdiff.images.unet import UNet, initial_parameters, noised
from tests.tolerances import rejects

close = partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def flax_conv(channels: int, *, stride: int = 1, dtype: DTypeLike = jnp.float32, name: str | None = None) -> nn.Module:
    return nn.Conv(channels, (3, 3), strides=stride, dtype=dtype, name=name)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("rows", "columns", "channels", "out"), [(7, 4, 3, 5), (1, 2, 4, 1)])
def test_a_convolution_has_the_values_and_gradients_of_xla(stride: int, rows: int, columns: int, channels: int, out: int) -> None:
    x, kernel = normal(0, 6, rows, columns, channels), normal(1, 3, 3, channels, out)
    value, back = jax.vjp(lambda x, kernel: convolved(x, kernel, stride), x, kernel)
    g = normal(2, *value.shape)
    close(value, nn.Conv(out, (3, 3), strides=stride, use_bias=False).apply({"params": {"kernel": kernel}}, x))

    def agree(kernel: jax.Array) -> None:
        for found, expected in zip(back(g), own_gradients(stride, x, kernel, g), strict=True):
            close(found, expected)

    agree(kernel)
    rejects(lambda: agree(kernel[::-1, ::-1]))  # a kernel that is not mirrored


def test_other_platforms_have_the_gradients_of_xla() -> None:
    x, kernel, g = normal(0, 2, 4, 4, 3), normal(1, 3, 3, 3, 5), normal(2, 2, 2, 2, 5)
    traced = jax.jit(lambda x, kernel, g: jax.vjp(lambda x, kernel: convolved(x, kernel, 2), x, kernel)[1](g)).trace(x, kernel, g)
    products = {platform: "dot_general" in traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda", "tpu")}
    assert products == {"cpu": True, "cuda": False, "tpu": False}


def losses_and_gradients(network: UNet, parameters: Any) -> tuple[jax.Array, Any]:
    x0, levels, noise = normal(3, 4, 7, 7), jnp.linspace(-4, 4, 4), normal(4, 4, 7, 7)

    def loss(parameters: Any) -> jax.Array:
        return jnp.mean((network.apply(parameters, noised(x0, levels, noise), levels) - noise) ** 2)  # type: ignore[operator]

    return jax.jit(jax.value_and_grad(loss))(parameters)


@pytest.mark.thorough
def test_a_network_has_the_parameters_values_and_gradients_of_one_of_flax(monkeypatch: pytest.MonkeyPatch) -> None:
    network = UNet(Architecture(width=4, depth=2, attention=0))
    example = jax.ShapeDtypeStruct((1, 7, 7), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
    parameters = initial_parameters(network, 0, *example)
    parameters = jax.tree.map(lambda leaf: leaf + 0.1 * np.random.default_rng(5).standard_normal(leaf.shape).astype(np.float32), parameters)
    found = losses_and_gradients(network, parameters)
    with monkeypatch.context() as patch:
        patch.setattr(unet, "Conv", flax_conv)
        shapes = jax.eval_shape(network.init, jax.eval_shape(lambda: jax.random.key(0)), *example)
        expected = losses_and_gradients(network, parameters)
    named, own = ([(path, leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)] for tree in (shapes, parameters))
    assert named == own  # checkpoints of either are those of the other

    def agree() -> None:
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            close(one, other)

    agree()
    monkeypatch.setattr(convolution, "_plain_gradients", lambda x, kernel, g: own_gradients(1, x, kernel[::-1, ::-1], g))
    found = losses_and_gradients(network, parameters)
    rejects(agree)


def test_parameters_are_float32_whatever_the_arithmetic() -> None:
    variables = Conv(4, dtype=jnp.bfloat16).init(jax.random.key(0), normal(0, 1, 3, 3, 2))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert Conv(4, dtype=jnp.bfloat16).apply(variables, normal(0, 1, 3, 3, 2)).dtype == jnp.bfloat16  # type: ignore[union-attr]
