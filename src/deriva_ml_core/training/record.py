"""The files that tell of an execution's trainings: metrics, settings, and their curves."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core.definitions import MLAsset
from deriva_ml_core.errors import DerivaMLException, UnknownTerm
from deriva_ml_core.execution.card import CURVES_FILE
from deriva_ml_core.forklock import ForkSafeRLock
from deriva_ml_core.training.facts import TRAINING_SUMMARY_FILE, TrainingSummary
from deriva_ml_core.training.metrics import METRICS_FILE, MetricsFile

if TYPE_CHECKING:
    from deriva_ml_core.execution import Execution

__all__ = ["TrainingFiles"]

log = logging.getLogger(__name__)


class TrainingFiles:
    """The files of one execution's trainings, in its working folder, from where they are copied when they are sent.

    Args:
        execution: Whose.
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        folder = execution.working_dir
        self._metrics = MetricsFile(folder / METRICS_FILE)
        self._summary = TrainingSummary(folder / TRAINING_SUMMARY_FILE)
        self._plot_path = folder / CURVES_FILE
        self._pending_updates: list[tuple[int, Mapping[str, object]]] = []
        self._lock = ForkSafeRLock()
        self._staged_stats: dict[Path, tuple[int, int]] = {}
        self._has_write_error = False
        """Whether the last line of metrics could not be written, which has been said."""

    def next_fit_number(self) -> int:
        """The number of the fit that begins now."""
        return max(self._metrics.last_fit(), self._summary.last_fit()) + 1

    def append(
        self,
        stage: str,
        by: str,
        fit: int,
        epoch: int | None,
        step: int | None,
        values: Mapping[str, float],
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Add a line of metrics; see `MetricsFile.append`. What a full disk refuses waits, and is warned about once."""
        try:
            try:
                if self._metrics.path not in self._staged_stats:  # not before the first: a fit without one has no file
                    self._stage_if_changed(self._metrics.path, "Metrics_File")
            finally:
                self._metrics.append(stage=stage, fit=fit, by=by, epoch=epoch, step=step, values=values, extra=extra)
        except (OSError, DerivaMLException) as error:
            if not self._has_write_error:
                log.warning(
                    "%s cannot be written or staged now, and is as soon as it can: %s", self._metrics.path, error
                )
            self._has_write_error = True
        else:
            self._has_write_error = False

    def queue_summary(self, fit: int, fields: Mapping[str, object]) -> None:
        """Keep what is told of a fit until `write_summary` writes it, beside the training."""
        with self._lock:
            self._pending_updates.append((fit, fields))
        if self._summary.path not in self._staged_stats:
            self._stage_if_changed(self._summary.path, "Execution_Config")

    def write_summary(self) -> None:
        """Write what was held.

        Raises:
            OSError: It cannot be written.
        """
        with self._lock:
            held, self._pending_updates = self._pending_updates, []
        for fit, facts in held:
            self._summary.update(fit, facts)

    def stage_files(self, *, curves: bool) -> None:
        """Stage what was written since it was last staged.

        Args:
            curves: Whether to draw the metrics anew.
        """
        self._metrics.flush()
        if self._summary.path.exists():
            self._stage_if_changed(self._summary.path, "Execution_Config")
        if not self._metrics.path.exists():
            return
        is_new = self._stage_if_changed(self._metrics.path, "Metrics_File")
        if curves and (is_new or not self._plot_path.exists()):
            self._update_plot()

    def _update_plot(self) -> None:
        from deriva_ml_core.training.curves import draw_curves

        drawn = self._plot_path.with_name(f".writing-{CURVES_FILE}")
        if draw_curves(self._metrics.path, drawn, self.execution.description):
            if not self._plot_path.exists() or drawn.read_bytes() != self._plot_path.read_bytes():
                drawn.replace(self._plot_path)
            drawn.unlink(missing_ok=True)
            self._stage_if_changed(self._plot_path, "Training_Curves")

    def _stage_if_changed(self, path: Path, asset_type: str) -> bool:
        """Stage a file that was written to since it was staged; returns whether it has."""
        if not path.exists():
            path.touch()
        found = path.stat()
        if self._staged_stats.get(path) == (found.st_size, found.st_mtime_ns):
            return False
        table = MLAsset.execution_metadata.value
        try:
            self.execution.asset_file_path(table, path, asset_types=[asset_type])
        except UnknownTerm:  # a catalog with a vocabulary of its own
            self.execution.asset_file_path(table, path)
        self._staged_stats[path] = (found.st_size, found.st_mtime_ns)
        return True
