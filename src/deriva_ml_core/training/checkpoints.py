"""Checkpoints of a fit: which are kept, where they are written, and when a superseded one is deleted."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core._deprecation import deprecated_attributes, deprecated_keywords
from deriva_ml_core._files.atomic import atomic_path, rename_for_deletion
from deriva_ml_core.errors import ConfigurationError, FileConflict, InvalidFileName, UnknownTerm
from deriva_ml_core.metric_modes import MetricMode, Monitor, MonitoredValue
from deriva_ml_core.training.options import TrainingOptions

if TYPE_CHECKING:
    from pydantic import JsonValue

    from deriva_ml_core.execution import Execution

__all__ = ["BestCheckpoint", "Checkpoints", "CheckpointInfo"]

BEST_CHECKPOINT, LAST_CHECKPOINT = "Best_Checkpoint", "Last_Checkpoint"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointInfo:
    """Position of a checkpoint in a training.

    Args:
        fit: Number of the fit in its execution, from 1.
        epoch: Number of the epoch, from 1.
        step: Optimizer steps so far; None if unknown.
        metrics: Metric values at this position.
        in_step: Whether the checkpoint is taken within the epoch, and not at its end.
    """

    fit: int
    epoch: int
    step: int | None
    metrics: Mapping[str, float]
    in_step: bool = False


@dataclass(frozen=True)
class _SavedCheckpoint:
    """A checkpoint with its monitored values, one for each mode that it is compared by.

    ``in_step`` checkpoints are never the best.
    """

    path: Path
    epoch: int
    monitored: tuple[MonitoredValue, ...] = ()
    in_step: bool = False


@dataclass(frozen=True)
class BestCheckpoint:
    """The best checkpoint of a fit.

    Args:
        path: The file or folder.
        monitored: Its monitored value; None if it has none.
    """

    path: Path
    monitored: MonitoredValue | None = None


class Checkpoints:
    """Checkpoints of one fit.

    Each checkpoint is a new file. It is renamed to its path when it is complete, and deleted when it is superseded.

    Args:
        execution: Execution that stages the files.
        options: Which checkpoints to keep, and their names.
        managed: Whether the framework's own callbacks keep checkpoints; then this class keeps others only if
            ``options.checkpoints`` asks for them.
        monitor: The metric that decides which checkpoint is the best; the fits of a training share it.
        best: Best monitored values of the earlier part of a resumed training.
        earlier_bests: Best checkpoints of the earlier fits of the execution, in their order.
        submit: Runs a function in the background: deleting a file of many gigabytes, and writing to the catalog.
    """

    def __init__(
        self,
        execution: Execution,
        options: TrainingOptions,
        *,
        managed: bool = False,
        monitor: Monitor | None = None,
        best: Iterable[MonitoredValue] = (),
        earlier_bests: Iterable[BestCheckpoint] = (),
        submit: Callable[[Callable[[], object]], object],
    ) -> None:
        which = options.checkpoints or ("none" if managed else "best+last")
        self._execution = execution
        self._options = options
        self._submit = submit
        self._should_keep_all = which == "all"
        self._should_keep_best = "best" in which
        self._should_keep_last = "last" in which or which == "all"
        self._monitor = monitor or Monitor(options.monitor, options.mode)
        self._restored_values = tuple(best)
        self._bests: dict[MetricMode | None, _SavedCheckpoint] = {}
        """Best checkpoint by mode: both modes while the mode is unknown, None for checkpoints without a value."""
        self._last: _SavedCheckpoint | None = None
        self._framework_best: BestCheckpoint | None = None
        self._framework_last: Path | None = None
        self._earlier_bests = tuple(earlier_bests)
        self._assigned_types: dict[str, Path | None] = {}
        self._missing_terms: set[str] = set()
        self._in_progress: dict[Path, _SavedCheckpoint] = {}
        self._written_paths: set[Path] = set()

    if not TYPE_CHECKING:
        __getattr__ = deprecated_attributes(
            {
                "keeps_all": "should_keep_all",
                "go_on_from": "restore_best",
                "due": "is_due",
                "due_in_step": "is_due_at_step",
                "written": "commit",
                "drop": "discard",
                "adopt": "stage_existing",
                "forget": "unstage",
                "point_out": "set_framework_checkpoints",
                "mark": "add_best_last_types",
            }
        )

    @property
    def folder(self) -> Path:
        """Staging folder of the checkpoint table; a file that a framework writes here is not copied."""
        return self._execution.working_dir / "outputs" / self._options.checkpoint_table

    @property
    def best(self) -> tuple[int, MonitoredValue] | None:
        """Epoch and monitored value of the best checkpoint of this fit; None before there is one."""
        for mode, checkpoint in self._bests.items():
            if checkpoint is self._best:
                for value in checkpoint.monitored:
                    if value.mode == mode:
                        return checkpoint.epoch, value
        return None

    @property
    def _best(self) -> _SavedCheckpoint | None:
        """The best checkpoint; None if there is none, or while the mode of the metric is unknown."""
        if len(self._bests) > 1:
            return self._bests.get(self._monitor.mode)
        best = next(iter(self._bests.values()), None)  # also a provisional one
        is_one_of_two = best is not None and len(best.monitored) > 1 and len(self._monitor.modes) > 1
        return None if is_one_of_two else best

    @property
    def should_keep_all(self) -> bool:
        """Whether every checkpoint is kept."""
        return self._should_keep_all

    def state(self) -> dict[str, JsonValue]:
        """Return the best monitored value so far as JSON, to be stored in a checkpoint of the framework."""
        values = self.best_values()
        if len(values) != 1:
            return {}
        return {"name": values[0].name, "value": values[0].value, "larger": values[0].larger_is_better}

    def best_values(self) -> list[MonitoredValue]:
        """Return the best monitored value so far, also of a checkpoint that is being written.

        While the mode is unknown, these are the smallest and the largest value.
        """
        values = (self._best_value(mode, self._all_values()) for mode in self._monitor.modes)
        return [value for value in values if value is not None]

    def restore_best(self, best: MonitoredValue | Iterable[MonitoredValue] | None) -> None:
        """Set the best monitored values of the earlier part of a resumed training."""
        if best is not None:
            restored = (best,) if isinstance(best, MonitoredValue) else tuple(best)
            self._restored_values = restored or self._restored_values

    def is_due(self, epoch: int) -> bool:
        """Whether a checkpoint may be saved at the end of an epoch, from 1; the same in every process."""
        return (self._should_keep_best or self._should_keep_last) and epoch % self._options.save_every_n_epochs == 0

    def is_due_at_step(self, step: int) -> bool:
        """Whether a checkpoint is saved after a step, from 1; the same in every process."""
        every = self._options.save_every_n_steps
        return self._should_keep_last and every is not None and step % every == 0

    def register(self, info: CheckpointInfo, suffix: str) -> Path | None:
        """Register a checkpoint before it is written.

        Args:
            info: Position of the checkpoint.
            suffix: Suffix of the file name, such as ``.pt``.

        Returns:
            Path to write it to; None if the options keep no checkpoint at this position.
        """
        monitored = () if info.in_step else self._monitor.scores(info.metrics)
        checkpoint = _SavedCheckpoint(Path(), info.epoch, monitored, info.in_step)
        is_best = bool(self._modes_won(checkpoint, self._all_values()))
        if not (self._should_keep_last or is_best):
            return None
        path = self._stage(self._unique_file_name(info, suffix, is_best=is_best))
        self._in_progress[path] = replace(checkpoint, path=path)
        return path

    def write(self, path: Path, write: Callable[[Path], object]) -> None:
        """Write a checkpoint to a temporary file next to its path, then rename it."""
        # not durable: an fsync of gigabytes would delay the training; the store syncs what is uploaded
        with atomic_path(path, keep_suffix=True) as partial:
            write(partial)

    def commit(self, path: Path) -> None:
        """Stage a checkpoint that is complete, and delete those that it supersedes."""
        if path.is_dir():  # sharded: the path was registered as a file and is a folder
            self._execution.forget(path)
        self._stage_checkpoint(path, is_final=True)
        checkpoint = self._in_progress.pop(path)
        self._written_paths.add(path)
        previous = {path} | self._current_paths()
        for mode in self._modes_won(checkpoint, self._committed_values()):
            self._bests[mode] = checkpoint
        self._drop_outdated_bests()
        if self._should_keep_last:
            self._last = checkpoint
        if not self._should_keep_all:
            for superseded in previous - self._current_paths():
                self.remove(superseded)
            self._update_best_last_types()

    def discard(self, path: Path) -> None:
        """Remove a checkpoint whose write failed; a committed one stays."""
        if path not in self._in_progress:
            return
        del self._in_progress[path]
        is_kept = path in (self._written_paths if self._should_keep_all else self._current_paths())
        if not is_kept:  # the path of a committed checkpoint has its file
            self.remove(path)

    @deprecated_keywords({"whole": "is_final"})
    def stage_existing(self, path: Path, *, is_final: bool) -> None:
        """Stage an existing checkpoint, a file or a folder; files that are already staged stay so.

        It stays where it is, also after its upload, since the framework still names it.

        Args:
            path: The checkpoint. In `folder` it is used as it is; elsewhere it is copied on upload.
            is_final: Whether it was written under another name and renamed, so that the file never changes again.
        """
        for staged in self._stage_checkpoint(path, is_final=is_final):
            if path.is_relative_to(self.folder):
                self._execution.keep_in_place(staged)

    def _stage_checkpoint(self, path: Path, *, is_final: bool) -> list[Path]:
        """Stage the files of a checkpoint; returns their staged paths."""
        own = path.is_relative_to(self.folder)
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        staged_paths = []
        for file in files:
            staged = next((asset.path for asset in self._execution._find_staged(file)), None)
            staged_paths.append(staged or self._stage_file(path, file, own=own))
            if own and is_final:
                self._execution.mark_immutable(staged_paths[-1])
        return staged_paths

    def remove(self, path: Path) -> None:
        """Unstage and delete a superseded checkpoint."""
        self.unstage(path)
        if (aside := rename_for_deletion(path)) is not None:
            self._submit(partial(_delete, aside))

    def unstage(self, path: Path) -> None:
        """Unstage all files of a deleted checkpoint, so that they are not uploaded."""
        for asset in self._execution._find_staged(path):
            with suppress(InvalidFileName):  # uploaded in the meantime
                self._execution.forget(asset.path)

    def set_framework_checkpoints(
        self, best: Path | None, last: Path | None, value: MonitoredValue | None = None
    ) -> None:
        """Set the best and the last of the checkpoints that a framework keeps.

        Args:
            best: The best; None if there is none.
            last: The last; None if there is none.
            value: Monitored value of the best; None if unknown.
        """
        self._framework_best = None if best is None else BestCheckpoint(best, value)
        self._framework_last = last
        self._update_best_last_types()

    @property
    def newest(self) -> Path | None:
        """Newest checkpoint, written by this class or set by a framework; None before there is one."""
        if self._last is not None:
            return self._last.path
        bests = sorted(self._bests.values(), key=lambda each: each.epoch)
        return self._framework_last or (bests[-1].path if bests else None)

    def finish(self) -> None:
        """Give the best and the last checkpoint their asset types."""
        self._update_best_last_types()

    def _update_best_last_types(self) -> None:
        """Give the best and the last checkpoint their types after every change, since the training may be killed.

        Of all fits of the execution, one checkpoint is the best and one is the last.
        """
        own_last = None if self._last is None else self._last.path
        try:
            best = self._find_best_of_all_fits()
            present = {BEST_CHECKPOINT: best, LAST_CHECKPOINT: own_last or self._framework_last}
            for term, path in present.items():
                if path != self._assigned_types.get(term) and term not in self._missing_terms:
                    self._move_type(term, path)
        except Exception:  # only the types are missing; the next change tries again
            log.warning("Failed to mark the best and the last checkpoint.", exc_info=True)

    def _move_type(self, term: str, path: Path | None) -> None:
        try:
            is_unlinked = self._execution._move_asset_type(term, [] if path is None else [path])
        except UnknownTerm:  # this catalog has another vocabulary
            self._missing_terms.add(term)
            return
        self._assigned_types[term] = path
        if is_unlinked:
            self._submit(self._execution._link_asset_types)

    def _find_best_of_all_fits(self) -> Path | None:
        """Return the best checkpoint of this and the earlier fits; None if this fit has none and has marked none."""
        own = self.best_checkpoint
        if own is None and self._assigned_types.get(BEST_CHECKPOINT) is None:
            return None
        value = None if own is None else own.monitored
        if value is not None:
            earlier = self._find_best_earlier(value)
            is_provisional = own is not self._framework_best and not self._monitor.is_final
            if earlier is None and is_provisional:
                earlier = self._find_last_earlier()
            elif earlier is not None and value.is_better_than(earlier.monitored):
                earlier = None
        else:
            earlier = self._find_last_earlier()
        best = earlier or own
        return None if best is None else best.path

    def _find_best_earlier(self, value: MonitoredValue) -> BestCheckpoint | None:
        """Return the best of the earlier fits' checkpoints by the metric of a value."""
        best: BestCheckpoint | None = None
        for each in self._earlier_bests:
            is_comparable = each.monitored is not None and each.monitored.name == value.name
            if is_comparable and each.monitored and (best is None or each.monitored.is_better_than(best.monitored)):
                best = each if self._execution._is_registered(each.path) else best
        return best

    def _find_last_earlier(self) -> BestCheckpoint | None:
        """Return the newest of the earlier fits' checkpoints that has a value."""
        valued = (each for each in reversed(self._earlier_bests) if each.monitored is not None)
        return next((each for each in valued if self._execution._is_registered(each.path)), None)

    @property
    def best_checkpoint(self) -> BestCheckpoint | None:
        """The best checkpoint of this fit, of this class or of the framework; None before there is one."""
        if (own := self._best) is not None:
            return BestCheckpoint(own.path, None if self.best is None else self.best[1])
        return self._framework_best

    def add_best_last_types(self, best: Path | None, last: Path | None) -> None:
        """Give checkpoints their types, if the catalog's vocabulary has them."""
        for path, term in ((best, BEST_CHECKPOINT), (last, LAST_CHECKPOINT)):
            for file in [] if term in self._missing_terms else self._checkpoint_files(path):
                try:
                    self._execution.add_asset_types(file, [term])
                except UnknownTerm:  # this catalog has another vocabulary
                    self._missing_terms.add(term)

    def _checkpoint_files(self, path: Path | None) -> Iterable[Path]:
        if path is None:
            return []
        return [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]

    def _stage_file(self, path: Path, file: Path, *, own: bool) -> Path:
        """Stage a file of a checkpoint that a framework wrote, under its own name."""
        if own:
            return self._stage(str(file))
        name = Path(path.name) / file.relative_to(path)
        folders = list(path.parent.parts[1:])
        while True:
            try:
                return self._stage(str(file), name.as_posix())
            except FileConflict:  # a file of the same name in another folder is staged
                if not folders:
                    raise
                name = folders.pop() / name

    def _modes_won(self, checkpoint: _SavedCheckpoint, values: Iterable[MonitoredValue]) -> list[MetricMode | None]:
        """Return the modes by which a checkpoint is better than the values of all others.

        Without a value, the newest checkpoint is the best as long as no other has a value.
        """
        if checkpoint.in_step or not (self._should_keep_best or self._should_keep_all):
            return []
        others = list(values)
        if not checkpoint.monitored:
            has_values = others or any(each.monitored for each in self._bests.values())
            return [] if has_values else [None]
        return [
            value.mode for value in checkpoint.monitored if value.is_better_than(self._best_value(value.mode, others))
        ]

    def _drop_outdated_bests(self) -> None:
        """Drop the best checkpoints of an earlier metric or mode once there is one of the present metric."""
        name, modes = self._monitor.name, self._monitor.modes
        valid: dict[MetricMode | None, _SavedCheckpoint] = {
            mode: each
            for mode, each in self._bests.items()
            if mode in modes and any(value.name == name for value in each.monitored)
        }
        if valid:
            self._bests = valid

    def _best_value(self, mode: MetricMode, values: Iterable[MonitoredValue]) -> MonitoredValue | None:
        """Return the best of the values of the present metric by a mode; values of another metric do not count."""
        best: MonitoredValue | None = None
        for value in values:
            if value.name == self._monitor.name and value.mode == mode and value.is_better_than(best):
                best = value
        return best

    def _committed_values(self) -> Iterator[MonitoredValue]:
        yield from self._restored_values
        for each in self._bests.values():
            yield from each.monitored

    def _all_values(self) -> Iterator[MonitoredValue]:
        yield from self._committed_values()
        for each in self._in_progress.values():
            yield from each.monitored

    def _current_paths(self) -> set[Path]:
        """Return the paths of the best and the last checkpoint."""
        return {each.path for each in (*self._bests.values(), self._last) if each is not None}

    def _stage(self, name: str, rename: str | None = None) -> Path:
        options = self._options
        return self._execution.asset_file_path(
            options.checkpoint_table, name, asset_types=list(options.checkpoint_types), rename_file=rename
        )

    def _unique_file_name(self, info: CheckpointInfo, suffix: str, *, is_best: bool) -> str:
        """Return a file name that differs from every checkpoint that is not superseded."""
        name = self._format_name(info)
        path = self.folder / f"{name}{suffix}"
        if self._should_keep_all and path in self._written_paths:
            return f"{name}-{_epoch_or_step_label(info)}{suffix}"
        names = [name] if len(self._monitor.modes) == 1 and is_best else [name, f"{name}-last", f"{name}-other"]
        best_paths = {each.path for each in self._bests.values()}
        if len(names) == 1:  # it replaces the best
            return f"{name}{suffix}"
        return next(f"{each}{suffix}" for each in names if self.folder / f"{each}{suffix}" not in best_paths)

    def _format_name(self, info: CheckpointInfo) -> str:
        template = self._options.filename
        if template is None:
            return _add_fit_prefix(info, _epoch_or_step_label(info))
        fields = {**info.metrics, "epoch": info.epoch, "step": info.step or 0, "fit": info.fit}
        try:
            name = template.format_map(fields)
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise ConfigurationError(
                f"filename={template!r} cannot be formatted ({error}). Available fields: {', '.join(sorted(fields))}."
            ) from error
        return name if "{fit" in template else _add_fit_prefix(info, name)


def _epoch_or_step_label(info: CheckpointInfo) -> str:
    return f"step-{info.step or 0:08d}" if info.in_step else f"epoch-{info.epoch:04d}"


def _add_fit_prefix(info: CheckpointInfo, name: str) -> str:
    """Prefix a name with its fit, so that it differs from the names of earlier fits."""
    folder, slash, last = name.rpartition("/")
    return name if info.fit == 1 else f"{folder}{slash}fit-{info.fit}-{last}"


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)  # an upload may delete it at the same time
    else:
        path.unlink(missing_ok=True)
