"""How a catalog on a server is opened: which server, who asks, and whether it has what is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from deriva_ml_core.backend import Backend
from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.backends.deriva.compatibility import adapt_catalog
from deriva_ml_core.backends.deriva.ermrest_client import (
    ErmrestClient,
    encode_json,
    error_from_response,
    validate_response,
)
from deriva_ml_core.backends.deriva.http import ResponseLost, Server
from deriva_ml_core.backends.deriva.queries import ModelCache
from deriva_ml_core.backends.deriva.store import DerivaStore
from deriva_ml_core.default_schema import DEFAULT_TERMS, default_tables
from deriva_ml_core.definitions import MLVocab
from deriva_ml_core.errors import CatalogUnavailable, ConfigurationError, UnknownAddress
from deriva_ml_core.models import Address
from deriva_ml_core.schema import ASSET_COLUMNS, DOMAIN_SCHEMA, ML_SCHEMA, CatalogModel, Table

__all__ = ["create_catalog", "create_or_extend_catalog", "ensure_default_schema", "open_backend", "server_from_address"]


HOST_PATTERN = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(?P<port>:\d+)?/*", re.I
)
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


def open_backend(address: Address, home: Path) -> Backend:
    """Open a catalog on a server.

    Args:
        address: The server's name, and the catalog's number, with ``@<snapshot>`` for a state of the past.
        home: The folder under which working folders of all catalogs lie.

    Raises:
        ConfigurationError: No number is given, or the catalog lacks tables that are needed; they are named.
        LoginRequired, AccessRefused: The user may not.
        UnknownAddress: There is no such catalog.
        CatalogUnavailable: The server cannot be reached.
    """
    if not address.catalog_id:
        raise ConfigurationError(
            f"{address.hostname} has several catalogs: give the number of one, as DerivaML({address.hostname!r}, '1'), "
            f"or make a new one with DerivaML.create({address.hostname!r}, project_name=...)."
        )
    server = server_from_address(address)
    number, _, snapshot = address.catalog_id.partition("@")
    catalog = DerivaCatalog(server, quote(number, safe=""))
    known = adapt_catalog(catalog)
    _check_required_columns(known.model, catalog.name)
    seen = known.at(snapshot) if snapshot else known
    return Backend(seen, DerivaStore(server), _catalog_folder(home, server, number))


def create_or_extend_catalog(
    address: Address, project_name: str, acls: Mapping[str, Sequence[str]] | None = None
) -> str:
    """Make a catalog on a server, or give one that is there what it lacks, and return its number.

    Args:
        address: The server, and the number of a catalog that is there.
        project_name: The name of the schema for the project's own tables.
        acls: Who may do what, by ERMrest's names for rights.
    """
    server = server_from_address(address)
    if address.catalog_id is None:
        return create_catalog(server, project_name, acls).catalog_id
    catalog = DerivaCatalog(server, quote(address.catalog_id, safe=""))
    ensure_default_schema(catalog, project_name)
    for access, who in (acls or {}).items():
        catalog.set_acl(access, who)
    return catalog.catalog_id


def server_from_address(address: Address) -> Server:
    """The server that an address names, and the login for it: the one given, else the one that the user has stored.

    Raises:
        UnknownAddress: It names no server, or one on another machine without encryption.
    """
    named = HOST_PATTERN.fullmatch(address.hostname or "")
    if named is None:
        raise UnknownAddress(f"{address.hostname!r} names no server: give a host name or https://<host>.")
    scheme, host = (named["scheme"] or "https").lower(), named["host"].lower()
    if scheme == "http" and host not in LOOPBACK_HOSTS:
        raise UnknownAddress(
            f"{address.hostname!r} would carry the login unencrypted: give https://{host}{named['port'] or ''}."
        )
    place = host + (named["port"] or "")
    if address.credential is not None:
        given = {key: secret.get_secret_value() for key, secret in address.credential.items()}
        return Server(scheme, place, given)
    return Server(scheme, place, _load_credential(place))


def _load_credential(host: str) -> Mapping[str, str]:
    from deriva.core import get_credential

    found: Mapping[str, str] | None = get_credential(host, update_bdbag_keychain=False)
    return found or {}


def _catalog_folder(home: Path, server: Server, catalog_id: str) -> Path:
    return home / re.sub(r"[^A-Za-z0-9.-]", "_", server.host) / catalog_id


def _check_required_columns(model: CatalogModel, name: str) -> None:
    """Raise `ConfigurationError` naming the tables and columns that a catalog lacks for recording runs."""
    missing = []
    for table, needed in REQUIRED_COLUMNS.items():
        known = model.tables.get(table)
        if known is None:
            missing.append(table)
        elif lacking := needed - known.column_names:
            missing.append(f"{table}.{', '.join(sorted(lacking))}")
    if missing:
        raise ConfigurationError(
            f"{name} cannot record runs: it lacks {'; '.join(missing)}. Ask its owner to add the deriva-ml schema, or "
            "make a new catalog with DerivaML.create(...)."
        )


REQUIRED_COLUMNS: Mapping[str, frozenset[str]] = {
    "Workflow": frozenset({"Name", "URL", "Checksum"}),
    "Workflow_Type": frozenset({"Name"}),
    "Execution": frozenset({"Workflow", "Description", "Status"}),
    "Execution_Metadata": frozenset(ASSET_COLUMNS),
    "Execution_Metadata_Execution": frozenset({"Execution_Metadata", "Execution", "Asset_Role"}),
    "Execution_Metadata_Asset_Type": frozenset({"Execution_Metadata", "Asset_Type"}),
    "Asset_Type": frozenset({"Name"}),
    "Asset_Role": frozenset({"Name"}),
}
"""The tables without which no run can be recorded, and their columns; a catalog without others lacks only their use."""

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
