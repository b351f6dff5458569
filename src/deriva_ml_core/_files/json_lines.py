"""Append-only files with one JSON object a line.

A line is appended by one ``write(2)``, so that the lines of several processes never mix. A killed process or a full
disk can leave a torn last line. The next append starts on a new line, and readers skip the torn one.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

__all__ = [
    "append_line",
    "append_lines",
    "complete_lines",
    "open_for_append",
    "parse_object",
    "repair_last_line",
]


_TORN_LINE_END = b"#\n"
"""The end of a torn line that its writer may repeat: one that lacks only its line break becomes invalid JSON."""


def open_for_append(path: Path, *, mode: int = 0o644) -> int:
    """Open a file for `append_lines`, create it if needed, and return its descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)


def append_lines(descriptor: int, lines: bytes, *, known_size: int = 0) -> int:
    """Append complete lines by one ``write(2)``; after a torn line they start on a new one.

    Args:
        descriptor: The file, from `open_for_append`.
        lines: What to append; it ends with a line break.
        known_size: A size at which the file is known to end with a complete line, which saves reading its last byte.

    Returns:
        The number of bytes written.

    Raises:
        OSError: Nothing, or only a part, could be written, as on a full disk (``ENOSPC``).
    """
    if _is_torn(descriptor, known_size):
        lines = _TORN_LINE_END + lines
    if os.write(descriptor, lines) < len(lines):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return len(lines)


def append_line(path: Path, line: str, *, mode: int = 0o644) -> None:
    """Open a file, append one line to it, and close it.

    Args:
        path: The file; it is created if needed.
        line: The JSON text, without its line break.
        mode: The permissions of a new file.

    Raises:
        OSError: As for `append_lines`.
    """
    descriptor = open_for_append(path, mode=mode)
    try:
        append_lines(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def repair_last_line(descriptor: int) -> None:
    """End a torn last line that its writer does not repeat, so that the next write starts on a new one."""
    if _is_torn(descriptor):
        os.write(descriptor, b"\n")


def complete_lines(content: bytes) -> list[bytes]:
    """Split a file's content into its lines, without a torn last one."""
    return content.split(b"\n")[:-1]


def parse_object(line: bytes) -> dict[str, Any] | None:
    """Parse one line; None if it is empty, torn, or not a JSON object."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _is_torn(descriptor: int, known_size: int = 0) -> bool:
    size = os.fstat(descriptor).st_size
    return size not in (0, known_size) and os.pread(descriptor, 1, size - 1) != b"\n"
