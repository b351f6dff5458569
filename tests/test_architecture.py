"""The house keeps its order: who may import whom, what is loaded when, and what no room may lack."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from deriva_ml_core import errors, hookspecs, models

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = (ROOT / "src" / "integrations", ROOT / "src")
PACKAGES = ("deriva_ml", "deriva_ml_cli", "deriva_ml_core", "deriva_ml_keras", "deriva_ml_lightning")

LAYERS = {
    # rooms of deriva_ml_core are named without it; whoever is not named here is a room of layer 3
    0: {"errors", "definitions", "models"},
    1: {
        *("backend", "crew", "schema", "standard", "git", "hookspecs", "plugins", "notices", "neighbours", "ranks"),
        *("addresses", "redaction"),
    },
    2: {"builtin", "backends"},
    4: {"client", "unattended"},
    5: {"runner"},
    6: {"deriva_ml_core", "deriva_ml", "deriva_ml_lightning", "deriva_ml_keras"},
    7: {"deriva_ml_cli", "testing"},
}
ALONE = {2, 6}
"""Layers whose rooms nobody above imports (they are reached by name), or that never import each other."""

HEAVY = {
    *("torch", "lightning", "pytorch_lightning", "keras", "tensorflow", "numpy", "pandas", "PIL", "sklearn"),
    *("git", "deriva", "sqlalchemy", "bdbag", "nbstripout", "setuptools_scm", "hydra", "hydra_zen", "rich", "filelock"),
    *("stamina", "psutil", "semver", "yaml", "requests", "matplotlib"),
}
LATER = {
    "asyncio",
    "concurrent",
    "email",
    "http",
    "multiprocessing",
    "shutil",
    "sqlite3",
    "subprocess",
    "tempfile",
    "tomllib",
}
"""Of the standard library: what costs more than half a millisecond, and which only some calls need."""

HOOKS = [
    name
    for spec in (hookspecs.FirstResultHooks, hookspecs.CollectHooks, hookspecs.NotificationHooks)
    for name, _ in inspect.getmembers(spec, inspect.isfunction)
]


def module_name(file: Path) -> str:
    """``deriva_ml_core.training.reporter`` for its file; a package's ``__init__`` is the package."""
    top = next(root for root in SOURCE_ROOTS if root in file.parents)
    parts = file.relative_to(top).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(file): file for package in PACKAGES for root in SOURCE_ROOTS for file in (root / package).rglob("*.py")
}
TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in MODULES.items()}


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules of ours that a module imports anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from inner & MODULES.keys() or {node.module}


def room(module: str) -> str:
    """A room of the core, or one of the packages above it."""
    package, _, inner = module.partition(".")
    return inner.partition(".")[0] if package == "deriva_ml_core" and inner else package


def layer(module: str) -> int:
    return next((number for number, rooms in LAYERS.items() if room(module) in rooms), 3)


def allowed(importer: str, imported: str) -> bool:
    if room(importer) == room(imported):
        return True
    if layer(importer) == layer(imported) == 2:  # connect.py answers with a backend
        return room(imported) == "backends"
    if layer(imported) in ALONE or (layer(importer) == 2 and layer(imported) > 1):
        return False
    return layer(imported) <= layer(importer)


def test_imports_go_down() -> None:
    """No room imports from a layer above it, built-ins and backends are reached by name, and desks never meet."""
    wrong = [
        f"{importer} imports {imported}"
        for importer, tree in TREES.items()
        for imported in imports(tree)
        if not allowed(importer, imported)
    ]
    assert wrong == []


def test_no_circle() -> None:
    """No two modules need each other, not even inside functions or for types."""
    graph = {name: {found for found in imports(tree) if found != name} for name, tree in TREES.items()}
    tuple(TopologicalSorter(graph).static_order())


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(run.stdout.split())


@pytest.mark.parametrize("package", ["deriva_ml", "deriva_ml_core"])
def test_import_budget(package: str) -> None:
    """Importing us loads none of the heavy libraries, and little that pydantic and pluggy do not load anyway."""
    loaded = loaded_by(f"import {package}")
    assert loaded & HEAVY == set()
    assert (loaded - loaded_by("from pydantic import BaseModel, SecretStr; import pluggy")) & LATER == set()


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_and_tested(hook: str) -> None:
    """A hook has a section of its own in plugins/README.md, and a test that is named for it."""
    assert f"### `{hook}`\n" in (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
    tests = (file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    assert any(f"def test_hook_{hook}(" in text for text in tests)


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) == "deriva_ml"])
def test_the_desk_only_hands_on(module: str) -> None:
    """The package deriva_ml holds re-exports and nothing else, and ``__all__`` names each."""
    docstring, *statements = TREES[module].body
    assert isinstance(docstring, ast.Expr)
    names = []
    for statement in statements[:-1]:
        assert isinstance(statement, ast.ImportFrom), ast.unparse(statement)
        names += [alias.asname or alias.name for alias in statement.names if statement.module != "__future__"]
    exported = statements[-1]
    assert isinstance(exported, ast.Assign)
    assert ast.unparse(exported.targets[0]) == "__all__"
    assert ast.literal_eval(exported.value) == sorted(names, key=str.casefold)


def test_the_core_shows_its_names() -> None:
    """The core's own face holds its names and one look for neighbours; every error and every value is among them."""
    docstring, *statements, exported, look = TREES["deriva_ml_core"].body
    assert isinstance(docstring, ast.Expr)
    assert {type(statement) for statement in statements} == {ast.ImportFrom}
    assert isinstance(exported, ast.Assign)
    assert ast.unparse(look) == "warn_conflicting_distribution()"
    assert {*errors.__all__, *models.__all__} - {"Value"} <= set(ast.literal_eval(exported.value))


def length(node: ast.AST, first: int, last: int) -> int:
    """Lines from first to last, without the docstrings of what is defined there."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = (
        inner.body[0]
        for inner in ast.walk(node)
        if isinstance(inner, documented) and ast.get_docstring(inner, clean=False) is not None
    )
    return last - first + 1 - sum((text.end_lineno or 0) - text.lineno + 1 for text in docstrings)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_a_file_fits_in_one_reading() -> None:
    """No file is longer than 320 lines, docstrings not counted, and no function longer than 40."""
    files = {name: length(TREES[name], 1, len(file.read_text().splitlines())) for name, file in MODULES.items()}
    assert {name: lines for name, lines in files.items() if lines > 320} == {}
    long = {
        f"{name}.{function.name}": lines
        for name, tree in TREES.items()
        for function in functions(tree)
        if (lines := length(function, function.lineno, function.end_lineno or 0)) > 40
    }
    assert long == {}


def test_every_module_says_what_it_is() -> None:
    """A module's docstring names the room."""
    assert [name for name, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_no_open_signatures() -> None:
    """``**`` stands only where types close it, and where the mission document's users know it: in asset_file_path."""
    closed = re.compile(r"Unpack\[\w+\]|\w+\.kwargs")  # of a TypedDict, or of the function that is called instead
    opened = {
        f"{name}.{function.name}"
        for name, tree in TREES.items()
        for function in functions(tree)
        if (words := function.args.kwarg) is not None and function.name != "asset_file_path"
        if words.annotation is None or not closed.fullmatch(ast.unparse(words.annotation))
    }
    assert opened == set()


def is_filled(container: ast.expr) -> bool:
    return any(isinstance(child, ast.expr | ast.comprehension) for child in ast.iter_child_nodes(container))


def test_no_state_in_modules() -> None:
    """No module keeps a container that is filled later, under the name of a constant or not, nor rebinds its names."""
    containers = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    kept = [
        f"{name}: {ast.unparse(statement).splitlines()[0]}"
        for name, tree in TREES.items()
        for statement in tree.body
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, containers)
        if not re.match(r"__all__|[A-Z_]+\b", ast.unparse(statement)) or not is_filled(statement.value)
    ]
    rebound = [name for name, tree in TREES.items() if any(isinstance(node, ast.Global) for node in ast.walk(tree))]
    assert (kept, rebound) == ([], [])


@pytest.mark.parametrize("package", PACKAGES)
def test_typed(package: str) -> None:
    """Each package tells type checkers that it is typed."""
    assert any((root / package / "py.typed").is_file() for root in SOURCE_ROOTS)
