"""The console output of a run as text to keep: progress bars collapsed, secrets redacted, at most 10 MiB."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from deriva_ml_core._files.atomic import write_atomic
from deriva_ml_core._text import format_size
from deriva_ml_core.execution.console_copy import KEPT_BYTES

__all__ = [
    "CONSOLE_FILES",
    "MAX_KEPT_BYTES",
    "RAW_SUFFIX",
    "collapse",
    "keep_console",
    "list_raw_files",
    "read_local_console",
]

CONSOLE_FILES = ("console.txt", "console_stderr.txt")
"""Names of the kept files; the second one exists only if standard error went elsewhere than standard output."""

RAW_SUFFIX = ".raw"
"""Suffix of the file that a run writes to, next to the kept one."""

MAX_KEPT_BYTES = 10 * 2**20
"""Maximum bytes to keep: half of them from the begin, half from the end."""

NEW_SUFFIX = ".new"
"""Suffix of a kept file that is complete and not staged yet."""

CHUNK_BYTES = 64 * 1024

WINDOW_LINES = 200
"""Number of last lines that control sequences may still change, as a display of several progress bars does."""

MAX_LINE_LENGTH = 2**20
"""Characters after which a line without a break is cut."""

_TOKEN = re.compile(
    r"\x1b\[(?P<values>[0-?]*)[ -/]*(?P<command>[@-~])"  # ECMA-48: control sequences
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles, links and other strings
    r"|\x1b[ -/]*[0-~]?"
    r"|(?P<control>[\x00-\x08\x0a-\x1f\x7f])"
    r"|(?P<text>[^\x00-\x08\x0a-\x1f\x7f]+)"
)
_PARTIAL_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]{0,4096}\x1b?)?\Z")
_SPECIAL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class _Screen:
    """The last lines of a terminal: carriage returns and control sequences change them before they are kept."""

    def __init__(self) -> None:
        self._lines = [""]
        self._row = self._column = 0
        self._pending = ""

    def feed(self, text: str) -> Iterator[str]:
        """Write text to the screen; yield the lines that nothing can change any more."""
        text = self._pending + text
        partial = _PARTIAL_SEQUENCE.search(text)
        self._pending = text[partial.start() :] if partial else ""
        text = text[: partial.start()] if partial else text
        is_at_end = self._row == len(self._lines) - 1 and self._column == len(self._lines[-1])
        if is_at_end and not _SPECIAL.search(text):
            lines = (self._lines[-1] + text).split("\n")
            self._lines[-1:] = lines
            self._row, self._column = len(self._lines) - 1, len(lines[-1])
            yield from self._take(WINDOW_LINES)
        else:
            for token in _TOKEN.finditer(text):
                self._write(token)
                if len(self._lines) > WINDOW_LINES:
                    yield from self._take(WINDOW_LINES)
        if len(self._lines[self._row]) > MAX_LINE_LENGTH:
            yield from self.close()

    def close(self) -> Iterator[str]:
        """Yield the remaining lines, the last one only if it has text."""
        lines = self._lines if self._lines[-1] else self._lines[:-1]
        self._lines, self._row, self._column = [""], 0, 0
        yield from lines

    def _take(self, keep: int) -> Iterator[str]:
        count = min(len(self._lines) - keep, self._row)
        if count > 0:
            taken, self._lines = self._lines[:count], self._lines[count:]
            self._row -= count
            yield from taken

    def _write(self, token: re.Match[str]) -> None:
        line = self._lines[self._row]
        if (text := token["text"]) is not None:
            self._lines[self._row] = line[: self._column].ljust(self._column) + text + line[self._column + len(text) :]
            self._column += len(text)
        elif token["control"] == "\n":
            self._move_to(self._row + 1)
            self._column = 0
        elif token["control"] == "\r":
            self._column = 0
        elif token["control"] == "\b":
            self._column = max(0, self._column - 1)
        elif token["command"] is not None:
            self._run(token["command"], token["values"])

    def _run(self, command: str, values: str) -> None:
        first = values.partition(";")[0]
        number = int(first) if first.isdecimal() and len(first) < 5 else None
        count = number or 1
        line = self._lines[self._row]
        if command == "A":
            self._row = max(0, self._row - count)
        elif command == "B":
            self._row = min(len(self._lines) - 1, self._row + count)
        elif command in "CD":
            self._column = max(0, self._column + (count if command == "C" else -count))
        elif command == "G":
            self._column = count - 1
        elif command == "K" and number in (None, 0):
            self._lines[self._row] = line[: self._column]
        elif command == "K":
            self._lines[self._row] = "" if number == 2 else " " * self._column + line[self._column :]
        elif command == "J" and number in (None, 0):
            self._lines[self._row :] = [line[: self._column]]

    def _move_to(self, row: int) -> None:
        self._row = row
        self._lines += [""] * (row + 1 - len(self._lines))


class _Excerpt:
    """The begin and the end of a text, with at most so many bytes in all.

    Args:
        max_bytes: The maximum.
    """

    def __init__(self, max_bytes: int) -> None:
        self._limit = max_bytes // 2
        self._head: list[str] = []
        self._head_bytes = 0
        self._tail: deque[tuple[str, int]] = deque()
        self._tail_bytes = 0
        self.left_out = 0
        """Bytes that were left out so far."""

    def add(self, line: str) -> None:
        """Add a line without its break."""
        size = len(line.encode("utf-8", "replace")) + 1
        if not self._tail and self._head_bytes + size <= self._limit:
            self._head.append(line)
            self._head_bytes += size
            return
        self._tail.append((line, size))
        self._tail_bytes += size
        while self._tail_bytes > self._limit and self._tail:
            self.left_out += self._tail[0][1]
            self._tail_bytes -= self._tail.popleft()[1]

    def render(self) -> str:
        """Return the text, with the secrets of its lines redacted and a note for what was left out."""
        from deriva_ml_core.redaction import redact_text  # many patterns to compile

        note = [f"[{format_size(self.left_out)} left out]"] if self.left_out else []
        tail = [line for line, _ in self._tail]
        if not note:
            return redact_text("".join(f"{line}\n" for line in (*self._head, *tail)))
        parts = ("".join(f"{line}\n" for line in lines) for lines in (self._head, note, tail))
        return "".join(map(redact_text, parts))


def collapse(chunks: Iterable[str], max_bytes: int = MAX_KEPT_BYTES) -> str:
    """Return console output as a terminal shows it at the end, without control sequences and secrets.

    Args:
        chunks: The output, in parts of any length.
        max_bytes: Maximum bytes to return; the middle is left out.
    """
    screen, excerpt = _Screen(), _Excerpt(max_bytes)
    for chunk in chunks:
        for line in screen.feed(chunk):
            excerpt.add(line.rstrip())
    for line in screen.close():
        excerpt.add(line.rstrip())
    return excerpt.render()


def list_raw_files(records: Path) -> list[Path]:
    """Return the files with the console output of a run that is not kept yet, in the order of `CONSOLE_FILES`."""
    paths = [records / f"{name}{RAW_SUFFIX}" for name in CONSOLE_FILES]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def keep_console(records: Path, stage: Callable[[Path], object]) -> None:
    """Write the kept files from the files of a run that has ended, and delete those; a repeated call repeats nothing.

    Args:
        records: Folder of the files.
        stage: Called with the path of each kept file before it has its new text.
    """
    for raw in list_raw_files(records):
        kept, new = raw.with_suffix(""), raw.with_suffix(NEW_SUFFIX)
        earlier = [kept.read_text(encoding="utf-8", errors="replace")] if kept.exists() else []  # of a resumed run
        if text := collapse(chain(earlier, _read_chunks(raw))):
            write_atomic(new, text)
            stage(kept)
        raw.unlink()
    for name in CONSOLE_FILES:
        with suppress(FileNotFoundError):
            (records / f"{name}{NEW_SUFFIX}").rename(records / name)


def read_local_console(records: Path, name: str) -> str | None:
    """Return the console output in a working folder so far; None if it has none.

    Args:
        records: Folder of the files.
        name: One of `CONSOLE_FILES`.
    """
    kept, raw = records / name, records / f"{name}{RAW_SUFFIX}"
    parts = [kept.read_text(encoding="utf-8", errors="replace")] if kept.is_file() else []
    if raw in list_raw_files(records):
        return collapse(chain(parts, _read_chunks(raw)))
    return parts[0] if parts else None


def _read_chunks(path: Path) -> Iterator[str]:
    """Yield the file in parts. Of a large one, the middle may be released, so it is replaced by a note."""
    import codecs

    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        ranges = [(0, size)] if size <= 2 * KEPT_BYTES else [(0, KEPT_BYTES), (size - KEPT_BYTES, size)]
        for number, (position, end) in enumerate(ranges):
            if number:
                yield f"\n[{format_size(position - ranges[0][1])} of output left out]\n"
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            while position < end and (data := os.pread(file.fileno(), min(CHUNK_BYTES, end - position), position)):
                position += len(data)
                yield decoder.decode(data)
            yield decoder.decode(b"", final=True)
