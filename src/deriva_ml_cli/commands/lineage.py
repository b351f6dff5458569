"""``deriva-ml lineage``: what something was made from, and what was made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Rid, command

if TYPE_CHECKING:
    from rich.console import OverflowMethod
    from rich.text import Text
    from rich.tree import Tree

    from deriva_ml_core.analysis.lineage import Lineage

__all__ = ["app"]


@command("deriva-ml lineage 1-4A2C", "deriva-ml lineage 1-4A2C --dot | dot -Tsvg > lineage.svg")
def app(
    rid: Rid,
    depth: Annotated[int, typer.Option(min=1, help="How many links to follow, back and on.")] = 20,
    limit: Annotated[int, typer.Option(min=1, help="The most things to show, back and on.")] = 300,
    siblings: Annotated[int, typer.Option(min=1, help="The most neighbours of one kind to follow.")] = 10,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As a Mermaid flowchart.")] = False,
    dot: Annotated[bool, typer.Option("--dot", help="As a graph for Graphviz.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Show what something was made from, and what was made from it.

    It is a tree of executions, datasets and files. What would come a second time, as in a circle, is only named.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json
    from deriva_ml_core.analysis.lineage import find_lineage

    if mermaid + dot + as_json > 1:
        raise typer.BadParameter("Give one of --mermaid, --dot and --json.")
    with open_client(host, catalog) as ml:
        found = find_lineage(ml.connection, rid, depth=depth, limit=limit, siblings=siblings)
    if as_json:
        print_json(found.to_dict())
    elif mermaid or dot:
        from deriva_ml_core.analysis.lineage import render_dot, render_mermaid

        typer.echo(render_mermaid(found) if mermaid else render_dot(found))
    else:
        _print(found)


def _print(lineage: Lineage) -> None:
    from rich.tree import Tree

    from deriva_ml_cli.terminal import can_print_unicode, create_console, print_note, print_title
    from deriva_ml_core.analysis.lineage import DOWNSTREAM, UPSTREAM

    screen = create_console()
    cut: OverflowMethod = "ellipsis" if can_print_unicode(screen) else "crop"
    screen.print(_node_label(lineage, lineage.start), no_wrap=True, overflow=cut)
    for direction, nothing in ((UPSTREAM, "nothing that is on record"), (DOWNSTREAM, "nothing yet")):
        print_title(direction.capitalize())
        tree = Tree("", hide_root=True, guide_style="dim")
        _fill_tree(tree, lineage, direction)
        if tree.children:
            screen.print(tree, no_wrap=True, overflow=cut)
        else:
            print_note(f"  {nothing}")
    if lineage.is_truncated:
        print_note("There is more: --limit and --depth show it.")


def _fill_tree(tree: Tree, lineage: Lineage, direction: str) -> None:
    """Add what is next to the start, and next to that, each once; without recursion, as a chain may be long."""
    from deriva_ml_cli.terminal import safe_text

    around = lineage.neighbours(direction)
    left_out: dict[str, list[Text]] = {}
    for (at, way, table), count in lineage.omitted_counts.items():
        if way == direction:
            left_out.setdefault(at, []).append(safe_text(f"and {count:,} more of {table}: --siblings", "dim"))
    done = {lineage.start}
    branches = [(tree, lineage.start, iter(around.get(lineage.start, ())))]
    while branches:
        branch, here, following = branches[-1]
        rid = next(following, None)
        if rid is None:
            branches.pop()
            for note in left_out.get(here, ()):
                branch.add(note)
        elif rid in done:
            branch.add(_node_label(lineage, rid, is_repeated=True))
        else:
            done.add(rid)
            branches.append((branch.add(_node_label(lineage, rid)), rid, iter(around.get(rid, ()))))


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
