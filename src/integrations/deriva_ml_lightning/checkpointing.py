"""Which checkpoints a Trainer leaves: those of its own ModelCheckpoints, or else those that our policy asks for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from deriva_ml_core.training import TrainingReporter
from deriva_ml_lightning.checkpoint_io import RecordedCheckpointIO, install, is_local, uninstall
from deriva_ml_lightning.our_saves import OurSaves
from deriva_ml_lightning.packages import checkpoint_callbacks

__all__ = ["Checkpointing"]

log = logging.getLogger(__name__)

REQUEUED = "hpc_ckpt_"
"""How Lightning names what it saves before SLURM requeues a job: trainer/connectors/checkpoint_connector.py."""


class Checkpointing:
    """The checkpoints of one Trainer, recorded.

    Args:
        reporter: What is told, on rank zero.
        direct: Whether checkpoints are written by our CheckpointIO where the Trainer has Lightning's own.
    """

    def __init__(self, reporter: TrainingReporter, *, direct: bool) -> None:
        self.ours = OurSaves(reporter)
        """What our own policy saves."""
        self._reporter = reporter
        self._direct = direct
        self._installed: RecordedCheckpointIO | None = None
        self._theirs: list[Any] = []
        self._undirected: list[Any] = []
        self._root: Path | None = None
        self._known: dict[Path, None] = {}
        self._removed: set[Path] = set()
        """What was removed while it was still being written beside the training."""

    @property
    def managed(self) -> bool:
        """Whether the Trainer's own ModelCheckpoints decide."""
        return bool(self._theirs)

    def note_undirected(self, trainer: Any) -> None:
        """Remember which ModelCheckpoints were given no folder, before the Trainer chooses one for them."""
        known = {id(each) for each in self._undirected}
        self._undirected += [
            each for each in checkpoint_callbacks(trainer) if each.dirpath is None and id(each) not in known
        ]

    def begin(self, trainer: Any) -> None:
        """Take part in a fit: on every rank, before the ModelCheckpoints' own ``setup``."""
        asked = self._reporter.options.checkpoints
        self._theirs = checkpoint_callbacks(trainer) if asked is None and not trainer.fast_dev_run else []
        self.ours.begin(saves=not self._theirs and asked != "none" and not trainer.fast_dev_run)
        self._root = Path(trainer.default_root_dir).absolute()
        self._removed.clear()
        watch = self if trainer.is_global_zero else None
        self._installed = install(trainer.strategy, watch, direct=self._direct)

    def direct_theirs(self, folder: Path | None) -> None:
        """Have the ModelCheckpoints that were given no folder write into the staging folder.

        Args:
            folder: That folder; None in a process that records nothing, which is told by theirs.
        """
        for number, each in enumerate(self._theirs, 1):
            if folder is not None and any(each is one for one in self._undirected):
                each.dirpath = str(folder / f"checkpoint-{number}" if len(self._theirs) > 1 else folder)

    def share_folders(self, trainer: Any) -> None:
        """Tell every rank the folders, where they became known after the ModelCheckpoints' own ``setup``."""
        for each in self._undirected:
            if any(each is one for one in self._theirs):
                each.setup(trainer, trainer.lightning_module, "fit")

    def accept_folders(self, checkpoint: Mapping[str, Any]) -> None:
        """Tell what is loaded of theirs the present folders: with another one they would drop their best score."""
        for each in self._theirs:
            if any(each is one for one in self._undirected) and each.state_key in checkpoint.get("callbacks", {}):
                checkpoint["callbacks"][each.state_key]["dirpath"] = each.dirpath

    def end(self, trainer: Any) -> None:
        """Take no more part."""
        if self._installed is not None:
            uninstall(trainer.strategy, self._installed)
            self._installed = None

    # What is seen of a CheckpointIO

    @contextmanager
    def saving(self, path: Path, *, whole: bool) -> Iterator[None]:
        """Called around the writing of a checkpoint, on whatever thread writes it."""
        if self.ours.take(path):
            with self._reporter.writing_checkpoint(path):
                yield
            return
        yield
        if self._keeper(path) is not None:
            if path in self._removed:
                self._removed.discard(path)
            else:
                self._adopt(path, whole=whole)
        elif path.parent == self._root and path.name.startswith(REQUEUED):
            self._reporter.requeue(path)

    def removed(self, path: Path) -> None:
        """Called after a checkpoint was removed."""
        if path in self._known:
            del self._known[path]
            self._spare(partial(self._reporter.checkpoints.forget, path), path)
        elif self._keeper(path) is not None:
            self._removed.add(path)

    # Theirs

    def sweep(self) -> None:
        """Take up what they keep and no CheckpointIO told of, and let go of what is not there any more."""
        for path in [each for each in self._known if not each.exists()]:
            self.removed(path)
        for each in self._theirs:
            named = (*each.best_k_models, each.best_model_path, each.last_model_path)
            for path in {Path(name) for name in named if name and is_local(name)}:
                if path not in self._known and path.exists() and not path.is_symlink() and self._keeper(path) is each:
                    self._adopt(path, whole=False)

    def finish(self) -> None:
        """Point out their best and their last, of those that are there."""
        if self._root is not None:
            self._spare(self._finish, self._root)

    def _finish(self) -> None:
        self.sweep()
        if not self._known:
            return
        named = {Path(each.last_model_path).resolve() for each in self._theirs if each.last_model_path}
        last = [path for path in self._known if path in named] or list(self._known)
        judged = [Path(each.best_model_path) for each in self._theirs if each.monitor is not None]
        best = next((path for path in judged if path in self._known), None)
        self._reporter.checkpoints.point_out(best, last[-1])

    def _keeper(self, path: Path) -> Any | None:
        """The ModelCheckpoint in whose folder a path is."""
        for each in self._theirs:
            if each.dirpath and is_local(each.dirpath) and path.is_relative_to(each.dirpath):
                return each
        return None

    def _adopt(self, path: Path, *, whole: bool) -> None:
        self._known.pop(path, None)
        self._known[path] = None
        self._spare(partial(self._reporter.checkpoints.adopt, path, whole=whole), path)
        keeper = self._keeper(path)
        if keeper is not None and keeper.save_top_k == -1 and not path.name.startswith(keeper.CHECKPOINT_NAME_LAST):
            self._reporter.send_soon(path)

    def _spare(self, task: Callable[[], None], path: Path) -> None:
        try:
            task()
        except Exception:
            log.warning("The checkpoints at %s could not be recorded; the training goes on.", path, exc_info=True)
