"""When a training's files are sent: each as soon as nothing can supersede it, or all at the end."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from deriva_ml_core._concurrency.background_worker import BackgroundWorker
from deriva_ml_core.errors import UploadFailed
from deriva_ml_core.training.options import UploadPolicy

if TYPE_CHECKING:
    from deriva_ml_core.execution import Execution
    from deriva_ml_core.models import UploadProgress

__all__ = ["StreamingUploader"]

MAX_QUEUED_FILES = 64
"""Files that wait to be sent while a training goes on; further ones are left for its end."""

log = logging.getLogger(__name__)


class StreamingUploader:
    """Sends what one execution staged.

    Args:
        execution: Whose files.
        worker: What sends beside the training.
        policy: ``stream``, ``end`` or ``never``; None for ``end`` on an embedded catalog and ``stream`` on a server.
        timeout: Seconds that the end waits for what is just being sent beside, while nothing of it moves.
    """

    def __init__(
        self, execution: Execution, worker: BackgroundWorker, policy: UploadPolicy | None, timeout: float
    ) -> None:
        self._execution = execution
        self._worker = worker
        self._policy: UploadPolicy = policy or ("end" if execution._connection.address.is_embedded else "stream")
        self._queued_count = 0
        self._timeout = timeout
        self._idle = Event()
        """Set while nothing is being sent beside."""
        self._idle.set()

    def submit(self, path: Path) -> None:
        """Send a file or folder that nothing supersedes any more beside the training, where that is asked for."""
        if self._policy == "stream" and self._queued_count < MAX_QUEUED_FILES:
            self._queued_count += 1
            self._worker.submit(lambda: self._upload(path))

    def upload_all(self, *, clean: bool | None = None) -> None:
        """Send all that is staged, where the end of a fit does.

        Args:
            clean: Whether what was sent is taken away from the staging folder once the run has ended.

        Raises:
            UploadFailed, MissingFiles: Something is still staged; ``upload_execution_outputs()`` sends it later.
        """
        if self._policy != "never":
            self._wait_for_stream()
            self._execution.upload_execution_outputs(clean_folder=clean)

    def _wait_for_stream(self) -> None:
        """Wait for what is just being sent beside, which takes its turn first, as long as it moves."""
        before = self._journal_size()
        while not self._idle.wait(self._timeout):
            if (now := self._journal_size()) == before:
                raise UploadFailed(
                    f"What is sent beside the training has not moved for {self._timeout:g} seconds; all that is not "
                    "sent stays staged. Call upload_execution_outputs() when the store answers again."
                )
            before = now

    def _journal_size(self) -> int:
        """What grows with each step of an upload."""
        return self._execution._runtime.journal.path.stat().st_size

    def _upload(self, path: Path) -> None:
        self._idle.clear()
        try:
            files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
            self._execution.upload_execution_outputs(only=files, progress_callback=_ignore_progress)
        except Exception:
            log.warning("%s could not be sent yet; it is tried again at the end of the fit.", path, exc_info=True)
        finally:
            self._queued_count -= 1
            self._idle.set()


def _ignore_progress(progress: UploadProgress) -> None:
    """Show nothing: the terminal is the training's."""
