"""A store that repeats what failed in passing, around any other store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from deriva_ml_core.errors import StoreUnavailable

if TYPE_CHECKING:
    from pydantic import JsonValue

    from deriva_ml_core.backend import ObjectStore
    from deriva_ml_core.definitions import TransferMode
    from deriva_ml_core.models import StoredObject, UploadOptions

__all__ = ["TRANSIENT_ERRORS", "RetryingStore"]

T = TypeVar("T")

TRANSIENT_ERRORS = (StoreUnavailable, ConnectionError, TimeoutError)
"""What may go well the next time."""


class RetryingStore:
    """Gives each transfer `max_retries` further attempts, after `retry_delay` seconds, doubled each time, with jitter.

    Args:
        store: The store that does the work.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @property
    def preferred_concurrency(self) -> int:
        """As the store's own; one where it does not say, as stores that were written before it was asked do not."""
        for name in ("preferred_concurrency", "at_once"):  # stores of plugins may have the old name, or neither
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
        """As the store's own, going on from the last note at each attempt."""
        last = resume

        def record_progress(text: JsonValue) -> None:
            nonlocal last
            last = text
            note(text)

        def attempt() -> StoredObject:
            return self._store.put(
                table, filename, file, handover=handover, options=options, resume=last, note=record_progress
            )

        return _call_with_retries(attempt, options)

    def sync(self) -> None:
        """As the store's own."""
        self._store.sync()

    def get(self, url: str, target: Path, *, length: int, md5: str, options: UploadOptions) -> None:
        """As the store's own."""
        _call_with_retries(lambda: self._store.get(url, target, length=length, md5=md5, options=options), options)

    def verify(self, url: str, *, length: int, md5: str) -> None:
        """As the store's own."""
        self._store.verify(url, length=length, md5=md5)

    def source(self, url: str) -> str:
        """As the store's own."""
        return self._store.source(url)

    def close(self) -> None:
        """As the store's own."""
        self._store.close()


def _call_with_retries(attempt: Callable[[], T], options: UploadOptions) -> T:
    try:
        return attempt()
    except TRANSIENT_ERRORS as error:
        return _retry_after_failure(attempt, error, options)


def _retry_after_failure(attempt: Callable[[], T], failure: Exception, options: UploadOptions) -> T:
    """Go on after a first failure; nothing is imported, and no time taken, where none happens."""
    import stamina

    failures = [failure]

    def next_attempt() -> T:
        if failures:
            raise failures.pop()
        return attempt()

    caller = stamina.RetryingCaller(
        attempts=options.max_retries + 1,
        timeout=None,
        wait_initial=options.retry_delay,
        wait_max=max(options.retry_delay * 2**options.max_retries, options.retry_delay),
        wait_jitter=options.retry_delay / 4,
        wait_exp_base=2,
    )
    return caller(TRANSIENT_ERRORS, next_attempt)


if TYPE_CHECKING:
    _: Callable[[ObjectStore], ObjectStore] = RetryingStore
