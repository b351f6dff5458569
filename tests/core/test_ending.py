"""What the way out of a ``with`` says of how a run ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution
from deriva_ml_core.execution.exit_status import final_status


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """Puts back what handles SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_what_follows_sigterm_keeps_its_words() -> None:
    """An exception after SIGTERM, of a broken connection say, stands beside it; the exit that it asks for does not."""
    assert final_status(ValueError("no data"), terminated=True) == (Status.aborted, "SIGTERM, then ValueError: no data")
    assert final_status(SystemExit(143), terminated=True) == (Status.aborted, "SIGTERM")
    assert final_status(ValueError("no data"), terminated=False) == (Status.failed, "ValueError: no data")
    assert final_status(SystemExit(0), terminated=False) == (Status.completed, "")


def test_a_sigterm_that_is_ignored_ends_nothing(exe: Execution) -> None:
    """Where the user has SIGTERM ignored, a failure that follows it is a failure."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with pytest.raises(ValueError, match="no data"), exe:
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("no data")
    assert (exe.status, exe.status_detail) == (Status.failed, "ValueError: no data")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
