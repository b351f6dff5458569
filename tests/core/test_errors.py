"""Messages of errors."""

from __future__ import annotations

import errno

import pytest

from deriva_ml_core.errors import DerivaMLException, DerivaMLWarning, DiskFull, UnknownTerm


@pytest.mark.parametrize("error_class", [DerivaMLException, UnknownTerm, DiskFull])
def test_messages_are_printable(error_class: type[DerivaMLException]) -> None:
    """A message shows control characters escaped, and keeps line breaks and other text."""
    error = error_class("a \x1b[31m\x9b2J\u202e\r\x00 \udcff\n\tb \u00e9 \u4f60")
    assert str(error) == r"a \x1b[31m\x9b2J\x202e\x0d\x00 \xdcff" + "\n\tb \u00e9 \u4f60"


def test_messages_of_system_errors() -> None:
    """An error with the arguments of OSError has its message."""
    assert str(DiskFull(errno.ENOSPC, "full", "a\x1bb")) == "[Errno 28] full: 'a\\x1bb'"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "No workflow has the URL 'https://ada:s3cret@x.org/run.py'.",
            "No workflow has the URL 'https://ada:[redacted: login]@x.org/run.py'.",
        ),
        (
            "cannot be fetched from https://t0ken@x.org/a.git.",
            "cannot be fetched from https://[redacted: login]@x.org/a.git.",
        ),
        (
            "No backend serves 'postgresql://ada:s3/cret@x.org/db'.",
            "No backend serves 'postgresql://ada:[redacted: login]@x.org/db'.",
        ),
        ("https://x.org/id/1/1-ABC@2Y-0000 ends", "https://x.org/id/1/1-ABC@2Y-0000 ends"),
        ("http://localhost:8080/id/1/1-ABC@2Y-0000 ends", "http://localhost:8080/id/1/1-ABC@2Y-0000 ends"),
        ("file:///home/ada@x/data ends", "file:///home/ada@x/data ends"),
    ],
)
def test_messages_without_logins(message: str, shown: str) -> None:
    """A message shows no password or token of a URL, and keeps snapshots and paths with ``@``."""
    assert str(UnknownTerm(message)) == shown
    assert str(DerivaMLWarning(message)) == shown
