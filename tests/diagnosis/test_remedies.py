"""What would help, in words; and reasons where nothing can be said."""

import numpy as np
import pytest

from rfdiff import MixtureLaw, Problem, design
from rfdiff.diagnosis import remedies
from rfdiff.diagnosis.remedies import remedy, speciation
from rfdiff.errors import InputError
from tests import synthetic
from tests.design import made_up


def test_a_proposal_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remedies, "propose", lambda *_, **__: made_up.proposal())
    found = remedy(synthetic.problem(), ("ant", "bee"))
    assert found.reason == "" and found.loss_weights.tolist() == [0.6, 0.4]
    assert found.sentences[0] == "unchanged, the largest score error of any class is 2.4, at the best common stop time 6"
    assert "weights of the classes in the loss (ant 0.60, bee 0.40) take 8 % off it" in found.sentences[1]
    assert found.sentences[2] == "4 times the samples of ant take 46 % off it"
    monkeypatch.setattr(remedies, "propose", lambda *_, **__: made_up.proposal(weights=2.395, samples=2.39))
    told = remedy(synthetic.problem(), ("ant", "bee")).sentences
    assert told[1].startswith("no weights of the classes in the loss help") and told[2].startswith("4 times the samples of ant do not help")


def test_what_cannot_be_searched_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> design.Proposal:
        raise InputError("mixture: not today")

    monkeypatch.setattr(remedies, "propose", refuse)
    found = remedy(synthetic.problem(), ("ant", "bee"))
    assert found.reason == "mixture: not today" and found.sentences == () and np.isnan(found.loss_weights).all()


def test_speciation_times_or_why_there_are_none() -> None:
    law = MixtureLaw.isotropic([0.5, 0.5], [1.0, 1.0], [[1.0, -1.0], [-1.0, 1.0]])
    times, reason = speciation(law, 100)
    assert reason == "" and np.isfinite(times).all()
    _, reason = speciation(Problem(MixtureLaw.isotropic([1.0], [1.0]), "tanh", 0.1, 1.0, 1.0).mixture, 100)
    assert reason != ""
