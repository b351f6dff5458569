"""Partial files of interrupted downloads: continued by the next call, and used by one process at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest

from deriva_ml_core._files.partial_download import open_partial_file

MD5 = "9a0364b9e99bb480dd25e1f0284c8555"


def test_partial_file_is_continued(tmp_path: Path) -> None:
    """The next call appends to what an interrupted one left."""
    with open_partial_file(tmp_path, MD5) as (file, first):
        file.write(b"con")
    with open_partial_file(tmp_path, MD5) as (file, second):
        file.write(b"tent")
    assert first == second
    assert first.read_bytes() == b"content"


def test_partial_file_in_use_is_left_alone(tmp_path: Path) -> None:
    """While one process writes to it, another gets its own file."""
    with open_partial_file(tmp_path, MD5) as (first, path), open_partial_file(tmp_path, MD5) as (second, other):
        first.write(b"one")
        second.write(b"two")
    assert path.read_bytes() == b"one"
    assert other.read_bytes() == b"two"


def test_partial_file_completed_before_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another process completes and renames the partial file before this one locks it, this one leaves it alone."""
    complete = tmp_path / "complete"
    (tmp_path / f".{MD5}.part").write_bytes(b"content")
    flock = fcntl.flock

    def complete_first(file: Any, operation: int) -> None:
        if not complete.exists():
            (tmp_path / f".{MD5}.part").rename(complete)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", complete_first)
    with open_partial_file(tmp_path, MD5) as (file, path):
        file.write(b"other")
    assert path.read_bytes() == b"other"
    assert complete.read_bytes() == b"content"


def test_partial_file_replaced_before_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a third process has begun a new partial file meanwhile, this one leaves that alone too."""
    complete, partial = tmp_path / "complete", tmp_path / f".{MD5}.part"
    partial.write_bytes(b"content")
    flock = fcntl.flock

    def replace_first(file: Any, operation: int) -> None:
        if not complete.exists():
            partial.rename(complete)
            partial.write_bytes(b"new")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", replace_first)
    with open_partial_file(tmp_path, MD5) as (file, path):
        file.write(b"other")
    assert path.read_bytes() == b"other"
    assert partial.read_bytes() == b"new"
    assert complete.read_bytes() == b"content"
