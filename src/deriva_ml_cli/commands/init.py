"""``deriva-ml init``: a new catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.command_options import AsJson, Host, Store, command

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["app"]


@command(
    "deriva-ml init",
    "deriva-ml init --host file:/data/my-catalog",
    "deriva-ml init --host file:/data/my-catalog --store s3://bucket/my-catalog",
    "deriva-ml init --host postgresql://db.example.org/runs --store s3://bucket/runs",
    "deriva-ml init --host deriva.example.org --project digits",
)
def app(
    project: Annotated[
        str | None, typer.Option(metavar="NAME", help="The schema for the project's tables; required on a server.")
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
    host: Host = None,
) -> None:
    """Create a catalog.

    An embedded catalog is created on first use, so this command is optional for it, except to keep its files in another
    store; an existing one stays as it is. On a server each call creates a new catalog.
    """
    from deriva_ml_cli.terminal import create_console, print_json, safe_text

    with _open_or_create(host, project, store) as ml:
        catalog = ml.connection.catalog
        name, number, tables = catalog.name, ml.connection.address.catalog_id, sorted(catalog.model.tables)
    if as_json:
        print_json({"catalog": name, "number": number, "tables": tables})
    else:
        usage = f"; use it with --host {host} --catalog {number}" if number else ""
        create_console().print(
            safe_text(f"The catalog is in {name}, with {len(tables)} tables{usage}."), soft_wrap=True
        )


def _open_or_create(host: str | None, project: str | None, store: str | None) -> DerivaML:
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.errors import ConfigurationError
    from deriva_ml_core.models import Address

    address = Address(hostname=host)
    if address.is_embedded:
        if project is not None:
            raise ConfigurationError("--project is for catalogs on a server; an embedded catalog has no project name.")
        return DerivaML.create(host or "", store=store) if store else open_client(host, None, create_missing=True)
    if not address.is_on_server:
        if project is not None:
            raise ConfigurationError("--project is for catalogs on a Deriva server; one in PostgreSQL has none.")
        return DerivaML.create(str(host), store=store)
    if project is None:
        raise ConfigurationError(
            f"{address.printable_hostname} is a server; add --project, the name of the schema for your tables."
        )
    return DerivaML.create(str(host), project, store=store)
