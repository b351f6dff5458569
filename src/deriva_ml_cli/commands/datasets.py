"""``deriva-ml datasets``: what there is to train with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Limit, PageNumber, command

if TYPE_CHECKING:
    from deriva_ml_core.analysis.runs import RowPage
    from deriva_ml_core.client import DerivaML

__all__ = ["app"]


@command("deriva-ml datasets", "deriva-ml datasets --text scans --json")
def app(
    text: Annotated[str | None, typer.Option(metavar="WORDS", help="With this in the description.")] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Those that were deleted too.")] = False,
    limit: Limit = 20,
    page: PageNumber = 1,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """List datasets, newest first, each with its present version."""
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json
    from deriva_ml_core.analysis.runs import find_rows
    from deriva_ml_core.backend import AnyOf, Where
    from deriva_ml_core.definitions import MLTable

    with open_client(host, catalog) as ml:
        where: Where = {} if deleted else AnyOf(({"Deleted": None}, {"Deleted": False}))
        columns = ("Description",)
        found = find_rows(ml.connection, MLTable.dataset, where, text=text, columns=columns, limit=limit, page=page)
        datasets = list(_iter_dataset_summaries(ml, found))
    if as_json:
        print_json({"datasets": datasets, "page": page, "more": found.has_more})
    else:
        _print(datasets, page, more=found.has_more)


def _iter_dataset_summaries(ml: DerivaML, row_page: RowPage) -> Iterator[dict[str, Any]]:
    """The datasets with their types and versions, which two questions bring."""
    from deriva_ml_core.definitions import MLTable

    catalog = ml.connection.catalog
    rids = [row["RID"] for row in row_page.rows]
    versions = [row["Version"] for row in row_page.rows if row["Version"]]
    numbers = {row["RID"]: row for row in catalog.select(MLTable.dataset_version, {"RID": versions})} if rids else {}
    types: dict[str, list[str]] = {}
    for link in catalog.select(MLTable.dataset_dataset_type, {"Dataset": rids}) if rids else ():
        types.setdefault(link["Dataset"], []).append(link["Dataset_Type"])
    for row in row_page.rows:
        version = numbers.get(row["Version"] or "", {})
        yield {
            "rid": row["RID"],
            "description": row["Description"] or "",
            "types": sorted(types.get(row["RID"], ())),
            "version": version.get("Version"),
            "changed": version.get("RCT"),
            "created": row["RCT"],
            "deleted": bool(row["Deleted"]),
        }


def _print(datasets: list[dict[str, Any]], page: int, *, more: bool) -> None:
    from deriva_ml_cli.terminal import Column, create_console, print_note, print_table
    from deriva_ml_core._text import format_age, parse_time

    if not datasets:
        print_note("No dataset matches." if page == 1 else f"There is no page {page}.")
        return
    wide = create_console().width >= 76
    columns = [Column("RID", style="bold"), Column("Version"), Column("Changed")]
    columns += [Column("Types", flexible=True)] if wide else []
    rows = []
    for each in datasets:
        types = [", ".join(each["types"])] if wide else []
        gone = "(deleted) " if each["deleted"] else ""
        changed = format_age(parse_time(each["changed"] or each["created"]))
        rows.append([each["rid"], each["version"], changed, *types, f"{gone}{each['description']}"])
    print_table([*columns, Column("Description", flexible=True)], rows)
    if more:
        print_note(f"There are more: --page {page + 1}")
