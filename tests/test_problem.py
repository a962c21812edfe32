"""Problems: validation, the TOML file, and their life as pytrees."""

import math
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.activation import Activation
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.value_types import as_number

pytestmark = pytest.mark.usefixtures("strict_ranks")

EXAMPLE = Path(__file__).resolve().parents[1] / "experiments" / "problem.toml"
LAW = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4])
GOOD: dict[str, Any] = {"mixture": LAW, "activation": "tanh", "t": 0.1, "psi_p": 4.0, "psi_n": 3.0}


def same(a: Problem, b: Problem) -> bool:
    """Equal in structure (activation, draws) and bit by bit in every number."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return str(jax.tree.structure(a)) == str(jax.tree.structure(b)) and all(np.array_equal(x, y) for x, y in leaves)


@pytest.mark.parametrize("name", ["t", "psi_p", "psi_n"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, -math.inf, "0.1", None, True, 1j, [0.1], [0.1, 0.2], np.array([0.1]), b"1"])
def test_positive_numbers_are_demanded(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .*allowed: a finite number > 0"):
        Problem(**{**GOOD, name: value})


@pytest.mark.parametrize("name", ["t", "psi_p", "psi_n"])
def test_numbers_are_bounded(name: str) -> None:
    assert getattr(Problem(**{**GOOD, name: 1e10}), name) == 1e10
    for value in (1.000001e10, 10**30):
        with pytest.raises(ValueError, match=rf"^{name}: .*allowed: a finite number > 0, at most 1e\+10"):
            Problem(**{**GOOD, name: value})


@pytest.mark.parametrize("value", [10**9 + 1, 1e12])
def test_noise_draws_are_bounded(value: Any) -> None:
    assert Problem(**GOOD, noise_draws=10**9).noise_draws == 10**9
    with pytest.raises(ValueError, match=r"^noise_draws: .*allowed: an integer >= 1, or inf .*; at most 1e\+09 draws"):
        Problem(**GOOD, noise_draws=value)


@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, -math.inf, "3", None, True, [2], 2j])
def test_noise_draws_are_a_count(value: Any) -> None:
    with pytest.raises(ValueError, match="^noise_draws: .*allowed: an integer >= 1, or inf"):
        Problem(**GOOD, noise_draws=value)


def test_noise_draws_are_normalised() -> None:
    values: list[Any] = [3, 3.0, np.int64(3), np.float32(3)]
    for given in values:
        draws = Problem(**GOOD, noise_draws=given).noise_draws
        assert draws == 3 and isinstance(draws, int)
    assert Problem(**GOOD).noise_draws == math.inf


@pytest.mark.parametrize("value", [None, {"weights": [1.0]}, 3])
def test_mixture_must_be_a_law(value: Any) -> None:
    with pytest.raises(ValueError, match="^mixture: got .*allowed: a MixtureLaw"):
        Problem(**{**GOOD, "mixture": value})


def test_activation_is_checked() -> None:
    with pytest.raises(ValueError, match="^activation: unknown name 'swish'"):
        Problem(**{**GOOD, "activation": "swish"})


@pytest.mark.parametrize(
    ("value", "number"), [(2, 2.0), (np.float32(0.5), 0.5), (np.array(0.5), 0.5), (jnp.float32(0.5), 0.5), (jnp.bfloat16(0.5), 0.5)]
)
def test_scalars_of_every_library_are_numbers(value: Any, number: float) -> None:
    assert as_number(value) == number and type(as_number(value)) is float


def test_kappa_is_the_flow_rate(case_a: Problem) -> None:
    assert case_a.kappa == pytest.approx(2 * (1 - math.exp(-0.2)) / 4, rel=1e-15)
    assert Problem(LAW, "tanh", 1e-9, 4.0, 3.0).kappa == pytest.approx(1e-9, rel=1e-8)  # Δ = 2t as t → 0, no cancellation
    assert case_a.num_classes == 2


def test_problems_pass_through_transformations_without_validation(case_b: Problem) -> None:
    rebuilt = jax.tree.map(lambda leaf: leaf, case_b)
    assert same(rebuilt, case_b) and rebuilt.noise_draws == 3
    assert jax.tree.map(lambda _: None, case_b, is_leaf=lambda leaf: leaf is None).t is None
    assert float(jax.jit(lambda problem: problem.kappa * problem.psi_p)(case_b)) == pytest.approx(2 * (1 - math.exp(-0.4)), rel=1e-6)
    negated = jax.tree.map(lambda leaf: -np.asarray(leaf), case_b)  # would be refused if it were validated
    assert negated.t == -0.2 and negated.activation is case_b.activation


def test_problems_are_built_and_mapped_over_inside_jit(case_a: Problem) -> None:
    @jax.jit
    @jax.vmap
    def rate(t: jax.Array) -> jax.Array:
        return jnp.asarray(Problem(case_a.mixture, "tanh", t, case_a.psi_p, case_a.psi_n).kappa)

    times = np.array([0.1, 0.5, 2.0])
    np.testing.assert_allclose(rate(times), -2 * np.expm1(-2 * times) / 4, rtol=1e-6)
    names = {str(jax.tree_util.keystr(path)) for path, _ in jax.tree_util.tree_leaves_with_path(case_a)}
    assert names == {".t", ".psi_p", ".psi_n"} | {
        f".mixture.{name}" for name in ("weights", "eigenvalues", "eigenvalue_weights", "centroid_gram")
    }


def test_static_fields_key_the_compilation_cache() -> None:
    traces = []

    @jax.jit
    def f(problem: Problem) -> jax.Array:
        traces.append(problem.activation.name)
        return problem.activation(problem.t)

    f(Problem(**GOOD))
    f(Problem(**{**GOOD, "t": 0.3}))
    assert traces == ["tanh"]
    f(Problem(**{**GOOD, "activation": "erf"}))
    f(Problem(**GOOD, noise_draws=2))
    assert traces == ["tanh", "erf", "tanh"]


def test_the_example_is_case_a(case_a: Problem) -> None:
    assert same(Problem.from_toml(EXAMPLE), case_a)


@pytest.mark.parametrize("draws", [math.inf, 1, 12])
def test_toml_round_trip(draws: float, case_b: Problem, tmp_path: Path) -> None:
    thirds = MixtureLaw.isotropic([1 / 3, 0.5, 1 / 6], [0.1 + 0.2, 1e-9, 900.0], np.diag([0.1, 0.0, 1 / 7]))
    for law in (thirds, case_b.mixture, MixtureLaw.isotropic([0.3, 0.3, 0.4000001], [1, 1, 1])):
        problem = Problem(law, "softplus", 1 / 3, math.pi, 1e-3, draws)
        path = tmp_path / "problem.toml"
        path.write_text(problem.to_toml())
        back = Problem.from_toml(path)
        assert same(back, problem) and back.noise_draws == draws
        assert type(back.noise_draws) is type(problem.noise_draws)
        assert back.to_toml() == problem.to_toml()


def test_loss_weights_are_part_of_the_problem(tmp_path: Path) -> None:
    problem, plain = Problem(**GOOD, loss_weights=[1 / 3, 2 / 3]), Problem(**GOOD)
    path = tmp_path / "problem.toml"
    path.write_text(problem.to_toml())
    for back in (Problem.from_toml(path), pickle.loads(pickle.dumps(problem)), jax.tree.map(lambda leaf: leaf, problem)):
        assert back.equals(problem) and not back.equals(plain)
    assert "loss_weights=[0.333333, 0.666667]" in repr(problem)
    assert "loss_weights" not in plain.to_dict() and "loss_weights" not in repr(plain)
    np.testing.assert_array_equal(plain.training_weights, [0.7, 0.3])
    np.testing.assert_array_equal(problem.training_weights, [1 / 3, 2 / 3])
    moved = problem.with_mixture(MixtureLaw.isotropic([0.5, 0.5], [1.0, 1.0]))
    np.testing.assert_array_equal(np.asarray(moved.loss_weights), problem.training_weights)


def test_columns_of_classes_that_are_not_trained_on_do_not_count() -> None:
    drawn = {**GOOD, "noise_draws": 2}
    assert Problem(**drawn).columns_per_dimension == 6.0 == Problem(**drawn, loss_weights=[0.1, 0.9]).columns_per_dimension
    assert Problem(**drawn, loss_weights=[1.0, 0.0]).columns_per_dimension == pytest.approx(4.2, rel=1e-15)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0], r"shape \(1,\); allowed: \(2,\), one for each class, or None"),
        (0.5, r"shape \(\); allowed: \(2,\)"),
        ([0.5, 0.6], r"\[0.5, 0.6\] sums to 1.1; allowed: a sum of 1"),
        ([1.5, -0.5], r"\[1.5, -0.5\]; allowed: finite numbers >= 0 that sum to 1, or None"),
        ([math.nan, 1.0], "allowed: finite numbers >= 0"),
        (["a", "b"], "is not an array of numbers"),
    ],
)
def test_loss_weights_are_checked(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^loss_weights: .*{message}"):
        Problem(**GOOD, loss_weights=value)
    with pytest.raises(InputError, match="^loss_weights: "):
        Problem.from_dict({**DOCUMENT, "loss_weights": value})


def test_a_users_function_cannot_be_written() -> None:
    problem = Problem(**{**GOOD, "activation": jnp.arctan})
    with pytest.raises(ValueError, match="^activation: 'arctan' is a user's own function"):
        problem.to_toml()
    disguised = Problem(**{**GOOD, "activation": Activation("tanh", jnp.arctan)})
    with pytest.raises(ValueError, match="'tanh' is a user's own function"):
        disguised.to_dict()


TABLE: dict[str, Any] = {"weights": [0.7, 0.3], "variances": [1.5, 0.4]}
DOCUMENT: dict[str, Any] = {"activation": "tanh", "t": 0.1, "psi_p": 4.0, "psi_n": 3.0, "mixture": TABLE}
ABSENT = object()


def changed(table: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The table with keys set, or taken out where the value is ABSENT."""
    return {key: value for key, value in {**table, **changes}.items() if value is not ABSENT}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"psi": 3}, "^problem: unknown key 'psi'; allowed: activation, t, psi_p"),
        ({"t": ABSENT}, "^problem: key 't' is missing; required: activation, t"),
        ({"mixture": ABSENT}, "^problem: key 'mixture' is missing"),
        ({"mixture": 3}, r"^mixture: got 3; allowed: a table \[mixture\]"),
        ({"activation": 3}, "^activation: got 3; allowed: one of tanh"),
        ({"activation": "swish"}, "^activation: unknown name 'swish'"),
        ({"t": "0.1"}, "^t: '0.1'; allowed: a finite number > 0"),
        ({"t": True}, "^t: True"),
        ({"psi_p": -1}, "^psi_p: -1"),
        ({"noise_draws": 0}, "^noise_draws: 0"),
        ({"noise_draws": 1.5}, "^noise_draws: 1.5"),
        ({"noise_draws": "inf"}, "^noise_draws: 'inf'"),
    ],
)
def test_malformed_documents(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Problem.from_dict(changed(DOCUMENT, changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variance": [1, 1]}, "^mixture: unknown key 'variance'; allowed: weights, variances"),
        ({"weights": ABSENT}, "^mixture: key 'weights' is missing"),
        ({"variances": ABSENT}, "^mixture: give either variances .* or eigenvalues"),
        ({"eigenvalues": [[1, 1]]}, "^mixture: give either variances"),
        ({"eigenvalue_weights": [1.0]}, "^mixture: eigenvalue_weights goes with eigenvalues"),
        ({"variances": ABSENT, "eigenvalues": [[1, 1]]}, "^mixture: eigenvalue_weights is missing"),
        ({"variances": ABSENT, "eigenvalues": [[1, 1]], "eigenvalue_weights": [0.5]}, "^eigenvalue_weights: .* sums to 0.5"),
        ({"variances": ABSENT, "eigenvalues": [[1, 1], [1]], "eigenvalue_weights": [1]}, "^eigenvalues: .*not an array of numbers"),
        ({"weights": [0.7, 0.4]}, "^weights: .* sums to 1.1; allowed: a sum of 1"),
        ({"weights": ["0.7", "0.3"]}, "^weights: .*not an array of numbers"),
        ({"weights": [[0.7], [0.1, 0.2]]}, "^weights: .*not an array of numbers"),
        ({"weights": []}, "^variances: shape"),
        ({"weights": [], "variances": []}, r"^weights: shape \(0,\)"),
        ({"centroid_gram": [[1.0]]}, r"^centroid_gram: shape \(1, 1\); allowed: \(2, 2\)"),
        ({"centroid_gram": "identity"}, "^centroid_gram: 'identity' is not an array"),
    ],
)
def test_malformed_mixtures_in_documents(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Problem.from_dict({**DOCUMENT, "mixture": changed(TABLE, changes)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"t = ", "not a TOML file"),
        (b"\xff\xfe", "not a TOML file"),
        (b"t = 1", "unknown key|is missing"),
        (b"t = " + b"[" * 20000 + b"]" * 20000, "not a TOML file"),
        (
            b'activation = "tanh"\nt = 1\npsi_p = 1\npsi_n = 1\n[mixture]\nvariances = [1]\nweights' + b".a" * 5000 + b" = 1",
            "problem: nested more than 8 levels deep",
        ),
    ],
)
def test_bad_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.toml: .*({message})"):
        Problem.from_toml(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Problem.from_toml(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (MixtureLaw.isotropic([0.5, 0.5], [1.0, 1e30]), r"class 1 has a mean square of 1e\+30 per coordinate \(variance 1e\+30"),
        (MixtureLaw.isotropic([1.0], [1.0], [[1e4]]), r"mean square of 10001 .*squared centroid norm over d 10000"),
        (MixtureLaw.fit(np.random.default_rng(0).integers(0, 256, (40, 5)), np.repeat([0, 1], 20)), "mean square of"),
    ],
)
def test_data_that_were_not_scaled_are_refused_by_name(law: MixtureLaw, message: str) -> None:
    with pytest.raises(InputError, match=f"^mixture: .*{message}.*; allowed: at most 1000; scale the data to variance of order 1"):
        Problem(law, "tanh", 0.1, 4.0, 3.0)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, np.array, jnp.array])
def test_numbers_of_every_kind_are_taken(kind: Any) -> None:
    problem = Problem(GOOD["mixture"], "tanh", t=kind(1), psi_p=kind(4), psi_n=kind(3), noise_draws=kind(2))
    assert problem.equals(Problem(GOOD["mixture"], "tanh", t=1.0, psi_p=4.0, psi_n=3.0, noise_draws=2))
    assert type(problem.psi_p) is float and type(problem.noise_draws) is int


def test_a_byte_order_mark_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "problem.toml"
    path.write_bytes(b"\xef\xbb\xbf" + EXAMPLE.read_bytes())
    assert Problem.from_toml(path).equals(Problem.from_toml(EXAMPLE))


def test_a_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "problem.toml").write_bytes(EXAMPLE.read_bytes())
    assert Problem.from_toml("~/problem.toml").equals(Problem.from_toml(EXAMPLE))


def test_a_number_of_too_many_digits_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "digits.toml"
    path.write_text(f"t = {'9' * 5000}")
    with pytest.raises(InputError, match=r"digits\.toml: not a TOML file: .*digits"):
        Problem.from_toml(path)


def test_with_mixture_changes_the_law_alone() -> None:
    problem, law = Problem(**GOOD), MixtureLaw.isotropic([1.0], [2.0])
    other = problem.with_mixture(law)
    assert other.mixture.equals(law) and other.with_mixture(problem.mixture).equals(problem)
