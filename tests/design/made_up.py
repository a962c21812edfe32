"""Proposals and a trial with every field filled in, for tests of texts, tables, files and figures."""

import dataclasses

import numpy as np

from rfdiff.design import Proposal, Trial


def proposal(best: float = 1.2, weights: float = 2.2, samples: float = 1.3, cost: float = 0.2) -> Proposal:
    """Two classes, of which class 0 is learned worst: score errors of 2.4 and 1.0 as they are."""
    worst = np.array([2.4, weights, samples, best])
    errors = np.stack([worst, 1.0 + cost * np.arange(4) / 3], 1)
    front = np.linspace(0, 1, 5)
    return Proposal(
        goal=worst,
        tau=np.array([6.0, 7.0, 8.0, 9.0]),
        score_error=errors,
        loss_weights=np.array([[0.1, 0.9], [0.6, 0.4], [0.3, 0.7], [0.4, 0.6]]),
        samples=np.array([[0.4, 3.6], [0.4, 3.6], [1.6, 3.6], [1.6, 3.6]]),
        psi_p=np.full(4, 8.0),
        front_score_error=np.stack([1.2 + front, 1.2 - 0.3 * front], 1),
        front_tau=np.full(5, 7.0),
        front_loss_weights=np.stack([0.6 - 0.5 * front, 0.4 + 0.5 * front], 1),
        front_samples=np.full((5, 2), 1.6),
        front_psi_p=np.full(5, 8.0),
        error_estimate=1e-6,
        what="worst-class score error",
        levers="loss_weights, stop_time, samples_0",
        worst=0,
        factor=4.0,
    )


def sgd_proposal(sampling: str = "uniform") -> Proposal:
    """The same for minibatch SGD, with another step, batch and average at the best setting."""
    return dataclasses.replace(
        proposal(),
        levers="step, batch, averaging, stop_time",
        step_size=np.array([0.5, 0.5, 0.5, 0.25]),
        batch=np.array([1.0, 1.0, 1.0, 0.5]),
        averaging=np.array([0.0, 0.0, 0.0, 0.98]),
        visited=np.array([12.0, 14.0, 16.0, 18.0]),
        front_step_size=np.full(5, 0.25),
        front_batch=np.full(5, 0.5),
        front_averaging=np.full(5, 0.98),
        front_visited=np.full(5, 14.0),
        budget=20.0,
        sampling=sampling,
    )


def trial(seeds: int = 4) -> Trial:
    """Networks that scatter around the theory of `proposal`, the same ones at both settings."""
    predicted = proposal().score_error[[0, -1]]
    simulated = predicted[:, None, :] + 0.05 * np.random.default_rng(0).standard_normal((2, seeds, 2))
    change = simulated[1] - simulated[0]
    return Trial(simulated, predicted, change.mean(0), change.std(0, ddof=1) / np.sqrt(seeds), 40)
