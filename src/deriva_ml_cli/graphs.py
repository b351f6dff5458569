"""A lineage as a text that other programs draw."""

from __future__ import annotations

from deriva_ml_cli.lineage import BACK, ON, Edge, Lineage, Node
from deriva_ml_cli.screen import one_line
from deriva_ml_core.definitions import MLTable

__all__ = ["as_dot", "as_mermaid"]

LONGEST = 60
"""Letters of a name that a drawing shows."""

_SHAPES = {MLTable.execution.value: ('(["', '"])'), MLTable.dataset.value: ('[("', '")]')}
_DOT_SHAPES = {MLTable.execution.value: "oval", MLTable.dataset.value: "cylinder"}


def as_mermaid(found: Lineage) -> str:
    """A flowchart for Mermaid, from what was there first to what came of it."""
    numbers = {rid: f"n{number}" for number, rid in enumerate(found.nodes)}
    lines = ["flowchart LR"]
    for rid, node in found.nodes.items():
        before, after = _SHAPES.get(node.table, ('["', '"]'))
        lines.append(f"    {numbers[rid]}{before}{'<br/>'.join(map(_for_mermaid, _words(node)))}{after}")
    lines += [f"    {numbers[edge.source]} --> {numbers[edge.product]}" for edge in _edges(found)]
    lines += [f"    style {numbers[found.start]} stroke-width:3px"]
    return "\n".join(lines)


def as_dot(found: Lineage) -> str:
    """A graph for Graphviz, from what was there first to what came of it."""
    lines = ["digraph lineage {", "    rankdir=LR;", '    node [fontname="sans-serif"];']
    for rid, node in found.nodes.items():
        shape = _DOT_SHAPES.get(node.table, "note")
        bold = ", penwidth=3" if rid == found.start else ""
        label = "\\n".join(map(_for_dot, _words(node)))
        lines.append(f'    "{rid}" [shape={shape}, label="{label}"{bold}];')
    lines += [f'    "{edge.source}" -> "{edge.product}";' for edge in _edges(found)]
    return "\n".join([*lines, "}"])


def _words(node: Node) -> list[str]:
    state = f" {node.status}" if node.status else ""
    name = one_line(node.name)
    name = name if len(name) <= LONGEST else name[: LONGEST - 3] + "..."
    return [f"{node.table} {node.rid}{state}", *([name] if name else [])]


def _for_mermaid(text: str) -> str:
    """The text with all that Mermaid or HTML would read as its own written as numbers of letters."""
    return "".join(letter if letter.isalnum() or letter in " .,:_-/=" else f"#{ord(letter)};" for letter in text)


def _for_dot(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _edges(found: Lineage) -> list[Edge]:
    return list(dict.fromkeys((*found.edges[BACK], *found.edges[ON])))
