"""RIDs and snapshot times as the real server writes them: Crockford's base 32, in groups of four."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["decode", "encode", "micros_now", "shown_time", "snaptime_of", "stamp", "time_of_snaptime"]

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 32)
        digits = ALPHABET[digit] + digits
    groups = []
    while digits:
        digits, group = digits[:-4], digits[-4:]
        groups.append(group)
    return "-".join(reversed(groups)) or "0"


def decode(text: str) -> int:
    number = 0
    for digit in text.replace("-", ""):
        number = number * 32 + ALPHABET.index(digit)
    return number


def micros_now() -> int:
    return (datetime.now(UTC) - EPOCH) // timedelta(microseconds=1)


def snaptime_of(micros: int) -> str:
    return encode(micros * 2)


def time_of_snaptime(text: str) -> int:
    return decode(text) // 2


def stamp(micros: int) -> str:
    """Return a time as it is stored: always with six fractional digits, so that texts sort like times."""
    return (EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds")


def shown_time(kept: str) -> str:
    """Return a time as it is sent: without trailing zeros."""
    head, _, zone = kept.partition("+")
    head = head.rstrip("0").rstrip(".") if "." in head else head
    return f"{head}+{zone}"
