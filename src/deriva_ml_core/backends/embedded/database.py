"""One SQLite file: its connection, its transactions, and its errors in our words."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from time import monotonic
from urllib.parse import quote
from weakref import WeakMethod

import sqlalchemy as sa

from deriva_ml_core.errors import (
    CatalogCorrupt,
    CatalogReadOnly,
    CatalogUnavailable,
    ConfigurationError,
    DerivaMLException,
)

__all__ = ["BUSY_TIMEOUT", "Database", "detect_network_file_system", "error_code", "list_mounts"]


BUSY_TIMEOUT = 30.0
"""Seconds that a call waits for another process's writing to end."""

BUSY_RETRY_MS = 10
"""Milliseconds after which SQLite's waiting for a turn to write begins afresh."""


class Database:
    """One SQLite file, which is never made by opening it.

    Within a process one call at a time has the connection: SQLite lets one write anyway, and so a fork can wait until
    none is open. A connection that crossed a fork would share its locks with the parent's
    (https://www.sqlite.org/howtocorrupt.html, 2.6).

    Args:
        file: The file.
        journal_mode: SQLite's journal mode: ``WAL``, or ``DELETE`` where the file system cannot share memory.
        busy_timeout: Seconds to wait for another process's writing to end.
    """

    def __init__(self, file: Path, *, journal_mode: str = "WAL", busy_timeout: float = BUSY_TIMEOUT) -> None:
        self.file = file
        self._journal_mode = journal_mode
        self._busy_timeout = busy_timeout
        self._lock = RLock()
        self._engine: sa.Engine | None = None
        self._open_file_id: tuple[int, int] | None = None
        self._pid = os.getpid()
        _register_fork_handlers(self)

    @contextmanager
    def read_transaction(self) -> Iterator[sa.Connection]:
        """One state of the database, whatever others write meanwhile."""
        with self._acquire_connection() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection

    @contextmanager
    def write_transaction(self) -> Iterator[sa.Connection]:
        """A transaction that no other process can come between; it is undone if the block raises."""
        with self._acquire_connection() as connection:
            self._begin_immediate(connection)
            yield connection
            # a COMMIT that fails leaves the transaction open: as a statement SQLAlchemy still rolls it back
            connection.exec_driver_sql("COMMIT")

    def execute_autocommit(self, statement: str) -> None:
        """Run a statement that SQLite takes outside transactions only."""
        with self._acquire_connection() as connection:
            connection.exec_driver_sql(statement)

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._engine is not None and self._pid == os.getpid():
                self._engine.dispose()

    @contextmanager
    def _acquire_connection(self) -> Iterator[sa.Connection]:
        with self._lock, self._translate_errors(), self._get_engine().connect() as connection:
            yield connection

    def _begin_immediate(self, connection: sa.Connection) -> None:
        # SQLite asks less and less often the longer it waits, so that of several writers some would starve
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.execute(f"PRAGMA busy_timeout = {BUSY_RETRY_MS}")
        end = monotonic() + self._busy_timeout
        try:
            while not _try_begin_immediate(driver, is_last_attempt=monotonic() > end):
                pass
        finally:
            driver.execute(f"PRAGMA busy_timeout = {int(self._busy_timeout * 1000)}")

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.IntegrityError:
            raise  # the catalog knows the rows, and so the reason
        except (sa.exc.StatementError, sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            raise _translate_error(error, self.file) from error

    def _get_engine(self) -> sa.Engine:
        if self._engine is None or self._pid != os.getpid():
            self._engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=sa.pool.QueuePool)
            self._pid = os.getpid()
        elif self._open_file_id not in (None, _file_id(self.file)):
            # SQLite would go on writing into a file that was deleted or moved away
            self._engine.dispose()
            self._open_file_id = None
        return self._engine

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(self.file))}?mode=rw",
            uri=True,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        self._open_file_id = _file_id(self.file)
        if self._journal_mode != "WAL":
            connection.execute(f"PRAGMA journal_mode = {self._journal_mode}")
        for setting in ("foreign_keys = ON", "synchronous = FULL", "cache_size = -16384", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {setting}")
        return connection

    def before_fork(self) -> None:
        """Wait until no call is under way, and let go of the connection."""
        self._lock.acquire()
        self.close()

    def after_fork(self) -> None:
        """Let calls go on."""
        self._lock.release()


def _try_begin_immediate(connection: sqlite3.Connection, *, is_last_attempt: bool) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if is_last_attempt or not error_code(error).startswith("SQLITE_BUSY"):
            raise
        return False
    return True


def _file_id(file: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - asked at every call, and this is twice as fast as Path's own
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _register_fork_handlers(database: Database) -> None:
    before, after = WeakMethod(database.before_fork), WeakMethod(database.after_fork)
    os.register_at_fork(
        before=lambda: _call_if_alive(before),
        after_in_parent=lambda: _call_if_alive(after),
        after_in_child=lambda: _call_if_alive(after),
    )


def _call_if_alive(method: WeakMethod[Callable[[], None]]) -> None:
    if (present := method()) is not None:
        present()


def error_code(error: BaseException | None) -> str:
    """SQLite's name of what went wrong, such as ``SQLITE_BUSY``; empty where it has none."""
    while error is not None and not hasattr(error, "sqlite_errorname"):
        error = getattr(error, "orig", None)
    return str(getattr(error, "sqlite_errorname", ""))


def _translate_error(error: Exception, file: Path) -> DerivaMLException:
    code = error_code(error)
    said = getattr(error, "orig", None) or error
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return CatalogUnavailable(
            f"Another process has been writing to the catalog {file} for too long; call again when it has ended."
        )
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return CatalogCorrupt(corruption_message(file, str(said)))
    if code.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return CatalogReadOnly(
            f"The catalog {file} cannot be written ({said}): let this user write to the file and to its folder, or "
            "work in another place with DERIVA_ML_HOME."
        )
    if code == "SQLITE_FULL" or "disk is full" in str(said):
        return CatalogUnavailable(
            f"The disk of the catalog {file} is full, and nothing was written: free some space and call again."
        )
    if code.startswith("SQLITE_CANTOPEN"):
        return _cannot_open_error(file, str(said))
    if code.startswith("SQLITE_IOERR"):
        return CatalogUnavailable(f"The disk of the catalog {file} failed ({said}), and nothing was written.")
    return ConfigurationError(f"The catalog {file} cannot take this: {said}.")


def _cannot_open_error(file: Path, detail: str) -> DerivaMLException:
    if file.exists() and not os.access(file.parent, os.W_OK):
        return CatalogReadOnly(
            f"The catalog {file} cannot be opened, since its folder cannot be written: let this user write there, or "
            "work in another place with DERIVA_ML_HOME."
        )
    return CatalogUnavailable(f"The catalog {file} cannot be opened ({detail}): check that it is there and readable.")


def corruption_message(file: Path, detail: str) -> str:
    """What to say of a file that is no catalog, and what to do."""
    return (
        f"{file} is not a sound catalog ({detail}). Put back a copy of it, or rescue what can be read with "
        f"`sqlite3 {file.name} .recover`; move it away to begin with an empty catalog."
    )


NETWORK_FILE_SYSTEMS = re.compile(
    r"nfs\d?|cifs|smb\w*|afpfs|ncpfs|afs|coda|9p|lustre|gpfs|beegfs\w*|ceph|glusterfs|orangefs|pvfs2|ocfs2|gfs2?|"
    r"panfs|webdav|davfs\d?|fuse\.(sshfs|glusterfs|ceph|davfs\d?|s3fs|rclone|smbnetfs|curlftpfs|gvfsd-fuse|mfs|juicefs)"
)
"""The types of file systems, as Linux and macOS name them, that several machines write."""


def detect_network_file_system(folder: Path, mounts: Iterable[tuple[str, str]]) -> str | None:
    """The type of the network file system that a folder lies on; None where it lies on a disk of this machine.

    Args:
        folder: It need not exist yet.
        mounts: Where each file system is mounted, and its type; of two at one place the later counts.
    """
    place = folder.resolve()
    kinds = {Path(mount): kind for mount, kind in mounts}
    kind = next((kinds[above] for above in (place, *place.parents) if above in kinds), "")
    return kind if NETWORK_FILE_SYSTEMS.fullmatch(kind) else None


def list_mounts(mounts_file: Path = Path("/proc/self/mounts")) -> list[tuple[str, str]]:
    """Where each file system of this machine is mounted, and its type.

    Args:
        mounts_file: Linux's own list; without one psutil is asked, which takes longer to import than a catalog to open.
    """
    try:
        lines = mounts_file.read_text(errors="surrogateescape").splitlines()
    except OSError:
        from psutil import disk_partitions

        return [(partition.mountpoint, partition.fstype) for partition in disk_partitions(all=True)]
    return [(_unescape_mount_point(fields[1]), fields[2]) for line in lines if len(fields := line.split(" ")) > 2]


def _unescape_mount_point(mount: str) -> str:
    # the kernel writes spaces and the like as \040
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), mount)
