"""How a catalog on a server is opened: which server, who asks, and whether it has what is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from deriva_ml_core.backend import Backend
from deriva_ml_core.backends.remote.adapted import adapt_catalog
from deriva_ml_core.backends.remote.catalog import DerivaCatalog
from deriva_ml_core.backends.remote.creating import create_catalog, ensure_default_schema
from deriva_ml_core.backends.remote.server import Server
from deriva_ml_core.backends.remote.store import DerivaStore
from deriva_ml_core.errors import ConfigurationError, UnknownAddress
from deriva_ml_core.models import Address
from deriva_ml_core.schema import ASSET_COLUMNS, CatalogModel

__all__ = ["create_or_extend_catalog", "open_backend", "server_from_address"]

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
