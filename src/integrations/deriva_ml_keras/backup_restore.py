"""Resuming from a Keras backup: a file in the backup's folder names the run that the backup belongs to."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras

from deriva_ml_core._files.atomic import write_atomic
from deriva_ml_core.paths import find_current_folder
from deriva_ml_core.training import TrainingReporter

__all__ = ["RUN_FILE", "Backups"]

RUN_FILE = "deriva_ml_run.json"
"""Name of the file in the backup's folder, with the reporter's state and the path of the newest checkpoint."""

METADATA_FILE = "training_metadata.json"
"""Name of the file that Keras writes last into a backup."""

log = logging.getLogger(__name__)


class Backups:
    """Backups of the ``keras.callbacks.BackupAndRestore`` callbacks of a fit; Keras deletes them when the fit ends.

    Args:
        callbacks: All callbacks of the fit.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        kind = keras.callbacks.BackupAndRestore
        local = [each for each in callbacks if isinstance(each, kind) and "://" not in str(each.backup_dir)]
        self._folders = [(find_current_folder() or Path("/")) / each.backup_dir for each in local]
        self._backup_mtimes: dict[Path, int] = {}
        self.has_step_saves = any(each.save_freq != "epoch" for each in local)
        """Whether a callback saves within epochs."""

    def resume_from_backup(self, reporter: TrainingReporter) -> None:
        """Resume the run of an existing backup."""
        for folder in self._folders:
            try:
                if not (folder / METADATA_FILE).exists():
                    continue
                state = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
                checkpoint = state.get("checkpoint")
                reporter.resume_from(state, None if checkpoint is None else Path(checkpoint))
            except FileNotFoundError:
                log.debug("The backup in %s does not belong to a recorded run.", folder)
            except (OSError, ValueError, AttributeError, TypeError):
                log.warning("Failed to read %s; the fit is recorded as a new run.", folder / RUN_FILE, exc_info=True)

    def update_run_files(self, reporter: TrainingReporter) -> None:
        """Write the run file into the folder of each new backup."""
        for folder in self._folders:
            try:
                mtime = (folder / METADATA_FILE).stat().st_mtime_ns
                if self._backup_mtimes.get(folder) != mtime:
                    self._write_run_file(folder / RUN_FILE, reporter)
                    self._backup_mtimes[folder] = mtime
            except FileNotFoundError:
                continue  # the backup does not exist yet, or Keras has deleted it
            except OSError:
                log.warning("Failed to write %s; the backup cannot resume this run.", folder / RUN_FILE, exc_info=True)

    @staticmethod
    def _write_run_file(path: Path, reporter: TrainingReporter) -> None:
        newest = reporter.checkpoints.newest
        state = {**reporter.state(), "checkpoint": None if newest is None else os.fspath(newest)}
        write_atomic(path, json.dumps(state))
