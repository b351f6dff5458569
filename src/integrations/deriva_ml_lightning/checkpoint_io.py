"""How checkpoints are written while a fit is recorded, and who is told when one is whole, or gone."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
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
    "uninstall_checkpoint_io",
    "wait_for_saves",
]


class CheckpointListener(Protocol):
    """Who is told of checkpoints, on whatever thread writes them."""

    def around_save(self, path: Path, *, is_final: bool) -> AbstractContextManager[None]:
        """Called around the writing of a local file or folder, which is there when it is left without an error.

        Args:
            path: Where it will be.
            is_final: Whether it is written beside and renamed, so that nobody ever writes to it in its place.
        """

    def on_removed(self, path: Path) -> None:
        """Called after a local file or folder was removed."""


class RecordedCheckpointIO:
    """Stands in a strategy before its CheckpointIO, and tells a watch what that one does.

    In place of Lightning's own for files, it writes them itself: straight into a new file beside, which is renamed when
    it is whole. Lightning's writes a second copy in memory first.

    Args:
        inner: The CheckpointIO that was there.
        listener: Who is told; None in a process that records nothing.
        write_directly: Whether to write in the place of Lightning's own.
    """

    def __init__(self, inner: Any, listener: CheckpointListener | None, *, write_directly: bool) -> None:
        self.inner = inner
        self.listener = listener
        self._write_directly = write_directly

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.inner, name)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save, as every CheckpointIO does."""
        if self.listener is None or not is_local(path):
            self._save(checkpoint, path, storage_options)
            return
        with self.listener.around_save(_absolute_path(path), is_final=self._should_write_directly()):
            self._save(checkpoint, path, storage_options)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove, as every CheckpointIO does."""
        self.inner.remove_checkpoint(path)
        if self.listener is not None and is_local(path):
            self.listener.on_removed(_absolute_path(path))

    def _save(self, checkpoint: dict[str, Any], path: Any, storage_options: Any) -> None:
        if storage_options is None and self._should_write_directly() and is_local(path):
            _write_atomic(checkpoint, _absolute_path(path))
        else:  # also what Lightning's own refuses
            self.inner.save_checkpoint(checkpoint, path, storage_options=storage_options)

    def _should_write_directly(self) -> bool:
        return self._write_directly and type(self.inner) in find_classes("plugins.io", "TorchCheckpointIO")


def install_checkpoint_io(
    strategy: Any, listener: CheckpointListener | None, *, write_directly: bool
) -> RecordedCheckpointIO:
    """Put ours before the CheckpointIO that does the writing: inside of those that only wrap another.

    Args:
        strategy: The Trainer's.
        listener: Who is told.
        write_directly: Whether ours writes in the place of Lightning's own for files.

    Returns:
        What `uninstall` takes away again.
    """
    wrapping = _innermost_wrapper(strategy)
    inner = strategy.checkpoint_io if wrapping is None else wrapping.checkpoint_io
    ours = RecordedCheckpointIO(inner, listener, write_directly=write_directly)
    _set_checkpoint_io(strategy, wrapping, ours)
    for kind in find_classes("plugins.io", "CheckpointIO"):
        kind.register(RecordedCheckpointIO)
    return ours


def uninstall_checkpoint_io(strategy: Any, installed: RecordedCheckpointIO) -> None:
    """Put back what was there; what others have put before it meanwhile stays."""
    wrapping = _innermost_wrapper(strategy)
    current = strategy.checkpoint_io if wrapping is None else wrapping.checkpoint_io
    if current is installed:
        _set_checkpoint_io(strategy, wrapping, installed.inner)
        return
    while isinstance(current, RecordedCheckpointIO):
        if current.inner is installed:
            current.inner = installed.inner
            return
        current = current.inner


def wait_for_saves(strategy: Any, seconds: float) -> bool:
    """Let what is saved beside the training be written.

    Args:
        strategy: The Trainer's.
        seconds: How long to wait at most.

    Returns:
        Whether all is written.
    """
    if _innermost_wrapper(strategy) is None:
        return True
    waiting = Thread(
        target=_teardown_ignoring_errors, args=(strategy.checkpoint_io,), name="deriva-ml-saves", daemon=True
    )
    waiting.start()
    waiting.join(seconds)
    return not waiting.is_alive()


def is_local(path: Any) -> bool:
    """Whether a checkpoint's path is one of this machine's file system, and not an address such as ``s3://...``."""
    return "://" not in os.fspath(path)


def _absolute_path(path: Any) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - a link is meant itself, not what it points to


def _teardown_ignoring_errors(checkpoint_io: Any) -> None:
    try:
        checkpoint_io.teardown()
    except BaseException:  # noqa: BLE001 - the Trainer closes it too, and raises this there
        return


def _innermost_wrapper(strategy: Any) -> Any | None:
    kinds = find_classes("plugins.io.wrapper", "_WrappingCheckpointIO")
    found, current = None, strategy.checkpoint_io
    while isinstance(current, kinds):
        found, current = current, current.checkpoint_io
    return found


def _set_checkpoint_io(strategy: Any, wrapper: Any | None, checkpoint_io: Any) -> None:
    if wrapper is None:
        strategy.checkpoint_io = checkpoint_io
    else:
        wrapper._checkpoint_io = checkpoint_io  # its setter takes only the first


def _write_atomic(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint beside its place, and rename it when it is whole."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    # given a path, torch.save would write the name into the bytes
    with atomic_path(path, keep_suffix=True) as partial, partial.open("wb") as file:
        lock_file(file)
        torch.save(checkpoint, file)
