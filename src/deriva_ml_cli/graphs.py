"""A lineage as a text that other programs draw."""

from __future__ import annotations

from deriva_ml_cli.lineage import DOWNSTREAM, UPSTREAM, Edge, Lineage, Node
from deriva_ml_cli.screen import sanitize_line
from deriva_ml_core.definitions import MLTable

__all__ = ["render_dot", "render_mermaid"]

MAX_LABEL_LENGTH = 60
"""Letters of a name that a drawing shows."""

_MERMAID_SHAPES = {MLTable.execution.value: ('(["', '"])'), MLTable.dataset.value: ('[("', '")]')}
_DOT_SHAPES = {MLTable.execution.value: "oval", MLTable.dataset.value: "cylinder"}


def render_mermaid(lineage: Lineage) -> str:
    """A flowchart for Mermaid, from what was there first to what came of it."""
    numbers = {rid: f"n{number}" for number, rid in enumerate(lineage.nodes)}
    lines = ["flowchart LR"]
    for rid, node in lineage.nodes.items():
        before, after = _MERMAID_SHAPES.get(node.table, ('["', '"]'))
        lines.append(f"    {numbers[rid]}{before}{'<br/>'.join(map(_escape_mermaid, _label_lines(node)))}{after}")
    lines += [f"    {numbers[edge.source]} --> {numbers[edge.product]}" for edge in _list_edges(lineage)]
    lines += [f"    style {numbers[lineage.start]} stroke-width:3px"]
    return "\n".join(lines)


def render_dot(lineage: Lineage) -> str:
    """A graph for Graphviz, from what was there first to what came of it."""
    lines = ["digraph lineage {", "    rankdir=LR;", '    node [fontname="sans-serif"];']
    for rid, node in lineage.nodes.items():
        shape = _DOT_SHAPES.get(node.table, "note")
        bold = ", penwidth=3" if rid == lineage.start else ""
        label = "\\n".join(map(_escape_dot, _label_lines(node)))
        lines.append(f'    "{rid}" [shape={shape}, label="{label}"{bold}];')
    lines += [f'    "{edge.source}" -> "{edge.product}";' for edge in _list_edges(lineage)]
    return "\n".join([*lines, "}"])


def _label_lines(node: Node) -> list[str]:
    state = f" {node.status}" if node.status else ""
    name = sanitize_line(node.name)
    name = name if len(name) <= MAX_LABEL_LENGTH else name[: MAX_LABEL_LENGTH - 3] + "..."
    return [f"{node.table} {node.rid}{state}", *([name] if name else [])]


def _escape_mermaid(text: str) -> str:
    """The text with all that Mermaid or HTML would read as its own written as numbers of letters."""
    return "".join(letter if letter.isalnum() or letter in " .,:_-/=" else f"#{ord(letter)};" for letter in text)


def _escape_dot(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _list_edges(lineage: Lineage) -> list[Edge]:
    return list(dict.fromkeys((*lineage.edges[UPSTREAM], *lineage.edges[DOWNSTREAM])))
