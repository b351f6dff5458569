"""A progress bar for transfers, what the standard streams are, and whether to write to them unasked."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from deriva_ml_core._cell_display import CellDisplay
from deriva_ml_core._text import format_count, format_size, parse_flag, sanitize_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from deriva_ml_core.models import UploadProgress

__all__ = [
    "COPIED_ATTRIBUTE",
    "QUIET_VARIABLE",
    "REGISTRY_VARIABLE",
    "is_kernel",
    "is_quiet",
    "is_terminal",
    "is_watched",
    "progress_reporter",
    "replace_missing_streams",
]

QUIET_VARIABLE = "DERIVA_ML_QUIET"
"""Environment variable that silences progress bars and the lines about runs."""

COPIED_ATTRIBUTE = "deriva_ml_shows_copy"
"""Attribute of a standard stream that is a file now, whose text is copied to a terminal."""

REGISTRY_VARIABLE = "DERIVA_ML_NOTEBOOK_RUN"
"""Environment variable with the path of the file in which a kernel registers its executions, one per line."""

MIN_VISIBLE_FILES, MIN_VISIBLE_BYTES = 50, 16 * 2**20
"""The bar stays hidden for transfers with fewer files and fewer bytes, which take no time."""

MIN_CELL_INTERVAL = 0.25
"""Minimum seconds between two updates of a bar in a notebook, which the notebook's file stores."""


@contextmanager
def progress_reporter(
    callback: Callable[[UploadProgress], None] | None, label: str = "Uploading"
) -> Iterator[Callable[[UploadProgress], None] | None]:
    """Provide a callback for the progress of a transfer.

    Args:
        callback: The caller's own callback, which replaces the bar.
        label: The verb before the number of files.

    Yields:
        The caller's callback, or one that updates a progress bar on a terminal or in a notebook's cell. None if
            neither is shown, or ``DERIVA_ML_QUIET=1`` is set.
    """
    if callback is not None or is_quiet():
        yield callback
    elif is_kernel():
        yield _CellBar(label).update
    elif is_terminal(sys.stderr) and (bar := _start_bar(label)) is not None:
        with _terminal_bar(bar) as update:
            yield update
    else:
        yield None


@contextmanager
def _terminal_bar(bar: Progress) -> Iterator[Callable[[UploadProgress], None]]:
    task = bar.add_task("transfer", total=None, visible=False, files="")

    def update_bar(progress: UploadProgress) -> None:
        files = format_count(progress.files, "file")
        with suppress(Exception):  # the terminal may be gone
            bar.update(
                task, total=progress.bytes, completed=progress.bytes_done, files=files, visible=_is_long(progress)
            )

    try:
        yield update_bar
    finally:
        with suppress(Exception):
            bar.stop()


def _is_long(progress: UploadProgress) -> bool:
    return progress.files >= MIN_VISIBLE_FILES or progress.bytes >= MIN_VISIBLE_BYTES


def _start_bar(label: str) -> Progress | None:
    """Start a progress bar on standard error; None if that fails."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    text = TextColumn(f"{label} {{task.fields[files]}}", markup=False)
    columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    try:
        bar.start()
    except Exception:  # noqa: BLE001 - a program can replace the stream by any object
        return None
    return bar


class _CellBar:
    """A progress bar in the output of a notebook's cell.

    Args:
        label: The verb before the number of files.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._display = CellDisplay()
        self._shown_at = -math.inf

    def update(self, progress: UploadProgress) -> None:
        """Show the progress, at most every `MIN_CELL_INTERVAL` seconds and at the end."""
        now, is_done = monotonic(), progress.files_done >= progress.files
        if not _is_long(progress) or (now - self._shown_at < MIN_CELL_INTERVAL and not is_done):
            return
        self._shown_at = now
        part = progress.bytes_done / progress.bytes if progress.bytes else float(is_done)
        text = (
            f"{sanitize_line(self._label)} {format_count(progress.files, 'file')}: {format_size(progress.bytes_done)} "
            f"of {format_size(progress.bytes)}"
        )
        bar = (
            '<div style="width:240px;height:8px;border-radius:4px;background:rgba(127,127,127,.25);margin-top:3px">'
            f'<div style="width:{100 * part:.1f}%;height:8px;border-radius:4px;background:#0072B2"></div></div>'
        )
        self._display.show(f'<div style="font-size:13px">{escape(text)}{bar}</div>', text)


def is_watched() -> bool:
    """Whether somebody sees standard error, a terminal or the output of a cell, and ``DERIVA_ML_QUIET`` is unset.

    The kernel of ``deriva-ml-run-notebook`` is not seen; the command itself prints on the terminal.
    """
    is_shown = is_terminal(sys.stderr) or getattr(sys.stderr, COPIED_ATTRIBUTE, False) is True
    return not is_quiet() and (is_shown or (is_kernel() and REGISTRY_VARIABLE not in os.environ))


def is_quiet() -> bool:
    """Whether ``DERIVA_ML_QUIET`` is ``1``, ``true``, ``yes`` or ``on``: no progress bars, no lines about runs."""
    return parse_flag(os.environ.get(QUIET_VARIABLE))


def is_kernel() -> bool:
    """Whether this process is the kernel of a notebook, and not only a program that a notebook started."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


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
