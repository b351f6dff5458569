"""``deriva-ml datasets``: the datasets of a catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Limit, PageNumber, command

if TYPE_CHECKING:
    from deriva_ml_core.analysis.runs import DatasetPage

__all__ = ["app"]


@command("deriva-ml datasets", "deriva-ml datasets --text scans --json")
def app(
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="Only with this text in the description.")] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Include deleted datasets.")] = False,
    limit: Limit = 20,
    page: PageNumber = 1,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """List datasets, newest first.

    Each is shown with its types and its current version.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    with open_client(host, catalog) as ml:
        result = ml.list_datasets(text=text, include_deleted=deleted, limit=limit, page=page)
    if as_json:
        datasets = [dataset.to_dict() for dataset in result.datasets]
        print_json({"datasets": datasets, "page": page, "more": result.has_more})
    else:
        _print(result, page)


def _print(result: DatasetPage, page: int) -> None:
    from deriva_ml_cli.terminal import Column, create_console, print_note, print_table
    from deriva_ml_core._text import format_age, parse_time

    if not result.datasets:
        print_note("No dataset matches." if page == 1 else f"There is no page {page}.")
        return
    is_wide = create_console().width >= 76
    columns = [Column("RID", style="bold"), Column("Version"), Column("Changed")]
    columns += [Column("Types", flexible=True)] if is_wide else []
    rows = []
    for dataset in result.datasets:
        types = [", ".join(dataset.types)] if is_wide else []
        prefix = "(deleted) " if dataset.deleted else ""
        changed = format_age(parse_time(dataset.changed or dataset.created))
        rows.append([dataset.rid, dataset.version, changed, *types, f"{prefix}{dataset.description}"])
    print_table([*columns, Column("Description", flexible=True)], rows)
    if result.has_more:
        print_note(f"There are more: --page {page + 1}")
