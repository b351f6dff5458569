"""Checkpoints that the user's own callbacks of Keras keep: found where they are written, and staged from there."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any, SupportsFloat

import keras

from deriva_ml_core.metric_modes import MonitoredValue, select_monitored
from deriva_ml_core.training import Checkpoints, TrainingReporter
from deriva_ml_core.training.metrics_file import extract_floats

__all__ = ["UserCheckpoints"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _FileVersion:
    """One writing of a file: what tells it from the next, and how good the model was."""

    inode: int
    size: int
    mtime_ns: int
    """In nanoseconds."""
    best_only: bool
    monitored: MonitoredValue | None = None

    def is_same(self, other: _FileVersion | None) -> bool:
        return other is not None and (self.inode, self.size, self.mtime_ns) == (other.inode, other.size, other.mtime_ns)


class UserCheckpoints:
    """What ``keras.callbacks.ModelCheckpoint`` keeps in one fit.

    Keras tells nobody what it writes, nor when: so the places that the callbacks were given are looked at, whatever
    order the callbacks stand in. What lies there from before the fit is not of this fit.

    Args:
        callbacks: All callbacks of the fit.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        kind = keras.callbacks.ModelCheckpoint
        self._locations = [
            _CheckpointLocation(each) for each in callbacks if isinstance(each, kind) and "://" not in each.filepath
        ]
        self._initial_files = {path: writing for place in self._locations for path, writing in place.list_files()}
        self._recorded_files: dict[Path, _FileVersion] = {}
        self._metrics: Mapping[str, SupportsFloat] = {}
        self._folder_mtimes = self._read_folder_mtimes()

    @property
    def has_callbacks(self) -> bool:
        """Whether the user has such callbacks."""
        return bool(self._locations)

    @property
    def has_step_saves(self) -> bool:
        """Whether one of them saves within epochs."""
        return any(place.has_step_saves for place in self._locations)

    def end_epoch(self, metrics: Mapping[str, SupportsFloat]) -> None:
        """Note the values of the epoch whose checkpoints are found from now on."""
        self._metrics = metrics

    def scan(self, reporter: TrainingReporter) -> None:
        """Stage what was written since, and let go of what is gone."""
        if self._locations:
            try:
                self._scan(reporter.checkpoints)
            except Exception:
                log.warning("Checkpoints could not be recorded; the training goes on.", exc_info=True)

    def _scan(self, checkpoints: Checkpoints) -> None:
        self._folder_mtimes = self._read_folder_mtimes()
        present = {path: writing for place in self._locations for path, writing in place.list_files(self._metrics)}
        for path, writing in present.items():
            if not writing.is_same(self._recorded_files.get(path, self._initial_files.get(path))):
                self._recorded_files.pop(path, None)  # the order is that of writing
                self._recorded_files[path] = writing
                checkpoints.stage_existing(path, is_final=False)
        for path in self._recorded_files.keys() - present.keys():
            del self._recorded_files[path]
            checkpoints.unstage(path)
        checkpoints.set_framework_checkpoints(self._find_best(), next(reversed(self._recorded_files), None))

    def scan_within_epoch(self, reporter: TrainingReporter) -> None:
        """The same within an epoch, where new names are in the folders."""
        if self.has_step_saves and self._read_folder_mtimes() != self._folder_mtimes:
            self._metrics = {}
            self.scan(reporter)

    def _find_best(self) -> Path | None:
        chosen = [path for path, writing in self._recorded_files.items() if writing.best_only]
        if chosen:
            return chosen[-1]
        best: Path | None = None
        for path, writing in self._recorded_files.items():
            if writing.monitored and writing.monitored.is_better_than(
                self._recorded_files[best].monitored if best else None
            ):
                best = path
        return best

    def _read_folder_mtimes(self) -> list[int]:
        return [place.read_folder_mtime() for place in self._locations]


class _CheckpointLocation:
    """Where one ModelCheckpoint writes.

    Args:
        checkpoint: It; its ``filepath`` may have fields of epoch, batch and metrics.
    """

    def __init__(self, checkpoint: Any) -> None:
        self._checkpoint = checkpoint
        parts = Formatter().parse(str(Path.cwd() / checkpoint.filepath))
        self._pattern = "".join(glob.escape(text) + ("" if field is None else "*") for text, field, _, _ in parts)
        self._folder = Path(checkpoint.filepath).parent
        self.has_step_saves = checkpoint.save_freq != "epoch"

    def list_files(self, metrics: Mapping[str, SupportsFloat] | None = None) -> Iterator[tuple[Path, _FileVersion]]:
        """The files there, the earlier written first, as if written now.

        Args:
            metrics: How good the model is now.
        """
        score = self._select_monitored(metrics or {})
        found = []
        for name in glob.glob(self._pattern):  # noqa: PTH207 - of a whole path
            path = Path(name)
            try:
                state = path.stat()
            except OSError:
                continue
            best_only = bool(self._checkpoint.save_best_only)
            found.append((path, _FileVersion(state.st_ino, state.st_size, state.st_mtime_ns, best_only, score)))
        yield from sorted(found, key=lambda each: each[1].mtime_ns)

    def read_folder_mtime(self) -> int:
        """When a name last came or went in the folder."""
        try:
            return self._folder.stat().st_mtime_ns
        except OSError:
            return 0

    def _select_monitored(self, metrics: Mapping[str, SupportsFloat]) -> MonitoredValue | None:
        mode = self._checkpoint.mode
        return select_monitored(
            extract_floats(metrics)[0], self._checkpoint.monitor, mode if mode in ("min", "max") else None
        )
