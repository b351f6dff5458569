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

from deriva_ml_core.scores import Score, monitored
from deriva_ml_core.training import Checkpoints, TrainingReporter
from deriva_ml_core.training.metrics import as_floats

__all__ = ["UserCheckpoints"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Writing:
    """One writing of a file: what tells it from the next, and how good the model was."""

    inode: int
    size: int
    time: int
    """In nanoseconds."""
    best_only: bool
    score: Score | None = None

    def is_same(self, other: _Writing | None) -> bool:
        return other is not None and (self.inode, self.size, self.time) == (other.inode, other.size, other.time)


class UserCheckpoints:
    """What ``keras.callbacks.ModelCheckpoint`` keeps in one fit.

    Keras tells nobody what it writes, nor when: so the places that the callbacks were given are looked at, whatever
    order the callbacks stand in. What lies there from before the fit is not of this fit.

    Args:
        callbacks: All callbacks of the fit.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        kind = keras.callbacks.ModelCheckpoint
        self._places = [_Place(each) for each in callbacks if isinstance(each, kind) and "://" not in each.filepath]
        self._before = {path: writing for place in self._places for path, writing in place.files()}
        self._kept: dict[Path, _Writing] = {}
        self._metrics: Mapping[str, SupportsFloat] = {}
        self._folders = self._changed()

    @property
    def are_there(self) -> bool:
        """Whether the user has such callbacks."""
        return bool(self._places)

    @property
    def are_kept_in_steps(self) -> bool:
        """Whether one of them saves within epochs."""
        return any(place.in_steps for place in self._places)

    def end_epoch(self, metrics: Mapping[str, SupportsFloat]) -> None:
        """Note the values of the epoch whose checkpoints are found from now on."""
        self._metrics = metrics

    def look(self, reporter: TrainingReporter) -> None:
        """Stage what was written since, and let go of what is gone."""
        if self._places:
            try:
                self._look(reporter.checkpoints)
            except Exception:
                log.warning("Checkpoints could not be recorded; the training goes on.", exc_info=True)

    def _look(self, checkpoints: Checkpoints) -> None:
        self._folders = self._changed()
        present = {path: writing for place in self._places for path, writing in place.files(self._metrics)}
        for path, writing in present.items():
            if not writing.is_same(self._kept.get(path, self._before.get(path))):
                self._kept.pop(path, None)  # the order is that of writing
                self._kept[path] = writing
                checkpoints.adopt(path, whole=False)
        for path in self._kept.keys() - present.keys():
            del self._kept[path]
            checkpoints.forget(path)
        checkpoints.point_out(self._best(), next(reversed(self._kept), None))

    def look_in_step(self, reporter: TrainingReporter) -> None:
        """The same within an epoch, where new names are in the folders."""
        if self.are_kept_in_steps and self._changed() != self._folders:
            self._metrics = {}
            self.look(reporter)

    def _best(self) -> Path | None:
        chosen = [path for path, writing in self._kept.items() if writing.best_only]
        if chosen:
            return chosen[-1]
        best: Path | None = None
        for path, writing in self._kept.items():
            if writing.score and writing.score.beats(self._kept[best].score if best else None):
                best = path
        return best

    def _changed(self) -> list[int]:
        return [place.changed() for place in self._places]


class _Place:
    """Where one ModelCheckpoint writes.

    Args:
        checkpoint: It; its ``filepath`` may have fields of epoch, batch and metrics.
    """

    def __init__(self, checkpoint: Any) -> None:
        self._checkpoint = checkpoint
        parts = Formatter().parse(str(Path.cwd() / checkpoint.filepath))
        self._pattern = "".join(glob.escape(text) + ("" if field is None else "*") for text, field, _, _ in parts)
        self._folder = Path(checkpoint.filepath).parent
        self.in_steps = checkpoint.save_freq != "epoch"

    def files(self, metrics: Mapping[str, SupportsFloat] | None = None) -> Iterator[tuple[Path, _Writing]]:
        """The files there, the earlier written first, as if written now.

        Args:
            metrics: How good the model is now.
        """
        score = self._score(metrics or {})
        found = []
        for name in glob.glob(self._pattern):  # noqa: PTH207 - of a whole path
            path = Path(name)
            try:
                state = path.stat()
            except OSError:
                continue
            best_only = bool(self._checkpoint.save_best_only)
            found.append((path, _Writing(state.st_ino, state.st_size, state.st_mtime_ns, best_only, score)))
        yield from sorted(found, key=lambda each: each[1].time)

    def changed(self) -> int:
        """When a name last came or went in the folder."""
        try:
            return self._folder.stat().st_mtime_ns
        except OSError:
            return 0

    def _score(self, metrics: Mapping[str, SupportsFloat]) -> Score | None:
        mode = self._checkpoint.mode
        return monitored(as_floats(metrics)[0], self._checkpoint.monitor, mode if mode in ("min", "max") else None)
