"""The commands and calls in the messages of this software, collected from its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deriva_ml_core

__all__ = ["Template", "collect_templates", "fill_in"]

SOURCE = Path(deriva_ml_core.__file__).parents[1]

ARGUMENTS = r"\((?:[^()]|\([^()]*\))*\)"
COMMAND = re.compile(r"`((?:deriva-ml|make|git) [^`]*|\{[^`{}]*\.command\([^`]*?\)\})`|'(deriva-globus-[^']* [^']*)'")
CALL = re.compile(rf"(?:\bml\.\w+{ARGUMENTS}|\bDerivaML(?:\.\w+)?{ARGUMENTS}|\{{[\w.]*\.call\}})(?:\.\w+{ARGUMENTS})*")


@dataclass(frozen=True)
class Template:
    """A command or call in a message, with each value in braces as the source computes it."""

    text: str
    file: str
    line: int


def collect_templates() -> Iterator[Template]:
    """Yield every command and call in a text of the source that is no docstring, comment or example of a help."""
    for path in sorted(SOURCE.rglob("*.py")):
        if "testing" not in path.parts:
            yield from _collect(path)


def fill_in(template: str, names: dict[str, Any]) -> str:
    """Return a template with the value of each expression in braces."""

    def evaluate(match: re.Match[str]) -> str:
        value = eval(match[1], names)
        return repr(value) if match[2] else str(value)

    text = re.sub(r"(?<!\{)\{([^{}]+?)(!r)?\}(?!\})", evaluate, template)
    return text.replace("{{", "{").replace("}}", "}")


def _collect(path: Path) -> Iterator[Template]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set(_iter_skipped(tree))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(map(_render, node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = _escape(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("connection.command"):
            text = f"`{{{ast.unparse(node)}}}`"
        else:
            continue
        for match in (*COMMAND.finditer(text), *CALL.finditer(text)):
            yield Template(match[match.lastindex or 0], str(path.relative_to(SOURCE)), node.lineno)


def _render(part: ast.expr) -> str:
    if isinstance(part, ast.FormattedValue):
        conversion = {-1: "", 114: "!r", 115: "!s"}[part.conversion]
        return f"{{{ast.unparse(part.value)}{conversion}}}"
    assert isinstance(part, ast.Constant)
    return _escape(str(part.value))


def _escape(text: str) -> str:
    """Double the braces of a text, as in a formatted one."""
    return text.replace("{", "{{").replace("}", "}}")


def _iter_skipped(tree: ast.AST) -> Iterator[int]:
    """Yield the nodes of docstrings, of examples in a help, and of the parts of formatted texts."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            for statement in body:  # also texts below attributes, which document these
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    yield id(statement.value)
        decorators = getattr(node, "decorator_list", [])
        yield from (id(inner) for decorator in decorators for inner in ast.walk(decorator))
        if isinstance(node, ast.JoinedStr):
            yield from (id(inner) for part in node.values for inner in ast.walk(part))
