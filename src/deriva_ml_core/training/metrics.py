"""The metrics that an execution keeps: lines of ``metrics.jsonl``, by fit, epoch and step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import SupportsFloat

__all__ = ["METRICS_FILE", "MetricsFile", "extract_floats"]

METRICS_FILE = "metrics.jsonl"
"""The file's name. Each line is a JSON object, but for ``NaN`` and ``Infinity``, which Python's own reader and pandas
take: stage, fit, by (``epoch`` or ``step``), epoch, step, time and values; one of an epoch also seconds, and where they
are known samples_per_second, learning_rates and peak_memory in bytes."""

MAX_PENDING_LINES = 100_000
"""Lines that are held back while the disk is full; beyond, the oldest are lost."""

TAIL_BYTES = 2**16
"""Bytes at the file's end in which the number of the last fit is looked for."""

_ENCODER = json.JSONEncoder(ensure_ascii=False)  # which json.dumps would make for each line


def extract_floats(metrics: Mapping[str, SupportsFloat]) -> tuple[dict[str, float], list[str]]:
    """Take numbers, whatever holds them: a float, or a tensor or an array of one element.

    Returns:
        The values by name, and the names of those that are no number.
    """
    values: dict[str, float] = {}
    others = []
    for name, value in metrics.items():
        try:
            values[name] = float(value)
        except (TypeError, ValueError, RuntimeError):  # several elements; torch and numpy raise differently
            others.append(name)
    return values, others


class MetricsFile:
    """The metrics file of one execution, to which all its fits and stages add.

    Args:
        path: The file; its folder must be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: list[bytes] = []
        self._descriptor: int | None = None
        self._pid = 0

    def last_fit(self) -> int:
        """The number of the last fit that wrote here; 0 where none did."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                return max(map(_parse_fit_number, file.read().splitlines()), default=0)
        except FileNotFoundError:
            return 0

    def append(
        self,
        *,
        stage: str,
        fit: int,
        by: str,
        epoch: int | None,
        step: int | None,
        values: Mapping[str, float],
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Add a line by one ``write(2)``, so that a process killed later loses none; what a full disk refuses waits.

        Raises:
            OSError: The line could not be written yet; the next call writes it.
        """
        line = {
            "stage": stage,
            "fit": fit,
            "by": by,
            "epoch": epoch,
            "step": step,
            "time": datetime.now(UTC).isoformat(timespec="microseconds"),
            **(extra or {}),
            "values": values,
        }
        self._pending.append((_ENCODER.encode(line) + "\n").encode())
        del self._pending[:-MAX_PENDING_LINES]
        self.flush()

    def flush(self) -> None:
        """Write what a full disk refused before.

        Raises:
            OSError: It still does.
        """
        while self._pending:
            written = os.write(self._open(), self._pending[0])
            if written < len(self._pending[0]):
                # the rest follows when there is room: nobody else writes to this file
                self._pending[0] = self._pending[0][written:]
                continue
            self._pending.pop(0)

    def close(self) -> None:
        """Let go of the file; the next line opens it again."""
        if self._descriptor is not None and self._pid == os.getpid():
            os.close(self._descriptor)
        self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None or self._pid != os.getpid():
            is_torn = self._is_torn()
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor, self._pid = os.open(self.path, flags, 0o644), os.getpid()
            if is_torn:
                os.write(self._descriptor, b"\n")
        return self._descriptor

    def _is_torn(self) -> bool:
        """Whether the last line lacks its end, since the process that wrote it was killed or the disk was full."""
        try:
            with self.path.open("rb") as file:
                return file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
        except FileNotFoundError:
            return False


def _parse_fit_number(line: bytes) -> int:
    try:
        return int(json.loads(line)["fit"])
    except (ValueError, KeyError, TypeError):  # torn
        return 0
