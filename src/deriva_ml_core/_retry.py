"""How often a failed call is repeated, and how long the pauses are: named settings, and the ways to apply them.

`Attempts` counts the failures of a loop that recovers from each one in its own way, such as by looking for the rows
that a lost write may have added. `call_with_retries` repeats a call, and `RetryingStore` the transfers of files. One
message is logged if the repeats take long. Libraries for retries log a line before each repeat, and can be silenced
only for the whole process: ERMrest aborts half of the calls of four concurrent writers.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from deriva_ml_core.errors import StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from deriva_ml_core.backend import ObjectStore
    from deriva_ml_core.definitions import TransferMode
    from deriva_ml_core.models import StoredObject, UploadOptions

__all__ = [
    "ABORTED_TRANSACTION",
    "BUSY_SERVER",
    "CONCURRENT_OBJECT",
    "CONCURRENT_WRITE",
    "LOST_RESPONSE",
    "ROW_SYNC",
    "TRANSIENT_ERRORS",
    "UPLOAD_JOB",
    "Attempts",
    "RetrySettings",
    "RetryingStore",
    "call_with_retries",
    "limit_repeats",
    "transfer_settings",
]

log = logging.getLogger(__name__)

T = TypeVar("T")

TRANSIENT_ERRORS = (StoreUnavailable, ConnectionError, TimeoutError)
"""Errors after which the same call may succeed."""


@dataclass(frozen=True)
class RetrySettings:
    """When a failed call is repeated.

    Args:
        attempts: Number of calls in total, the first included; None for no limit.
        time_limit: Seconds after the first failure in which repeats are started; None for no limit.
        wait_initial: Seconds before the first repeat; each later pause is twice as long.
        wait_max: Longest pause in seconds, before jitter.
        jitter: Share by which a pause varies at random, up or down, so that clients that collided do not meet again.
    """

    attempts: int | None
    time_limit: float | None = None
    wait_initial: float = 0.0
    wait_max: float = 0.0
    jitter: float = 0.5

    def waits(self) -> Iterator[float]:
        """Yield the seconds to wait after each failure, one value for each repeat that is left."""
        from random import uniform

        for repeat in range(self.attempts - 1) if self.attempts is not None else itertools.count():
            # the exponent is bounded, since a float overflows after 1,024 doublings
            wait = min(self.wait_max, self.wait_initial * 2.0 ** min(repeat, 64))
            yield wait * uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 - not for cryptography


ABORTED_TRANSACTION = RetrySettings(attempts=None, time_limit=300.0, wait_initial=0.1, wait_max=10.0)
"""An ERMrest request whose transaction was aborted because of another one; nothing was written.

With 4 writers, half of the calls are aborted. A long transaction was aborted 12 times in 18 seconds while 118 short
ones passed, so the pauses grow and the number of repeats is not limited.
"""

BUSY_SERVER = RetrySettings(attempts=12, wait_initial=0.1, wait_max=2.0)
"""An ERMrest request that the server refused for another reason that may pass."""

LOST_RESPONSE = RetrySettings(attempts=3, wait_initial=0.2, wait_max=2.0)
"""An ERMrest request that got no response and can safely be repeated."""

CONCURRENT_WRITE = RetrySettings(attempts=12, wait_initial=0.05, wait_max=2.0)
"""A conditional insert that failed because the catalog changed in the meantime."""

CONCURRENT_OBJECT = RetrySettings(attempts=10, wait_initial=0.05, wait_max=2.0)
"""A Hatrac request that collided with another one for the same name."""

UPLOAD_JOB = RetrySettings(attempts=6, wait_initial=0.2, wait_max=2.0)
"""The request that completes a chunked upload, while the server is busy with it or its response was lost."""

ROW_SYNC = RetrySettings(attempts=None, wait_initial=0.2, wait_max=10.0, jitter=0.0)
"""The background write of an execution's row, until the catalog accepts it or the process ends."""


REPORTED_AFTER = 10.0
"""Seconds of repeats after which a message is logged."""

_time_limit: ContextVar[float | None] = ContextVar("_time_limit", default=None)


@contextmanager
def limit_repeats(seconds: float) -> Iterator[None]:
    """Start no repeat later than so many seconds after a first failure, in this thread, while the block runs.

    Args:
        seconds: The limit, in addition to those of the settings.
    """
    token = _time_limit.set(seconds)
    try:
        yield
    finally:
        _time_limit.reset(token)


class Attempts:
    """Counts the failures of one call and pauses between its repeats.

    Args:
        settings: How often and how long.
        sleep: Function that waits a number of seconds.
        subject: What is repeated, for the message about long repeats.
    """

    def __init__(self, settings: RetrySettings, sleep: Callable[[float], None], subject: str = "") -> None:
        self._waits = settings.waits()
        self._sleep = sleep
        self._subject = subject
        limits = [limit for limit in (settings.time_limit, _time_limit.get()) if limit is not None]
        self._time_limit = min(limits, default=None)
        self._first_failure: float | None = None
        self._slept = 0.0
        self._is_reported = False

    def wait(self, min_seconds: float = 0.0, reason: object = "") -> bool:
        """Count a failure, and wait if a repeat is left.

        Args:
            min_seconds: Shortest pause, such as the one that the server asked for.
            reason: The failure, for the message about long repeats.

        Returns:
            Whether to repeat the call.
        """
        seconds = next(self._waits, None)
        if seconds is None:
            return False
        seconds = max(seconds, min_seconds)
        if self._first_failure is None:
            self._first_failure = time.monotonic()
        passed = max(self._slept, time.monotonic() - self._first_failure)
        if self._time_limit is not None and passed + seconds > self._time_limit:
            return False
        if passed >= REPORTED_AFTER and self._subject and not self._is_reported:
            self._is_reported = True
            until = "" if self._time_limit is None else f" for up to {self._time_limit:.0f} seconds"
            log.warning("%s failed for %.0f seconds; repeating it%s: %s", self._subject, passed, until, reason)
        self._sleep(seconds)
        self._slept += seconds
        return True


def transfer_settings(options: UploadOptions) -> RetrySettings:
    """Return the settings for the transfer of one file, as the user chose them.

    A pause is as long as the user chose, or up to a quarter longer.
    """
    retries, delay = options.max_retries, options.retry_delay * 1.125
    return RetrySettings(attempts=retries + 1, wait_initial=delay, wait_max=delay * 2.0**retries, jitter=1 / 9)


def call_with_retries(
    function: Callable[[], T],
    on: tuple[type[Exception], ...],
    settings: RetrySettings,
    subject: str = "",
    sleep: Callable[[float], None] | None = None,
) -> T:
    """Call a function, and call it again when it raises one of the errors.

    Args:
        function: What to call.
        on: Errors after which a repeat may succeed.
        settings: How often and how long.
        subject: What the function does, for the message about long repeats.
        sleep: Function that waits a number of seconds; `time.sleep` by default.

    Raises:
        Exception: The error of the last attempt.
    """
    attempts = Attempts(settings, sleep or time.sleep, subject)
    while True:
        try:
            return function()
        except on as error:
            if not attempts.wait(reason=error):
                raise


class RetryingStore:
    """Repeats a failed transfer up to `max_retries` times, after `retry_delay` seconds, doubled each time, with jitter.

    Args:
        store: The store that transfers the files.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @property
    def preferred_concurrency(self) -> int:
        """Number of files that the store transfers in parallel; 1 for a store that does not define it."""
        for name in ("preferred_concurrency", "at_once"):  # a plugin's store may have the old name, or neither
            if (count := getattr(self._store, name, None)) is not None:
                return int(count)
        return 1

    def put(
        self,
        table: str,
        filename: str,
        file: Path,
        *,
        handover: TransferMode,
        options: UploadOptions,
        resume: JsonValue | None = None,
        note: Callable[[JsonValue], None] = lambda _: None,
    ) -> StoredObject:
        """Store a file; each repeat resumes from the progress that the store noted last."""
        last = resume

        def record_progress(progress: JsonValue) -> None:
            nonlocal last
            last = progress
            note(progress)

        def attempt() -> StoredObject:
            return self._store.put(
                table, filename, file, handover=handover, options=options, resume=last, note=record_progress
            )

        return call_with_retries(attempt, TRANSIENT_ERRORS, transfer_settings(options), f"The upload of {filename}")

    def sync(self) -> None:
        """Call the store's `sync`."""
        self._store.sync()

    def get(self, url: str, target: Path, *, length: int, md5: str, options: UploadOptions) -> None:
        """Download an object."""

        def attempt() -> None:
            self._store.get(url, target, length=length, md5=md5, options=options)

        call_with_retries(attempt, TRANSIENT_ERRORS, transfer_settings(options), f"The download of {target.name}")

    def renew(self, url: str) -> bool:
        """Whether the store still has an object that was stored earlier; it then keeps it for the rows to come.

        A store that never deletes objects has no such method, and keeps them.
        """
        renew = getattr(self._store, "renew", None)
        return renew is None or bool(renew(url))

    def verify(self, url: str, *, length: int, md5: str) -> None:
        """Call the store's `verify`."""
        self._store.verify(url, length=length, md5=md5)

    def source(self, url: str) -> str:
        """Call the store's `source`."""
        return self._store.source(url)

    def close(self) -> None:
        """Call the store's `close`."""
        self._store.close()


if TYPE_CHECKING:
    _: Callable[[ObjectStore], ObjectStore] = RetryingStore
