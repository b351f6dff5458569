"""RIDs, snapshots and times of the embedded catalog."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deriva_ml_core.backends.row_checks import check_row_rid
from deriva_ml_core.backends.sql.identifiers import (
    ALPHABET,
    FIRST_RID,
    current_tick,
    decode,
    encode,
    encode_range,
    rid_number,
    snapshot_to_tick,
    tick_to_iso,
    tick_to_snapshot,
)
from deriva_ml_core.definitions import DRY_RUN_RID, split_rid
from deriva_ml_core.errors import InvalidRID

NUMBERS = st.integers(min_value=0, max_value=2**63)
TICKS = st.integers(min_value=0, max_value=4 * 10**15)


@given(NUMBERS)
def test_encode_and_decode(number: int) -> None:
    """Every number is encoded as a valid RID, and decoded again."""
    assert split_rid(encode(number)) == (encode(number), None)
    assert decode(encode(number)) == number


@given(NUMBERS)
def test_groups(number: int) -> None:
    """Digits are in groups of four from the right, without leading zeros."""
    first, *others = encode(number).split("-")
    assert 1 <= len(first) <= 4
    assert all(len(group) == 4 for group in others)
    assert first == "0" or not first.startswith("0")


def test_known_rids() -> None:
    """Known numbers are encoded as Crockford specifies, and the first RID differs from the dry run's."""
    assert (encode(0), encode(31), encode(32), encode(FIRST_RID)) == ("0", "Z", "10", "1-0000")
    assert decode("1-4A2C") == 32**4 + 4 * 32**3 + 10 * 32**2 + 2 * 32 + 12
    assert len(ALPHABET) == 32
    assert rid_number(DRY_RUN_RID) is None


@given(st.text(alphabet=ALPHABET + "-ilouILOU aé", max_size=16))
def test_only_encoded_texts_are_decoded(text: str) -> None:
    """A text that `encode` does not return has no number."""
    number = rid_number(text)
    assert number is None or encode(number) == text


@given(st.integers(min_value=FIRST_RID, max_value=2**50), st.integers(min_value=0, max_value=5000))
def test_encode_range(first: int, count: int) -> None:
    """A range is encoded like its single numbers."""
    assert encode_range(first, first + count) == [encode(number) for number in range(first, first + count)]


@given(TICKS, TICKS)
def test_times_sort_like_ticks(one: int, other: int) -> None:
    """Times sort as text like their ticks, and always have microseconds and a zone."""
    assert (tick_to_iso(one) < tick_to_iso(other)) == (one < other)
    assert len(tick_to_iso(one)) == len("2026-11-22T21:40:00.123456+00:00")


@given(TICKS)
def test_snapshot_round_trip(tick: int) -> None:
    """A snapshot returns its tick, and is valid after a RID."""
    assert snapshot_to_tick(tick_to_snapshot(tick)) == tick
    assert split_rid(f"1-0000@{tick_to_snapshot(tick)}") == ("1-0000", tick_to_snapshot(tick))


@pytest.mark.parametrize("text", ["", "x", "1-0", "Z" * 40, "-1", "\uff11"])
def test_invalid_snapshot(text: str) -> None:
    """A text that is not a snapshot is refused."""
    with pytest.raises(InvalidRID):
        snapshot_to_tick(text)


def test_current_tick() -> None:
    """The current tick is in microseconds since 1970."""
    assert tick_to_iso(current_tick()) > "2026-01-01"


@pytest.mark.parametrize("rid", ["1-ABC", "2-GHI", "a", "0-0"])
def test_valid_row_rids(rid: str) -> None:
    """Any valid RID is accepted for a row."""
    assert check_row_rid(rid) == rid


@pytest.mark.parametrize("rid", [None, 7, "", "1-", "1 2", "1-ABC@2TA-YBS5-1QQG"])
def test_invalid_row_rids(rid: object) -> None:
    """A value that is not a RID, or has a snapshot, is refused for a row."""
    with pytest.raises(InvalidRID):
        check_row_rid(rid)
