"""Formatting of times, durations, sizes, numbers and untrusted text."""

from __future__ import annotations

import math
import os
import re
from datetime import UTC, datetime

__all__ = [
    "describe_error",
    "error_message",
    "escape_control_characters",
    "escape_surrogates",
    "format_age",
    "format_count",
    "format_duration",
    "format_number",
    "format_size",
    "format_time",
    "parse_duration",
    "parse_flag",
    "parse_path",
    "parse_time",
    "path_to_json",
    "sanitize_line",
]

_CATALOG_DURATION = re.compile(r"([\d.]+)H ([\d.]+)min ([\d.]+)sec")

_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))

# control characters, characters that change the direction of text, and lone surrogates
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def sanitize_line(text: object) -> str:
    """Return untrusted text as one line: runs of white space become one space, control characters are escaped."""
    return _escape(re.sub(r"[ \t\r\n]+", " ", str(text)).strip())


def escape_control_characters(text: str) -> str:
    """Return untrusted text with its control characters escaped, except line breaks and tabs."""
    return "\t".join("\n".join(map(_escape, part.split("\n"))) for part in text.split("\t"))


def escape_surrogates(text: str) -> str:
    """Return text that UTF-8 can encode, with lone surrogates escaped; names that are not UTF-8 contain them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def error_message(error: BaseException) -> str:
    """Return the message of an exception, or what is wrong with it: its class may be of the user, and raise."""
    try:
        return str(error)
    except Exception as reason:  # noqa: BLE001 - the class may be of the user
        return f"<not readable: {type(reason).__name__}>"


def describe_error(error: BaseException) -> str:
    """Return the type and message of an exception."""
    return f"{type(error).__name__}: {error_message(error)}"


_SURROGATE = re.compile("[\udc80-\udcff]")
_ESCAPED_BYTE = re.compile("\0([89a-f][0-9a-f])")


def path_to_json(path: str | os.PathLike[str]) -> str:
    """Return a path as text that UTF-8 can encode: a byte that is not UTF-8 becomes NUL and two hex digits.

    No path contains NUL, so `parse_path` returns the same bytes.
    """
    return _SURROGATE.sub(lambda match: f"\0{ord(match[0]) - 0xDC00:02x}", os.fspath(path))


def parse_path(text: str) -> str:
    """Return the path from the text of `path_to_json`."""
    return _ESCAPED_BYTE.sub(lambda match: chr(0xDC00 + int(match[1], 16)), text)


def _escape(text: str) -> str:
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def parse_flag(text: str | None) -> bool:
    """Whether the value of an environment variable switches something on: ``1``, ``true``, ``yes`` or ``on``."""
    return (text or "").strip().lower() in ("1", "true", "yes", "on")


def parse_duration(text: str | None) -> float | None:
    """Return the seconds of a row's Duration, such as ``0.0H 1.0min 2.3456sec``; None if it has another form."""
    match = _CATALOG_DURATION.fullmatch(text or "")
    return None if match is None else float(match[1]) * 3600 + float(match[2]) * 60 + float(match[3])


def format_duration(seconds: float | None, *, digits: int = 1) -> str:
    """Return a duration in its two largest units: ``1.2 s``, ``3 min 4 s``, ``2 h``, ``3 d 4 h``.

    Args:
        seconds: The duration; None or an infinite value gives an empty text.
        digits: Decimals of a duration below one minute.
    """
    if seconds is None or not math.isfinite(seconds):
        return ""
    if round(seconds, digits) < 60:
        return f"{seconds:.{digits}f} s"
    for large, large_name, small, small_name in _UNITS:
        whole = round(seconds / small)
        if whole * small >= large:
            first, rest = divmod(whole, large // small)
            return f"{first} {large_name} {rest} {small_name}" if rest else f"{first} {large_name}"
    raise AssertionError(seconds)  # a minute is the smallest unit of the table


def format_age(time: datetime | None) -> str:
    """Return how long ago a time was, in one unit: ``3 d ago``."""
    if time is None:
        return ""
    seconds = max(0.0, (datetime.now(UTC) - time).total_seconds())
    for length, name in ((365 * 86400, "y"), (30 * 86400, "mo"), (86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {name} ago"
    return "just now"


def format_time(time: datetime | None, *, show_seconds: bool = False) -> str:
    """Return a time in UTC, to the minute or the second."""
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M{':%S' if show_seconds else ''}}"


def parse_time(text: str | None) -> datetime | None:
    """Return the time in a catalog's row; None if it has none."""
    return datetime.fromisoformat(text) if text else None


def format_size(count: int | None) -> str:
    """Return a number of bytes in decimal units: ``12 B``, ``1.8 kB``, ``303.9 MB``."""
    if count is None:
        return ""
    scaled = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if scaled < 999.95 or unit == "TB":
            break
        scaled /= 1000
    return f"{count} B" if unit == "B" else f"{scaled:.1f} {unit}"


def format_number(value: float | None) -> str:
    """Return a metric's value in four significant digits."""
    return "" if value is None else f"{value:.4g}"


def format_count(count: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 file``, ``1,200 files``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
