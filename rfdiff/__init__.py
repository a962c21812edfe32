"""rfdiff: which class does a diffusion model learn first, which does it memorise, when, and why.

Random-features score learning on Gaussian mixtures: closed-form per-class learning curves (`rfdiff.theory`), real networks
(`rfdiff.simulation`), the comparison of the two (`compare`), backward diffusion (`rfdiff.backward`), what trained networks generate by
it (`rfdiff.generation`), and figures of all of these (`rfdiff.plots`).

Every name is imported when it is first used, so that `import rfdiff` costs nothing and figures or files cost only those who ask for them.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rfdiff import backward as backward
    from rfdiff import calibration as calibration
    from rfdiff import datasets as datasets
    from rfdiff import design as design
    from rfdiff import diagnosis as diagnosis
    from rfdiff import generation as generation
    from rfdiff import plots as plots
    from rfdiff import simulation as simulation
    from rfdiff import theory as theory
    from rfdiff.activation import Activation as Activation
    from rfdiff.agreement import Agreement as Agreement
    from rfdiff.agreement import assess as assess
    from rfdiff.agreement import compare as compare
    from rfdiff.class_times import ClassTimes as ClassTimes
    from rfdiff.class_times import times as times
    from rfdiff.curves import EmpiricalSpectrum as EmpiricalSpectrum
    from rfdiff.curves import LearningCurves as LearningCurves
    from rfdiff.curves import Spectrum as Spectrum
    from rfdiff.errors import InputError as InputError
    from rfdiff.files.result_file import Result as Result
    from rfdiff.files.storage import load as load
    from rfdiff.files.storage import save as save
    from rfdiff.gaussian_mixture import GaussianMixture as GaussianMixture
    from rfdiff.memorisation import memorised_fraction as memorised_fraction
    from rfdiff.mixture import MixtureLaw as MixtureLaw
    from rfdiff.problem import Problem as Problem
    from rfdiff.rules import GradientDescent as GradientDescent
    from rfdiff.rules import GradientFlow as GradientFlow
    from rfdiff.rules import HeavyBall as HeavyBall
    from rfdiff.rules import MinibatchSGD as MinibatchSGD
    from rfdiff.rules import Nesterov as Nesterov
    from rfdiff.rules import Ridge as Ridge
    from rfdiff.samples import Samples as Samples

__version__ = "0.1.0"

SUBPACKAGES = ("backward", "calibration", "datasets", "design", "diagnosis", "generation", "plots", "simulation", "theory")
HOMES = {
    "Activation": "activation",
    "Agreement": "agreement",
    "ClassTimes": "class_times",
    "EmpiricalSpectrum": "curves",
    "GaussianMixture": "gaussian_mixture",
    "GradientDescent": "rules",
    "GradientFlow": "rules",
    "HeavyBall": "rules",
    "InputError": "errors",
    "LearningCurves": "curves",
    "MixtureLaw": "mixture",
    "Problem": "problem",
    "Result": "files.result_file",
    "MinibatchSGD": "rules",
    "Nesterov": "rules",
    "Ridge": "rules",
    "Samples": "samples",
    "Spectrum": "curves",
    "assess": "agreement",
    "compare": "agreement",
    "load": "files.storage",
    "memorised_fraction": "memorisation",
    "save": "files.storage",
    "times": "class_times",
}
__all__ = [*HOMES, *SUBPACKAGES]  # noqa: PLE0604 - names, though the linter cannot see it


def __getattr__(name: str) -> object:
    """The public object of a name, imported now and kept.

    Raises:
        AttributeError: no such name.
    """
    if name in SUBPACKAGES:
        return importlib.import_module(f"rfdiff.{name}")
    if name not in HOMES:
        raise AttributeError(f"module 'rfdiff' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"rfdiff.{HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
