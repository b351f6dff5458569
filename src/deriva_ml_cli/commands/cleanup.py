"""``deriva-ml cleanup``: what may go from this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.options import AsJson, CatalogNumber, Host, Yes, command

if TYPE_CHECKING:
    from deriva_ml_cli.tidying import KeptFolder, Removable

__all__ = ["app"]


@command("deriva-ml cleanup --dry-run", "deriva-ml cleanup --older-than 30 --yes")
def app(
    older_than: Annotated[float, typer.Option(min=0, metavar="DAYS", help="Of runs that ended so many days ago.")] = 0,
    downloads: Annotated[
        bool, typer.Option("--downloads/--no-downloads", help="Downloaded datasets too, which can be brought again.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what may go.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Delete what is safe to delete on this machine; it asks first.

    That are working folders of ended runs of which everything was sent, downloaded datasets, and halves of objects
    that a killed process left. A folder with a file that is nowhere else stays.
    """
    from datetime import timedelta

    from deriva_ml_cli.opening import open_client
    from deriva_ml_cli.screen import print_json, print_note
    from deriva_ml_cli.tidying import delete_removable, find_removable
    from deriva_ml_cli.wording import format_size

    if as_json and not (yes or dry_run):
        raise typer.BadParameter("With --json nobody can be asked: give --yes or --dry-run too.")
    with open_client(host, catalog) as ml:
        leftovers, kept = find_removable(ml, timedelta(days=older_than), include_downloads=downloads)
        if not as_json:
            _print(leftovers, kept)
        wanted = bool(leftovers) and not dry_run and (yes or typer.confirm("Delete all this?"))
        freed = delete_removable(leftovers) if wanted else 0
    if as_json:
        print_json({**_to_dict(leftovers, kept), "freed": freed})
    elif wanted:
        print_note(f"{format_size(freed)} are free again.")


def _to_dict(removable: list[Removable], kept: list[KeptFolder]) -> dict[str, object]:
    from dataclasses import asdict

    return {"may_go": [asdict(each) for each in removable], "stays": [asdict(each) for each in kept]}


def _print(removable: list[Removable], kept: list[KeptFolder]) -> None:
    from deriva_ml_cli.screen import Column, print_note, print_table, print_title
    from deriva_ml_cli.wording import format_count, format_size

    most = 20
    if kept:
        print_title("Stays")
        columns = Column("Execution", style="cyan"), Column("Why", flexible=True, wrapped=True)
        print_table(columns, [(each.name, each.reason) for each in kept[:most]], indent=2)
        if len(kept) > most:
            print_note(f"  and {len(kept) - most:,} more")
    if not removable:
        print_note("There is nothing to delete.")
        return
    print_title("May go")
    kinds = dict.fromkeys(each.kind for each in removable)
    rows = []
    for kind in kinds:
        of_kind = [each for each in removable if each.kind == kind]
        total = sum(each.bytes for each in of_kind)
        examples = ", ".join(each.name for each in of_kind[:5]) + (", ..." if len(of_kind) > 5 else "")
        rows.append((format_count(len(of_kind), kind), format_size(total), examples))
    print_table([Column("What"), Column("Size", align_right=True), Column("Which", flexible=True)], rows, indent=2)
    print_note(f"  {format_size(sum(each.bytes for each in removable))} in all")
