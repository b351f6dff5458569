"""Checkpoints of a Trainer: those of its own ModelCheckpoints, or those of the option ``checkpoints``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, SupportsFloat

from deriva_ml_core.metric_modes import MonitoredValue
from deriva_ml_core.training import TrainingReporter
from deriva_ml_lightning.checkpoint_io import (
    RecordedCheckpointIO,
    install_checkpoint_io,
    is_local,
    to_absolute_path,
    uninstall_checkpoint_io,
)
from deriva_ml_lightning.compat import (
    find_callbacks,
    find_checkpoint_callbacks,
    find_classes,
    is_default_checkpoint_callback,
)

__all__ = ["DefaultCheckpoints", "TrainerCheckpoints", "add_callback_monitor"]

log = logging.getLogger(__name__)


HPC_CHECKPOINT_PREFIX = "hpc_ckpt_"
"""Prefix of the checkpoint saved before SLURM requeues a job: trainer/connectors/checkpoint_connector.py."""


class TrainerCheckpoints:
    """Records the checkpoints of one Trainer.

    A ModelCheckpoint that the user configured works unchanged: its files are recorded from where it writes them, and
    stay there. Only one without arguments, as Lightning adds it by default, writes into the staging folder.

    Args:
        reporter: Reporter of the training, used on rank 0.
        write_directly: Whether to write checkpoints in place of Lightning's default CheckpointIO.
    """

    def __init__(self, reporter: TrainingReporter, *, write_directly: bool) -> None:
        self.default_checkpoints = DefaultCheckpoints(reporter)
        """Checkpoints that the option ``checkpoints`` asks for."""
        self._reporter = reporter
        self._write_directly = write_directly
        self._checkpoint_io: RecordedCheckpointIO | None = None
        self._model_checkpoints: list[Any] = []
        self._default_checkpoints: list[Any] = []
        """ModelCheckpoints without arguments."""
        self._root_dir: Path | None = None
        self._recorded_paths: dict[Path, None] = {}
        self._removed_while_writing: set[Path] = set()
        """Paths removed while a background thread was still writing them."""

    @property
    def is_managed(self) -> bool:
        """Whether the Trainer's own ModelCheckpoints decide which checkpoints are kept."""
        return bool(self._model_checkpoints)

    def remember_default_checkpoints(self, trainer: Any) -> None:
        """Remember the ModelCheckpoints without arguments, before the Trainer sets their folder."""
        self._default_checkpoints += [
            each
            for each in find_checkpoint_callbacks(trainer)
            if not self._is_default(each) and is_default_checkpoint_callback(each)
        ]

    def begin(self, trainer: Any) -> None:
        """Begin a fit, on every rank, before the ModelCheckpoints' own ``setup``."""
        policy = self._reporter.options.checkpoints
        self._model_checkpoints = (
            find_checkpoint_callbacks(trainer) if policy is None and not trainer.fast_dev_run else []
        )
        self.default_checkpoints.begin(
            is_enabled=not self._model_checkpoints and policy != "none" and not trainer.fast_dev_run
        )
        self._root_dir = Path(trainer.default_root_dir).absolute()
        self._removed_while_writing.clear()
        listener = self if trainer.is_global_zero else None
        self._checkpoint_io = install_checkpoint_io(trainer.strategy, listener, write_directly=self._write_directly)

    def set_dirpaths(self, folder: Path | None) -> None:
        """Set the ``dirpath`` of Lightning's default ModelCheckpoint to the staging folder.

        Args:
            folder: The staging folder; None in a process that does not record, which gets it from rank 0.
        """
        for each in self._model_checkpoints:
            if folder is not None and self._is_default(each):
                each.dirpath = str(folder)

    def share_dirpaths(self, trainer: Any) -> None:
        """Broadcast the ``dirpath`` to all ranks if it was set after the ModelCheckpoints' own ``setup``."""
        for each in self._model_checkpoints:
            if self._is_default(each):
                each.setup(trainer, trainer.lightning_module, "fit")

    def update_loaded_dirpaths(self, checkpoint: Mapping[str, Any]) -> None:
        """Set the new ``dirpath`` in a loaded checkpoint; with another one, ModelCheckpoints drop their best score."""
        for each in self._model_checkpoints:
            if self._is_default(each) and each.state_key in checkpoint.get("callbacks", {}):
                checkpoint["callbacks"][each.state_key]["dirpath"] = each.dirpath

    def end(self, trainer: Any) -> None:
        """End the fit and restore the CheckpointIO."""
        if self._checkpoint_io is not None:
            uninstall_checkpoint_io(trainer.strategy, self._checkpoint_io)
            self._checkpoint_io = None

    # CheckpointListener

    @contextmanager
    def around_save(self, path: Path, *, is_final: bool) -> Iterator[None]:
        """Record a checkpoint that is written in the context, on the thread that writes it."""
        if self.default_checkpoints.claim(path):
            with self._reporter.writing_checkpoint(path):
                yield
            return
        yield
        if self._find_model_checkpoint(path) is not None:
            if path in self._removed_while_writing:
                self._removed_while_writing.discard(path)
            else:
                self._stage_existing(path, is_final=is_final)
        elif path.parent == self._root_dir and path.name.startswith(HPC_CHECKPOINT_PREFIX):
            self._reporter.requeue(path)

    def on_removed(self, path: Path) -> None:
        """Unstage a removed checkpoint."""
        if path in self._recorded_paths:
            del self._recorded_paths[path]
            self._run_safely(partial(self._reporter.checkpoints.unstage, path), path)
        elif self._find_model_checkpoint(path) is not None:
            self._removed_while_writing.add(path)

    # ModelCheckpoints

    def rescan(self) -> None:
        """Stage checkpoints that were written without the CheckpointIO, and unstage deleted ones."""
        for path in [each for each in self._recorded_paths if not each.exists()]:
            self.on_removed(path)
        for each in self._model_checkpoints:
            names = (*each.best_k_models, each.best_model_path, each.last_model_path)
            for path in {self._find_path(name) for name in names if name and is_local(name)}:
                if (
                    path not in self._recorded_paths
                    and path.exists()
                    and not path.is_symlink()
                    and self._find_model_checkpoint(path) is each
                ):
                    self._stage_existing(path, is_final=False)

    def finish(self) -> None:
        """Mark the best and the last of the existing checkpoints."""
        if self._root_dir is not None:
            self._run_safely(self._mark_best_and_last, self._root_dir)

    def _mark_best_and_last(self) -> None:
        self.rescan()
        if not self._recorded_paths:
            return
        names = [each.last_model_path for each in self._model_checkpoints if each.last_model_path]
        last_paths = {_follow_link(self._find_path(name)) for name in names if is_local(name)}
        last = [path for path in self._recorded_paths if path in last_paths] or list(self._recorded_paths)
        bests = [
            (path, _best_value(each))
            for each in self._model_checkpoints
            if each.monitor is not None
            and each.best_model_path
            and (path := self._find_path(each.best_model_path)) in self._recorded_paths
        ]
        best, value = bests[0] if bests else (None, None)
        self._reporter.checkpoints.set_framework_checkpoints(best, last[-1], value)

    def _find_model_checkpoint(self, path: Path) -> Any | None:
        """Return the ModelCheckpoint whose folder contains a path."""
        for each in self._model_checkpoints:
            if each.dirpath and is_local(each.dirpath) and path.is_relative_to(to_absolute_path(each.dirpath)):
                return each
        return None

    def _find_path(self, name: str) -> Path:
        """Return the absolute path of a file that a ModelCheckpoint names.

        A relative name, as below a relative ``default_root_dir``, is relative to the folder in which it was written.
        """
        parts = Path(name).parts
        recorded = (path for path in reversed(self._recorded_paths) if path.parts[-len(parts) :] == parts)
        return next(recorded, to_absolute_path(name))

    def _is_default(self, checkpoint: Any) -> bool:
        return any(checkpoint is each for each in self._default_checkpoints)

    def _stage_existing(self, path: Path, *, is_final: bool) -> None:
        self._recorded_paths.pop(path, None)
        self._recorded_paths[path] = None
        self._run_safely(partial(self._reporter.checkpoints.stage_existing, path, is_final=is_final), path)
        owner = self._find_model_checkpoint(path)
        if owner is not None and owner.save_top_k == -1 and not path.name.startswith(owner.CHECKPOINT_NAME_LAST):
            self._reporter.stream_checkpoint(path)

    def _run_safely(self, task: Callable[[], None], path: Path) -> None:
        try:
            task()
        except Exception:
            log.warning("Failed to record the checkpoints at %s; training continues.", path, exc_info=True)


def _best_value(checkpoint: Any) -> MonitoredValue | None:
    """Return the value of a ModelCheckpoint's best file."""
    if checkpoint.best_model_score is None:
        return None
    return MonitoredValue(checkpoint.monitor, float(checkpoint.best_model_score), checkpoint.mode == "max")


def _follow_link(path: Path) -> Path:
    """Return the path that a link points to, without resolving links in its folders; other paths as they are."""
    return to_absolute_path(path.parent / path.readlink()) if path.is_symlink() else path


class DefaultCheckpoints:
    """Saves the checkpoints of one Trainer that the option ``checkpoints`` asks for.

    Args:
        reporter: Reporter of the training, which decides on rank 0.
    """

    def __init__(self, reporter: TrainingReporter) -> None:
        self._reporter = reporter
        self._is_enabled = False
        self._deferred_epoch: int | None = None
        self._early_names: set[str] = set()
        self._late_names: set[str] = set()
        """Names of metrics that the module logs only after the callbacks' end of an epoch."""
        self._pending_paths: set[Path] = set()

    def begin(self, *, is_enabled: bool) -> None:
        """Begin a fit.

        Args:
            is_enabled: Whether to save checkpoints in this fit.
        """
        self._is_enabled, self._deferred_epoch = is_enabled, None

    def claim(self, path: Path) -> bool:
        """Claim a path for writing; return whether it is a checkpoint of this class that nothing has claimed yet."""
        is_pending = path in self._pending_paths
        self._pending_paths.discard(path)
        return is_pending

    def end_step(self, trainer: Any, step: int) -> None:
        """Save within an epoch, on every rank, if the options ask for it."""
        every = self._reporter.options.save_every_n_steps
        if every is not None and self._is_enabled and step % every == 0:
            self._save(trainer, trainer.current_epoch + 1, {}, in_step=True)

    def end_epoch(self, trainer: Any, metrics: Mapping[str, SupportsFloat]) -> None:
        """Save after an epoch, or defer it until the monitored metric is logged."""
        options, epoch = self._reporter.options, trainer.current_epoch + 1
        if not self._is_enabled or epoch % options.save_every_n_epochs:
            return
        monitor = self._reporter.monitor.name
        self._early_names = set(metrics)
        is_awaited = options.monitor is not None or monitor in self._late_names
        is_metric_missing = is_awaited and monitor not in metrics
        if _broadcast(trainer, is_metric_missing):
            self._deferred_epoch = epoch
        else:
            self._save(trainer, epoch, metrics)

    def save_deferred(self, trainer: Any, metrics: Mapping[str, SupportsFloat]) -> None:
        """Save the checkpoint that `end_epoch` deferred, on every rank.

        Args:
            trainer: The Trainer.
            metrics: All metrics of the epoch, also those logged late.
        """
        self._late_names |= metrics.keys() - self._early_names
        if self._deferred_epoch is not None:
            epoch, self._deferred_epoch = self._deferred_epoch, None
            self._save(trainer, epoch, metrics)

    def _save(self, trainer: Any, epoch: int, metrics: Mapping[str, SupportsFloat], *, in_step: bool = False) -> None:
        """Save on every rank, to the path that rank 0 registered."""
        path = None
        if trainer.is_global_zero and (in_step or self._reporter.is_checkpoint_due(epoch)):
            step = trainer.global_step
            path = self._reporter.checkpoint_path(epoch, ".ckpt", metrics, step=step, in_step=in_step)
        path = _broadcast(trainer, path)
        if path is None:
            return
        self._pending_paths.add(path)
        try:
            trainer.save_checkpoint(path, weights_only=self._reporter.options.weights_only)
        except Exception:
            if trainer.world_size > 1:  # if one rank ignored the failure, the others would wait for it
                raise
            self.claim(path)
            with self._reporter.writing_checkpoint(path):
                raise
        if trainer.is_global_zero and path.exists() and self.claim(path):
            with self._reporter.writing_checkpoint(path):  # the strategy has written it without a CheckpointIO
                pass


def add_callback_monitor(reporter: TrainingReporter, trainer: Any) -> None:
    """Add the metric that a callback monitors, with its mode, to the reporter's monitor; ModelCheckpoints first."""
    early_stoppings = find_callbacks(trainer, *find_classes("callbacks", "EarlyStopping"))
    monitored = [each for each in (*find_checkpoint_callbacks(trainer), *early_stoppings) if each.monitor]
    for number, each in enumerate(monitored):
        if number == 0:
            reporter.monitor.set_framework_monitor(each.monitor)
        if each.mode in ("min", "max") and each.monitor == monitored[0].monitor:
            reporter.monitor.add_framework_modes({each.monitor: each.mode})
            return


def _broadcast(trainer: Any, value: Any) -> Any:
    """Return the value of rank 0 on every rank."""
    return value if trainer.world_size == 1 else trainer.strategy.broadcast(value)
