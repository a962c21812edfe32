"""Elements outside a core to second order, against inverses of all directions at once: what is left falls like their third power."""

from typing import NamedTuple

import numpy as np
import pytest

from rfdiff.theory.noncommuting.blocks import ManyTypes
from rfdiff.theory.noncommuting.coupled_tail import CoupledTail
from rfdiff.theory.noncommuting.directions import products, products_at_one_point
from rfdiff.theory.noncommuting.tail_coupling import TailCoupling, tail_coupling
from rfdiff.theory.noncommuting.working_basis import Matrices, basis_of

D, CORE, DELTA, SIGNAL = 12, 4, 0.3, 0.7


class Errors(NamedTuple):
    """Largest errors of (1/d) tr G_ab, and of (1/d) tr[G_ab(z1) G_cd(z2)] at two points, at conjugate ones and at one."""

    traces: float
    products: float


def covariances(k: int, strength: float, core_strength: float) -> np.ndarray:
    """Σ_c / signal with elements outside the core of the given size, and tail directions alike within their groups."""
    rng = np.random.default_rng(k)
    matrices = rng.standard_normal((k, D, D)) / np.sqrt(D)
    matrices = matrices + np.swapaxes(matrices, 1, 2)
    inside = matrices[:, :CORE, :CORE] * core_strength
    matrices *= strength
    matrices[:, :CORE, :CORE] = inside
    group = tail_coupling(matrices, 1.0, np.eye(CORE)).group
    alike = np.concatenate([np.arange(CORE), CORE + group])
    matrices[:, np.arange(D), np.arange(D)] = rng.uniform(0.5, 2, (k, D))[:, alike]
    matrices[0, :CORE, :CORE] = np.diag(np.diagonal(matrices[0])[:CORE])
    return matrices


def points(k: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(a, b, H) of two points."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(2):
        H = rng.standard_normal((k, k)) * 0.4
        a, b = (rng.uniform(0.4, 1, k) + 1j * rng.uniform(-0.5, -0.1, k) for _ in range(2))
        found.append((a, b, H + H.T + (1 + 0.6j) * np.eye(k)))
    return found


def brute(matrices: np.ndarray, a: np.ndarray, b: np.ndarray, H: np.ndarray) -> np.ndarray:
    """(K, K, d, d) blocks of (I + MH)^{-1} M."""
    k, d, _ = matrices.shape
    M = np.zeros((k, d, k, d), complex)
    for c in range(k):
        M[c, :, c] = a[c] * SIGNAL * matrices[c] + b[c] * DELTA * np.eye(d)
    flat = M.reshape(k * d, k * d)
    whole = np.linalg.solve(np.eye(k * d) + flat @ np.kron(H, np.eye(d)), flat)
    return whole.reshape(k, d, k, d).transpose(0, 2, 1, 3)


def errors(k: int, strength: float, core_strength: float, form: type[ManyTypes] = CoupledTail) -> Errors:
    """Of the blocks of a form, against brute force."""
    matrices, base = covariances(k, strength, core_strength), k * k
    made = Matrices(SIGNAL * matrices[:, :CORE, :CORE], SIGNAL * np.einsum("kaa->ka", matrices)[:, CORE:], 0.0)
    coupling: TailCoupling = tail_coupling(matrices, SIGNAL, np.eye(CORE))
    directions = CoupledTail(made, DELTA, coupling) if form is CoupledTail else form(made, DELTA)
    nodes, whole = [], []
    for a, b, H in points(k):
        nodes.append(directions.node(a, b, directions.entries(H[None])[0]))
        whole.append(brute(matrices, a, b, H).reshape(base, D, D))
    traces = [directions.traces(node) - np.einsum("ijj->i", G) / D for node, G in zip(nodes, whole, strict=True)]
    both = [*whole, *(G.conj() for G in whole)]
    exact = np.array([[np.einsum("ixy,jyx->ij", one, two) / D for two in both] for one in whole])
    found = products(directions, nodes, lambda rows: None)
    one = products_at_one_point(directions, nodes[1]) - exact[1, 1]
    return Errors(float(np.max(abs(np.array(traces)))), max(float(np.max(abs(x))) for x in (found - exact, one)))


@pytest.mark.parametrize("k", [2, 3])
def test_what_is_left_is_of_third_order(k: int) -> None:
    whole, half = (errors(k, strength, 0.0) for strength in (0.04, 0.02))
    without, half_without = (errors(k, strength, 0.0, ManyTypes) for strength in (0.04, 0.02))
    for kind in range(2):
        assert half[kind] < whole[kind] / 6.5 and whole[kind] < 0.02 * without[kind]
        assert half_without[kind] > without[kind] / 4.5, "leaving the elements out is of second order"


def test_a_core_of_its_own() -> None:
    """Traces stay of third order with coupled core directions; products neglect that a core direction answers in the others."""
    whole, half = (errors(3, strength, 0.5) for strength in (0.04, 0.02))
    without = errors(3, 0.04, 0.5, ManyTypes)
    assert half.traces < whole.traces / 6.5
    assert whole.products < 0.05 * without.products


def test_core_and_coupling_are_in_one_basis() -> None:
    """Also where class 0 has no eigenvectors of its own, so that any basis of the core is one."""
    matrices = covariances(3, 0.04, 0.0)
    matrices[0] = np.eye(D)
    basis = basis_of(matrices, np.full(3, 1 / 3), SIGNAL, DELTA)
    a, b, H = points(3)[0]
    whole = np.einsum("ijj->i", brute(matrices, a, b, H).reshape(9, D, D)) / D
    made, coupling = basis.with_outside(CORE)
    found = []
    for directions in (CoupledTail(made, DELTA, coupling), ManyTypes(made, DELTA)):
        node = directions.node(a, b, directions.entries(H[None])[0])
        found.append(float(np.max(abs(directions.traces(node) - whole))))
    assert found[0] < 0.05 * found[1]
    turned = coupling._replace(onto=coupling.onto[..., ::-1, ::-1])  # core directions of another basis
    node = CoupledTail(made, DELTA, turned).node(a, b, directions.entries(H[None])[0])
    assert np.max(abs(CoupledTail(made, DELTA, turned).traces(node) - whole)) > 1.5 * found[0]
