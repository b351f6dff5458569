"""Named retry settings, and how they are applied."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from deriva_ml_core._retry import BUSY_SERVER, ROW_SYNC, Attempts, RetryingStore, RetrySettings, call_with_retries

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


def test_success_loads_no_stamina() -> None:
    """A call that succeeds does not load stamina."""
    code = (
        "from deriva_ml_core._retry import RetrySettings, call_with_retries; import sys; "
        "call_with_retries(list, (OSError,), RetrySettings(attempts=3)); print('stamina' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout == "False\n"


@pytest.mark.parametrize(
    ("attributes", "count"), [({"preferred_concurrency": 4}, 4), ({"at_once": 3}, 3), ({}, 1)], ids=str
)
def test_concurrency_of_the_store(attributes: dict[str, int], count: int) -> None:
    """The store's preferred concurrency counts, also under its old name; a store without it has 1."""
    store: Any = SimpleNamespace(**attributes)
    assert RetryingStore(store).preferred_concurrency == count
