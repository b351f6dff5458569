"""Files that describe the trainings of an execution: metrics, summary and plot."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core._concurrency.fork_safe_lock import ForkSafeRLock
from deriva_ml_core._files.atomic import temporary_folder, write_atomic
from deriva_ml_core.definitions import MLAsset
from deriva_ml_core.errors import DerivaMLException, UnknownTerm
from deriva_ml_core.execution.html_repr import CURVES_FILE
from deriva_ml_core.metric_modes import MonitoredValue
from deriva_ml_core.parameter_values import select_fit_parameters, to_json_value
from deriva_ml_core.training.checkpoints import BestCheckpoint
from deriva_ml_core.training.metrics_file import METRICS_FILE, MetricsFile

if TYPE_CHECKING:
    from pydantic import JsonValue

    from deriva_ml_core.execution import Execution
    from deriva_ml_core.training.live_curve import LiveCurve

__all__ = ["TRAINING_SUMMARY_FILE", "TrainingFiles", "TrainingSummary"]

log = logging.getLogger(__name__)


class TrainingFiles:
    """Training files of one execution, in its working folder; they are copied on upload.

    Args:
        execution: The execution.
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        folder = execution.working_dir
        self._metrics = MetricsFile(folder / METRICS_FILE)
        self._summary = TrainingSummary(folder / TRAINING_SUMMARY_FILE)
        self._plot_path = folder / CURVES_FILE
        self._pending_updates: list[tuple[int, Mapping[str, JsonValue]]] = []
        self.live: LiveCurve | None = None
        """The curves in a notebook's cell, which get each line of a fit too."""
        self._lock = ForkSafeRLock()
        self._staged_stats: dict[Path, tuple[int, int]] = {}
        self._has_write_error = False
        """Whether the last line of metrics could not be written; limits the warning to the first failure."""

    def next_fit_number(self) -> int:
        """Return the number of the next fit, from 1."""
        return max(self._metrics.last_fit(), self._summary.last_fit()) + 1

    def best_checkpoints(self) -> list[BestCheckpoint]:
        """Return the best checkpoint of each fit that has ended, in the order of the fits."""
        with self._lock:
            updates = list(self._pending_updates)
        pending = {fit: fields["best_checkpoint"] for fit, fields in updates if "best_checkpoint" in fields}
        bests = self._summary.best_checkpoints() | pending
        return [best for _, fields in sorted(bests.items()) if (best := self._parse_best(fields)) is not None]

    def describe_best(self, best: BestCheckpoint | None) -> dict[str, JsonValue] | None:
        """Return the best checkpoint of a fit for its summary; a path in the working folder is relative to it."""
        if best is None:
            return None
        folder, value = self.execution.working_dir, best.monitored
        path = best.path.relative_to(folder) if best.path.is_relative_to(folder) else best.path
        fields: dict[str, JsonValue] = {"path": str(path)}
        if value is not None:
            fields |= {"metric": value.name, "value": value.value, "larger": value.larger_is_better}
        return fields

    def _parse_best(self, fields: JsonValue) -> BestCheckpoint | None:
        """Read what `describe_best` returned; None for a value of another form."""
        match fields:
            case {"path": str(path), "metric": str(name), "value": (int() | float()) as value, "larger": bool(larger)}:
                return BestCheckpoint(self.execution.working_dir / path, MonitoredValue(name, value, larger))
            case {"path": str(path)}:
                return BestCheckpoint(self.execution.working_dir / path)
        return None

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
        """Append a line of metrics, see `MetricsFile.append`; warn once while the disk is full.

        A line that cannot be written is held in memory and written by a later call.
        """
        if self.live is not None and stage == "fit":
            self.live.add(fit, by, epoch, step, values)
        try:
            try:
                if self._metrics.path not in self._staged_stats:  # staged with its first line: no line, no file
                    self._stage_if_changed(self._metrics.path, "Metrics_File")
            finally:
                self._metrics.append(stage=stage, fit=fit, by=by, epoch=epoch, step=step, values=values, extra=extra)
        except (OSError, DerivaMLException) as error:
            if not self._has_write_error:
                log.warning("Failed to write or stage %s; retrying with the next line: %s", self._metrics.path, error)
            self._has_write_error = True
        else:
            self._has_write_error = False

    def queue_summary(self, fit: int, fields: Mapping[str, object]) -> None:
        """Queue the present values of fields of a fit's summary; `write_summary` writes them in the background."""
        converted = {name: to_json_value(value) for name, value in fields.items()}
        with self._lock:
            self._pending_updates.append((fit, converted))
        if self._summary.path not in self._staged_stats:
            self._stage_if_changed(self._summary.path, "Execution_Config")

    def write_summary(self) -> None:
        """Write the queued fields.

        Raises:
            OSError: The file cannot be written.
        """
        with self._lock:
            updates, self._pending_updates = self._pending_updates, []
        for fit, fields in updates:
            redacted = self._summary.update(fit, fields)
            if isinstance(settings := redacted.get("settings"), dict):
                self.execution._record_parameters(select_fit_parameters(settings))

    def stage_files(self, *, curves: bool) -> None:
        """Stage the files that have changed since they were last staged.

        Args:
            curves: Whether to redraw the plot.
        """
        self._metrics.flush()
        self.close()
        if self._summary.path.exists():
            self._stage_if_changed(self._summary.path, "Execution_Config")
        if not self._metrics.path.exists():
            return
        is_new = self._stage_if_changed(self._metrics.path, "Metrics_File")
        if curves and (is_new or not self._plot_path.exists()):
            self._update_plot()

    def close(self) -> None:
        """Close the metrics file; the next line opens it again."""
        self._metrics.close()  # a process with hundreds of fits must not run out of descriptors

    def _update_plot(self) -> None:
        from deriva_ml_core.training.plot import draw_curves

        with temporary_folder(self._plot_path.parent) as folder:
            drawn = folder / CURVES_FILE
            if not draw_curves(self._metrics.path, drawn, self.execution.description):
                return
            if not self._plot_path.exists() or drawn.read_bytes() != self._plot_path.read_bytes():
                drawn.replace(self._plot_path)
        self._stage_if_changed(self._plot_path, "Training_Curves")

    def _stage_if_changed(self, path: Path, asset_type: str) -> bool:
        """Stage a file if it has changed since it was staged, and return whether it has."""
        if not path.exists():
            path.touch()
        stat = path.stat()
        if self._staged_stats.get(path) == (stat.st_size, stat.st_mtime_ns):
            return False
        table = MLAsset.execution_metadata.value
        try:
            self.execution.asset_file_path(table, path, asset_types=[asset_type])
        except UnknownTerm:  # this catalog has another vocabulary
            self.execution.asset_file_path(table, path)
        self._staged_stats[path] = (stat.st_size, stat.st_mtime_ns)
        return True


TRAINING_SUMMARY_FILE = "training.json"
"""Name of the file: an object with ``fits``, a list of objects, each with the fit's number, its settings (what the
framework provides about model, optimizer and the like), the input datasets, the start and end time, the outcome, and
the best checkpoint with its value."""


class TrainingSummary:
    """File with the summaries of an execution's fits; secrets are redacted.

    Args:
        path: The file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fits: list[dict[str, JsonValue]] = []

    def last_fit(self) -> int:
        """Return the number of the last fit in the file; 0 if there is none."""
        self._reload()
        return max((number for each in self._fits if isinstance(number := each.get("fit"), int)), default=0)

    def best_checkpoints(self) -> dict[int, JsonValue]:
        """Return what the file has of the best checkpoint of each fit, by the fit's number."""
        self._reload()
        return {
            number: each["best_checkpoint"]
            for each in self._fits
            if isinstance(number := each.get("fit"), int) and "best_checkpoint" in each
        }

    def update(self, fit: int, fields: Mapping[str, object]) -> dict[str, JsonValue]:
        """Add fields to a fit's summary and rewrite the file.

        Returns:
            The fields as written, with secrets redacted.

        Raises:
            OSError: The file cannot be written.
        """
        from deriva_ml_core.redaction import redact

        self._reload()
        summary = next((each for each in self._fits if each.get("fit") == fit), None)
        if summary is None:
            summary = {"fit": fit}
            self._fits.append(summary)
        redacted = redact(to_json_value(fields))
        values = redacted if isinstance(redacted, dict) else {}
        summary.update(values)
        text = json.dumps({"fits": self._fits}, indent=1, ensure_ascii=False) + "\n"
        write_atomic(self.path, text)
        return values

    def _reload(self) -> None:
        """Read the file again: an earlier process or another reporter of the execution may have written it."""
        self._fits = _read_fits(self.path) or self._fits


def _read_fits(path: Path) -> list[dict[str, JsonValue]]:
    try:
        text = path.read_text(encoding="utf-8")
        return [dict(fit) for fit in json.loads(text)["fits"]] if text else []
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("Failed to read %s; it is written anew.", path, exc_info=True)
        return []
