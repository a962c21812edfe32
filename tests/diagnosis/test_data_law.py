"""What a class is like, and settings that are refused."""

from typing import Any

import numpy as np
import pytest

from rfdiff.diagnosis.data_law import Setting, class_numbers, fitted_law
from rfdiff.errors import InputError
from rfdiff.samples import Samples
from tests.tolerances import rejects


def test_numbers_of_known_classes() -> None:
    """Classes at (±2, 0, 0, 0) √d/2 ... of equal size: means opposite each other, and effective dimensions of their covariances."""
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(4000, 4))
    thin = rng.normal(size=(4000, 4)) * np.array([2.0, 0.1, 0.1, 0.1])
    wide[:, 0] += 2
    thin[:, 0] -= 2
    data = Samples(np.concatenate([wide, thin]), np.repeat(["wide", "thin"], 4000))
    numbers = {name: value[1] for name, value in class_numbers(data, fitted_law(data)).items()}
    assert data.class_names == ("thin", "wide") and numbers["samples"].tolist() == [4000, 4000]
    np.testing.assert_allclose(numbers["effective_dimension"], [4.03**2 / 16.0003, 4], rtol=0.02)
    np.testing.assert_allclose(numbers["variance"], [4.03 / 4, 1], rtol=0.05)
    np.testing.assert_allclose(numbers["centroid_norm"], [1, 1], rtol=0.05)
    np.testing.assert_allclose(numbers["centroid_angle"], [[0, 180], [180, 0]], atol=3)
    rejects(lambda: np.testing.assert_allclose(numbers["effective_dimension"][::-1], [4.03**2 / 16.0003, 4], rtol=0.02))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"times": ()}, r"times: \(\); allowed: 1 to 20 increasing numbers > 0"),
        ({"times": (0.1, 0.1)}, "times: .*increasing"),
        ({"times": (0.0, 1.0)}, "times: .*> 0"),
        ({"activation": "swish"}, "activation: 'swish'; allowed: tanh"),
        ({"num_seeds": 1}, "networks: 1; allowed: an integer >= 2, for a standard error; or 0 for none"),
        ({"seed": -1}, "seed: -1"),
        ({"remedies": "all"}, "remedies: 'all'; allowed: try, search, none"),
    ],
)
def test_refused_settings(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Setting(**wrong)


def test_the_main_time_is_the_one_nearest_a_tenth() -> None:
    assert Setting().times[Setting().main] == 0.1
    assert Setting(times=(0.5, 0.7, 2.0)).main == 0


def test_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="data: 1 class; allowed: at least 2"):
        fitted_law(Samples(np.eye(3), [0, 0, 0]))
