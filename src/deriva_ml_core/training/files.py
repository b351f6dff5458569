"""The files that tell of an execution's trainings: metrics, settings, and their curves."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core._concurrency.fork_safe_lock import ForkSafeRLock
from deriva_ml_core._files.atomic import temporary_folder, write_atomic
from deriva_ml_core.definitions import MLAsset
from deriva_ml_core.errors import DerivaMLException, UnknownTerm
from deriva_ml_core.execution.html_repr import CURVES_FILE
from deriva_ml_core.training.metrics_file import METRICS_FILE, MetricsFile

if TYPE_CHECKING:
    from pydantic import JsonValue

    from deriva_ml_core.execution import Execution

__all__ = ["TRAINING_SUMMARY_FILE", "TrainingFiles", "TrainingSummary", "to_json_value"]

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
        from deriva_ml_core.training.plot import draw_curves

        with temporary_folder(self._plot_path.parent) as folder:
            drawn = folder / CURVES_FILE
            if not draw_curves(self._metrics.path, drawn, self.execution.description):
                return
            if not self._plot_path.exists() or drawn.read_bytes() != self._plot_path.read_bytes():
                drawn.replace(self._plot_path)
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


TRAINING_SUMMARY_FILE = "training.json"
"""The file's name: an object with ``fits``, a list of objects, each with the fit's number, its settings (whatever the
framework tells of model, optimizer and the like), the input datasets, when it began and ended, and how."""

MAX_DEPTH = 12
MAX_LENGTH = 1000
"""How deep settings may be nested, and how many of a list or letters of a text's representation are kept."""


def to_json_value(value: object, depth: int = 0) -> JsonValue:
    """Turn settings of any kind into what JSON can hold; what it cannot is told by its representation, cut if long."""
    if value is None:
        return None
    if isinstance(value, (str, bool, int, float)):
        return value if type(value) in (str, bool, int, float) else _builtin_value(value)
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            return {str(name): to_json_value(part, depth + 1) for name, part in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [to_json_value(part, depth + 1) for part in list(value)[:MAX_LENGTH]]
    if isinstance(value, Path):
        return os.fspath(value)
    return _scalar_value(value) if hasattr(value, "item") and not isinstance(value, type) else repr(value)[:MAX_LENGTH]


def _scalar_value(value: object) -> JsonValue:
    """The number that a tensor or an array of one element holds; of several, how it is shown."""
    try:
        return to_json_value(value.item(), MAX_DEPTH)  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - it may be of any class
        return repr(value)[:MAX_LENGTH]


def _builtin_value(value: str | bool | int | float) -> JsonValue:
    """The plain value of a subclass, such as numpy's floats or an enumeration's strings."""
    return next(kind(value) for kind in (bool, int, float, str) if isinstance(value, kind))


class TrainingSummary:
    """The file of one execution; secrets are redacted.

    Args:
        path: The file; its folder must be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fits: list[dict[str, JsonValue]] = []

    def last_fit(self) -> int:
        """The number of the last fit that is told of; 0 where none is."""
        self._reload()
        return max((number for each in self._fits if isinstance(number := each.get("fit"), int)), default=0)

    def update(self, fit: int, fields: Mapping[str, object]) -> None:
        """Add to what is known of a fit, and write the file anew.

        Raises:
            OSError: It cannot be written.
        """
        from deriva_ml_core.redaction import redact

        self._reload()
        known = next((each for each in self._fits if each.get("fit") == fit), None)
        if known is None:
            known = {"fit": fit}
            self._fits.append(known)
        told = redact(to_json_value(fields))
        known.update(told if isinstance(told, dict) else {})
        text = json.dumps({"fits": self._fits}, indent=1, ensure_ascii=False) + "\n"
        write_atomic(self.path, text)

    def _reload(self) -> None:
        """Take up what is there by now: of an earlier process, or of another reporter of the same execution."""
        self._fits = _read_fits(self.path) or self._fits


def _read_fits(path: Path) -> list[dict[str, JsonValue]]:
    try:
        text = path.read_text(encoding="utf-8")
        return [dict(fit) for fit in json.loads(text)["fits"]] if text else []
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s cannot be read, and is begun anew.", path, exc_info=True)
        return []
