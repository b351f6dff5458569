"""`MediaRecorder`, which writes the images, figures and tables of one execution in the background."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from hashlib import md5
from pathlib import Path
from typing import Any

from deriva_ml_core._concurrency.background_worker import BackgroundWorker
from deriva_ml_core._concurrency.fork_safe_lock import ForkSafeRLock
from deriva_ml_core._files.json_lines import append_line
from deriva_ml_core._text import describe_error, escape_surrogates
from deriva_ml_core.definitions import MLAsset
from deriva_ml_core.media.encoders import MediaCopy
from deriva_ml_core.media.logger import LoggedMedia
from deriva_ml_core.media.manifest import MEDIA_FILE, MEDIA_FOLDER, MEDIA_TABLE, parse_manifest

__all__ = ["DEFAULT_MAX_MEDIA", "MediaRecorder"]

log = logging.getLogger(__name__)

DEFAULT_MAX_MEDIA = 1000
"""Maximum number of values that a run keeps."""

MAX_WAITING, MAX_WAITING_BYTES = 64, 256 * 2**20
"""Maximum number of values that wait to be encoded, and their maximum size in bytes."""

MAX_NAME_LENGTH = 500
MAX_SLUG_LENGTH = 60
"""Maximum characters of a name in the list, and of the name in a file's name."""

OVER_LIMIT, QUEUE_FULL, FAILED = "limit", "queue", "failed"
REASONS = {
    OVER_LIMIT: "over the limit of {limit:,} (max_media)",
    QUEUE_FULL: "while the queue was full",
    FAILED: "that could not be recorded",
}
"""Why a value has no file, and how the warning at the end says it."""


class MediaRecorder:
    """Recorder of one execution's media. The methods raise no exception of the user's values and of the disk.

    Args:
        execution: RID of the execution, for messages.
        folder: Its working folder.
        register: ``Execution.asset_file_path``.
    """

    def __init__(self, execution: str, folder: Path, register: Callable[..., Path]) -> None:
        self._execution = execution
        self._folder = folder
        self._register = register
        self._worker = BackgroundWorker("deriva-ml-media")
        self._lock = ForkSafeRLock()
        self._pid = os.getpid()
        self._kept: int | None = None
        """Values with a file, and those that wait for it; None before the list of an earlier process is read."""
        self._waiting = self._waiting_bytes = 0
        self._next_number = 1
        self._limit = DEFAULT_MAX_MEDIA
        self._omitted: Counter[str] = Counter()
        """Values without a file, by reason."""
        self._recorded: Counter[str] = Counter()
        """Those of them that the list has."""
        self._reported: Counter[str] = Counter()
        """Those of them that a warning has counted."""
        self._staged_stat: tuple[int, int] | None = None

    def add(self, media: LoggedMedia, limit: int = DEFAULT_MAX_MEDIA) -> None:
        """Take a copy of a value, and write it in the background; an unsuitable value causes a warning.

        Args:
            media: The value with its name and position.
            limit: Maximum number of values that the run keeps.
        """
        try:
            self._add(media, limit)
        except Exception as error:  # noqa: BLE001 - a value of any class
            self._report_failure(media, error)

    def drain(self, timeout: float) -> None:
        """Wait until the values logged so far are written, and stage the list of them.

        Args:
            timeout: Maximum seconds to wait.
        """
        if self._kept is None or self._pid != os.getpid():
            return
        if not self._worker.drain(timeout):
            log.warning(
                "The images, figures and tables of execution %s were not all written within %g s; the rest follows "
                "with the next upload.",
                self._execution,
                timeout,
            )
        try:
            self._record_omitted()
            self._stage_manifest()
        except Exception as error:  # noqa: BLE001 - the next call tries again
            log.warning("Failed to write or stage %s: %s", self._folder / MEDIA_FILE, describe_error(error))

    def report_omitted(self) -> None:
        """Log how many values have no file, unless that was done before."""
        with self._lock:
            omitted, is_new = Counter(self._omitted), self._omitted != self._reported
            self._reported = omitted
        if not is_new:
            return
        reasons = ", ".join(
            f"{omitted[reason]:,} {text.format(limit=self._limit)}"
            for reason, text in REASONS.items()
            if omitted[reason]
        )
        log.warning(
            "Execution %s keeps %s images, figures and tables, and left out %s.",
            self._execution,
            f"{self._kept or 0:,}",
            reasons,
        )

    def _add(self, media: LoggedMedia, limit: int) -> None:
        source = media.get_source()
        record = {
            "kind": media.kind,
            "name": _name_text(media.name),
            "fit": media.fit,
            "epoch": _to_int(media.epoch),
            "step": _to_int(media.step),
            "time": datetime.now(UTC).isoformat(timespec="microseconds"),
        }
        with self._lock:
            self._begin()
            self._limit = limit
            if (self._kept or 0) >= limit:
                self._omitted[OVER_LIMIT] += 1
                return
            if self._waiting >= MAX_WAITING or self._waiting_bytes + source.nbytes > MAX_WAITING_BYTES:
                self._omitted[QUEUE_FULL] += 1
                return
            self._kept = (self._kept or 0) + 1
            self._waiting += 1
            self._waiting_bytes += source.nbytes
        try:
            copied = source.copy()
            with self._lock:
                self._waiting_bytes += copied.nbytes - source.nbytes
        except BaseException:
            self._release(source.nbytes, is_kept=False)
            raise
        self._worker.submit(partial(self._write, media, record, copied, source.suffix))

    def _begin(self) -> None:
        """Read how many values earlier processes have kept; a forked child starts with an empty queue."""
        if self._pid != os.getpid():
            self._pid, self._kept, self._waiting, self._waiting_bytes = os.getpid(), None, 0, 0
            self._omitted, self._recorded, self._reported = Counter(), Counter(), Counter()
        if self._kept is None:
            try:
                self._kept = len(parse_manifest((self._folder / MEDIA_FILE).read_bytes()).files)
            except FileNotFoundError:
                self._kept = 0
            self._next_number = self._kept + 1

    def _release(self, nbytes: int, *, is_kept: bool) -> None:
        """Give back the place of a value in the queue, and in the run if it has no file."""
        with self._lock:
            self._kept = (self._kept or 0) - (not is_kept)
            self._waiting -= 1
            self._waiting_bytes -= nbytes

    def _write(self, media: LoggedMedia, record: dict[str, Any], copied: MediaCopy, suffix: str) -> None:
        """Encode and write a value, in the background."""
        from deriva_ml_core.redaction import redact_text  # many patterns to compile

        is_kept = False
        try:
            content = copied.encode()
            name = redact_text(record["name"])
            path = self._create_file(name, suffix, content)
            self._register(MEDIA_TABLE, path)
            filename = path.relative_to(self._folder / "outputs" / MEDIA_TABLE).as_posix()
            file = {"filename": filename, "length": len(content), "md5": md5(content).hexdigest()}
            self._append({**record, "name": name, **file})
            is_kept = True
        except Exception as error:  # noqa: BLE001 - the run continues
            self._report_failure(media, error)
        finally:
            self._release(copied.nbytes, is_kept=is_kept)

    def _create_file(self, name: str, suffix: str, content: bytes) -> Path:
        """Write a new file with the next number that no process has used."""
        folder = self._folder / "outputs" / MEDIA_TABLE / MEDIA_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        slug = re.sub("[^A-Za-z0-9._-]+", "-", name).strip("-.")[:MAX_SLUG_LENGTH] or "unnamed"
        while True:
            path = folder / f"{self._next_number:05}-{slug}{suffix}"
            self._next_number += 1
            try:
                file = path.open("xb")
            except FileExistsError:
                continue
            try:
                with file:
                    file.write(content)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            return path

    def _append(self, record: dict[str, Any]) -> None:
        append_line(self._folder / MEDIA_FILE, json.dumps(record, ensure_ascii=False))

    def _stage_manifest(self) -> None:
        path = self._folder / MEDIA_FILE
        if not path.exists():  # nothing was kept
            return
        stat = path.stat()
        if self._staged_stat != (stat.st_size, stat.st_mtime_ns):
            self._register(MLAsset.execution_metadata.value, path)
            self._staged_stat = stat.st_size, stat.st_mtime_ns

    def _record_omitted(self) -> None:
        with self._lock:
            new = self._omitted - self._recorded
            if new:
                self._append({"omitted": dict(new)})
                self._recorded += new

    def _report_failure(self, media: LoggedMedia, error: Exception) -> None:
        """Count a failure; the first one is logged."""
        with self._lock:
            self._omitted[FAILED] += 1
            is_first = self._omitted[FAILED] == 1
        if is_first:
            text = str(error) if isinstance(error, ValueError) else describe_error(error)
            log.warning(
                "Failed to log the %s %r: %s. The run continues; further failures are only counted.",
                media.kind,
                _name_text(media.name),
                text,
            )


def _name_text(name: object) -> str:
    try:
        return escape_surrogates(str(name))[:MAX_NAME_LENGTH]
    except Exception:  # noqa: BLE001 - the name may be of any class
        return f"<{type(name).__name__}>"


def _to_int(value: Any) -> int | None:
    return None if value is None else int(value)
