"""The import wall, the naming of files, docstrings, global settings: read from the source, and from an import in a fresh process."""

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rfdiff
from tests import source_rules as rules

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rfdiff"
FILES = sorted(PACKAGE.rglob("*.py"))
MADE = {"out", "build", "dist", "_build", "jupyter_execute", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
SKIPPED = {".venv", ".git", "shared", *MADE}


def module_name(path: Path) -> str:
    """Dotted name below rfdiff; a package's __init__ keeps that word ("theory.__init__")."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def test_the_package_under_test_is_this_tree() -> None:
    assert Path(rfdiff.__file__).resolve().parent == PACKAGE


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_source_keeps_the_house_rules(path: Path) -> None:
    source, module = path.read_text(encoding="utf-8"), module_name(path)
    assert rules.import_breaches(source, module) == []
    assert rules.docstring_breaches(source, module) == []
    assert rules.switch_breaches(source, module) == []


def test_no_import_cycles() -> None:
    names = {module_name(path): path for path in FILES}
    graph: dict[str, set[str]] = {}
    for module, path in names.items():
        graph[module] = set()
        for name, _ in rules.imported_names(ast.parse(path.read_text(encoding="utf-8")), module):
            if name.split(".")[0] != rules.PACKAGE:
                continue
            parts = name.split(".")[1:]
            for target in (parts, parts[:-1]):
                graph[module] |= {candidate for candidate in (".".join(target), ".".join([*target, "__init__"])) if candidate in names}
        graph[module].discard(module)
        if not module.endswith("__init__"):  # `from rfdiff.theory import x` inside theory reads a module of it, not the package's exports
            above = module.split(".")[:-1]
            graph[module] -= {".".join([*above[:depth], "__init__"]) for depth in range(len(above), 0, -1)}
    assert rules.cycles(graph) == []
    assert any(graph.values())


@pytest.mark.parametrize("init", sorted(PACKAGE.rglob("__init__.py")), ids=module_name)
def test_no_file_bears_the_name_of_an_export(init: Path) -> None:
    subpackages = {path.name for path in init.parent.iterdir() if (path / "__init__.py").exists()}
    stems = {path.stem for path in init.parent.glob("*.py")} | subpackages
    assert rules.name_clashes(init.read_text(encoding="utf-8"), stems, subpackages) == []


def text_files() -> list[Path]:
    """Every file of the checkout that is text, whether git knows it yet or not."""
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in SKIPPED and not name.endswith((".egg-info", ".partial"))]
        found += [Path(folder, name) for name in files if name not in SKIPPED]  # .git is a file in a linked worktree
    return [path for path in found if b"\0" not in path.read_bytes()[:4096]]


def test_files_are_short_and_values_have_types() -> None:
    """No module or test file above 400 lines, at most 24 modules at the root, `Any` only where it is the truth."""
    long = {str(path): count for path in [*FILES, *(ROOT / "tests").rglob("*.py")] if (count := len(path.read_text().splitlines())) > 400}
    assert long == {}
    assert sum(path.parent == PACKAGE for path in FILES) <= rules.MOST_ROOT_MODULES
    assert sum(path.read_text().count(": Any") for path in FILES) <= 60


def test_no_machine_paths_in_the_repository() -> None:
    files = text_files()
    assert ROOT / "Makefile" in files and ROOT / ".ci" / "run" in files
    breaches = [line for path in files for line in rules.path_breaches(path.read_text(errors="replace"), str(path.relative_to(ROOT)))]
    assert breaches == []


def test_constraints_are_exact_pins_without_addresses() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) > 20
    assert [line for line in lines if "==" not in line or "://" in line or " @ " in line] == []


IMPORT_PROBE = """
import json, sys
events = []
def hook(event, args):
    if event == "open" and isinstance(args[0], str):
        mode, flags = args[1] or "", args[2] or 0
        if any(letter in mode for letter in "wax+") or (not mode and flags & 3):
            events.append(f"open {args[0]} {mode or flags}")
    elif event in ("socket.connect", "socket.getaddrinfo", "socket.bind"):
        events.append(event)
import jax
before = dict(jax.config.values)
sys.addaudithook(hook)
import importlib, pkgutil, rfdiff
modules = [m.name for m in pkgutil.walk_packages(rfdiff.__path__, "rfdiff.")]
modules = [name for name in modules if name == "rfdiff.images.fashion_mnist" or not name.startswith("rfdiff.images.")]
for name in modules:
    importlib.import_module(name)
EXTRA
caches = [getattr(sys.modules.get("matplotlib"), "get_cachedir", lambda: None)(), "/dev/null"]  # platform.processor() asks uname
events = [e for e in events if not any(c and c in e for c in caches)]
print(json.dumps({"events": events, "changed": [k for k, v in jax.config.values.items() if before.get(k) != v], "modules": len(modules)}))
"""


def import_probe(extra: str = "") -> subprocess.CompletedProcess[str]:
    """Import every module of rfdiff in a fresh process in which no JAX backend can start, then run `extra`."""
    environment = {**os.environ, "JAX_PLATFORMS": "no_such_platform", "PYTHONPATH": str(ROOT)}
    script = IMPORT_PROBE.replace("EXTRA", extra)  # of rfdiff.images, what needs no extra
    return subprocess.run([sys.executable, "-B", "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_import_starts_nothing_and_changes_nothing() -> None:
    """Fails if an import computes with JAX (no backend exists here), writes a file, opens a connection or flips a setting."""
    result = import_probe()
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["events"] == [] and report["changed"] == []
    assert report["modules"] >= len(rules.VOCABULARY)


LAZY_PROBE = """
import sys
import rfdiff
assert "jax" not in sys.modules, "import rfdiff loads jax"
for name in rfdiff.__all__:
    if name not in ("load", "save", "Result", "plots", "generation", "diagnosis"):
        getattr(rfdiff, name)
print(*({"xarray", "optax", "matplotlib", "h5py", "h5netcdf", "tyro", "distributed", "flax"} & sys.modules.keys()))
rfdiff.load, rfdiff.plots
print("xarray" in sys.modules, "matplotlib" in sys.modules)
"""


def test_heavy_libraries_load_at_first_use() -> None:
    """The vocabulary and both sides need none of them; `rfdiff.load` and `rfdiff.plots` bring theirs."""
    result = subprocess.run([sys.executable, "-c", LAZY_PROBE], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["", "True True"]


def test_front_door_names_what_it_holds() -> None:
    assert set(rfdiff.__all__) <= set(dir(rfdiff)) and len(rfdiff.__all__) <= 35
    for name, home in rfdiff.HOMES.items():
        assert getattr(rfdiff, name) is getattr(importlib.import_module(f"rfdiff.{home}"), name)
    typed = rules.exported_names((PACKAGE / "__init__.py").read_text())
    assert {name for name in typed if not name.startswith("_") and name not in ("importlib", "TYPE_CHECKING")} == set(rfdiff.__all__)
    with pytest.raises(AttributeError, match="module 'rfdiff' has no attribute 'Problme'"):
        rfdiff.Problme  # noqa: B018


@pytest.mark.thorough
def test_import_probe_rejects_what_it_should(tmp_path: Path) -> None:
    compute = "import jax.numpy as jnp\ntry:\n    jnp.zeros(1)\nexcept RuntimeError as err:\n    print(err)"
    result = import_probe(f"{compute}\njax.config.update('jax_enable_x64', True); open({str(tmp_path / 'x')!r}, 'w').close()")
    told, last = result.stdout.strip().rsplit("\n", 1)
    assert "no_such_platform" in told
    report = json.loads(last)
    assert report["changed"] == ["jax_enable_x64"] and len(report["events"]) == 1


@pytest.mark.parametrize(
    ("source", "module", "message"),
    [
        ("from rfdiff.simulation.moments import U", "theory.density", "against the layering"),
        ("import rfdiff.theory", "simulation.moments", "against the layering"),
        ("from rfdiff import theory", "simulation.moments", "against the layering"),
        ("from rfdiff import Problem", "theory.density", "against the layering"),
        ("from .. import theory", "simulation.moments", "against the layering"),
        ("from ..theory import density", "simulation.moments", "against the layering"),
        ("from rfdiff.curves import LearningCurves", "problem", "against the layering"),
        ("from rfdiff.rules import check_taus", "rules", "against the layering"),
        ("from rfdiff.theory import x", "curves", "against the layering"),
        ("from rfdiff.cli import main", "agreement", "against the layering"),
        ("import matplotlib.pyplot as plt", "cli", "plots alone"),
        ("from matplotlib import colors", "agreement", "plots alone"),
        ("def f():\n    import scipy", "theory.density", "delays the import of scipy"),
        ("def f():\n    from rfdiff.curves import Spectrum", "theory.density", "delays the import"),
        ("def f():\n    from rfdiff.images import training", "cli.times", "delays the import"),
        ("from rfdiff.images import unet", "simulation.moments", "against the layering"),
    ],
)
def test_import_rules_reject(source: str, module: str, message: str) -> None:
    breaches = rules.import_breaches(source, module)
    assert breaches and message in breaches[-1]


def test_import_rules_accept_what_the_architecture_allows() -> None:
    assert rules.import_breaches("from rfdiff.theory.resolvent import solve\nfrom .resolvent import solve", "theory.density") == []
    assert rules.import_breaches("from rfdiff.rules.interface import Rule", "rules.flow") == []
    assert rules.import_breaches("import matplotlib.pyplot", "plots") == []
    assert rules.import_breaches("from rfdiff.theory import a\nfrom rfdiff.simulation import b", "agreement") == []
    assert rules.import_breaches("def f():\n    import flax", "images.unet") == []
    with pytest.raises(AssertionError, match="not in the architecture"):
        rules.import_breaches("", "helpers")


def test_other_rules_reject() -> None:
    assert rules.cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b -> c -> b"]
    assert rules.cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert rules.name_clashes("from rfdiff.theory.density import density, spectrum", {"density"}) == ["density"]
    assert rules.name_clashes("from rfdiff import theory", {"theory"}, {"theory"}) == []
    assert rules.switch_breaches("jax.config.update('jax_enable_x64', True)", "m")
    assert rules.switch_breaches("os.environ['XLA_FLAGS'] = '1'", "m")
    assert rules.switch_breaches("jax.config.jax_enable_x64 = True", "m")
    assert not rules.switch_breaches("with jax.enable_x64(True):\n    x = jax.config.jax_enable_x64 == 1", "m")
    assert rules.path_breaches("data = '/ho" + "me/me/data'", "f") and rules.path_breaches("cd /ro" + "ot/x", "f")
    assert not rules.path_breaches("see https://example.org/work/x and ../work/y and a/opt/b", "f")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "m has no docstring"),
        ('"""M."""\ndef f():\n    pass', "m.f has no docstring"),
        ('"""M."""\ndef f():\n    """F."""\n    if 1:\n        raise ValueError', "m.f raises"),
        ('"""M."""\nclass C:\n    pass', "m.C has no docstring"),
        ('"""M."""\nclass C:\n    """C."""\n    def g(self):\n        pass', "m.C.g has no docstring"),
        ('"""M."""\nclass C:\n    """C."""\n    def __post_init__(self):\n        raise ValueError', "m.C raises when it is built"),
    ],
)
def test_docstring_rules_reject(source: str, message: str) -> None:
    assert any(message in breach for breach in rules.docstring_breaches(source, "m"))


def test_docstring_rules_accept() -> None:
    documented = 'def f():\n    """F.\n\n    Raises:\n        ValueError: always.\n    """\n    raise ValueError\n'
    assert rules.docstring_breaches(f'"""M."""\n{documented}def _g():\n    raise ValueError', "m") == []
