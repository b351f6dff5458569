"""Messages of errors."""

from __future__ import annotations

import errno

import pytest

from deriva_ml_core.errors import DerivaMLException, DiskFull, UnknownTerm


@pytest.mark.parametrize("error_class", [DerivaMLException, UnknownTerm, DiskFull])
def test_messages_are_printable(error_class: type[DerivaMLException]) -> None:
    """A message shows control characters escaped, and keeps line breaks and other text."""
    error = error_class("a \x1b[31m\x9b2J\u202e\r\x00 \udcff\n\tb \u00e9 \u4f60")
    assert str(error) == r"a \x1b[31m\x9b2J\x202e\x0d\x00 \xdcff" + "\n\tb \u00e9 \u4f60"


def test_messages_of_system_errors() -> None:
    """An error with the arguments of OSError has its message."""
    assert str(DiskFull(errno.ENOSPC, "full", "a\x1bb")) == "[Errno 28] full: 'a\\x1bb'"
