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

from deriva_ml_core.assets.copying import beginning_of, put_aside
from deriva_ml_core.errors import ConfigurationError, FileConflict, InvalidFileName, UnknownTerm
from deriva_ml_core.scores import Score, monitored
from deriva_ml_core.training.options import TrainingOptions

if TYPE_CHECKING:
    from pydantic import JsonValue

    from deriva_ml_core.execution import Execution

__all__ = ["Checkpoints", "Moment"]

BEST, LAST = "Best_Checkpoint", "Last_Checkpoint"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Moment:
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
class _Kept:
    path: Path
    epoch: int
    score: Score | None = None


class Checkpoints:
    """The checkpoints of one fit.

    Args:
        execution: What keeps them.
        options: Which are kept, and how they are called.
        managed: Whether the framework's own callbacks keep checkpoints, so that we do only where we are told to.
        best: The best score of the earlier part of this training, where it is resumed.
        beside: Has something done beside the training: the deletion of a file of many gigabytes takes its time.
    """

    def __init__(
        self,
        execution: Execution,
        options: TrainingOptions,
        *,
        managed: bool = False,
        best: Score | None = None,
        beside: Callable[[Callable[[], object]], object],
    ) -> None:
        which = options.checkpoints or ("none" if managed else "best+last")
        self._execution = execution
        self._options = options
        self._beside = beside
        self._keeps_all = which == "all"
        self._keeps_best = "best" in which
        self._keeps_last = "last" in which or which == "all"
        self._score = best
        self._best: _Kept | None = None
        self._last: _Kept | None = None
        self._pointed_out: tuple[Path | None, Path | None] = (None, None)
        self._marked: set[tuple[str, Path]] = set()
        self._unknown: set[str] = set()
        self._writing: dict[Path, tuple[_Kept, bool, Score | None]] = {}
        self._written: set[Path] = set()

    @property
    def folder(self) -> Path:
        """Where files of the checkpoints' table are staged: what a framework writes here is not copied."""
        return self._execution.working_dir / "outputs" / self._options.checkpoint_table

    @property
    def best(self) -> tuple[int, Score] | None:
        """The epoch of the best checkpoint of this fit and its score; None before there is one."""
        return (self._best.epoch, self._best.score) if self._best and self._best.score else None

    @property
    def keeps_all(self) -> bool:
        """Whether nothing supersedes a checkpoint."""
        return self._keeps_all

    def state(self) -> dict[str, JsonValue]:
        """The best score so far, as JSON, for a checkpoint of the framework to carry."""
        score = self._score
        return {} if score is None else {"name": score.name, "value": score.value, "larger": score.larger}

    def go_on_from(self, best: Score | None) -> None:
        """Take up the best score of the earlier part of this training."""
        self._score = best or self._score

    def due(self, epoch: int) -> bool:
        """Whether an epoch, from 1, may leave a checkpoint: by the number alone, so alike in every process."""
        return (self._keeps_best or self._keeps_last) and epoch % self._options.save_every_n_epochs == 0

    def due_in_step(self, step: int) -> bool:
        """Whether a step, from 1, leaves a checkpoint; alike in every process."""
        every = self._options.save_every_n_steps
        return self._keeps_last and every is not None and step % every == 0

    def register(self, moment: Moment, suffix: str) -> Path | None:
        """Register a checkpoint that is to be written.

        Args:
            moment: When it is taken.
            suffix: How its name ends.

        Returns:
            Where to write it; None where this epoch is neither the best nor any other that is kept.
        """
        score = None if moment.in_step else monitored(moment.metrics, self._options.monitor, self._options.mode)
        is_best = self._is_best(score) and not moment.in_step
        if not (self._keeps_last or is_best):
            return None
        path = self._stage(self._told_apart(moment, suffix, is_best=is_best))
        self._writing[path] = (_Kept(path, moment.epoch, score), is_best, self._score)
        if is_best and score is not None:
            self._score = score  # before it is written, since the checkpoint carries it
        return path

    def write(self, path: Path, write: Callable[[Path], object]) -> None:
        """Let a framework write beside a checkpoint's place, and put it there when it is whole."""
        partial = beginning_of(path)
        try:
            write(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def written(self, path: Path) -> None:
        """Take up a checkpoint that is whole, and let go of those that it supersedes."""
        if path.is_dir():  # sharded: what was registered as a file is a folder of them
            self._execution.forget(path)
        self.adopt(path, whole=True)
        kept, is_best, _ = self._writing.pop(path)
        self._written.add(path)
        before = [each for each in (self._best, self._last) if each is not None]
        if is_best:
            self._best = kept
        if self._keeps_last:
            self._last = kept
        if not self._keeps_all:
            staying = {each.path for each in (self._best, self._last) if each is not None}
            for superseded in {each.path for each in before} - staying:
                self.remove(superseded)
            self._tell_apart()

    def drop(self, path: Path) -> None:
        """Forget a checkpoint that could not be written; one that was taken up stays."""
        if path not in self._writing:
            return
        _, is_best, score = self._writing.pop(path)
        if is_best:
            self._score = score
        self.remove(path)

    def adopt(self, path: Path, *, whole: bool) -> None:
        """Stage a checkpoint that is there, a file or a folder, whoever wrote it; one that is staged already stays so.

        Args:
            path: In `folder`, where it stays what it is; anywhere else, where it is copied when it is sent.
            whole: Whether it was written under another name and renamed, as by our own writers, so that nobody writes
                to the file itself again.
        """
        own = path.is_relative_to(self.folder)
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        staged_here = self._execution.staged_assets()
        known = {place: asset.path for asset in staged_here for place in (asset.path, asset.original)}
        for file in files:
            staged = known.get(file) or self._stage_there(path, file, own=own)
            if own and whole:
                self._execution.seal(staged)

    def remove(self, path: Path) -> None:
        """Let go of a checkpoint that is superseded: it is deleted, and neither sent nor missed."""
        self.forget(path)
        if (aside := put_aside(path)) is not None:
            self._beside(partial(_delete, aside))

    def forget(self, path: Path) -> None:
        """Drop a checkpoint that is deleted, with all its files, from what is to be sent."""
        for asset in self._execution.staged_assets():
            places = [place for place in (asset.path, asset.original) if place is not None]
            if path in places or any(path in place.parents for place in places):
                with suppress(InvalidFileName):  # sent meanwhile
                    self._execution.forget(asset.path)

    def point_out(self, best: Path | None, last: Path | None) -> None:
        """Say which of those that a framework keeps are the best and the last so far."""
        self._pointed_out = (best, last)
        self._tell_apart()

    @property
    def newest(self) -> Path | None:
        """The checkpoint that was kept last, by us or by a framework that pointed it out; None before there is one."""
        return self._last.path if self._last else self._pointed_out[1] or (self._best.path if self._best else None)

    def finish(self) -> None:
        """Tell the best and the last apart from the others by their types."""
        self._tell_apart()

    def _tell_apart(self) -> None:
        """Give the best and the last so far their types, also while the training goes on: it may be killed."""
        ours = (self._best.path if self._best else None, self._last.path if self._last else None)
        pairs = [
            (term, path) for both in (ours, self._pointed_out) for term, path in zip((BEST, LAST), both, strict=True)
        ]
        present = {(term, path) for term, path in pairs if path is not None}
        try:
            for term, path in self._marked - present:
                with suppress(InvalidFileName):  # let go of, or sent meanwhile
                    self._execution.drop_asset_types(path, term)
            for term, path in present - self._marked:
                self.mark(path if term == BEST else None, path if term == LAST else None)
            self._marked = present
        except Exception:  # and the checkpoints themselves are as good as before
            log.warning("The best and the last checkpoint could not be told apart yet.", exc_info=True)

    def mark(self, best: Path | None, last: Path | None) -> None:
        """Give the best and the last checkpoint their types, where the catalog has these."""
        for path, term in ((best, BEST), (last, LAST)):
            for file in [] if term in self._unknown else self._staged_files(path):
                try:
                    self._execution.add_asset_types(file, [term])
                except UnknownTerm:  # a catalog with a vocabulary of its own
                    self._unknown.add(term)

    def _staged_files(self, path: Path | None) -> Iterable[Path]:
        if path is None:
            return []
        return [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]

    def _stage_there(self, path: Path, file: Path, *, own: bool) -> Path:
        """Stage a file of a checkpoint that somebody else wrote, by its name there."""
        if own:
            return self._stage(str(file))
        name = Path(path.name) / file.relative_to(path)
        try:
            return self._stage(str(file), name.as_posix())
        except FileConflict:  # of the same name, in another folder
            return self._stage(str(file), (path.parent.name / name).as_posix())

    def _is_best(self, score: Score | None) -> bool:
        """Whether an epoch is the best so far; where none has the metric, each is, so that one is kept."""
        if not self._keeps_best and not self._keeps_all:
            return False
        return self._score is None if score is None else score.beats(self._score)

    def _stage(self, name: str, rename: str | None = None) -> Path:
        options = self._options
        return self._execution.asset_file_path(
            options.checkpoint_table, name, asset_types=list(options.checkpoint_types), rename_file=rename
        )

    def _told_apart(self, moment: Moment, suffix: str, *, is_best: bool) -> str:
        """The name of a checkpoint's file: another one than of those that it does not supersede."""
        name = self._name(moment)
        path = self.folder / f"{name}{suffix}"
        if self._keeps_all and path in self._written:
            return f"{name}-{_mark(moment)}{suffix}"
        if self._best and not is_best and self._best.path == path:
            return f"{name}-last{suffix}"
        return f"{name}{suffix}"

    def _name(self, moment: Moment) -> str:
        template = self._options.filename
        if template is None:
            return _of_fit(moment, _mark(moment))
        known = {**moment.metrics, "epoch": moment.epoch, "step": moment.step or 0, "fit": moment.fit}
        try:
            name = template.format_map(known)
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise ConfigurationError(
                f"filename={template!r} cannot be filled in ({error}); it may name {', '.join(sorted(known))}."
            ) from error
        return name if "{fit" in template else _of_fit(moment, name)


def _mark(moment: Moment) -> str:
    return f"step-{moment.step or 0:08d}" if moment.in_step else f"epoch-{moment.epoch:04d}"


def _of_fit(moment: Moment, name: str) -> str:
    """A name that no earlier fit of the execution has."""
    folder, slash, last = name.rpartition("/")
    return name if moment.fit == 1 else f"{folder}{slash}fit-{moment.fit}-{last}"


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)  # an upload takes it away, too
    else:
        path.unlink(missing_ok=True)
