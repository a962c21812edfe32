"""What to do about a class that is not learned: the setting that serves a goal best, what it costs the other classes, and a trial of it.

`propose` searches loss weights, stop time, samples of single classes and the number of features by derivatives of the theory, and with
minibatch SGD its step, batch and average; `verify` trains networks at the proposed setting and at the unchanged one.
"""

from rfdiff.design.best_settings import checked_design, propose
from rfdiff.design.goals import Goal, LearnedBefore, WeightedSum, WorstClass, goal_of
from rfdiff.design.levers import LEVERS, Levers, Setting, levers_of
from rfdiff.design.proposals import Proposal
from rfdiff.design.trials import Trial, verify

__all__ = [
    "LEVERS", "Goal", "LearnedBefore", "Levers", "Proposal", "Setting", "Trial", "WeightedSum", "WorstClass", "checked_design", "goal_of",
    "levers_of", "propose", "verify",
]  # fmt: skip
