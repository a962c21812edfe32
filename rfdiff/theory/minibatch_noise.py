"""Losses under minibatch SGD: a Volterra equation in the number of steps, for any number of them (docs/theory/practice.md, eq-volterra).

    L_c(k) = L_c^det(k) + (ηκ)² (ψ_p/β) Σ_a ν_a Σ_{j<k} G_ca(k-1-j) ℓ_a(j),      G_ca(j) = (1/p) tr[U_c h_j(U) U_a h_j(U)],

L^det the losses of steps along the whole gradient, ℓ_a the train losses under SGD itself. Early steps are taken one by one. Later ones
come from the generating functions X̂(ζ) = Σ_k ζ^k X(k), in which the sum is a product:

    ℓ̂(ζ) = (1 - ζ C Ĝ(ζ) ν)^{-1} ℓ̂^det(ζ),      X(k) = (1/2πi) ∫ X̂(e^{-s}) e^{sk} ds.

The singularities of X̂(e^{-s}) lie at the logarithms of products of two growth factors of modes and where the inverse does not exist, all
on the negative axis where modes do not oscillate; those that do have died out by the time this begins. The integral runs along a
hyperbola to the right of them and of their images of the contour's nodes, one hyperbola for all k within a factor `WINDOW`.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float

from rfdiff.rules import MinibatchSGD
from rfdiff.theory.minibatch_modes import (
    Modes,
    Pairs,
    generating_function,
    inverted,
    mode_pairs,
    modes_of,
    quadratic_forms,
    wedge_angle,
)
from rfdiff.theory.minibatch_traces import NoiseTraces

Array = np.ndarray
DIED_OUT = 36.0  # natural logarithms after which an oscillating mode counts no more
FEWEST, MOST = 64, 2**14  # steps taken one by one
WINDOW = 4.0
POINTS = 64  # of a hyperbola's upper half
WEDGE = 0.95  # angle around the negative axis in which -s of a mode that does not oscillate lies: the contour's own is at most π/4
EXPONENT = 4.0  # of e^{sk} on a hyperbola's vertex at the end of its window, at most


class Limit(NamedTuple):
    """Stability, and what the noise leaves as k → ∞.

    radius: spectral radius of (ηκ)² (ψ_p/β) ν_a Σ_j G_ca(j) (train); SGD converges below 1. losses, excess (2, K): losses of SGD in the
    limit, train and test, and how far above those of the whole gradient they are; NaN from radius 1 on.
    """

    radius: float
    losses: Float[Array, "2 K"]
    excess: Float[Array, "2 K"]


@dataclass(frozen=True)
class Volterra:
    """The equation of a rule on the traces of a contour.

    Args:
        traces: on the whole contour.
        rule: SGD.
        kappa: κ.
        psi_p: ψ_p.
        draw_weights: (K,) ν_a.
    """

    traces: NoiseTraces
    rule: MinibatchSGD
    kappa: float
    psi_p: float
    draw_weights: Float[Array, " K"]

    @cached_property
    def modes(self) -> Modes:
        """Of the contour's nodes."""
        return modes_of(self.rule, self.kappa, self.traces.nodes)

    @property
    def strength(self) -> float:
        """(ηκ)² ψ_p/β."""
        return (float(self.rule.step_size) * self.kappa) ** 2 * self.psi_p / float(self.rule.batch_per_dimension)

    @cached_property
    def radius(self) -> float:
        """Spectral radius of what the noise of one step returns as noise later, (ηκ)² (ψ_p/β) ν_a Σ_j G_ca(j) of the train losses."""
        return float(np.max(np.abs(np.linalg.eigvals(self._returned[0]))))

    @cached_property
    def _returned(self) -> Float[Array, "2 K K"]:
        """(ηκ)² (ψ_p/β) ν_a Σ_j G_ca(j), c of train and test."""
        return self.strength * np.real(self._kernel(np.zeros(1), False)[..., 0]) * self.draw_weights

    def limit(self) -> Limit:
        """Stability and the losses as k → ∞."""
        radius, noise = self.radius, self._returned
        shifted = self.traces.nodes + self.rule.decay
        det = np.real(1 + 2 * (self.traces.linear / shifted).sum(-1) + (self.traces.second / np.outer(shifted, shifted)).sum((-2, -1)))
        if not radius < 1:
            return Limit(radius, np.full_like(det, np.nan), np.full_like(det, np.nan))
        train = np.linalg.solve(np.eye(len(noise[0])) - noise[0], det[0])
        if self.rule.averaging is not None:
            noise = self.strength * np.real(self._kernel(np.zeros(1), True)[..., 0]) * self.draw_weights
        excess = noise @ train
        return Limit(radius, det + excess, excess)

    def excess(self, steps: Float[Array, " T"]) -> Complex[Array, "2 T K"]:
        """L_c(k) - L_c^det(k) at T numbers of steps, of train and test; its imaginary part is an error."""
        direct = min(self.first_window, int(np.max(steps[np.isfinite(steps)], initial=0)))
        early = self._stepwise(direct)
        result = np.zeros((2, len(steps), early.shape[-1]), complex)
        near = steps <= direct
        result[:, near] = early[:, steps[near].astype(int)]
        if np.any(np.isinf(steps)):
            result[:, np.isinf(steps)] = self.limit().excess[:, None]
        return self._far(result, steps, ~near & np.isfinite(steps))

    def _far(self, result: Complex[Array, "2 T K"], steps: Float[Array, " T"], which: Array) -> Complex[Array, "2 T K"]:
        """The result with its entries at some of the steps, one hyperbola after the other."""
        left = np.flatnonzero(which)
        while left.size:
            first = steps[left[0]]
            window = left[steps[left] <= WINDOW * first]
            result[:, window] = self._windowed(steps[window], first)
            left = left[window.size :]
        return result

    @cached_property
    def first_window(self) -> int:
        """Number of steps after which every mode that oscillates has died out, on the contour's nodes too."""
        return min(max(FEWEST, math.ceil(DIED_OUT / max(-math.log(self.oscillation), 1e-12))), MOST)

    @cached_property
    def oscillation(self) -> float:
        """Largest growth factor of a mode that oscillates: its product with a slow one decays no more slowly."""
        real = self.traces.nodes.real
        on_axis = modes_of(self.rule, self.kappa, np.linspace(real.min(), real.max(), 2001) + 0j).roots
        roots = np.concatenate([on_axis.ravel(), self.modes.roots.ravel()])
        return float(np.max(np.abs(roots[wedge_angle(roots) > WEDGE]), initial=1e-300))

    @property
    def remainder(self) -> float:
        """What is left of oscillating modes where the hyperbolas begin, relative."""
        return math.exp(self.first_window * math.log(self.oscillation)) if self.first_window == MOST else 0.0

    def _stepwise(self, last: int) -> Complex[Array, "2 k K"]:
        """The excess after 0 … `last` steps."""
        modes, traces, k = self.modes, self.traces, len(self.draw_weights)
        powers = modes.roots[:, None] ** np.arange(last + 1)[:, None]
        h = np.einsum("rn,rjn->jn", modes.impulse, powers)
        f = (1 - np.einsum("rn,rjn->jn", modes.error, powers)) / (traces.nodes + self.rule.decay)
        det = 1 + 2 * f @ traces.linear[0].T + np.moveaxis(quadratic_forms(traces.second[0], f), 0, -1)
        weighted = self.strength * self.draw_weights

        def kernel(h: Array, side: int) -> Array:
            return quadratic_forms(traces.moments[side], h) * weighted[:, None]

        G, loss, excess = kernel(h, 0), np.zeros((k, last + 1), complex), np.zeros((2, last + 1, k), complex)
        for j in range(last + 1):
            loss[:, j] = det[j] + np.einsum("caj,aj->c", G[:, :, :j][:, :, ::-1], loss[:, :j])
        if self.rule.averaging is not None:
            h = np.einsum("sn,sjn->jn", modes.averaged, modes.averaged_roots[:, None] ** np.arange(last + 1)[:, None])
        for side in range(2):
            G = kernel(h, side)
            for c in range(k):
                excess[side, 1:, c] = sum(_convolved(G[c, a], loss[a])[:last] for a in range(k))
        return excess

    def _windowed(self, steps: Float[Array, " T"], first: float) -> Complex[Array, "2 T K"]:
        """The excess at steps within a factor `WINDOW` from the first, along one hyperbola."""
        s, weights = self._hyperbola(first)
        factors = np.exp(np.outer(steps, s)) * weights
        noise = self._transform(s)
        whole, half = (np.real(np.einsum("ti,sci->stc", factors[:, ::each] * each, noise[..., ::each])) for each in (1, 2))
        return whole + 1j * np.minimum(abs(whole - half), 10 * (whole - half) ** 2)

    def _hyperbola(self, first: float) -> tuple[Complex[Array, " P"], Complex[Array, " P"]]:
        """Points s on the upper half of a hyperbola around the singularities, and weights ds/(πi).

        The real part of a sum over them is the integral along the hyperbola: the losses are real, so that its halves are conjugate.
        """
        angles = abs(np.angle(-self._exponents(np.concatenate([self.modes.roots, self.modes.averaged_roots]))))
        wedge = float(np.max(angles[angles <= WEDGE], initial=0.1))
        alpha = (np.pi / 2 - wedge) / 2
        scale = EXPONENT / (WINDOW * first * (1 - math.sin(alpha)))
        reach = math.acosh((1 + DIED_OUT / (scale * first)) / math.sin(alpha))
        u = np.linspace(0, reach, POINTS + 1)
        s = scale * (1 - math.sin(alpha) * np.cosh(u) + 1j * math.cos(alpha) * np.sinh(u))
        slope = scale * (-math.sin(alpha) * np.sinh(u) + 1j * math.cos(alpha) * np.cosh(u))
        return s, slope * (u[1] - u[0]) / (1j * np.pi) * np.where(u == 0, 0.5, 1)

    def _transform(self, s: Complex[Array, " P"]) -> Complex[Array, "2 K P"]:
        """Generating function of the excess, train and test, at e^{-s}."""
        still, k = self.rule.averaging is None, len(self.draw_weights)
        # noise of the train losses, of the test losses too where weights are not averaged, and the errors of the whole gradient, in one go
        summed = generating_function(self._raw_pairs if still else self._train_pairs, s, self._single)
        delay, det, kernel = self._delay(s), self._deterministic(s, summed[:k]), summed[k:].reshape(-1, k, k, len(s))
        K = self.strength * delay * kernel[0] * self.draw_weights[:, None]
        loss = np.linalg.solve(np.eye(len(det)) - np.moveaxis(K, -1, 0), det.T[..., None])[..., 0]
        averaged = kernel if still else self._kernel(s, True)
        return np.einsum("scap,a,pa->scp", averaged, self.strength * self.draw_weights, loss) * delay

    def _deterministic(self, s: Complex[Array, " P"], errors: Complex[Array, "K P"]) -> Complex[Array, "K P"]:
        """Generating function of the train losses along the whole gradient, by f_k f'_k = (1 - e_k)(1 - e'_k)/((λ + ρ)(λ' + ρ)).

        `errors` is that of Σ second e_k e'_k.
        """
        modes, traces, shifted = self.modes, self.traces, self.traces.nodes + self.rule.decay
        ones = self._constant(s)
        e = (modes.error[:, None] * self._single(s[:, None], modes.roots[:, None])).sum(0)  # (P, N)
        linear, second = traces.linear[0] / shifted, traces.second[0] / np.outer(shifted, shifted)
        result = ones + 2 * linear @ (ones[:, None] - e).T
        result = result + second.sum((-2, -1))[:, None] * ones - 2 * second.sum(-1) @ e.T
        return result + errors

    def _kernel(self, s: Complex[Array, " P"], averaged: bool) -> Complex[Array, "2 K K P"]:
        """Generating function of G_ca(j), c of train and test."""
        k = len(self.draw_weights)
        pairs = self._averaged_pairs if averaged else [(weights[k:], roots) for weights, roots in self._raw_pairs]
        return generating_function(pairs, s, self._single).reshape(2, k, k, len(s))

    @cached_property
    def _raw_pairs(self) -> Pairs:
        """Of Σ second e_k e'_k (K sums), and of the moments (2K² sums), whose exponentials are the same."""
        shifted = self.traces.nodes + self.rule.decay
        second = mode_pairs(self.traces.second[0] / np.outer(shifted, shifted), self.modes.roots, self.modes.error, self._product)
        moments = mode_pairs(self.traces.moments, self.modes.roots, self.modes.impulse, self._product)
        return [(np.concatenate([one, other]), roots) for (one, roots), (other, _) in zip(second, moments, strict=True)]

    @cached_property
    def _train_pairs(self) -> Pairs:
        k = len(self.draw_weights)
        return [(weights[: k + k * k], roots) for weights, roots in self._raw_pairs]

    @cached_property
    def _averaged_pairs(self) -> Pairs:
        return mode_pairs(self.traces.moments, self.modes.averaged_roots, self.modes.averaged, self._product)

    def _constant(self, s: Array) -> Array:
        """Generating function of 1."""
        return -1 / np.expm1(-s)

    def _single(self, s: Array, root: Array) -> Array:
        """Generating function of root^k at ζ = e^{-s}."""
        function = -np.exp(-s) * root
        function += 1
        return inverted(function)

    def _product(self, one: Array, other: Array) -> Array:
        """Root of a product of two modes."""
        return one * other

    def _exponents(self, roots: Array) -> Array:
        """Where the generating function of a mode is singular in s."""
        return np.log(roots)

    def _delay(self, s: Array) -> Array:
        """ζ: the noise of a step moves the losses one step later."""
        return np.exp(-s)


def _convolved(kernel: Array, values: Array) -> Array:
    """Σ_{j ≤ i} kernel(i - j) values(j)."""
    size = 2 ** math.ceil(math.log2(2 * len(values)))
    result: Array = np.fft.ifft(np.fft.fft(kernel, size) * np.fft.fft(values, size))[: len(values)]
    return result
