"""Times, durations, sizes and states in few letters."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

__all__ = [
    "STATUS_STYLES",
    "format_age",
    "format_count",
    "format_duration",
    "format_time",
    "format_number",
    "parse_duration",
    "format_size",
    "parse_time",
]

STATUS_STYLES: Mapping[str, str] = MappingProxyType(
    {
        "Created": "cyan",
        "Initializing": "cyan",
        "Pending": "yellow",
        "Running": "bold blue",
        "Completed": "green",
        "Failed": "bold red",
        "Aborted": "magenta",
    }
)
"""The colour of each state."""

_DURATION = re.compile(r"([\d.]+)H ([\d.]+)min ([\d.]+)sec")


def parse_duration(text: str | None) -> float | None:
    """The seconds of an execution row's Duration, such as ``0.0H 1.0min 2.3456sec``; None where it is none."""
    found = _DURATION.fullmatch(text or "")
    return None if found is None else float(found[1]) * 3600 + float(found[2]) * 60 + float(found[3])


def format_duration(seconds: float | None) -> str:
    """A duration in its two largest units: ``1.2 s``, ``3 min 4 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, small, names in ((86400, 3600, "d h"), (3600, 60, "h min"), (60, 1, "min s")):
        if whole >= large:
            first, second = names.split()
            return f"{whole // large} {first} {whole % large // small} {second}"
    return f"{whole} s"


def format_age(time: datetime | None) -> str:
    """How long ago a time was, in one unit."""
    if time is None:
        return ""
    seconds = max(0.0, (datetime.now(UTC) - time).total_seconds())
    for length, name in ((365 * 86400, "y"), (30 * 86400, "mo"), (86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {name} ago"
    return "just now"


def format_time(time: datetime | None, *, show_seconds: bool = False) -> str:
    """A time in UTC, to the minute or the second."""
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M{':%S' if show_seconds else ''}}"


def format_size(count: int | None) -> str:
    """Bytes in decimal units: ``12 B``, ``1.8 kB``, ``303.9 MB``."""
    if count is None:
        return ""
    scaled = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if scaled < 999.95 or unit == "TB":
            break
        scaled /= 1000
    return f"{count} B" if unit == "B" else f"{scaled:.1f} {unit}"


def parse_time(text: str | None) -> datetime | None:
    """The time that a catalog's row says."""
    return datetime.fromisoformat(text) if text else None


def format_number(value: float | None) -> str:
    """A metric's value in four digits."""
    return "" if value is None else f"{value:.4g}"


def format_count(count: int, singular: str, plural: str = "") -> str:
    """A number with its noun: ``1 file``, ``1,200 files``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
