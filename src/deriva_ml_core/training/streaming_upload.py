"""Upload of a training's files: each as soon as it is final, or all at the end of a fit."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING

from deriva_ml_core._concurrency.background_worker import BackgroundWorker
from deriva_ml_core.errors import DerivaMLException, UploadFailed
from deriva_ml_core.training.options import UploadPolicy

if TYPE_CHECKING:
    from deriva_ml_core.execution import Execution
    from deriva_ml_core.models import UploadProgress

__all__ = ["StreamingUploader"]

MAX_QUEUED_FILES = 64
"""Maximum number of files queued for upload during training; further ones are uploaded at the end of the fit."""

PAUSE_AFTER_FAILURE = 60.0
"""Seconds after a failed upload in which no other one is started: the server may refuse the login until the end."""

log = logging.getLogger(__name__)


class StreamingUploader:
    """Uploads the staged files of one execution.

    Args:
        execution: The execution.
        worker: Background worker that uploads during training.
        policy: ``stream``, ``end`` or ``never``; None for ``end`` if the store is on this machine, else ``stream``.
        timeout: Seconds without progress after which `upload_all` no longer waits for a background upload.
    """

    def __init__(
        self, execution: Execution, worker: BackgroundWorker, policy: UploadPolicy | None, timeout: float
    ) -> None:
        self._execution = execution
        self._worker = worker
        self._policy: UploadPolicy = policy or ("stream" if execution._connection.has_remote_store else "end")
        self._queued_count = 0
        self._paused_until = 0.0
        self._timeout = timeout
        self._idle = Event()
        """Set while no background upload runs."""
        self._idle.set()

    def submit(self, path: Path) -> None:
        """Upload a final file or folder in the background, if the policy is ``stream``."""
        is_possible = self._queued_count < MAX_QUEUED_FILES and monotonic() >= self._paused_until
        if self._policy == "stream" and is_possible:
            self._queued_count += 1
            self._worker.submit(lambda: self._upload(path))

    def upload_all(self, *, clean: bool | None = None) -> None:
        """Upload all staged files, unless the policy is ``never``.

        Args:
            clean: Whether uploaded files are removed from the staging folder once the run has ended.

        Raises:
            UploadFailed, MissingFiles: Files are still staged; ``upload_execution_outputs()`` uploads them later.
        """
        if self._policy != "never":
            self._wait_for_stream()
            self._execution.upload_execution_outputs(clean_folder=clean)

    def _wait_for_stream(self) -> None:
        """Wait for a background upload as long as it makes progress."""
        before = self._journal_size()
        while not self._idle.wait(self._timeout):
            if (now := self._journal_size()) == before:
                raise UploadFailed(
                    f"The background upload has made no progress for {self._timeout:g} seconds. The remaining files "
                    "stay staged; call upload_execution_outputs() once the store is reachable."
                )
            before = now

    def _journal_size(self) -> int:
        """Return the size of the journal, which grows with each step of an upload."""
        return self._execution._runtime.journal.path.stat().st_size

    def _upload(self, path: Path) -> None:
        self._idle.clear()
        try:
            files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
            self._execution.upload_execution_outputs(only=files, progress_callback=_ignore_progress)
        except DerivaMLException as error:
            self._paused_until = monotonic() + PAUSE_AFTER_FAILURE
            log.warning("Failed to upload %s; it is uploaded at the end of the fit: %s", path, error)
        except Exception:
            log.warning("Failed to upload %s; it is uploaded at the end of the fit.", path, exc_info=True)
        finally:
            self._queued_count -= 1
            self._idle.set()


def _ignore_progress(progress: UploadProgress) -> None:
    """Show no progress, since the training uses the terminal."""
