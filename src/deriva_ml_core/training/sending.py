"""When a training's files are sent: each as soon as nothing can supersede it, or all at the end."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from deriva_ml_core.errors import UploadFailed
from deriva_ml_core.training.options import Sending
from deriva_ml_core.worker import Worker

if TYPE_CHECKING:
    from deriva_ml_core.execution import Execution
    from deriva_ml_core.models import UploadProgress

__all__ = ["Sender"]

MOST_WAITING = 64
"""Files that wait to be sent while a training goes on; further ones are left for its end."""

log = logging.getLogger(__name__)


class Sender:
    """Sends what one execution staged.

    Args:
        execution: Whose files.
        worker: What sends beside the training.
        when: ``stream``, ``end`` or ``never``; None for ``end`` on an embedded catalog and ``stream`` on a server.
        patience: Seconds that the end waits for what is just being sent beside, while nothing of it moves.
    """

    def __init__(self, execution: Execution, worker: Worker, when: Sending | None, patience: float) -> None:
        self._execution = execution
        self._worker = worker
        self._when: Sending = when or ("end" if execution.connection.address.is_embedded else "stream")
        self._waiting = 0
        self._patience = patience
        self._free = Event()
        """Set while nothing is being sent beside."""
        self._free.set()

    def soon(self, path: Path) -> None:
        """Send a file or folder that nothing supersedes any more beside the training, where that is asked for."""
        if self._when == "stream" and self._waiting < MOST_WAITING:
            self._waiting += 1
            self._worker.submit(lambda: self._send(path))

    def all(self, *, clean: bool | None = None) -> None:
        """Send all that is staged, where the end of a fit does.

        Args:
            clean: Whether what was sent is taken away from the staging folder once the run has ended.

        Raises:
            UploadFailed, MissingFiles: Something is still staged; ``upload_execution_outputs()`` sends it later.
        """
        if self._when != "never":
            self._wait_for_stream()
            self._execution.upload_execution_outputs(clean_folder=clean)

    def _wait_for_stream(self) -> None:
        """Wait for what is just being sent beside, which takes its turn first, as long as it moves."""
        before = self._moved()
        while not self._free.wait(self._patience):
            if (now := self._moved()) == before:
                raise UploadFailed(
                    f"What is sent beside the training has not moved for {self._patience:g} seconds; all that is not "
                    "sent stays staged. Call upload_execution_outputs() when the store answers again."
                )
            before = now

    def _moved(self) -> int:
        """What grows with each step of an upload."""
        return self._execution.desk.journal.path.stat().st_size

    def _send(self, path: Path) -> None:
        self._free.clear()
        try:
            files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
            self._execution.upload_execution_outputs(only=files, progress_callback=_in_silence)
        except Exception:
            log.warning("%s could not be sent yet; it is tried again at the end of the fit.", path, exc_info=True)
        finally:
            self._waiting -= 1
            self._free.set()


def _in_silence(progress: UploadProgress) -> None:
    """Show nothing: the terminal is the training's."""
