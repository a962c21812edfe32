"""rfdiff: which class does a diffusion model learn first, which does it memorise, when, and why.

Random-features score learning on Gaussian mixtures: closed-form per-class learning curves (`rfdiff.theory`), real networks
(`rfdiff.simulation`), the comparison of the two (`compare`), backward diffusion (`rfdiff.backward`), and what
trained networks generate by it (`rfdiff.generation`).
"""

from rfdiff import backward, generation, simulation, theory
from rfdiff.activation import Activation
from rfdiff.agreement import Agreement, assess, compare
from rfdiff.curves import ClassTimes, EmpiricalSpectrum, LearningCurves, Spectrum, times
from rfdiff.mixture import GaussianMixture, MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import GradientDescent, GradientFlow, HeavyBall, Ridge
from rfdiff.samples import Samples
from rfdiff.store import Result, load, save

__version__ = "0.1.0"

__all__ = [
    "Activation", "Agreement", "ClassTimes", "EmpiricalSpectrum", "GaussianMixture", "GradientDescent", "GradientFlow", "HeavyBall",
    "LearningCurves", "MixtureLaw", "Problem", "Result", "Ridge", "Samples", "Spectrum", "assess", "backward", "compare", "generation",
    "load", "save", "simulation", "theory", "times",
]  # fmt: skip
