"""The house rules as functions of source text: each returns the breaches it finds (they have tests of their own)."""

import ast
import re
from collections.abc import Iterator, Mapping, Set

PACKAGE = "rfdiff"
# The root modules, lowest first: each imports only those before it.
VOCABULARY = (
    "errors",
    "value_types",
    "host",
    "symmetric",
    "labels",
    "progress",
    "machine_memory",
    "diffusion",
    "activation",
    "covariances",
    "covariance_estimates",
    "samples",
    "noised_mixture",
    "mixture",
    "gaussian_mixture",
    "problem_file",
    "problem",
    "parameters",
    "rules",
    "curves",
    "class_times",
    "theory_results",
    "memorisation",
)
UPPER = (
    "files",
    "plots",
    "datasets",
    "calibration",
    "theory",
    "simulation",
    "agreement",
    "design",
    "backward",
    "generation",
    "images",
    "sweep",
    "diagnosis",
    "explorer",
)
MOST_ROOT_MODULES = 24
OPTIONAL_EXTRAS = {"flax", "orbax", "distributed", "pandas", "PIL", "starlette", "uvicorn"}
DELAYED = {
    # the first curves of the explorer wait for no figure, no file and no rare average: each costs up to a second to import
    ("explorer.answers", "rfdiff.backward"),
    ("explorer.downloads", "rfdiff.plots"),
    ("explorer.downloads", "rfdiff.files.result_file"),
    ("explorer.downloads", "rfdiff.files.result_file.Result"),
    ("explorer.downloads", "rfdiff.files.provenance.provenance"),
    ("theory.minibatch", "scipy.optimize.brentq"),
    ("theory.neuron_types", "scipy.stats.qmc"),
    ("cli.explore", "rfdiff.explorer.serving"),
    ("cli.images", "rfdiff.cli.images_actions"),  # what needs an optional extra, and who hands over to it
    ("labels", "xarray"),  # half a second, for those who ask for a dataset
}
GLOBAL_SWITCHES = re.compile(
    r"\bconfig\.update\(|\bconfig\.jax_\w+\s*=[^=]|os\.environ\[[^]]*\]\s*=[^=]|os\.putenv|os\.environ\.(setdefault|update)"
)
# Pieces are joined here so that this file does not hold the paths it looks for.
MACHINE_PATHS = re.compile(
    r"(?<![\w.~-])/(?:" + "|".join(["wo" + "rk", "ro" + "ot", "ho" + "me", "Us" + "ers", "op" + "t", "mn" + "t"]) + r")/\w"
)


def allowed_imports(module: str) -> set[str]:
    """First names below rfdiff that a module may import ("theory", "curves", …; "" is the front door itself)."""
    top = module.split(".")[0]
    if top in VOCABULARY:
        files = [top] if "." in module else []  # a package of the vocabulary imports its own files
        return {*VOCABULARY[: VOCABULARY.index(top)], *files}
    extra: dict[str, set[str]] = {
        "files": {"files"},  # result types live in curves, so that files and figures need neither side
        "plots": {"plots", "files"},  # a figure is written like every other file: whole or not at all
        "datasets": {"datasets"},
        "calibration": {"calibration"},  # curves of either side against a record of losses
        "theory": {"theory"},
        "simulation": {"simulation", "files"},
        "agreement": {"agreement", "theory", "simulation"},
        "design": {"design", "theory", "simulation"},  # searches with the one, tries with the other
        "backward": {"backward"},
        "generation": {"generation", "backward", "simulation", "files"},  # trained networks in the backward samplers: above both
        "images": {"images", "files"},
        "sweep": {"sweep", "theory", "simulation", "files"},
        "diagnosis": {"diagnosis", "design", "backward", "theory", "simulation"},  # all that is known of one data set
        "explorer": {"", "explorer", "backward", "theory", "simulation", "plots", "files"},  # what the page asks for
        "cli": {"", "cli", *UPPER},
        "__init__": set(UPPER),
        "__main__": {"cli"},
    }
    if top in extra:
        return {*VOCABULARY, *extra[top]}
    raise AssertionError(f"{PACKAGE}/{module} is not in the architecture: add it to allowed_imports with its reason")


def imported_names(tree: ast.AST, module: str = "") -> Iterator[tuple[str, ast.stmt]]:
    """Dotted names a module imports, `from a import b` as a.b, relative imports made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = [PACKAGE, *module.split(".")][: -node.level]
                base = ".".join([*parents, base]).strip(".")
            yield from ((f"{base}.{alias.name}", node) for alias in node.names)


def import_breaches(source: str, module: str) -> list[str]:
    """Imports against the layering, matplotlib outside plots, and imports delayed into a function."""
    tree, breaches, allowed = ast.parse(source), [], allowed_imports(module)
    for name, _ in imported_names(tree, module):
        parts = name.split(".")
        if parts[0] == "matplotlib" and module.split(".")[0] != "plots":
            breaches.append(f"{module} imports {name}: matplotlib belongs in plots alone")
        if parts[0] == PACKAGE:
            first = parts[1] if len(parts) > 1 else ""
            if (first if first in {*VOCABULARY, *UPPER, "cli"} else "") not in allowed:
                breaches.append(f"{module} imports {name}: against the layering")
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for name, node in imported_names(function, module):
                if name.split(".")[0] not in OPTIONAL_EXTRAS and (module, name) not in DELAYED:
                    breaches.append(f"{module}:{node.lineno} delays the import of {name} into a function")
    return breaches


def cycles(imports: Mapping[str, set[str]]) -> list[str]:
    """Import cycles among modules, given what each imports."""
    found: list[str] = []
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            found.append(" -> ".join((*path[path.index(module) :], module)))
        elif module not in finished:
            for target in sorted(imports.get(module, ())):
                visit(target, (*path, module))
            finished.add(module)

    for module in sorted(imports):
        visit(module, ())
    return found


def exported_names(source: str) -> set[str]:
    """Names a package's __init__ binds by importing or defining them; a lazy one tells them to the type checker."""
    tree, names = ast.parse(source), set()
    typed = [node.body for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    for node in [*tree.body, *(statement for body in typed for statement in body)]:
        if isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def name_clashes(init_source: str, module_stems: set[str], subpackages: Set[str] = frozenset()) -> list[str]:
    """Exports of a package that bear the name of one of its files (exporting a whole subpackage is no clash)."""
    return sorted(exported_names(init_source) & (module_stems - subpackages))


def _raises(function: ast.AST) -> bool:
    """Whether a function raises in its own body (not in one defined inside it)."""
    children = list(ast.iter_child_nodes(function))
    nested = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
    return isinstance(function, ast.Raise) or any(_raises(child) for child in children if not isinstance(child, nested))


def docstring_breaches(source: str, module: str) -> list[str]:
    """Public modules, classes and functions without a docstring, and ones that raise without saying so under "Raises"."""
    tree, breaches = ast.parse(source), []
    if not ast.get_docstring(tree):
        breaches.append(f"{module} has no docstring")

    def visit(scope: ast.Module | ast.ClassDef, prefix: str) -> None:
        for node in scope.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    breaches.append(f"{prefix}.{node.name} has no docstring")
                inits = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name in ("__init__", "__post_init__")]
                if any(_raises(init) for init in inits) and "Raises" not in (ast.get_docstring(node) or ""):
                    breaches.append(f"{prefix}.{node.name} raises when it is built, and its docstring has no Raises")
                visit(node, f"{prefix}.{node.name}")
            elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                text = ast.get_docstring(node)
                if not text:
                    breaches.append(f"{prefix}.{node.name} has no docstring")
                elif _raises(node) and "Raises" not in text:
                    breaches.append(f"{prefix}.{node.name} raises, and its docstring has no Raises")

    visit(tree, module)
    return breaches


SETS_UP = "cli.program_cache"


def switch_breaches(source: str, module: str) -> list[str]:
    """Lines that change a global JAX setting or the process environment; `SETS_UP` alone may, for the process of a command."""
    if module == SETS_UP:
        return []
    return [f"{module}:{i}: {line.strip()}" for i, line in enumerate(source.splitlines(), 1) if GLOBAL_SWITCHES.search(line)]


def path_breaches(text: str, name: str) -> list[str]:
    """Lines that name a place on one machine."""
    return [f"{name}:{i}: {line.strip()}" for i, line in enumerate(text.splitlines(), 1) if MACHINE_PATHS.search(line)]
