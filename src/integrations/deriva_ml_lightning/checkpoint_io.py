"""CheckpointIO that notifies a listener of written and removed checkpoints."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from deriva_ml_core._files.atomic import atomic_path
from deriva_ml_core._files.locks import lock_file
from deriva_ml_lightning.compat import find_classes

__all__ = [
    "CheckpointListener",
    "RecordedCheckpointIO",
    "install_checkpoint_io",
    "is_local",
    "to_absolute_path",
    "uninstall_checkpoint_io",
    "wait_for_saves",
]


class CheckpointListener(Protocol):
    """Listener for checkpoints, called on the thread that writes them."""

    def around_save(self, path: Path, *, is_final: bool) -> AbstractContextManager[None]:
        """Enter before a local file or folder is written; it exists when the context exits without an error.

        Args:
            path: Path of the checkpoint.
            is_final: Whether it is written under another name and renamed, so that the file never changes again.
        """

    def on_removed(self, path: Path) -> None:
        """Call after a local file or folder was removed."""


class RecordedCheckpointIO:
    """Wraps the CheckpointIO of a strategy and notifies a listener.

    In place of Lightning's default for files, it writes them itself, straight into a temporary file that it renames.
    Lightning's default first builds a copy of the checkpoint in memory.

    Args:
        inner: The wrapped CheckpointIO.
        listener: The listener; None in a process that does not record.
        write_directly: Whether to write in place of Lightning's default.
    """

    def __init__(self, inner: Any, listener: CheckpointListener | None, *, write_directly: bool) -> None:
        self.inner = inner
        self.listener = listener
        self._write_directly = write_directly

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # not set yet while unpickling
            raise AttributeError(name)
        return getattr(self.inner, name)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save a checkpoint, see Lightning's CheckpointIO."""
        if self.listener is None or not is_local(path):
            self._save(checkpoint, path, storage_options)
            return
        with self.listener.around_save(to_absolute_path(path), is_final=self._should_write_directly()):
            self._save(checkpoint, path, storage_options)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint, see Lightning's CheckpointIO."""
        self.inner.remove_checkpoint(path)
        if self.listener is not None and is_local(path):
            self.listener.on_removed(to_absolute_path(path))

    def _save(self, checkpoint: dict[str, Any], path: Any, storage_options: Any) -> None:
        if storage_options is None and self._should_write_directly() and is_local(path):
            _write_atomic(checkpoint, to_absolute_path(path))
        else:  # also arguments that Lightning's default refuses
            self.inner.save_checkpoint(checkpoint, path, storage_options=storage_options)

    def _should_write_directly(self) -> bool:
        return self._write_directly and type(self.inner) in find_classes("plugins.io", "TorchCheckpointIO")


def install_checkpoint_io(
    strategy: Any, listener: CheckpointListener | None, *, write_directly: bool
) -> RecordedCheckpointIO:
    """Wrap the CheckpointIO that writes the files, inside any wrappers of Lightning such as the asynchronous one.

    Args:
        strategy: Strategy of the Trainer.
        listener: Listener to notify; None in a process that does not record.
        write_directly: Whether to write in place of Lightning's default for files.

    Returns:
        The installed CheckpointIO, for `uninstall_checkpoint_io`.
    """
    wrapper = _innermost_wrapper(strategy)
    inner = strategy.checkpoint_io if wrapper is None else wrapper.checkpoint_io
    installed = RecordedCheckpointIO(inner, listener, write_directly=write_directly)
    _set_checkpoint_io(strategy, wrapper, installed)
    for kind in find_classes("plugins.io", "CheckpointIO"):
        kind.register(RecordedCheckpointIO)
    return installed


def uninstall_checkpoint_io(strategy: Any, installed: RecordedCheckpointIO) -> None:
    """Remove an installed CheckpointIO; others that were installed after it stay."""
    wrapper = _innermost_wrapper(strategy)
    current = strategy.checkpoint_io if wrapper is None else wrapper.checkpoint_io
    if current is installed:
        _set_checkpoint_io(strategy, wrapper, installed.inner)
        return
    while isinstance(current, RecordedCheckpointIO):
        if current.inner is installed:
            current.inner = installed.inner
            return
        current = current.inner


def wait_for_saves(strategy: Any, seconds: float) -> bool:
    """Wait for checkpoints that an asynchronous CheckpointIO writes in the background.

    If the system refuses to start the thread that waits, the wait has no limit, as that of the Trainer afterwards.

    Args:
        strategy: Strategy of the Trainer.
        seconds: Maximum seconds to wait.

    Returns:
        Whether all checkpoints are written.
    """
    if _innermost_wrapper(strategy) is None:
        return True
    waiting = Thread(
        target=_teardown_ignoring_errors, args=(strategy.checkpoint_io,), name="deriva-ml-saves", daemon=True
    )
    try:
        waiting.start()
    except RuntimeError:  # a container's limit is reached, or the process is exiting
        with suppress(Exception):  # the Trainer calls teardown too and raises the error
            strategy.checkpoint_io.teardown()
        return True
    waiting.join(seconds)
    return not waiting.is_alive()


def is_local(path: Any) -> bool:
    """Whether a checkpoint's path is on a local file system, and not a URL such as ``s3://...``."""
    return "://" not in os.fspath(path)


def to_absolute_path(path: Any) -> Path:
    """Return a path from the root; links stay as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - does not resolve a link


def _teardown_ignoring_errors(checkpoint_io: Any) -> None:
    try:
        checkpoint_io.teardown()
    except BaseException:  # noqa: BLE001 - the Trainer calls teardown too and raises the error
        return


def _innermost_wrapper(strategy: Any) -> Any | None:
    kinds = find_classes("plugins.io.wrapper", "_WrappingCheckpointIO")
    wrapper, current = None, strategy.checkpoint_io
    while isinstance(current, kinds):
        wrapper, current = current, current.checkpoint_io
    return wrapper


def _set_checkpoint_io(strategy: Any, wrapper: Any | None, checkpoint_io: Any) -> None:
    if wrapper is None:
        strategy.checkpoint_io = checkpoint_io
    else:
        wrapper._checkpoint_io = checkpoint_io  # its property can be set only once


def _write_atomic(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint to a temporary file and rename it."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    # torch.save gets an open file; with a path, it would store the file name in the file
    with atomic_path(path, keep_suffix=True) as partial, partial.open("wb") as file:
        lock_file(file)
        torch.save(checkpoint, file)
