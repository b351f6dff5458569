"""The run that a backup of Keras belongs to: kept beside it, so that a fit that goes on from it knows."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras

from deriva_ml_core._files.atomic import write_atomic
from deriva_ml_core.training import TrainingReporter

__all__ = ["RUN_FILE", "Backups"]

RUN_FILE = "deriva_ml_run.json"
"""The name, in the backup's folder: the run's state, as the reporter gives it, and the newest checkpoint's path."""

METADATA_FILE = "training_metadata.json"
"""What Keras writes last into a backup."""

log = logging.getLogger(__name__)


class Backups:
    """The backups that ``keras.callbacks.BackupAndRestore`` keeps in a fit; Keras takes their folders away at its end.

    Args:
        callbacks: All callbacks of the fit.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        kind = keras.callbacks.BackupAndRestore
        found = [each for each in callbacks if isinstance(each, kind) and "://" not in str(each.backup_dir)]
        self._folders = [Path.cwd() / each.backup_dir for each in found]
        self._backup_mtimes: dict[Path, int] = {}
        self.has_step_saves = any(each.save_freq != "epoch" for each in found)
        """Whether one of them saves within epochs."""

    def resume_from_backup(self, reporter: TrainingReporter) -> None:
        """Go on from the run whose backup is there."""
        for folder in self._folders:
            try:
                if not (folder / METADATA_FILE).exists():
                    continue
                known = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
                checkpoint = known.get("checkpoint")
                reporter.resume_from(known, None if checkpoint is None else Path(checkpoint))
            except FileNotFoundError:
                log.debug("The backup in %s is of no run that was recorded.", folder)
            except (OSError, ValueError, AttributeError, TypeError):
                log.warning("%s cannot be read: the fit is recorded as a new one.", folder / RUN_FILE, exc_info=True)

    def update_run_files(self, reporter: TrainingReporter) -> None:
        """Write beside a backup that is new which run it is of."""
        for folder in self._folders:
            try:
                written = (folder / METADATA_FILE).stat().st_mtime_ns
                if self._backup_mtimes.get(folder) != written:
                    self._write_run_file(folder / RUN_FILE, reporter)
                    self._backup_mtimes[folder] = written
            except FileNotFoundError:
                continue  # no backup yet, or no more
            except OSError:
                log.warning("The backup in %s cannot be told whose it is.", folder, exc_info=True)

    @staticmethod
    def _write_run_file(path: Path, reporter: TrainingReporter) -> None:
        newest = reporter.checkpoints.newest
        known = {**reporter.state(), "checkpoint": None if newest is None else os.fspath(newest)}
        write_atomic(path, json.dumps(known))
