"""A SQLite file: connection, transactions, and translation of SQLite's errors."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from threading import RLock, get_ident, local
from time import monotonic, sleep
from urllib.parse import quote
from weakref import WeakSet

import sqlalchemy as sa

from deriva_ml_core._concurrency.fork_safe_lock import ForkSafeRLock
from deriva_ml_core.backends.embedded.dialect import SQLITE, HintCompiler, error_code
from deriva_ml_core.errors import (
    CatalogCorrupt,
    CatalogReadOnly,
    CatalogUnavailable,
    ConfigurationError,
    DerivaMLException,
)

__all__ = ["BUSY_TIMEOUT", "Database", "corruption_message", "detect_network_file_system", "list_mounts"]


BUSY_TIMEOUT = 30.0
"""Seconds to wait for another process that is writing."""

BUSY_RETRY_MS = 10
"""Milliseconds between attempts to start a write transaction."""


class Database:
    """SQLite database in an existing file.

    One call at a time uses the connection within a process. SQLite allows only one writer anyway, and a fork can wait
    until no connection is open: a connection that crosses a fork shares its locks with the parent
    (https://www.sqlite.org/howtocorrupt.html, 2.6).

    A user who may only read the file and its folder can read the database. SQLite cannot create its side files there.
    It then reads the file as it is, and opens it again after another process has written it.

    Args:
        file: The file. Opening never creates it.
        journal_mode: SQLite's journal mode: ``WAL``, or ``DELETE`` if the file system cannot share memory.
        busy_timeout: Seconds to wait for another process that is writing.
    """

    dialect = SQLITE

    def __init__(self, file: Path, *, journal_mode: str = "WAL", busy_timeout: float = BUSY_TIMEOUT) -> None:
        self.file = file
        self.name = str(file.parent)
        self.uri = file.absolute().as_uri()
        self._journal_mode = journal_mode
        self._busy_timeout = busy_timeout
        self._lock = RLock()
        self._owner: int | None = None
        """Thread that has a connection."""
        self._forking_threads: set[int] = set()
        self._engine: sa.Engine | None = None
        self._open_file_id: tuple[int, int] | None = None
        self._read_stamp: FileStamp | None = None
        """Stamp of the file when it was opened as immutable; None if it was opened normally."""
        self._pid = os.getpid()
        self._joint_connection: sa.Connection | None = None
        """The connection of a `joint_transaction`, whose thread holds the lock."""
        _fork_handlers().add(self)

    @contextmanager
    def read_transaction(self) -> Iterator[sa.Connection]:
        """Open a transaction that reads one consistent state, whatever other processes write.

        Within a `joint_transaction` it is a part of that one.
        """
        with self._lock:
            if self._joint_connection is not None:
                with self._translate_errors():
                    yield self._joint_connection
                return
            with self._acquire_connection() as connection:
                connection.exec_driver_sql("BEGIN")
                yield connection

    @contextmanager
    def write_transaction(self) -> Iterator[sa.Connection]:
        """Open an exclusive write transaction. It is rolled back if the block raises.

        Within a `joint_transaction` it is a part of that one, which an error must then end too.
        """
        if (joint := self._own_joint_connection()) is not None:
            with self._translate_errors():
                yield joint
            return
        with self._begin_write() as connection:
            yield connection
            # a failed COMMIT leaves the transaction open; as a statement, SQLAlchemy still rolls it back
            connection.exec_driver_sql("COMMIT")

    @property
    def is_joint(self) -> bool:
        """Whether a `joint_transaction` is open; only the thread that holds the lock of the database may rely on it."""
        return self._joint_connection is not None

    @contextmanager
    def joint_transaction(self, explain: Callable[[sa.Connection, sa.exc.DBAPIError], Exception]) -> Iterator[None]:
        """Make all transactions that this thread opens in the block one. It is rolled back if the block raises.

        Args:
            explain: Function that returns the error to raise if a row refers to no other row at the end. It can read
                the rows that are not written then.
        """
        if self._own_joint_connection() is not None:
            yield
            return
        with self._begin_write() as connection:
            self._joint_connection = connection
            try:
                yield
            finally:
                self._joint_connection = None
            try:
                connection.exec_driver_sql("COMMIT")
            except sa.exc.IntegrityError as error:  # which leaves the transaction open
                raise explain(connection, error) from error

    def _own_joint_connection(self) -> sa.Connection | None:
        """Return the connection of the joint transaction of this thread; that of another thread is waited for."""
        with self._lock:
            return self._joint_connection

    def execute_autocommit(self, statement: str) -> None:
        """Run a statement that SQLite only accepts outside a transaction."""
        with self._acquire_connection() as connection:
            connection.exec_driver_sql(statement)

    def corruption(self, detail: str) -> CatalogCorrupt:
        return CatalogCorrupt(corruption_message(self.file, detail))

    def close(self) -> None:
        """Close the connection. The next call opens it again."""
        with self._lock:
            if self._engine is not None and self._pid == os.getpid():
                self._engine.dispose()

    @contextmanager
    def _acquire_connection(self) -> Iterator[sa.Connection]:
        with self._lock, self._translate_errors(), self._get_engine().connect() as connection:
            outer, self._owner = self._owner, get_ident()
            try:
                yield connection
            finally:
                self._owner = outer
            self._check_unchanged()

    @contextmanager
    def _begin_write(self) -> Iterator[sa.Connection]:
        """Begin a write transaction, as soon as no other process writes.

        The lock is free between two attempts, so that a fork waits for no other process.
        """
        end = monotonic() + self._busy_timeout
        is_nested = self._owner == get_ident()
        with ExitStack() as transaction:
            while True:
                with ExitStack() as attempt:
                    connection = attempt.enter_context(self._acquire_connection())
                    if self._try_begin_immediate(connection, is_last_attempt=monotonic() > end):
                        transaction.push(attempt.pop_all())
                        break
                while self._forking_threads and not is_nested:  # a waiting fork would rarely get the lock otherwise
                    sleep(BUSY_RETRY_MS / 1000)
            yield connection

    def _try_begin_immediate(self, connection: sa.Connection, *, is_last_attempt: bool) -> bool:
        # Waits for a lock, so no retry settings apply. SQLite itself would retry less often the longer it waits, so
        # that some of several writers would starve.
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.execute(f"PRAGMA busy_timeout = {BUSY_RETRY_MS}")
        try:
            return _try_begin_immediate(driver, is_last_attempt=is_last_attempt)
        finally:
            driver.execute(f"PRAGMA busy_timeout = {int(self._busy_timeout * 1000)}")

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.IntegrityError:
            raise  # the catalog knows the rows and explains the error
        except (sa.exc.StatementError, sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            self._check_unchanged()
            raise _translate_error(error, self.file) from error

    def _get_engine(self) -> sa.Engine:
        if self._engine is None or self._pid != os.getpid():
            self._engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=sa.pool.QueuePool)
            self._engine.dialect.statement_compiler = HintCompiler
            self._pid = os.getpid()
        elif self._open_file_id not in (None, _file_id(self.file)) or self._is_changed():
            # SQLite would keep writing to a file that was deleted or moved away
            self._engine.dispose()
            self._open_file_id = None
        return self._engine

    def _connect(self) -> sqlite3.Connection:
        self._read_stamp = None
        connection = self._open("mode=rw")
        if not os.access(self.file.parent, os.W_OK) and not _can_read(connection):
            # without a log next to it, the file has everything; the log of a running writer is read with it
            self._read_stamp = _read_stamp(self.file)
            if self._read_stamp is not None:
                connection.close()
                connection = self._open("immutable=1")
        self._open_file_id = _file_id(self.file)
        if self._journal_mode != "WAL" and self._read_stamp is None:
            connection.execute(f"PRAGMA journal_mode = {self._journal_mode}")
        for setting in ("foreign_keys = ON", "synchronous = FULL", "cache_size = -16384", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {setting}")
        return connection

    def _open(self, option: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{quote(os.fsencode(self.file))}?{option}",
            uri=True,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )

    def _is_changed(self) -> bool:
        """Whether another process has written the file since it was opened as immutable."""
        return self._read_stamp is not None and self._read_stamp != _read_stamp(self.file)

    def _check_unchanged(self) -> None:
        if self._is_changed():
            raise CatalogUnavailable(f"The catalog {self.file} was written while it was read. Try again.")

    def before_fork(self) -> None:
        """Wait until no call is running, but not for another process that writes; close the connection."""
        self._forking_threads.add(get_ident())
        self._lock.acquire()
        self._fork_pid = os.getpid()
        self.close()

    def after_fork(self) -> None:
        """Allow calls again."""
        if self._fork_pid == os.getpid():
            self._forking_threads.discard(get_ident())
        else:
            self._forking_threads.clear()  # the child has no other thread
        self._lock.release()


FileStamp = tuple[int, int, int]
"""Inode, size, and modification time in nanoseconds of a file."""


def _read_stamp(file: Path) -> FileStamp | None:
    """Return the stamp of a database file; None if there is a log of changes that are not in the file."""
    try:
        if (log := file.with_name(f"{file.name}-wal")).exists() and log.stat().st_size:
            return None
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _can_read(connection: sqlite3.Connection) -> bool:
    """Whether a database can be read; not if SQLite can neither create nor read the files next to it."""
    try:
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
    except sqlite3.OperationalError as error:
        return not error_code(error).startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY"))
    return True


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
        status = os.stat(file)  # noqa: PTH116 - runs on every call, and is twice as fast as Path.stat
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _ForkHandlers:
    """Closes the databases of this process before a fork.

    Python cannot remove a fork handler. All databases share one, so that a process can open many catalogs.
    """

    def __init__(self) -> None:
        self._databases: WeakSet[Database] = WeakSet()
        self._lock = ForkSafeRLock()
        self._forking = local()
        os.register_at_fork(before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._after_fork)

    def add(self, database: Database) -> None:
        """Add a database; it is removed when nothing refers to it any more."""
        with self._lock:
            self._databases.add(database)

    def _before_fork(self) -> None:
        with self._lock:
            self._forking.databases = list(self._databases)
        for database in self._forking.databases:
            database.before_fork()

    def _after_fork(self) -> None:
        for database in self._forking.databases:
            database.after_fork()
        self._forking.databases = []


@cache
def _fork_handlers() -> _ForkHandlers:
    """Return the handlers of this process, registered on first use."""
    return _ForkHandlers()


def _translate_error(error: Exception, file: Path) -> DerivaMLException:
    code = error_code(error)
    detail = str(getattr(error, "orig", None) or error)
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return CatalogUnavailable(
            f"Another process is still writing to the catalog {file}. Try again when it has finished."
        )
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return CatalogCorrupt(corruption_message(file, detail))
    if code.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return CatalogReadOnly(
            f"The catalog {file} cannot be written ({detail}). Make the file and its folder writable for this user, or "
            "use another folder with DERIVA_ML_HOME."
        )
    if code == "SQLITE_FULL" or "disk is full" in detail:
        return CatalogUnavailable(
            f"The disk of the catalog {file} is full, and nothing was written. Free some space and try again."
        )
    if code.startswith("SQLITE_CANTOPEN"):
        return _cannot_open_error(file, detail)
    if code.startswith("SQLITE_IOERR"):
        return CatalogUnavailable(f"The disk of the catalog {file} failed ({detail}), and nothing was written.")
    return ConfigurationError(f"The catalog {file} cannot store a value: {detail}.")


def _cannot_open_error(file: Path, detail: str) -> DerivaMLException:
    if file.exists() and not os.access(file.parent, os.W_OK):
        return CatalogReadOnly(
            f"The catalog {file} cannot be opened because its folder is read-only. Make the folder writable for this "
            "user, or use another folder with DERIVA_ML_HOME."
        )
    return CatalogUnavailable(f"The catalog {file} cannot be opened ({detail}). Check that it exists and is readable.")


def corruption_message(file: Path, detail: str) -> str:
    """Return the error message for a damaged file, with the remedy."""
    return (
        f"{file} is damaged or not a catalog ({detail}). Restore it from a backup, or recover its readable rows with "
        f"`sqlite3 {file.name} .recover`. To start with an empty catalog, move the file away."
    )


NETWORK_FILE_SYSTEMS = re.compile(
    r"nfs\d?|cifs|smb\w*|afpfs|ncpfs|afs|coda|9p|lustre|gpfs|beegfs\w*|ceph|glusterfs|orangefs|pvfs2|ocfs2|gfs2?|"
    r"panfs|webdav|davfs\d?|fuse\.(sshfs|glusterfs|ceph|davfs\d?|s3fs|rclone|smbnetfs|curlftpfs|gvfsd-fuse|mfs|juicefs)"
)
"""Names of network file systems in Linux and macOS."""


def detect_network_file_system(folder: Path, mounts: Iterable[tuple[str, str]]) -> str | None:
    """Return the type of the network file system of a folder, or None if the folder is on a local disk.

    Args:
        folder: The folder, which need not exist.
        mounts: Mount points and file system types. The last one of the same mount point counts.
    """
    resolved = folder.resolve()
    types = {Path(mount): type_ for mount, type_ in mounts}
    type_ = next((types[path] for path in (resolved, *resolved.parents) if path in types), "")
    return type_ if NETWORK_FILE_SYSTEMS.fullmatch(type_) else None


def list_mounts(mounts_file: Path = Path("/proc/self/mounts")) -> list[tuple[str, str]]:
    """Return the mount points and types of this machine's file systems.

    Args:
        mounts_file: Linux's list. psutil is the fallback, because importing it takes longer than opening a catalog.
    """
    try:
        lines = mounts_file.read_text(errors="surrogateescape").splitlines()
    except OSError:
        from psutil import disk_partitions

        return [(partition.mountpoint, partition.fstype) for partition in disk_partitions(all=True)]
    return [(_unescape_mount_point(fields[1]), fields[2]) for line in lines if len(fields := line.split(" ")) > 2]


def _unescape_mount_point(mount: str) -> str:
    # the kernel escapes spaces as \040
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), mount)
