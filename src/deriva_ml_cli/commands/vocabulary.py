"""``deriva-ml vocabulary``: the terms that the catalog knows."""

from __future__ import annotations

from typing import Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command

__all__ = ["app"]


@command("deriva-ml vocabulary", "deriva-ml vocabulary Workflow_Type")
def app(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A vocabulary; without one, all.")] = None,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """List the terms of a vocabulary, or of all."""
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    with open_client(host, catalog) as ml:
        model = ml.connection.catalog.refresh()
        names = (
            [model.vocabulary(name).name]
            if name
            else sorted(each.name for each in model.tables.values() if each.is_vocabulary)
        )
        found = {each: ml.list_terms(each) for each in names}
    if as_json:
        print_json(found)
        return
    _print(found)


def _print(vocabularies: dict[str, dict[str, str]]) -> None:
    from deriva_ml_cli.terminal import Column, print_note, print_table, print_title

    for name, terms in vocabularies.items():
        print_title(name)
        if terms:
            columns = Column("Term", style="cyan"), Column("Meaning", flexible=True, wrapped=True)
            print_table(columns, terms.items(), indent=2)
        else:
            print_note("  no terms")
