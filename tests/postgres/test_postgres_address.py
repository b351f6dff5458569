"""Addresses of catalogs in PostgreSQL databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from deriva_ml_core.backends.postgres.address import parse_address
from deriva_ml_core.errors import ConfigurationError, UnknownAddress
from deriva_ml_core.paths import is_postgres_address


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the caller's settings of libpq."""
    for name in ("PGHOST", "PGDATABASE", "PGSSLMODE", "PGSSLROOTCERT", "PGSERVICE", "PGUSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("uri", "printable", "folder"),
    [
        ("postgresql://ada@db.example.org/ml", "postgresql://ada@db.example.org/ml", "db.example.org_ml"),
        ("postgres://db:5433/ml", "postgresql://db:5433/ml", "db_5433_ml"),
        ("postgresql:///ml", "postgresql:///ml", "ml"),
        ("postgresql://ada@[::1]:5433/ml", "postgresql://ada@[::1]:5433/ml", "-3A-3A1_5433_ml"),
        ("postgresql://ada@/ml?host=/run/pg", "postgresql://ada@/ml?host=/run/pg", "-2Frun-2Fpg_ml"),
        ("postgresql://db/ml?sslmode=require&connect_timeout=5", "postgresql://db/ml", "db_ml"),
        ("postgresql:///?service=team", "postgresql:///?service=team", "team"),
        ("postgresql://a%40b@db/m%2Fl", "postgresql://a%40b@db/m%2Fl", "db_m-2Fl"),
    ],
)
def test_printable_address(uri: str, printable: str, folder: str) -> None:
    """Messages and citations name user, server and database; the folder of downloads is the same for all users."""
    address = parse_address(uri)
    assert (address.printable, address.folder_name) == (printable, folder)


@pytest.mark.parametrize("uri", ["postgresql://ada:secret@db/ml", "postgresql://db/ml?password=secret"])
def test_password(uri: str) -> None:
    """A password in the address is refused, and not printed; the error names the file for it."""
    with pytest.raises(ConfigurationError, match=r"~/\.pgpass") as raised:
        parse_address(uri)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("uri", ["postgresql://db", "postgresql://db/ml?nonesuch=1"])
def test_invalid_address(uri: str) -> None:
    """An address that names no database, or is no URI, is refused."""
    with pytest.raises(UnknownAddress, match="postgresql://user@host/database"):
        parse_address(uri)


@pytest.mark.parametrize(
    ("uri", "sslmode"),
    [
        ("postgresql://db.example.org/ml", "verify-full"),
        ("postgresql://10.0.0.5/ml", "verify-full"),
        ("postgresql://localhost,db.example.org/ml", "verify-full"),
        ("postgresql://db.example.org/ml?sslmode=require", "require"),
        ("postgresql://localhost/ml", None),
        ("postgresql://127.0.0.1/ml", None),
        ("postgresql:///ml", None),
        ("postgresql:///ml?host=/run/postgresql", None),
    ],
)
def test_server_is_checked(uri: str, sslmode: str | None) -> None:
    """The certificate and name of another machine are checked, unless the address says otherwise."""
    assert conninfo_to_dict(parse_address(uri).conninfo).get("sslmode") == sslmode


def test_own_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user's own root certificate is used; without one, those of the system."""
    settings = conninfo_to_dict(parse_address("postgresql://db.example.org/ml").conninfo)
    assert settings["sslrootcert"] == "system"
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").write_text("")
    assert "sslrootcert" not in conninfo_to_dict(parse_address("postgresql://db.example.org/ml").conninfo)
    monkeypatch.setenv("PGSSLMODE", "disable")
    assert "sslmode" not in conninfo_to_dict(parse_address("postgresql://db.example.org/ml").conninfo)


def test_scheme() -> None:
    """Both schemes of libpq are known, in any case."""
    names = ["postgresql://db/ml", "POSTGRES://db/ml", "file:x", "server.org", None]
    assert [is_postgres_address(name) for name in names] == [True, True, False, False, False]
