"""Append-only files with one JSON object a line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from deriva_ml_core._files import json_lines
from deriva_ml_core._files.json_lines import (
    append_line,
    append_lines,
    complete_lines,
    open_for_append,
    parse_object,
    repair_last_line,
)


def test_a_torn_line_is_repaired_by_the_next(tmp_path: Path) -> None:
    """After a line that lacks its end, the next one starts on a new line, and readers get it."""
    file = tmp_path / "a.jsonl"
    append_line(file, '{"a": 1}')
    with file.open("ab") as torn:
        torn.write(b'{"a": 2')
    append_line(file, '{"a": 3}')
    assert [parse_object(line) for line in complete_lines(file.read_bytes())] == [{"a": 1}, None, {"a": 3}]


def test_a_line_without_its_break_stays_unread(tmp_path: Path) -> None:
    """A line that lacks only its line break, which no reader has read, is not completed by the next line."""
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": 2}')
    append_line(file, '{"a": 2}')
    assert [parse_object(line) for line in complete_lines(file.read_bytes())] == [{"a": 1}, None, {"a": 2}]


def test_an_unfinished_line_is_not_read(tmp_path: Path) -> None:
    """The last line is read only when it ends with a line break."""
    assert complete_lines(b"") == []
    assert complete_lines(b"a\nb") == [b"a"]
    assert complete_lines(b"a\nb\n") == [b"a", b"b"]


@pytest.mark.parametrize("line", [b"", b"{", b"\xff", b"[]", b"1", b"null"])
def test_a_damaged_line_is_no_object(line: bytes) -> None:
    """Whatever is not a JSON object reads as None."""
    assert parse_object(line) is None


def test_one_write_per_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are written by one ``write(2)``; one that a full disk cuts off raises ENOSPC."""
    descriptor = open_for_append(tmp_path / "a.jsonl")
    calls = []
    write = os.write
    monkeypatch.setattr(json_lines.os, "write", lambda fd, text: calls.append(text) or write(fd, text))
    assert append_lines(descriptor, b"1\n2\n") == 4
    assert calls == [b"1\n2\n"]
    monkeypatch.setattr(json_lines.os, "write", lambda fd, text: write(fd, text[:1]))
    with pytest.raises(OSError, match="No space left") as caught:
        append_lines(descriptor, b"3\n")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    repair_last_line(descriptor)
    assert append_lines(descriptor, b"4\n") == 2
    os.close(descriptor)
    assert (tmp_path / "a.jsonl").read_bytes() == b"1\n2\n3\n4\n"


def test_a_known_size_saves_the_look_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that knows where the last line ended reads nothing before it appends."""
    descriptor = open_for_append(tmp_path / "a.jsonl")
    append_lines(descriptor, b"1\n")
    monkeypatch.delattr(json_lines.os, "pread")
    assert append_lines(descriptor, b"2\n", known_size=2) == 2
    os.close(descriptor)


def test_permissions_of_a_new_file(tmp_path: Path) -> None:
    """A new file has the permissions that were asked for."""
    append_line(tmp_path / "a.jsonl", "{}", mode=0o600)
    assert (tmp_path / "a.jsonl").stat().st_mode & 0o777 == 0o600
