"""A progress bar for transfers, shown on terminals only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deriva_ml_core.models import UploadProgress

__all__ = ["progress_reporter"]

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
    if callback is not None or not sys.stderr.isatty():
        yield callback
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    text = TextColumn(f"{label} {{task.fields[files]}} files")
    columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("upload", total=None, visible=False, files=0)

        def update_bar(progress: UploadProgress) -> None:
            is_long = progress.files >= MIN_VISIBLE_FILES or progress.bytes >= MIN_VISIBLE_BYTES
            bar.update(task, total=progress.bytes, completed=progress.bytes_done, files=progress.files, visible=is_long)

        yield update_bar
