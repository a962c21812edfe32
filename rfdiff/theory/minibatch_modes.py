"""Modes of minibatch SGD as exponentials in the number of steps, generating functions of sums (docs/theory/practice.md, eq-impulse)."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Complex

from rfdiff.rules import MinibatchSGD
from rfdiff.symmetric import upper_indices

Array = np.ndarray
BLOCK = 2**22  # pairs and points at once
SINGLE = 2**15  # multiplications of a matrix product up to which BLAS does not split it between threads
THICK = 16  # of them for each entry of the product, at least
Pairs: TypeAlias = list[tuple[Array, Array]]  # weights (F, M) of F sums, and the roots (M,) of their exponentials


class Modes(NamedTuple):
    """A mode λ of the rule as sums of exponentials in the number of steps: h_j = Σ_i impulse_i root_i^j, e_k = Σ_i error_i root_i^k.

    h_j is the response of the readout to an impulse j steps ago, e_k = 1 - (λ + ρ) f_k the error of the whole gradient. For averaged
    weights `averaged` are the coefficients of h̄, one more root (γ) than the others. All (R, N).
    """

    roots: Complex[Array, "R N"]
    impulse: Complex[Array, "R N"]
    error: Complex[Array, "R N"]
    averaged_roots: Complex[Array, "S N"]
    averaged: Complex[Array, "S N"]


def modes_of(rule: MinibatchSGD, kappa: float, eigenvalues: Complex[Array, " N"]) -> Modes:
    """The modes at some eigenvalues, none of which is a double root."""
    x = kappa * float(rule.step_size) * (eigenvalues + rule.decay)
    beta = float(rule.momentum)
    if beta == 0:
        roots, impulse = (1 - x)[None], np.ones((1, x.size), complex)
    else:
        trace = 1 + beta - x
        difference = np.sqrt(trace**2 - 4 * beta)
        roots = np.stack([trace + difference, trace - difference]) / 2
        impulse = roots * np.array([[1], [-1]]) / difference
    error = x * impulse / (1 - roots)
    if rule.averaging is None:
        return Modes(roots, impulse, error, roots, impulse)
    gamma = float(rule.averaging)
    share = impulse * (1 - gamma) / (roots - gamma)
    averaged = np.concatenate([share * roots, -gamma * share.sum(0, keepdims=True)])
    return Modes(roots, impulse, error, np.concatenate([roots, np.full((1, x.size), gamma)]), averaged)


def wedge_angle(roots: Array) -> Array:
    """Angle of -log(root) from the positive axis: 0 for a mode that decays, beyond π/2 for one that grows."""
    return np.abs(np.angle(-np.log(roots)))


def mode_pairs(matrices: Array, roots: Array, factors: Array, product: Callable[[Array, Array], Array]) -> Pairs:
    """Σ_{NN'} matrix Σ_{ii'} factor_i factor_i' (root_i root_i')^k over nodes N and exponentials i, as sums over pairs of them.

    `product` gives the root of a product of two exponentials.
    """
    size, pairs = roots.shape[1], []
    flat = matrices.reshape(-1, size, size)
    upper, everything = upper_indices(size), tuple(np.indices((size, size)).reshape(2, -1))
    for i in range(len(roots)):
        for j in range(i + 1):
            # the matrices are symmetric: each pair of nodes, or of exponentials, stands for two
            if np.all(roots[i] == roots[i, 0]):  # that of the average: one sum over nodes is done here
                pairs.append((flat @ factors[i] * factors[j] * (1 if i == j else 2), product(roots[i], roots[j])))
                continue
            rows, cols = upper if i == j else everything
            weight = factors[i][rows] * factors[j][cols] * (np.where(rows == cols, 1, 2) if i == j else 2)
            pairs.append((flat[:, rows, cols] * weight, product(roots[i][rows], roots[j][cols])))
    return pairs


def generating_function(pairs: Pairs, s: Array, single: Callable[[Array, Array], Array]) -> Complex[Array, "F P"]:
    """Generating functions at P points of F sums over pairs."""
    result = np.zeros((len(pairs[0][0]), len(s)), complex)
    for weights, roots in pairs:
        for part in np.array_split(np.arange(len(s)), max(1, len(s) * len(roots) // BLOCK)):
            result[:, part] += product_in_one_thread(weights, single(s[part, None], roots).T)
    return result


def product_in_one_thread(one: Complex[Array, "L N"], other: Complex[Array, "*F N M"]) -> Complex[Array, "*F L M"]:
    """one @ other, in pieces so small that BLAS does each in one thread.

    These products take a millisecond. Threads that wait for one another take a hundred times as long where the machine is busy.
    """
    (length, size), width = one.shape, other.shape[-1]
    if width == 1:  # BLAS has another limit for vectors
        return np.einsum("ln,...nm->...lm", one, other)
    rows = max(1, SINGLE // (THICK * width))
    thick = max(1, SINGLE // (min(rows, length) * width))
    result = np.zeros((*other.shape[:-2], length, width), complex)
    for row in range(0, length, rows):
        for i in range(0, size, thick):
            result[..., row : row + rows, :] += one[row : row + rows, i : i + thick] @ other[..., i : i + thick, :]
    return result


def quadratic_forms(matrices: Complex[Array, "*F N N"], vectors: Complex[Array, "T N"]) -> Complex[Array, "*F T"]:
    """vᵀ A v of each matrix A and vector v."""
    return (product_in_one_thread(vectors, matrices) * vectors).sum(-1)


def inverted(values: Complex[Array, "..."]) -> Complex[Array, "..."]:
    """1/values, in place: numpy's own division of complex numbers, which scales against overflow, takes three times as long."""
    parts = values.view(float).reshape(*values.shape, 2)
    scale = 1 / (parts[..., 0] ** 2 + parts[..., 1] ** 2)
    parts[..., 0] *= scale
    parts[..., 1] *= -scale
    return values
