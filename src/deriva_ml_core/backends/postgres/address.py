"""The address of a catalog in a PostgreSQL database: a URI without a password."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from deriva_ml_core.errors import ConfigurationError, UnknownAddress
from deriva_ml_core.redaction import redact_address

__all__ = ["PostgresAddress", "parse_address"]

LOOPBACK_HOST = re.compile(r"localhost|127(\.\d+){3}|::1|/.*|@.*|")
"""Names of this machine, and folders of Unix sockets."""

SECRET_SETTINGS = ("password", "sslpassword", "passfile", "oauth_client_secret", "scram_client_key", "scram_server_key")


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """The address of a database.

    Args:
        conninfo: What libpq connects with. Passwords come from libpq's own files and variables.
        printable: The address in messages and citations.
        folder_name: Name of the folder for working folders and downloads.
    """

    conninfo: str
    printable: str
    folder_name: str


def parse_address(uri: str) -> PostgresAddress:
    """Parse ``postgresql://user@host/database`` and the other forms of libpq's URIs.

    A connection to another machine checks the server's certificate and name, unless ``sslmode`` says otherwise.

    Raises:
        UnknownAddress: It is no URI of PostgreSQL, or names no database.
        ConfigurationError: It contains a password.
    """
    try:
        settings = {name: str(value) for name, value in conninfo_to_dict(uri).items() if value not in (None, "")}
    except psycopg.ProgrammingError:
        raise UnknownAddress(
            "The address is no URI of a PostgreSQL database; use postgresql://user@host/database."
        ) from None
    if secrets := [name for name in SECRET_SETTINGS if name in settings]:
        raise ConfigurationError(
            f"The address {redact_address(uri)!r} must not contain {secrets[0]}. Store the password in ~/.pgpass, as "
            "host:port:database:user:password, or name the entry of a service file with ?service=."
        )
    if "dbname" not in settings and "service" not in settings and "PGDATABASE" not in os.environ:
        raise UnknownAddress("The address names no database; use postgresql://user@host/database.")
    hosts = settings.get("host", os.environ.get("PGHOST", "")).split(",")
    if not all(LOOPBACK_HOST.fullmatch(host) for host in hosts):
        settings |= _default_tls(settings)
    return PostgresAddress(make_conninfo("", **settings), _format(settings), _folder_name(settings))


def _default_tls(settings: dict[str, str]) -> dict[str, str]:
    """Return the settings that check the server, as far as the user has set none."""
    if "service" in settings or "sslmode" in settings or "PGSSLMODE" in os.environ:
        return {}
    own_certificates = "PGSSLROOTCERT" in os.environ or Path("~/.postgresql/root.crt").expanduser().exists()
    certificates = {} if "sslrootcert" in settings or own_certificates else {"sslrootcert": "system"}
    return {"sslmode": "verify-full", **certificates}


def _format(settings: dict[str, str]) -> str:
    """Return the address without the settings of this machine."""
    user = f"{quote(settings['user'], safe='')}@" if "user" in settings else ""
    host, port = settings.get("host", ""), settings.get("port", "")
    database = quote(settings.get("dbname", ""), safe="")
    if host.startswith(("/", "@")):
        query = [f"host={quote(host, safe='/')}", *([f"port={port}"] if port else [])]
        return f"postgresql://{user}/{database}?{'&'.join(query)}"
    service = f"?service={quote(settings['service'], safe='')}" if "service" in settings else ""
    netloc = f"[{host}]" if ":" in host else host
    return f"postgresql://{user}{netloc}{f':{port}' if port else ''}/{database}{service}"


def _folder_name(settings: dict[str, str]) -> str:
    """Return a name of a folder for the database, the same for all of its users."""
    parts = [settings.get(name, "") for name in ("service", "host", "port", "dbname")]
    return quote("_".join(part for part in parts if part), safe="").replace("%", "-").lstrip(".") or "default"
