"""The architecture: allowed imports between layers, the import budget, and rules for every module."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import deriva_ml_core
from deriva_ml_core import errors, hookspecs, models

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = (ROOT / "src" / "integrations", ROOT / "src")
PACKAGES = (
    *("deriva_ml", "deriva_ml_cli", "deriva_ml_core", "deriva_ml_keras", "deriva_ml_lightning", "deriva_ml_mcp"),
    "deriva_ml_ui",
)

LAYERS = {
    # names within deriva_ml_core are given without the prefix; all other modules belong to layer 3
    0: {
        *("models", "definitions", "errors", "paths", "distributed", "user_warnings", "redaction", "secret_detection"),
        *("_concurrency", "_files", "_text", "_progress"),
        *("_deprecation", "_frames", "_lazy", "_moved_modules", "_views", "_cell_display"),
    },
    1: {
        *("plugins", "hookspecs", "backend", "schema", "default_schema", "git", "script_detection", "metric_modes"),
        *("_retry", "row_values", "parameter_values"),
    },
    2: {"builtin", "backends"},
    4: {"client"},
    5: {"runner", "implicit_execution", "deriva_ml_lightning", "deriva_ml_keras"},
    6: {"deriva_ml_core", "deriva_ml"},
    7: {"deriva_ml_cli", "deriva_ml_mcp", "deriva_ml_ui"},
}
QUESTIONS = {"analysis", "export"}
"""Packages of layer 3 that only `client` and higher layers import, inside functions; they take a connection."""

ALONE = {2}
"""Layers that higher layers never import; they are loaded by name."""

HEAVY = {
    *("torch", "lightning", "pytorch_lightning", "keras", "tensorflow", "numpy", "pandas", "PIL", "sklearn"),
    *("git", "deriva", "sqlalchemy", "bdbag", "nbstripout", "setuptools_scm", "hydra", "hydra_zen", "rich", "filelock"),
    *("psutil", "packaging", "yaml", "requests", "matplotlib", "botocore"),
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
"""Modules of the standard library that take over half a millisecond to import, and that only some calls need."""

HOOKS = [
    name
    for spec in (hookspecs.FirstResultHooks, hookspecs.CollectHooks, hookspecs.NotificationHooks)
    for name, _ in inspect.getmembers(spec, inspect.isfunction)
]


def module_name(file: Path) -> str:
    """Return the module name of a file; for ``__init__.py`` that of the package."""
    top = next(root for root in SOURCE_ROOTS if root in file.parents)
    parts = file.relative_to(top).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(file): file for package in PACKAGES for root in SOURCE_ROOTS for file in (root / package).rglob("*.py")
}
TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in MODULES.items()}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the project's modules that a module imports anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from inner & MODULES.keys() or {node.module}


def component(module: str) -> str:
    """Return the first name of a module within deriva_ml_core, or the name of another top-level package."""
    package, _, inner = module.partition(".")
    if inner.startswith("plugins.builtin"):
        return "builtin"
    return inner.partition(".")[0] if package == "deriva_ml_core" and inner else package


def layer(module: str) -> int:
    return next((number for number, names in LAYERS.items() if component(module) in names), 3)


def allowed(importer: str, imported: str) -> bool:
    if component(importer) == component(imported):
        return True
    if layer(importer) == layer(imported) == 2:  # the built-in plugin connect.py opens backends
        return component(imported) == "backends"
    if layer(imported) in ALONE or (layer(importer) == 2 and layer(imported) > 1):
        return False
    if component(imported) in QUESTIONS and component(importer) not in QUESTIONS:
        return layer(importer) >= 4
    return layer(imported) <= layer(importer)


def test_imports_go_down() -> None:
    """No module imports from a higher layer; built-in plugins and backends are loaded by name."""
    wrong = [
        f"{importer} imports {imported}"
        for importer, tree in TREES.items()
        for imported in imports(tree)
        if not allowed(importer, imported)
    ]
    assert wrong == []


def test_no_import_cycle() -> None:
    """No two modules import each other, not even inside functions or for types."""
    graph = {name: {imported for imported in imports(tree) if imported != name} for name, tree in TREES.items()}
    tuple(TopologicalSorter(graph).static_order())


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("package", ["deriva_ml", "deriva_ml_core"])
def test_import_budget(package: str) -> None:
    """An import loads no heavy library, and few modules that pydantic and pluggy do not load."""
    loaded = loaded_by(f"import {package}")
    assert loaded & HEAVY == set()
    assert (loaded - loaded_by("from pydantic import BaseModel, SecretStr; import pluggy")) & LATER == set()


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_and_tested(hook: str) -> None:
    """Each hook has a section in plugins/README.md and a test named after it."""
    assert f"### `{hook}`\n" in (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
    tests = (file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    assert any(f"def test_hook_{hook}(" in text for text in tests)


STUBS = {name: file.with_suffix(".pyi") for name, file in MODULES.items() if file.with_suffix(".pyi").is_file()}


@pytest.mark.parametrize("package", STUBS)
def test_lazy_names(package: str) -> None:
    """A package that imports its names on first use has the names that its stub imports, from the same modules."""
    *statements, exported = ast.parse(STUBS[package].read_text(encoding="utf-8")).body
    module = import_module(package)
    names = []
    for statement in statements:
        assert isinstance(statement, ast.ImportFrom)
        for alias in statement.names:
            names.append(alias.name)
            assert getattr(module, alias.name) is getattr(import_module(str(statement.module)), alias.name)
    assert isinstance(exported, ast.Assign)
    assert ast.literal_eval(exported.value) == module.__all__ == sorted(names, key=str.casefold)
    assert set(names) <= set(dir(module))
    with pytest.raises(AttributeError, match=f"module {package!r} has no attribute 'nonsense'"):
        module.nonsense  # noqa: B018


@pytest.mark.parametrize("module", [name for name in MODULES if component(name) == "deriva_ml"])
def test_deriva_ml_only_re_exports(module: str) -> None:
    """The package deriva_ml contains re-exports only."""
    docstring, *statements = TREES[module].body
    assert isinstance(docstring, ast.Expr)
    assert {type(statement) for statement in statements} <= {ast.ImportFrom, ast.Assign}
    assert "__all__" in ast.unparse(statements[-1])


def test_public_names_of_the_core() -> None:
    """Every error and every model is a public name of deriva_ml_core."""
    assert {*errors.__all__, *models.__all__} - {"FrozenModel"} <= set(deriva_ml_core.__all__)


def length(node: ast.AST, first: int, last: int) -> int:
    """Return the number of lines from first to last, without docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = (
        inner.body[0]
        for inner in ast.walk(node)
        if isinstance(inner, documented) and ast.get_docstring(inner, clean=False) is not None
    )
    return last - first + 1 - sum((text.end_lineno or 0) - text.lineno + 1 for text in docstrings)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_size_limits() -> None:
    """No module has more than 700 lines, and no function more than 80, docstrings excluded."""
    modules = {name: length(TREES[name], 1, len(file.read_text().splitlines())) for name, file in MODULES.items()}
    assert {name: lines for name, lines in modules.items() if lines > 700} == {}
    long = {
        f"{name}.{function.name}": lines
        for name, tree in TREES.items()
        for function in functions(tree)
        if (lines := length(function, function.lineno, function.end_lineno or 0)) > 80
    }
    assert long == {}


MIRRORED = {
    # modules of the backends, of the integrations, of commands and their core modules, and re-exported paths
    *("catalog", "database", "dialect", "mutations", "open", "queries", "store"),
    *("autolog", "callback", "checkpoints", "settings", "stop_reason"),
    *("datasets", "lineage", "push", "reproduce", "upload", "verify"),
    *("cli", "definitions"),
}


def test_module_names() -> None:
    """Module names are no gerunds, except for terms of the field, and are unique, except for mirrored modules."""
    names = [name.rpartition(".")[2] for name, file in MODULES.items() if file.name != "__init__.py"]
    assert [name for name in names if name.endswith("ing") and name not in {"staging", "training", "testing"}] == []
    assert {name for name in names if names.count(name) > 1} - MIRRORED == set()
    assert len(names) <= 280


def test_every_module_has_a_docstring() -> None:
    """Each module has a docstring."""
    assert [name for name, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_no_open_signatures() -> None:
    """``**kwargs`` has a closed type, except in asset_file_path, whose signature the mission document defines."""
    closed = re.compile(r"Unpack\[\w+\]|\w+\.kwargs")  # a TypedDict, or the parameters of a wrapped function
    open_signatures = {
        f"{name}.{function.name}"
        for name, tree in TREES.items()
        for function in functions(tree)
        if (kwargs := function.args.kwarg) is not None and function.name != "asset_file_path"
        if kwargs.annotation is None or not closed.fullmatch(ast.unparse(kwargs.annotation))
    }
    assert open_signatures == set()


def is_filled(container: ast.expr) -> bool:
    return any(isinstance(child, ast.expr | ast.comprehension) for child in ast.iter_child_nodes(container))


def test_no_state_in_modules() -> None:
    """No module has a mutable container that is filled later, or rebinds its own names."""
    containers = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    filled_later = [
        f"{name}: {ast.unparse(statement).splitlines()[0]}"
        for name, tree in TREES.items()
        for statement in tree.body
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, containers)
        if not re.match(r"__all__|[A-Z_][A-Z0-9_]*\b", ast.unparse(statement)) or not is_filled(statement.value)
    ]
    rebound = [name for name, tree in TREES.items() if any(isinstance(node, ast.Global) for node in ast.walk(tree))]
    assert (filled_later, rebound) == ([], [])


@pytest.mark.parametrize("package", PACKAGES)
def test_typed(package: str) -> None:
    """Each package contains py.typed."""
    assert any((root / package / "py.typed").is_file() for root in SOURCE_ROOTS)
