"""Opening and creating catalogs on a Deriva server: address, login, and the tables that recording a run requires."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

from deriva_ml_core.backend import Backend
from deriva_ml_core.backends.compatibility import adapt_catalog, find_missing_columns
from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.backends.deriva.ermrest_client import (
    ErmrestClient,
    encode_json,
    error_detail,
    error_from_response,
    parse_value,
    validate_response,
)
from deriva_ml_core.backends.deriva.http import ResponseLost, Server
from deriva_ml_core.backends.deriva.queries import ModelCache
from deriva_ml_core.backends.deriva.store import DerivaStore
from deriva_ml_core.default_schema import DEFAULT_TERMS, default_tables
from deriva_ml_core.definitions import MLVocab
from deriva_ml_core.errors import AccessRefused, CatalogUnavailable, ConfigurationError, UnknownAddress
from deriva_ml_core.models import Address
from deriva_ml_core.schema import ASSET_COLUMNS, DOMAIN_SCHEMA, ML_SCHEMA, CatalogModel, Table

__all__ = ["create_catalog", "create_or_extend_catalog", "ensure_default_schema", "open_backend", "server_from_address"]


HOST_PATTERN = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(?P<port>:\d+)?/*", re.I
)
CREDENTIAL_PATTERNS = {
    "bearer-token": re.compile(r"[!-~]+"),
    "cookie": re.compile(r"[!-:<>-~]+=[ -~]*"),
}
"""Forms of a login, in the order in which the deriva client library uses them."""

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


def open_backend(address: Address, home: Path) -> Backend:
    """Open a catalog on a server.

    Args:
        address: Host name and catalog number, with ``@<snapshot>`` for a past state.
        home: The folder that contains the working folders of all catalogs.

    Raises:
        ConfigurationError: The address has no catalog number, or the catalog lacks required tables.
        LoginRequired, AccessRefused: The user has no access.
        UnknownAddress: There is no such catalog.
        CatalogUnavailable: The server cannot be reached.
    """
    server = server_from_address(address)
    if not address.catalog_id:
        raise ConfigurationError(
            f"{address.hostname} has several catalogs: pass the number of one, as in "
            f"DerivaML({address.hostname!r}, '1'), or create one with "
            f"DerivaML.create({address.hostname!r}, project_name=...)."
        )
    number, _, snapshot = address.catalog_id.partition("@")
    catalog = DerivaCatalog(server, quote(number, safe=""))
    adapted = adapt_catalog(catalog)
    _check_required_columns(adapted.model, catalog.name)
    opened = adapted.at(snapshot) if snapshot else adapted
    return Backend(opened, DerivaStore(server), _catalog_folder(home, server, number))


def create_or_extend_catalog(
    address: Address, project_name: str, acls: Mapping[str, Sequence[str]] | None = None
) -> str:
    """Create a catalog on a server, or add the missing standard tables to an existing one.

    Args:
        address: The server, and the number of an existing catalog; without a number a catalog is created.
        project_name: Name of the schema for the project's own tables.
        acls: Users and groups by the name of an ERMrest access control list.

    Returns:
        The catalog's number.
    """
    server = server_from_address(address)
    if address.catalog_id is None:
        return create_catalog(server, project_name, acls).catalog_id
    catalog = DerivaCatalog(server, quote(address.catalog_id, safe=""))
    ensure_default_schema(catalog, project_name)
    for acl, roles in (acls or {}).items():
        catalog.set_acl(acl, roles)
    return catalog.catalog_id


def server_from_address(address: Address) -> Server:
    """Return the server of an address, with the address's credential or else the one that the user has stored.

    Raises:
        UnknownAddress: The address is not a host, or uses http for another machine.
    """
    match = HOST_PATTERN.fullmatch(address.hostname or "")
    if match is None:
        raise UnknownAddress(f"{address.printable_hostname!r} is not a server: use a host name or https://<host>.")
    scheme, host = (match["scheme"] or "https").lower(), match["host"].lower()
    if scheme == "http" and host not in LOOPBACK_HOSTS:
        raise UnknownAddress(
            f"{address.hostname!r} would send the login unencrypted: use https://{host}{match['port'] or ''}."
        )
    host_and_port = host + (match["port"] or "")
    if address.credential is None:
        load = partial(_load_checked_credential, host_and_port)
        return Server(scheme, host_and_port, load(), reload_credential=load)
    credential = {key: secret.get_secret_value() for key, secret in address.credential.items()}
    return Server(scheme, host_and_port, _check_credential(credential))


def _check_credential(credential: Mapping[str, str]) -> Mapping[str, str]:
    """Return a login unchanged, or raise `ConfigurationError` if it has another form than a server accepts."""
    for key, pattern in CREDENTIAL_PATTERNS.items():
        if key in credential:
            if isinstance(credential[key], str) and pattern.fullmatch(credential[key]):
                return credential
            break
    else:
        if not credential or {"username", "password"} <= credential.keys():  # the latter only from the user's file
            return credential
    raise ConfigurationError(
        "The login has another form than expected. Pass credential={'bearer-token': '<token>'} or "
        "{'cookie': 'webauthn=<value>'}, or log in with deriva-globus-auth-utils and pass no credential."
    )


def _load_checked_credential(host: str) -> Mapping[str, str]:
    return _check_credential(_load_credential(host))


def _load_credential(host: str) -> Mapping[str, str]:
    from deriva.core import get_credential

    credential: Mapping[str, str] | None = get_credential(host, update_bdbag_keychain=False)
    return credential or {}


def _catalog_folder(home: Path, server: Server, catalog_id: str) -> Path:
    return home / re.sub(r"[^A-Za-z0-9.-]", "_", server.host) / catalog_id


def _check_required_columns(model: CatalogModel, name: str) -> None:
    """Raise `ConfigurationError` if a catalog lacks tables or columns that recording a run requires."""
    missing = []
    for table, needed in REQUIRED_COLUMNS.items():
        existing = model.tables.get(table)
        if existing is None:
            missing.append(table)
        elif lacking := needed - existing.column_names:
            missing.append(f"{table}.{', '.join(sorted(lacking))}")
    if missing:
        raise ConfigurationError(
            f"{name} cannot record runs: it lacks {'; '.join(missing)}. Ask its owner to add the deriva-ml schema, or "
            "create a catalog with DerivaML.create(...)."
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
"""The tables and columns that recording a run requires; a catalog that lacks others only lacks what they are for."""

WEB_PAGES_SCHEMA = "WWW"
"""Schema of a catalog's web pages. Other clients, such as deriva-ml 1.17, read it and fail if it is missing."""


def create_catalog(server: Server, project: str, acls: Mapping[str, Sequence[str]] | None = None) -> DerivaCatalog:
    """Create a catalog with the standard tables and terms.

    Args:
        server: The server.
        project: The project's name, which is also the name of the schema for its own tables.
        acls: Users and groups by the name of an ERMrest access control list, such as ``owner``, ``enumerate`` or
            ``write``; None gives access to the creator only.

    Raises:
        ConfigurationError: The project's name is not a valid schema name.
        LoginRequired, AccessRefused: The user cannot create catalogs.
        CatalogUnavailable: The server did not confirm that it created the catalog.
    """
    if not project.strip() or project in (ML_SCHEMA, "public", WEB_PAGES_SCHEMA) or project.startswith("_"):
        raise ConfigurationError(f"{project!r} is not a valid project name: choose one that begins with a letter.")
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
            f"{server.host} did not confirm that it created a catalog ({event}). Check the server before you try again."
        ) from event
    if response.status_code == 403:
        raise AccessRefused(
            f"This user may not create catalogs on {server.host} ({error_detail(response)}). Ask its administrator for "
            f"that right, or ask an owner of an existing catalog for access and call DerivaML({server.url!r}, number)."
        )
    if response.status_code >= 400:
        raise error_from_response(response, server.host, "a new catalog")
    number = str(parse_value(response, "a new catalog", "id"))
    catalog = DerivaCatalog(server, number, ModelCache(ErmrestClient(server, number), is_new=True))
    ensure_default_schema(catalog, project)
    for acl, roles in (acls or {}).items():
        catalog.set_acl(acl, roles)
    return catalog


def ensure_default_schema(catalog: DerivaCatalog, project: str) -> None:
    """Add missing standard tables, columns and terms: one request for all tables, one for each vocabulary and column.

    Existing tables stay as they are, even if their columns have other names.

    Args:
        catalog: The catalog.
        project: Name of the schema for the project's own tables.
    """
    missing = [table for table in default_tables() if table.name not in catalog.model.tables]
    if missing:
        catalog.create_tables(
            [_table_for_project(table, project) for table in missing], extra_schemas=[WEB_PAGES_SCHEMA]
        )
    for table, columns in find_missing_columns(catalog.model).items():
        catalog.add_columns(table, columns)
    adapted = adapt_catalog(catalog)
    for vocabulary, terms in DEFAULT_TERMS.items():
        rows = [{"Name": name, "Description": description} for name, description in terms.items()]
        adapted.insert(vocabulary, rows, skip_existing=True)


def _table_for_project(table: Table, project: str) -> Table:
    """Return a table with the project's schema, and a vocabulary with term IDs that begin with the project's name.

    Workflow types keep their IDs.
    """
    if table.schema == DOMAIN_SCHEMA:
        return replace(table, schema=project)
    if not table.is_vocabulary or table.name == MLVocab.workflow_type:
        return table
    columns = (
        replace(column, default=f"{project}:{{RID}}") if column.name == "ID" else column for column in table.columns
    )
    return replace(table, columns=tuple(columns))
