"""Which checkpoints a training keeps: a new file each, in its place when it is whole, gone when it is superseded."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core._files.atomic import atomic_path, rename_for_deletion
from deriva_ml_core.errors import ConfigurationError, FileConflict, InvalidFileName, UnknownTerm
from deriva_ml_core.metric_modes import MonitoredValue, select_monitored
from deriva_ml_core.training.options import TrainingOptions

if TYPE_CHECKING:
    from pydantic import JsonValue

    from deriva_ml_core.execution import Execution

__all__ = ["Checkpoints", "CheckpointInfo"]

BEST_CHECKPOINT, LAST_CHECKPOINT = "Best_Checkpoint", "Last_Checkpoint"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointInfo:
    """When in a training a checkpoint is taken.

    Args:
        fit: The number of the fit in its execution, from 1.
        epoch: The epoch's number, from 1.
        step: Optimizer steps so far; None where nobody counts.
        metrics: The values known then.
        in_step: Whether the epoch goes on.
    """

    fit: int
    epoch: int
    step: int | None
    metrics: Mapping[str, float]
    in_step: bool = False


@dataclass(frozen=True)
class _KeptCheckpoint:
    path: Path
    epoch: int
    monitored: MonitoredValue | None = None


class Checkpoints:
    """The checkpoints of one fit.

    Args:
        execution: What keeps them.
        options: Which are kept, and how they are called.
        managed: Whether the framework's own callbacks keep checkpoints, so that we do only where we are told to.
        best: The best score of the earlier part of this training, where it is resumed.
        submit: Has something done beside the training: the deletion of a file of many gigabytes takes its time.
    """

    def __init__(
        self,
        execution: Execution,
        options: TrainingOptions,
        *,
        managed: bool = False,
        best: MonitoredValue | None = None,
        submit: Callable[[Callable[[], object]], object],
    ) -> None:
        which = options.checkpoints or ("none" if managed else "best+last")
        self._execution = execution
        self._options = options
        self._submit = submit
        self._should_keep_all = which == "all"
        self._should_keep_best = "best" in which
        self._should_keep_last = "last" in which or which == "all"
        self._best_value = best
        self._best: _KeptCheckpoint | None = None
        self._last: _KeptCheckpoint | None = None
        self._framework_best_last: tuple[Path | None, Path | None] = (None, None)
        self._assigned_types: set[tuple[str, Path]] = set()
        self._missing_terms: set[str] = set()
        self._in_progress: dict[Path, tuple[_KeptCheckpoint, bool, MonitoredValue | None]] = {}
        self._written_paths: set[Path] = set()

    @property
    def folder(self) -> Path:
        """Where files of the checkpoints' table are staged: what a framework writes here is not copied."""
        return self._execution.working_dir / "outputs" / self._options.checkpoint_table

    @property
    def best(self) -> tuple[int, MonitoredValue] | None:
        """The epoch of the best checkpoint of this fit and its score; None before there is one."""
        return (self._best.epoch, self._best.monitored) if self._best and self._best.monitored else None

    @property
    def should_keep_all(self) -> bool:
        """Whether nothing supersedes a checkpoint."""
        return self._should_keep_all

    def state(self) -> dict[str, JsonValue]:
        """The best score so far, as JSON, for a checkpoint of the framework to carry."""
        score = self._best_value
        return {} if score is None else {"name": score.name, "value": score.value, "larger": score.larger_is_better}

    def restore_best(self, best: MonitoredValue | None) -> None:
        """Take up the best score of the earlier part of this training."""
        self._best_value = best or self._best_value

    def is_due(self, epoch: int) -> bool:
        """Whether an epoch, from 1, may leave a checkpoint: by the number alone, so alike in every process."""
        return (self._should_keep_best or self._should_keep_last) and epoch % self._options.save_every_n_epochs == 0

    def is_due_at_step(self, step: int) -> bool:
        """Whether a step, from 1, leaves a checkpoint; alike in every process."""
        every = self._options.save_every_n_steps
        return self._should_keep_last and every is not None and step % every == 0

    def register(self, info: CheckpointInfo, suffix: str) -> Path | None:
        """Register a checkpoint that is to be written.

        Args:
            info: When it is taken.
            suffix: How its name ends.

        Returns:
            Where to write it; None where this epoch is neither the best nor any other that is kept.
        """
        score = None if info.in_step else select_monitored(info.metrics, self._options.monitor, self._options.mode)
        is_best = self._is_best(score) and not info.in_step
        if not (self._should_keep_last or is_best):
            return None
        path = self._stage(self._unique_file_name(info, suffix, is_best=is_best))
        self._in_progress[path] = (_KeptCheckpoint(path, info.epoch, score), is_best, self._best_value)
        if is_best and score is not None:
            self._best_value = score  # before it is written, since the checkpoint carries it
        return path

    def write(self, path: Path, write: Callable[[Path], object]) -> None:
        """Let a framework write beside a checkpoint's place, and put it there when it is whole."""
        # not durable: an fsync of gigabytes would hold up the training; the store syncs what is uploaded
        with atomic_path(path, keep_suffix=True) as partial:
            write(partial)

    def commit(self, path: Path) -> None:
        """Take up a checkpoint that is whole, and let go of those that it supersedes."""
        if path.is_dir():  # sharded: what was registered as a file is a folder of them
            self._execution.forget(path)
        self.stage_existing(path, is_final=True)
        kept, is_best, _ = self._in_progress.pop(path)
        self._written_paths.add(path)
        before = [each for each in (self._best, self._last) if each is not None]
        if is_best:
            self._best = kept
        if self._should_keep_last:
            self._last = kept
        if not self._should_keep_all:
            staying = {each.path for each in (self._best, self._last) if each is not None}
            for superseded in {each.path for each in before} - staying:
                self.remove(superseded)
            self._update_best_last_types()

    def discard(self, path: Path) -> None:
        """Forget a checkpoint that could not be written; one that was taken up stays."""
        if path not in self._in_progress:
            return
        _, is_best, score = self._in_progress.pop(path)
        if is_best:
            self._best_value = score
        self.remove(path)

    def stage_existing(self, path: Path, *, is_final: bool) -> None:
        """Stage a checkpoint that is there, a file or a folder, whoever wrote it; one that is staged already stays so.

        Args:
            path: In `folder`, where it stays what it is; anywhere else, where it is copied when it is sent.
            is_final: Whether it was written under another name and renamed, as by our own writers, so that nobody
                writes to the file itself again.
        """
        own = path.is_relative_to(self.folder)
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        staged_here = self._execution.staged_assets()
        known = {place: asset.path for asset in staged_here for place in (asset.path, asset.original)}
        for file in files:
            staged = known.get(file) or self._stage_file(path, file, own=own)
            if own and is_final:
                self._execution.mark_immutable(staged)

    def remove(self, path: Path) -> None:
        """Let go of a checkpoint that is superseded: it is deleted, and neither sent nor missed."""
        self.unstage(path)
        if (aside := rename_for_deletion(path)) is not None:
            self._submit(partial(_delete, aside))

    def unstage(self, path: Path) -> None:
        """Drop a checkpoint that is deleted, with all its files, from what is to be sent."""
        for asset in self._execution.staged_assets():
            places = [place for place in (asset.path, asset.original) if place is not None]
            if path in places or any(path in place.parents for place in places):
                with suppress(InvalidFileName):  # sent meanwhile
                    self._execution.forget(asset.path)

    def set_framework_checkpoints(self, best: Path | None, last: Path | None) -> None:
        """Say which of those that a framework keeps are the best and the last so far."""
        self._framework_best_last = (best, last)
        self._update_best_last_types()

    @property
    def newest(self) -> Path | None:
        """The checkpoint that was kept last, by us or by a framework that pointed it out; None before there is one."""
        return (
            self._last.path if self._last else self._framework_best_last[1] or (self._best.path if self._best else None)
        )

    def finish(self) -> None:
        """Tell the best and the last apart from the others by their types."""
        self._update_best_last_types()

    def _update_best_last_types(self) -> None:
        """Give the best and the last so far their types, also while the training goes on: it may be killed."""
        ours = (self._best.path if self._best else None, self._last.path if self._last else None)
        pairs = [
            (term, path)
            for both in (ours, self._framework_best_last)
            for term, path in zip((BEST_CHECKPOINT, LAST_CHECKPOINT), both, strict=True)
        ]
        present = {(term, path) for term, path in pairs if path is not None}
        try:
            for term, path in self._assigned_types - present:
                with suppress(InvalidFileName):  # let go of, or sent meanwhile
                    self._execution.drop_asset_types(path, term)
            for term, path in present - self._assigned_types:
                self.add_best_last_types(
                    path if term == BEST_CHECKPOINT else None, path if term == LAST_CHECKPOINT else None
                )
            self._assigned_types = present
        except Exception:  # and the checkpoints themselves are as good as before
            log.warning("The best and the last checkpoint could not be told apart yet.", exc_info=True)

    def add_best_last_types(self, best: Path | None, last: Path | None) -> None:
        """Give the best and the last checkpoint their types, where the catalog has these."""
        for path, term in ((best, BEST_CHECKPOINT), (last, LAST_CHECKPOINT)):
            for file in [] if term in self._missing_terms else self._checkpoint_files(path):
                try:
                    self._execution.add_asset_types(file, [term])
                except UnknownTerm:  # a catalog with a vocabulary of its own
                    self._missing_terms.add(term)

    def _checkpoint_files(self, path: Path | None) -> Iterable[Path]:
        if path is None:
            return []
        return [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]

    def _stage_file(self, path: Path, file: Path, *, own: bool) -> Path:
        """Stage a file of a checkpoint that somebody else wrote, by its name there."""
        if own:
            return self._stage(str(file))
        name = Path(path.name) / file.relative_to(path)
        try:
            return self._stage(str(file), name.as_posix())
        except FileConflict:  # of the same name, in another folder
            return self._stage(str(file), (path.parent.name / name).as_posix())

    def _is_best(self, score: MonitoredValue | None) -> bool:
        """Whether an epoch is the best so far; where none has the metric, each is, so that one is kept."""
        if not self._should_keep_best and not self._should_keep_all:
            return False
        return self._best_value is None if score is None else score.is_better_than(self._best_value)

    def _stage(self, name: str, rename: str | None = None) -> Path:
        options = self._options
        return self._execution.asset_file_path(
            options.checkpoint_table, name, asset_types=list(options.checkpoint_types), rename_file=rename
        )

    def _unique_file_name(self, info: CheckpointInfo, suffix: str, *, is_best: bool) -> str:
        """The name of a checkpoint's file: another one than of those that it does not supersede."""
        name = self._format_name(info)
        path = self.folder / f"{name}{suffix}"
        if self._should_keep_all and path in self._written_paths:
            return f"{name}-{_epoch_or_step_label(info)}{suffix}"
        if self._best and not is_best and self._best.path == path:
            return f"{name}-last{suffix}"
        return f"{name}{suffix}"

    def _format_name(self, info: CheckpointInfo) -> str:
        template = self._options.filename
        if template is None:
            return _add_fit_prefix(info, _epoch_or_step_label(info))
        known = {**info.metrics, "epoch": info.epoch, "step": info.step or 0, "fit": info.fit}
        try:
            name = template.format_map(known)
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise ConfigurationError(
                f"filename={template!r} cannot be filled in ({error}); it may name {', '.join(sorted(known))}."
            ) from error
        return name if "{fit" in template else _add_fit_prefix(info, name)


def _epoch_or_step_label(info: CheckpointInfo) -> str:
    return f"step-{info.step or 0:08d}" if info.in_step else f"epoch-{info.epoch:04d}"


def _add_fit_prefix(info: CheckpointInfo, name: str) -> str:
    """A name that no earlier fit of the execution has."""
    folder, slash, last = name.rpartition("/")
    return name if info.fit == 1 else f"{folder}{slash}fit-{info.fit}-{last}"


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)  # an upload takes it away, too
    else:
        path.unlink(missing_ok=True)
