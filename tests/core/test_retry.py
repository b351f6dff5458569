"""Named retry settings, and how they are applied."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from deriva_ml_core._retry import (
    ABORTED_TRANSACTION,
    BUSY_SERVER,
    ROW_SYNC,
    Attempts,
    RetryingStore,
    RetrySettings,
    call_with_retries,
    limit_repeats,
    transfer_settings,
)
from deriva_ml_core.models import UploadOptions

THREE_TIMES = RetrySettings(attempts=3)


def fail_times(count: int, error: Exception) -> Any:
    """Return a function that raises an error so many times and then returns "done", and the list of its calls."""
    calls: list[int] = []

    def call() -> str:
        calls.append(len(calls))
        if len(calls) <= count:
            raise error
        return "done"

    return call, calls


def test_waits_double_up_to_a_limit() -> None:
    """Each wait is twice as long as the one before it, up to the limit; without a limit of attempts they never end."""
    waits = ROW_SYNC.waits()
    assert [next(waits) for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert all(next(waits) == 10.0 for _ in range(2000))


def test_waits_vary_at_random() -> None:
    """Waits vary by half of their length, so that clients that collided do not meet again."""
    first = [next(BUSY_SERVER.waits()) for _ in range(100)]
    assert all(0.05 <= wait <= 0.15 for wait in first)
    assert len(set(first)) > 1


def test_attempts_end_without_a_wait() -> None:
    """A loop of three attempts waits twice, at least as long as the server asks, and then ends."""
    slept: list[float] = []
    attempts = Attempts(THREE_TIMES, slept.append)
    assert [attempts.wait(), attempts.wait(min_seconds=7), attempts.wait()] == [True, True, False]
    assert slept == [0, 7]


@pytest.mark.parametrize(("failures", "calls"), [(0, 1), (1, 2), (2, 3)])
def test_call_is_repeated(failures: int, calls: int) -> None:
    """A call is repeated until it succeeds."""
    function, made = fail_times(failures, ConnectionError("reset"))
    assert call_with_retries(function, (ConnectionError,), THREE_TIMES) == "done"
    assert len(made) == calls


def test_last_error_is_raised() -> None:
    """After the last attempt its error is raised."""
    function, calls = fail_times(3, ConnectionError("reset"))
    with pytest.raises(ConnectionError, match="reset"):
        call_with_retries(function, (ConnectionError,), THREE_TIMES)
    assert len(calls) == 3


def test_other_errors_are_not_repeated() -> None:
    """An error that is not listed is raised at once."""
    function, calls = fail_times(1, ValueError("bad"))
    with pytest.raises(ValueError, match="bad"):
        call_with_retries(function, (ConnectionError,), THREE_TIMES)
    assert len(calls) == 1


def test_time_limit(caplog: pytest.LogCaptureFixture) -> None:
    """Repeats of an aborted transaction end after 5 minutes, with pauses up to 10 seconds, and one message."""
    slept: list[float] = []
    attempts = Attempts(ABORTED_TRANSACTION, slept.append, "A request to x for Execution")
    while attempts.wait(reason="Transaction aborted."):
        assert bool(caplog.records) == (sum(slept[:-1]) >= 10)
    assert 285 < sum(slept) <= 300
    assert max(slept) <= 15
    (record,) = caplog.records
    assert re.fullmatch(
        r"A request to x for Execution failed for \d\d seconds; repeating it for up to 300 seconds: "
        r"Transaction aborted\.",
        record.getMessage(),
    )


def test_limit_of_repeats() -> None:
    """Within `limit_repeats` the repeats end earlier, whatever the settings; outside of it nothing changes."""
    slept: list[float] = []
    with limit_repeats(10):
        attempts = Attempts(ABORTED_TRANSACTION, slept.append)
    while attempts.wait():
        pass
    assert sum(slept) <= 10
    assert Attempts(ABORTED_TRANSACTION, slept.append).wait(min_seconds=60)


def test_retry_delay_doubles_with_jitter() -> None:
    """The pauses of a transfer are retry_delay, twice that, and so on, each up to a quarter longer."""
    for _ in range(50):
        first, second, third = transfer_settings(UploadOptions(max_retries=3, retry_delay=4)).waits()
        assert (4 <= first <= 5, 8 <= second <= 10, 16 <= third <= 20) == (True, True, True)


def test_repeats_log_nothing_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    """Short repeats log nothing, on any logger."""
    function, _ = fail_times(2, ConnectionError("reset"))
    with caplog.at_level(0):
        assert call_with_retries(function, (ConnectionError,), THREE_TIMES, "The upload of m.pt") == "done"
    assert caplog.records == []


@pytest.mark.parametrize(
    ("attributes", "count"), [({"preferred_concurrency": 4}, 4), ({"at_once": 3}, 3), ({}, 1)], ids=str
)
def test_concurrency_of_the_store(attributes: dict[str, int], count: int) -> None:
    """The store's preferred concurrency counts, also under its old name; a store without it has 1."""
    store: Any = SimpleNamespace(**attributes)
    assert RetryingStore(store).preferred_concurrency == count
