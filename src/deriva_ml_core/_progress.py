"""A progress bar for transfers, shown on terminals only, and what the standard streams are."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from deriva_ml_core.models import UploadProgress

__all__ = ["is_terminal", "progress_reporter", "replace_missing_streams"]

MIN_VISIBLE_FILES, MIN_VISIBLE_BYTES = 50, 16 * 2**20
"""The bar stays hidden for transfers with fewer files and fewer bytes, which take no time."""


@contextmanager
def progress_reporter(
    callback: Callable[[UploadProgress], None] | None, label: str = "Uploading"
) -> Iterator[Callable[[UploadProgress], None] | None]:
    """Provide a callback for the progress of a transfer.

    Args:
        callback: The caller's own callback, which replaces the bar.
        label: The verb before the number of files.

    Yields:
        The caller's callback, one that updates a progress bar, or None if standard error is no terminal.
    """
    bar = _start_bar(label) if callback is None and is_terminal(sys.stderr) else None
    if bar is None:
        yield callback
        return
    task = bar.add_task("upload", total=None, visible=False, files=0)

    def update_bar(progress: UploadProgress) -> None:
        is_long = progress.files >= MIN_VISIBLE_FILES or progress.bytes >= MIN_VISIBLE_BYTES
        with suppress(Exception):  # the terminal may be gone
            bar.update(task, total=progress.bytes, completed=progress.bytes_done, files=progress.files, visible=is_long)

    try:
        yield update_bar
    finally:
        with suppress(Exception):
            bar.stop()


def _start_bar(label: str) -> Progress | None:
    """Start a progress bar on standard error; None if that fails."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    text = TextColumn(f"{label} {{task.fields[files]}} files")
    columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    try:
        bar.start()
    except Exception:  # noqa: BLE001 - a program can replace the stream by any object
        return None
    return bar


def is_terminal(stream: object) -> bool:
    """Whether a standard stream is a terminal.

    A program can replace a standard stream by an object that only has ``write``. It is None if the shell closed it.
    """
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - such an object can raise anything
        return False


def replace_missing_streams() -> None:
    """Replace standard streams that the shell closed, in a program of this project, so that it can write to them."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - open until the end
