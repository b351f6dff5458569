"""How a catalog is made on a server, with all that a new one has: in few requests, and nothing is ever dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from deriva_ml_core.backends.remote.adapted import adapt_catalog
from deriva_ml_core.backends.remote.asking import ErmrestClient, encode_json, validate_response
from deriva_ml_core.backends.remote.catalog import DerivaCatalog
from deriva_ml_core.backends.remote.mistakes import error_from_response
from deriva_ml_core.backends.remote.reading import ModelCache
from deriva_ml_core.backends.remote.server import ResponseLost, Server
from deriva_ml_core.definitions import MLVocab
from deriva_ml_core.errors import CatalogUnavailable, ConfigurationError
from deriva_ml_core.schema import DOMAIN_SCHEMA, ML_SCHEMA, Table
from deriva_ml_core.standard import DEFAULT_TERMS, default_tables

__all__ = ["create_catalog", "ensure_default_schema"]

WEB_PAGES_SCHEMA = "WWW"
"""The schema of a catalog's web pages: other clients, deriva-ml 1.17 among them, look into it, and fail without."""


def create_catalog(server: Server, project: str, acls: Mapping[str, Sequence[str]] | None = None) -> DerivaCatalog:
    """Make a catalog with the standard tables and terms.

    Args:
        server: The server.
        project: The project's name, which names the schema of its own tables.
        acls: Who may do what: users and groups by ``owner``, ``enumerate``, ``write`` and the like, as ERMrest's
            access control lists have them; None leaves all to the one who makes it.

    Raises:
        ConfigurationError: The project's name cannot name a schema.
        LoginRequired, AccessRefused: This user may not make catalogs.
    """
    if not project.strip() or project in (ML_SCHEMA, "public", WEB_PAGES_SCHEMA) or project.startswith("_"):
        raise ConfigurationError(f"A project cannot be named {project!r}: choose a name that begins with a letter.")
    try:
        response = validate_response(
            server.request(
                "POST",
                "/ermrest/catalog",
                headers={"Content-Type": "application/json"},
                body=encode_json({"name": project, "description": f"The catalog of {project}"}, "a new catalog"),
            )
        )
    except ResponseLost as event:
        raise CatalogUnavailable(
            f"{server.host} did not say whether it made a catalog ({event}). Look there before you try again."
        ) from event
    if response.status_code >= 400:
        raise error_from_response(response, server.host, "a new catalog")
    number = str(response.json()["id"])
    catalog = DerivaCatalog(server, number, ModelCache(ErmrestClient(server, number), is_new=True))
    ensure_default_schema(catalog, project)
    for access, who in (acls or {}).items():
        catalog.set_acl(access, who)
    return catalog


def ensure_default_schema(catalog: DerivaCatalog, project: str) -> None:
    """Give a catalog those standard tables and terms that it lacks: one request for all tables, one a vocabulary.

    What is there stays as it is, also where its columns are called otherwise.

    Args:
        catalog: The catalog, new or not.
        project: The name of the schema for the project's own tables.
    """
    missing = [table for table in default_tables() if table.name not in catalog.model.tables]
    if missing:
        catalog.create_tables(
            [_table_for_project(table, project) for table in missing], extra_schemas=[WEB_PAGES_SCHEMA]
        )
    known = adapt_catalog(catalog)
    for vocabulary, terms in DEFAULT_TERMS.items():
        rows = [{"Name": name, "Description": description} for name, description in terms.items()]
        known.insert(vocabulary, rows, skip_existing=True)


def _table_for_project(table: Table, project: str) -> Table:
    """A table of the project's in its schema; terms have ids in its name, but for those of workflows."""
    if table.schema == DOMAIN_SCHEMA:
        return replace(table, schema=project)
    if not table.is_vocabulary or table.name == MLVocab.workflow_type:
        return table
    named = (
        replace(column, default=f"{project}:{{RID}}") if column.name == "ID" else column for column in table.columns
    )
    return replace(table, columns=tuple(named))
