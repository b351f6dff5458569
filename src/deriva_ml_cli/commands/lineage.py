"""``deriva-ml lineage``: what something was made from, and what was made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.options import AsJson, CatalogNumber, Host, Rid, command

if TYPE_CHECKING:
    from rich.console import OverflowMethod
    from rich.text import Text
    from rich.tree import Tree

    from deriva_ml_cli.lineage import Lineage

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
    from deriva_ml_cli.lineage import find_lineage
    from deriva_ml_cli.opening import opened
    from deriva_ml_cli.screen import print_json

    if mermaid + dot + as_json > 1:
        raise typer.BadParameter("Give one of --mermaid, --dot and --json.")
    with opened(host, catalog) as ml:
        found = find_lineage(ml, rid, depth=depth, limit=limit, siblings=siblings)
    if as_json:
        print_json(found.as_json())
    elif mermaid or dot:
        from deriva_ml_cli.graphs import as_dot, as_mermaid

        typer.echo(as_mermaid(found) if mermaid else as_dot(found))
    else:
        _print(found)


def _print(found: Lineage) -> None:
    from rich.tree import Tree

    from deriva_ml_cli.lineage import BACK, ON
    from deriva_ml_cli.screen import console, print_note, print_title, speaks_unicode

    screen = console()
    cut: OverflowMethod = "ellipsis" if speaks_unicode(screen) else "crop"
    screen.print(_label(found, found.start), no_wrap=True, overflow=cut)
    for direction, nothing in ((BACK, "nothing that is on record"), (ON, "nothing yet")):
        print_title(direction.capitalize())
        tree = Tree("", hide_root=True, guide_style="dim")
        _grow(tree, found, direction)
        if tree.children:
            screen.print(tree, no_wrap=True, overflow=cut)
        else:
            print_note(f"  {nothing}")
    if found.cut:
        print_note("There is more: --limit and --depth show it.")


def _grow(tree: Tree, found: Lineage, direction: str) -> None:
    """Add what is next to the start, and next to that, each once; without recursion, as a chain may be long."""
    from deriva_ml_cli.screen import shown

    around = found.neighbours(direction)
    left_out: dict[str, list[Text]] = {}
    for (at, way, table), count in found.more.items():
        if way == direction:
            left_out.setdefault(at, []).append(shown(f"and {count:,} more of {table}: --siblings", "dim"))
    done = {found.start}
    branches = [(tree, found.start, iter(around.get(found.start, ())))]
    while branches:
        branch, here, following = branches[-1]
        rid = next(following, None)
        if rid is None:
            branches.pop()
            for note in left_out.get(here, ()):
                branch.add(note)
        elif rid in done:
            branch.add(_label(found, rid, again=True))
        else:
            done.add(rid)
            branches.append((branch.add(_label(found, rid)), rid, iter(around.get(rid, ()))))


def _label(found: Lineage, rid: str, *, again: bool = False) -> Text:
    from rich.text import Text

    from deriva_ml_cli.screen import shown, shown_status

    node = found.nodes[rid]
    parts = [shown(node.table, "dim"), shown(rid, "bold")]
    if again:
        parts.append(shown("(see above)", "dim"))
    else:
        parts += [shown_status(node.status)] if node.status not in ("", "Completed") else []
        parts.append(shown(node.name))
    return Text(" ", no_wrap=True, overflow="ellipsis").join(parts)
