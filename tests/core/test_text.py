"""Formatting of durations, sizes, numbers and untrusted text."""

from __future__ import annotations

import math
import os
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deriva_ml_core._text import (
    format_age,
    format_count,
    format_duration,
    format_number,
    format_size,
    format_time,
    parse_duration,
    parse_path,
    path_to_json,
    sanitize_line,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (1.25, "1.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (64.0, "1 min 4 s"),
        (3599.7, "1 h"),
        (7320.0, "2 h 2 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
        (None, ""),
        (math.inf, ""),
        (math.nan, ""),
    ],
)
def test_format_duration(seconds: float | None, text: str) -> None:
    """A duration has its two largest units, rounded."""
    assert format_duration(seconds) == text


def test_format_duration_digits() -> None:
    """The decimals of a short duration can be left out."""
    assert format_duration(12.3, digits=0) == "12 s"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (303_900_000, "303.9 MB"),
        (5 * 10**15, "5000.0 TB"),
        (None, ""),
    ],
)
def test_format_size(count: int | None, text: str) -> None:
    """A size has decimal units."""
    assert format_size(count) == text


def test_format_number() -> None:
    """A metric has four significant digits."""
    assert [format_number(value) for value in (0.123456, 1234567.0, math.nan, None)] == [
        "0.1235",
        "1.235e+06",
        "nan",
        "",
    ]


def test_format_count() -> None:
    """A count has the singular or the plural of its noun."""
    assert [format_count(count, "file") for count in (0, 1, 1200)] == ["0 files", "1 file", "1,200 files"]
    assert format_count(2, "entry", "entries") == "2 entries"


def test_format_time() -> None:
    """Times are in UTC; ages have one unit."""
    time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (format_time(time), format_time(time, show_seconds=True)) == ("2026-01-02 03:04", "2026-01-02 03:04:05")
    ages = [datetime.now(UTC) - age for age in (timedelta(seconds=5), timedelta(hours=5), timedelta(days=40))]
    assert [format_age(age) for age in ages] == ["just now", "5 h ago", "1 mo ago"]
    assert (format_time(None), format_age(None)) == ("", "")


def test_parse_duration() -> None:
    """The column Duration is read; other forms are not."""
    assert parse_duration("1.0H 2.0min 3.5sec") == 3723.5
    assert [parse_duration(text) for text in (None, "", "3 s")] == [None, None, None]


def test_sanitize_line() -> None:
    """Untrusted text becomes one line, and control characters are escaped."""
    assert sanitize_line(" a\r\n\tb ") == "a b"
    assert sanitize_line("\x1b[31mred\x9b\u202e\u2028end") == r"\x1b[31mred\x9b\x202e\x2028end"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"caf\xe9.bin", "caf\x00e9.bin"),
        (b"\x80/\xff", "\x0080/\x00ff"),
        (b"caf\xc3\xa9", "caf\u00e9"),
        (b"\\xe9 \\udce9 0e9", "\\xe9 \\udce9 0e9"),
        (b"\xe9e9", "\x00e9e9"),
    ],
)
def test_path_in_json(path: bytes, text: str) -> None:
    """A path is text in UTF-8 that is read back as the same bytes; only bytes that are not UTF-8 are escaped."""
    assert path_to_json(os.fsdecode(path)) == text
    assert os.fsencode(parse_path(text)) == path


@given(st.binary(max_size=40).filter(lambda path: b"\0" not in path))
def test_any_path_in_json(path: bytes) -> None:
    """Every path that a file can have is read back as the same bytes."""
    text = path_to_json(os.fsdecode(path)).encode("utf-8").decode("utf-8")
    assert os.fsencode(parse_path(text)) == path
