"""``deriva-ml vocabulary``: the terms of a catalog."""

from __future__ import annotations

from typing import Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command

__all__ = ["app"]


@command("deriva-ml vocabulary", "deriva-ml vocabulary Workflow_Type")
def app(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A vocabulary; all by default.")] = None,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """List the terms of vocabularies."""
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    with open_client(host, catalog) as ml:
        model = ml.connection.catalog.refresh()
        names = (
            [model.vocabulary(name).name]
            if name
            else sorted(table.name for table in model.tables.values() if table.is_vocabulary)
        )
        vocabularies = {vocabulary: ml.list_terms(vocabulary) for vocabulary in names}
    if as_json:
        print_json(vocabularies)
    else:
        _print(vocabularies)


def _print(vocabularies: dict[str, dict[str, str]]) -> None:
    from deriva_ml_cli.terminal import Column, print_note, print_table, print_title

    for name, terms in vocabularies.items():
        print_title(name)
        if terms:
            columns = Column("Term", style="cyan"), Column("Description", flexible=True, wrapped=True)
            print_table(columns, terms.items(), indent=2)
        else:
            print_note("  no terms")
