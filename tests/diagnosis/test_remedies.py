"""What would help, in words; and reasons where nothing can be said."""

import numpy as np
import pytest

from rfdiff import MixtureLaw, Problem, design
from rfdiff.backward import speciation_times
from rfdiff.diagnosis import remedies
from rfdiff.diagnosis.remedies import candidates, hardest, searched, speciation, tried
from rfdiff.errors import InputError
from tests import synthetic
from tests.design import made_up


def test_a_proposal_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remedies, "propose", lambda *_, **__: made_up.proposal())
    found = searched(synthetic.problem(), ("ant", "bee"))
    assert found.reason == "" and found.loss_weights.tolist() == [0.6, 0.4]
    assert found.sentences[0] == "unchanged, the largest score error of any class is 2.4, at the best common stop time 6"
    assert "weights of the classes in the loss (ant 0.60, bee 0.40) take 8 % off it" in found.sentences[1]
    assert found.sentences[2] == "4 times the samples of ant take 46 % off it"
    monkeypatch.setattr(remedies, "propose", lambda *_, **__: made_up.proposal(weights=2.395, samples=2.39))
    told = searched(synthetic.problem(), ("ant", "bee")).sentences
    assert told[1].startswith("no weights of the classes in the loss help") and told[2].startswith("4 times the samples of ant do not help")


def test_what_cannot_be_searched_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> design.Proposal:
        raise InputError("mixture: not today")

    monkeypatch.setattr(remedies, "propose", refuse)
    found = searched(synthetic.problem(), ("ant", "bee"))
    assert found.reason == "mixture: not today" and found.sentences == () and np.isnan(found.loss_weights).all()


def test_speciation_times_have_errors() -> None:
    law = MixtureLaw.isotropic([0.5, 0.5], [1.0, 1.0], [[1.0, -1.0], [-1.0, 1.0]])
    found = speciation(law, 100, 5e-3)
    np.testing.assert_allclose(found["time"], speciation_times(law, d=100), rtol=1e-9)
    assert np.all(found["error"] < 1e-9)
    with pytest.raises(InputError, match="a single class has no speciation"):
        speciation(MixtureLaw.isotropic([1.0], [1.0]), 100, 5e-3)


def test_candidates_change_one_class_alone() -> None:
    law = MixtureLaw.from_covariances([0.8, 0.2], np.stack([np.eye(3), 2 * np.eye(3)]), np.zeros((2, 3)))
    problem = Problem(law, "tanh", 0.1, 4.0, 10.0)
    found = candidates(problem, [1, 0])
    assert sorted(found) == ["samples-0", "samples-1", "weight-0.5", "weight-2", "weight-4"]
    np.testing.assert_allclose(np.asarray(found["weight-4"].loss_weights), [0.5, 0.5])
    assert found["weight-4"].psi_n == 10 and found["samples-1"].loss_weights is None
    np.testing.assert_allclose(np.asarray(found["samples-1"].mixture.weights) * found["samples-1"].psi_n, [8, 8])
    np.testing.assert_allclose(np.asarray(found["samples-0"].mixture.weights) * found["samples-0"].psi_n, [32, 2])


def test_the_best_of_what_was_tried_is_told() -> None:
    taus = np.array([1.0, 10.0])

    def at(worst: float, other: float = 0.4) -> dict[str, np.ndarray]:
        return {"taus": taus, "score_error": np.array([[0.5, 2 * worst], [other, worst]])}

    assert hardest(at(1.0)) == [1] and hardest(at(1.0, 0.96)) == [1, 0]
    found = {"weight-0.5": at(1.2), "weight-2": at(0.9), "weight-4": at(0.8), "samples-1": at(0.999), "samples-0": at(0.7)}
    told = tried(("ant", "bee"), [1, 0], at(1.0), found, np.array([0.8, 0.2]))
    assert told.sentences == (
        "unchanged, the largest score error of any class is 1, at the best common stop time 10",
        "with 4 times the weight in the loss of bee it is 20 % less, stopped at 10; tried: 0.5, 2, 4 times",
        "4 times the samples of bee would not help: -0.1 %",
        "with 4 times the samples of ant it is 30 % less, stopped at 10",
    )
    np.testing.assert_allclose(told.loss_weights, [0.5, 0.5])
