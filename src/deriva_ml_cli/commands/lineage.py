"""``deriva-ml lineage``: what a row is derived from and what used it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Rid, command

if TYPE_CHECKING:
    from rich.console import OverflowMethod
    from rich.text import Text
    from rich.tree import Tree

    from deriva_ml_core.analysis.lineage import Direction, Lineage

__all__ = ["app"]


@command("deriva-ml lineage 1-4A2C", "deriva-ml lineage 1-4A2C --dot | dot -Tsvg > lineage.svg")
def app(
    rid: Rid,
    depth: Annotated[int, typer.Option(min=1, help="Links to follow in each direction.")] = 20,
    limit: Annotated[int, typer.Option(min=1, help="Maximum nodes in each direction.")] = 300,
    siblings: Annotated[int, typer.Option(min=1, help="Maximum neighbours of one table to follow from a node.")] = 10,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")] = False,
    dot: Annotated[bool, typer.Option("--dot", help="Print a Graphviz graph.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Show what a row is derived from and what used it.

    The result is a tree of executions, datasets and assets. A node that occurs again is marked instead of repeated.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    if mermaid + dot + as_json > 1:
        raise typer.BadParameter("Use only one of --mermaid, --dot and --json.")
    with open_client(host, catalog) as ml:
        lineage = ml.lineage(rid, depth=depth, limit=limit, siblings=siblings)
    if as_json:
        print_json(lineage.to_dict())
    elif mermaid or dot:
        from deriva_ml_core.analysis.lineage import render_dot, render_mermaid

        typer.echo(render_mermaid(lineage) if mermaid else render_dot(lineage))
    else:
        _print(lineage)


def _print(lineage: Lineage) -> None:
    from rich.tree import Tree

    from deriva_ml_cli.terminal import can_print_unicode, create_console, print_note, print_title
    from deriva_ml_core.analysis.lineage import Direction

    console = create_console()
    overflow: OverflowMethod = "ellipsis" if can_print_unicode(console) else "crop"
    console.print(_node_label(lineage, lineage.start), no_wrap=True, overflow=overflow)
    for direction, title, if_empty in (
        (Direction.upstream, "Derived from", "nothing that is recorded"),
        (Direction.downstream, "Used by", "nothing yet"),
    ):
        print_title(title)
        tree = Tree("", hide_root=True, guide_style="dim")
        _fill_tree(tree, lineage, direction)
        if tree.children:
            console.print(tree, no_wrap=True, overflow=overflow)
        else:
            print_note(f"  {if_empty}")
    if lineage.is_truncated:
        print_note("There is more: --limit and --depth show it.")


def _fill_tree(tree: Tree, lineage: Lineage, direction: Direction) -> None:
    """Add the nodes of one direction, each once, depth first; without recursion, since chains can be long."""
    from deriva_ml_cli.terminal import safe_text

    neighbours = lineage.neighbours(direction)
    notes: dict[str, list[Text]] = {}
    for omitted in lineage.omitted:
        if omitted.direction is direction:
            note = safe_text(f"and {omitted.count:,} more of {omitted.table}: --siblings", "dim")
            notes.setdefault(omitted.rid, []).append(note)
    added = {lineage.start}
    open_branches = [(tree, lineage.start, iter(neighbours.get(lineage.start, ())))]
    while open_branches:
        branch, parent, remaining = open_branches[-1]
        rid = next(remaining, None)
        if rid is None:
            open_branches.pop()
            for note in notes.get(parent, ()):
                branch.add(note)
        elif rid in added:
            branch.add(_node_label(lineage, rid, is_repeated=True))
        else:
            added.add(rid)
            open_branches.append((branch.add(_node_label(lineage, rid)), rid, iter(neighbours.get(rid, ()))))


def _node_label(lineage: Lineage, rid: str, *, is_repeated: bool = False) -> Text:
    from rich.text import Text

    from deriva_ml_cli.terminal import safe_text, status_text

    node = lineage.nodes[rid]
    parts = [safe_text(node.table, "dim"), safe_text(rid, "bold")]
    if is_repeated:
        parts.append(safe_text("(see above)", "dim"))
    else:
        parts += [status_text(node.status)] if node.status not in ("", "Completed") else []
        parts.append(safe_text(node.name))
    return Text(" ", no_wrap=True, overflow="ellipsis").join(parts)
