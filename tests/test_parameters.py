"""Numbers of a problem by name: what is set, what stays, and what is refused."""

import re

import numpy as np
import pytest

from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.parameters import get_parameter, meaning, parameter_names, set_parameter
from rfdiff.problem import Problem
from tests.synthetic import given


def problem() -> Problem:
    law = MixtureLaw(
        [0.5, 0.3, 0.2], [[1.0, 2.0, 0.5], [3.0, 1.0, 0.5]], [0.25, 0.75], np.diag([1.0, 0.5, 0.0]) + 0.1 * np.eye(3)[[1, 0, 2]]
    )
    return Problem(law, "tanh", t=0.1, psi_p=4.0, psi_n=3.0)


def moves(name: str, other: str) -> bool:
    """Whether setting one number moves another: shares among themselves, samples and shares, loss weights after the fractions."""
    kind, affected = (re.sub(r"_\d+$", "", text) for text in (name, other))
    return affected in {"weight": {"weight", "samples", "loss_weight"}, "samples": {"samples", "weight", "psi_n", "loss_weight"}}.get(
        kind, {kind, "samples"} if kind == "psi_n" else {kind}
    )


def test_what_is_set_is_read_back_and_nothing_else_moves() -> None:
    before = problem()
    for name in parameter_names(before):
        value = 1.1 * float(get_parameter(before, name))
        after = set_parameter(before, name, value)
        assert float(get_parameter(after, name)) == pytest.approx(value, rel=1e-14)
        for other in parameter_names(before):
            if not moves(name, other):
                assert float(get_parameter(after, other)) == pytest.approx(float(get_parameter(before, other)), rel=1e-14), (name, other)


def test_a_name_says_what_stays() -> None:
    assert meaning("weight_12") == "fraction of class 12; the other classes keep their proportions, and all variances and centroids stay"
    assert meaning("variance_ratio").endswith("class 1 stays, the covariance of class 0 is scaled")
    assert {meaning(name) for name in parameter_names(problem())} > {meaning("t"), meaning("psi_p"), meaning("psi_n")}
    with pytest.raises(InputError, match="parameter: 'weight'; allowed: t, psi_p"):
        meaning("weight")


def test_other_classes_keep_their_proportions() -> None:
    after = set_parameter(problem(), "weight_0", 0.8)
    np.testing.assert_allclose(after.mixture.weights, [0.8, 0.2 * 0.6, 0.2 * 0.4], rtol=1e-14)


def test_loss_weights_follow_the_fractions_until_they_are_set() -> None:
    moved = set_parameter(problem(), "weight_0", 0.8)
    assert moved.loss_weights is None and float(get_parameter(moved, "loss_weight_0")) == 0.8
    weighted = set_parameter(problem(), "loss_weight_1", 0.6)
    np.testing.assert_allclose(np.asarray(given(weighted.loss_weights)), [0.4 * 5 / 7, 0.6, 0.4 * 2 / 7], rtol=1e-14)
    np.testing.assert_array_equal(weighted.mixture.weights, problem().mixture.weights)
    np.testing.assert_array_equal(given(set_parameter(weighted, "weight_0", 0.8).loss_weights), given(weighted.loss_weights))


def test_samples_of_one_class_leave_those_of_the_others() -> None:
    before = problem()
    after = set_parameter(before, "samples_2", 2 * 3.0 * 0.2)
    np.testing.assert_allclose(float(after.psi_n) * np.asarray(after.mixture.weights), [1.5, 0.9, 1.2], rtol=1e-14)
    assert after.psi_n == pytest.approx(3.6, rel=1e-14)


def test_a_variance_scales_the_whole_covariance() -> None:
    after = set_parameter(problem(), "variance_1", 2.5)
    np.testing.assert_allclose(after.mixture.eigenvalues[:, 1], [4.0, 2.0], rtol=1e-14)
    ratio = set_parameter(problem(), "variance_ratio", 3.0).mixture
    assert ratio.variances[0] == pytest.approx(3 * ratio.variances[1], rel=1e-14)
    np.testing.assert_array_equal(ratio.eigenvalues[:, 1:], problem().mixture.eigenvalues[:, 1:])


def test_a_centroid_keeps_its_direction() -> None:
    before, after = problem().mixture.centroid_gram, set_parameter(problem(), "centroid_norm_0", 4.4).mixture.centroid_gram
    assert after[0, 1] / np.sqrt(after[0, 0] * after[1, 1]) == pytest.approx(before[0, 1] / np.sqrt(before[0, 0] * before[1, 1]), rel=1e-14)


def test_matrices_of_a_law_move_with_its_numbers() -> None:
    covariances = np.stack([np.diag([1.0, 3.0]), np.array([[2.0, 0.5], [0.5, 1.0]])])
    law = MixtureLaw.from_covariances([0.5, 0.5], covariances, np.array([[1.0, 0.0], [0.5, 0.5]]))
    at = Problem(law, "tanh", t=0.1, psi_p=4.0, psi_n=3.0)
    np.testing.assert_allclose(given(set_parameter(at, "variance_1", 3.0).mixture.covariances)[1], 2 * covariances[1], rtol=1e-14)
    moved = set_parameter(at, "centroid_norm_0", 2.0).mixture
    np.testing.assert_allclose(given(moved.centroids) @ given(moved.centroids).T / 2, moved.centroid_gram, rtol=1e-14)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sigma", 1.0, r"parameter: 'sigma'; allowed: t, psi_p"),
        ("variance_3", 1.0, r"parameter: 'variance_3' of a problem with 3 classes"),
        ("weight_0", 1.0, r"weights: .* has an entry <= 0"),
        ("weight_0", -0.1, r"weights: .* has an entry <= 0"),
        ("samples_0", 0.0, r"weights: .* has an entry <= 0"),
        ("loss_weight_0", 1.5, r"loss_weights: .*allowed: finite numbers >= 0 that sum to 1"),
        ("loss_weight_3", 0.5, r"parameter: 'loss_weight_3' of a problem with 3 classes"),
        ("t", 0.0, r"t: 0.0; allowed"),
        ("variance_0", -1.0, r"eigenvalues: smallest variance"),
    ],
)
def test_refused(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        set_parameter(problem(), name, value)


def test_nothing_to_scale_is_refused() -> None:
    centred = Problem(MixtureLaw.isotropic([1.0], [1.0]), "tanh", t=0.1, psi_p=4.0, psi_n=3.0)
    assert not any(name.startswith("loss_weight") for name in parameter_names(set_parameter(problem(), "loss_weight_0", 1.0)))
    assert parameter_names(centred) == ["t", "psi_p", "psi_n", "variance_0"]
    with pytest.raises(ValueError, match="centroid_norm_0 is 0 in the problem and cannot be scaled"):
        set_parameter(centred, "centroid_norm_0", 1.0)
    with pytest.raises(ValueError, match="'weight_0' of a problem with 1 classes"):
        set_parameter(centred, "weight_0", 0.5)
    with pytest.raises(ValueError, match="'loss_weight_0' of a problem with 1 classes"):
        set_parameter(centred, "loss_weight_0", 0.5)
    one_sided = set_parameter(problem(), "loss_weight_0", 1.0)
    np.testing.assert_array_equal(given(one_sided.loss_weights), [1.0, 0.0, 0.0])
    np.testing.assert_allclose(np.asarray(given(set_parameter(one_sided, "loss_weight_0", 0.5).loss_weights)), [0.5, 0.3, 0.2])
    with pytest.raises(ValueError, match="parameter: 'variance_ratio'; allowed"):
        get_parameter(centred, "variance_ratio")
