"""Checkpoints of the user's own Keras callbacks, which are found on disk, and the metric that decides the best."""

from __future__ import annotations

import glob
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any, SupportsFloat

import keras

from deriva_ml_core.metric_modes import MetricMode, MonitoredValue, metric_mode
from deriva_ml_core.paths import find_current_folder
from deriva_ml_core.training import Checkpoints, TrainingReporter
from deriva_ml_core.training.metrics_file import extract_floats

__all__ = ["UserCheckpoints", "add_framework_knowledge"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _FileVersion:
    """Version of a file: its identity, and the monitored value of the model at that time."""

    inode: int
    size: int
    mtime_ns: int
    """In nanoseconds."""
    best_only: bool
    monitored: MonitoredValue | None = None

    def is_same(self, other: _FileVersion | None) -> bool:
        return other is not None and (self.inode, self.size, self.mtime_ns) == (other.inode, other.size, other.mtime_ns)


class UserCheckpoints:
    """Checkpoints of the ``keras.callbacks.ModelCheckpoint`` callbacks of one fit.

    Keras does not report what it writes or when, so the paths of the callbacks are scanned, whatever the order of the
    callbacks. Files from before the fit are ignored.

    Args:
        callbacks: All callbacks of the fit.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        kind = keras.callbacks.ModelCheckpoint
        self._locations = [
            _CheckpointLocation(each) for each in callbacks if isinstance(each, kind) and "://" not in each.filepath
        ]
        self._initial_files = self._list_files()
        self._recorded_files: dict[Path, _FileVersion] = {}
        self._metrics: Mapping[str, SupportsFloat] = {}
        self._folder_mtimes = self._read_folder_mtimes()

    @property
    def has_callbacks(self) -> bool:
        """Whether the user has such callbacks."""
        return bool(self._locations)

    @property
    def has_step_saves(self) -> bool:
        """Whether a callback saves within epochs."""
        return any(location.has_step_saves for location in self._locations)

    def end_epoch(self, metrics: Mapping[str, SupportsFloat]) -> None:
        """Set the metrics of the epoch whose checkpoints the next scan finds."""
        self._metrics = metrics

    def scan(self, reporter: TrainingReporter) -> None:
        """Stage new checkpoints and unstage deleted ones."""
        if self._locations:
            try:
                self._scan(reporter.checkpoints)
            except Exception:
                log.warning("Failed to record checkpoints; training continues.", exc_info=True)

    def _scan(self, checkpoints: Checkpoints) -> None:
        self._folder_mtimes = self._read_folder_mtimes()
        present = self._list_files(self._metrics)
        for path, version in present.items():
            if not version.is_same(self._recorded_files.get(path, self._initial_files.get(path))):
                self._recorded_files.pop(path, None)  # moved to the end, since the dict is ordered by time of writing
                self._recorded_files[path] = version
                checkpoints.stage_existing(path, is_final=False)
        for path in self._recorded_files.keys() - present.keys():
            del self._recorded_files[path]
            checkpoints.unstage(path)
        best = self._find_best()
        value = None if best is None else self._recorded_files[best].monitored
        checkpoints.set_framework_checkpoints(best, next(reversed(self._recorded_files), None), value)

    def scan_within_epoch(self, reporter: TrainingReporter) -> None:
        """Scan within an epoch if the content of a folder has changed."""
        if self.has_step_saves and self._read_folder_mtimes() != self._folder_mtimes:
            self._metrics = {}
            self.scan(reporter)

    def _find_best(self) -> Path | None:
        best_only = [path for path, version in self._recorded_files.items() if version.best_only]
        if best_only:
            return best_only[-1]
        values = {path: version.monitored for path, version in self._recorded_files.items() if version.monitored}
        monitors = [location.monitor for location in self._locations]
        name = next((each for each in monitors if any(value.name == each for value in values.values())), None)
        best: Path | None = None
        for path, value in values.items():
            if value.name == name and value.is_better_than(None if best is None else values[best]):
                best = path
        return best

    def _list_files(self, metrics: Mapping[str, SupportsFloat] | None = None) -> dict[Path, _FileVersion]:
        return {path: version for location in self._locations for path, version in location.list_files(metrics)}

    def _read_folder_mtimes(self) -> list[int]:
        return [location.read_folder_mtime() for location in self._locations]


class _CheckpointLocation:
    """Path pattern of one ModelCheckpoint.

    Args:
        checkpoint: The ModelCheckpoint; its ``filepath`` may have fields for epoch, batch and metrics.
    """

    def __init__(self, checkpoint: Any) -> None:
        self._checkpoint = checkpoint
        self.monitor = str(checkpoint.monitor)
        self._began_ns = time.time_ns()
        self._roots = [_current_folder()]
        """Working folders so far; Keras resolves a relative path when it writes, and the program may change folders."""
        self.has_step_saves = checkpoint.save_freq != "epoch"

    def list_files(self, metrics: Mapping[str, SupportsFloat] | None = None) -> Iterator[tuple[Path, _FileVersion]]:
        """Yield the matching files by time of writing, oldest first.

        Args:
            metrics: Metrics of the model, from which each version gets its monitored value.
        """
        monitored = self._select_monitored(metrics or {})
        best_only = bool(self._checkpoint.save_best_only)
        versions = []
        for root, path in self._find_files():
            try:
                stat = path.stat()
            except OSError:
                continue
            if root is not self._roots[0] and stat.st_mtime_ns < self._began_ns:
                continue  # from before the fit, in a folder that was not known then
            versions.append((path, _FileVersion(stat.st_ino, stat.st_size, stat.st_mtime_ns, best_only, monitored)))
        yield from sorted(versions, key=lambda pair: pair[1].mtime_ns)

    def read_folder_mtime(self) -> int:
        """Return the time in nanoseconds at which a file was last added or removed; 0 if there is no folder."""
        try:
            return (_current_folder() / str(self._checkpoint.filepath)).parent.stat().st_mtime_ns
        except OSError:
            return 0

    def _find_files(self) -> Iterator[tuple[Path, Path]]:
        """Yield the matching files with the working folder of their path, each once."""
        if (current := _current_folder()) not in self._roots:
            self._roots.append(current)
        found: set[Path] = set()
        for root in self._roots:
            parts = Formatter().parse(str(root / self._checkpoint.filepath))
            pattern = "".join(glob.escape(text) + ("" if field is None else "*") for text, field, _, _ in parts)
            for path in map(Path, glob.glob(pattern)):  # noqa: PTH207 - the pattern is an absolute path
                if path not in found:
                    found.add(path)
                    yield root, path

    def _select_monitored(self, metrics: Mapping[str, SupportsFloat]) -> MonitoredValue | None:
        name, mode = self.monitor, self._checkpoint.mode
        value = extract_floats(metrics)[0].get(name)
        if mode not in ("min", "max"):
            mode = read_metric_modes(getattr(self._checkpoint, "model", None)).get(name) or metric_mode(name)
        return None if value is None or mode is None else MonitoredValue(name, value, mode == "max")


def _current_folder() -> Path:
    """Return the working folder; the root if it was deleted, since nothing can be written to a relative path then."""
    return find_current_folder() or Path("/")


def add_framework_knowledge(reporter: TrainingReporter, model: Any, callbacks: Iterable[Any]) -> None:
    """Add the modes of the model's metrics and the metric that a callback monitors to the reporter's monitor."""
    try:
        reporter.monitor.add_framework_modes(read_metric_modes(model))
        for callback in _monitoring_callbacks(callbacks):
            reporter.monitor.set_framework_monitor(str(callback.monitor))
            if callback.mode in ("min", "max"):
                reporter.monitor.add_framework_modes({str(callback.monitor): callback.mode})
            return
    except Exception:  # attributes of custom callbacks and metrics may have any value
        log.warning("Failed to read which metric the callbacks monitor.", exc_info=True)


def read_metric_modes(model: Any) -> dict[str, MetricMode]:
    """Return the modes of the metrics of a compiled model by logged name, as far as Keras knows them."""
    modes: dict[str, MetricMode] = {}
    for metric in _leaf_metrics(getattr(model, "metrics", ())):
        direction = getattr(metric, "_direction", None)  # Keras' callbacks with mode="auto" read it too
        if direction in ("up", "down"):
            mode: MetricMode = "max" if direction == "up" else "min"
            modes |= {metric.name: mode, f"val_{metric.name}": mode}
    return modes


def _leaf_metrics(metrics: Iterable[Any]) -> Iterator[Any]:
    """Yield the metrics, with those that a compiled model's container of metrics holds."""
    for metric in metrics:
        inner = getattr(metric, "metrics", None)
        if isinstance(inner, (list, tuple)) and inner:
            yield from _leaf_metrics(inner)
        else:
            yield metric


def _monitoring_callbacks(callbacks: Iterable[Any]) -> list[Any]:
    """Return the callbacks with a metric that decides: those that save the best model first, then early stopping.

    Other ModelCheckpoints save every epoch; their ``monitor`` has a default value and does not matter.
    """
    callbacks = list(callbacks)
    kinds = keras.callbacks
    saving = [each for each in callbacks if isinstance(each, kinds.ModelCheckpoint) and each.save_best_only]
    return saving + [each for each in callbacks if isinstance(each, kinds.EarlyStopping)]
