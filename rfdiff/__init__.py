"""rfdiff: which class does a diffusion model learn first, which does it memorise, when, and why.

Random-features score learning on Gaussian mixtures: closed-form per-class learning curves (`rfdiff.theory`), real networks
(`rfdiff.simulation`), the comparison of the two (`compare`), backward diffusion (`rfdiff.backward`), and what
trained networks generate by it (`rfdiff.generation`).
"""

from rfdiff import backward, generation, simulation, theory
from rfdiff.activation import Activation
from rfdiff.agreement import Agreement, assess, compare
from rfdiff.class_times import ClassTimes, times
from rfdiff.curves import EmpiricalSpectrum, LearningCurves, Spectrum
from rfdiff.files.result_file import Result, load, save
from rfdiff.mixture import GaussianMixture, MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import GradientDescent, GradientFlow, HeavyBall, Ridge
from rfdiff.samples import Samples

__version__ = "0.1.0"

__all__ = [
    "Activation", "Agreement", "ClassTimes", "EmpiricalSpectrum", "GaussianMixture", "GradientDescent", "GradientFlow", "HeavyBall",
    "LearningCurves", "MixtureLaw", "Problem", "Result", "Ridge", "Samples", "Spectrum", "assess", "backward", "compare", "generation",
    "load", "save", "simulation", "theory", "times",
]  # fmt: skip
