"""Prints one line when a run begins and one when it ends, if somebody watches standard error.

This is the only place that decides whether to print them. They are printed by the process that records the run, and a
failure to print is ignored.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from deriva_ml_core._progress import is_terminal, is_watched
from deriva_ml_core._text import format_count, format_duration, format_number, format_size, sanitize_line
from deriva_ml_core.definitions import DRY_RUN_RID, RID, Status

if TYPE_CHECKING:
    from deriva_ml_core.connection import Connection
    from deriva_ml_core.journal.state import ExecutionState, FileState

__all__ = ["RunLines", "print_begin", "print_end"]

CLEAR_LINE = "\r\x1b[2K"
"""Control sequence that erases the line of a terminal."""

_ENDINGS = {Status.completed: "completed", Status.failed: "failed", Status.aborted: "was aborted"}


class RunLines:
    """The lines about a run of one execution: each is printed once for each time that the run begins.

    Args:
        connection: The catalog of the execution.
        execution: RID of the execution.
    """

    def __init__(self, connection: Connection, execution: RID) -> None:
        self._connection = connection
        self._execution = execution
        self._begun_in: int | None = None
        """Id of the process that printed the first line, and has not printed the last one."""
        self._deferrals = 0
        self._has_ended = False
        """Whether the run has ended in a block that defers the last line."""
        self.metric: str | None = None
        """Name of the metric that decides which checkpoint is the best; None to choose it by its name."""

    def begin(self, workflow: str, *, resumed: bool = False) -> None:
        """Print the line about the begin.

        Args:
            workflow: Name of the workflow; empty if it is unknown.
            resumed: Whether a run continues that has ended before.
        """
        self._begun_in, self._has_ended = os.getpid(), False
        with suppress(Exception):  # a catalog of a plugin
            print_begin(self._connection.catalog.name, self._execution, workflow, resumed=resumed)

    def end(self, state: ExecutionState) -> None:
        """Print the line about the end, or let `deferred` print it; nothing if this process printed no begin.

        Args:
            state: The state of the execution after its end.
        """
        if self._begun_in != os.getpid():
            return
        if self._deferrals:
            self._has_ended = True
            return
        self._begun_in, self._has_ended = None, False
        print_end(self._connection, self._execution, state, self.metric)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold the last line back until the end of the block, which uploads."""
        self._deferrals += 1
        try:
            yield
        finally:
            self._deferrals -= 1

    @property
    def is_due(self) -> bool:
        """Whether the last line was held back and is to be printed now."""
        return self._has_ended and not self._deferrals


def print_begin(catalog: str, execution: RID, workflow: str, *, resumed: bool = False, over_bar: bool = False) -> None:
    """Print the line about the begin of a run, if somebody watches.

    Args:
        catalog: Name of the catalog of the execution.
        execution: RID of the execution.
        workflow: Name of the workflow; empty if it is unknown.
        resumed: Whether a run continues that has ended before.
        over_bar: Whether the line replaces a progress bar, which is drawn again below it.
    """
    with suppress(Exception):
        of_workflow = f" of {sanitize_line(workflow)}" if workflow else ""
        verb = "continues" if resumed else "began"
        if execution == DRY_RUN_RID:
            _print(f"Dry run{of_workflow} {verb}; it records nothing.")
        else:
            line = f"Execution {sanitize_line(execution)}{of_workflow} {verb} in the catalog {sanitize_line(catalog)}."
            _print(f"{CLEAR_LINE}{line}" if over_bar and is_terminal(sys.stderr) else line)


def print_end(connection: Connection, execution: RID, state: ExecutionState, metric: str | None = None) -> None:
    """Print the line about the end of a run, if somebody watches.

    Args:
        connection: The catalog of the execution.
        execution: RID of the execution.
        state: The state of the execution after its end.
        metric: Name of the metric that decides which checkpoint is the best; None to choose it by its name.
    """
    with suppress(Exception):
        if not is_watched():  # before the files are counted
            return
        ending = (
            f"{_ENDINGS.get(state.status, 'ended')} after {format_duration(state.elapsed_run_time().total_seconds())}"
        )
        if execution == DRY_RUN_RID:
            _print(f"Dry run {ending}.")
            return
        result = f"{ending}{_describe_best(state, metric)}{_describe_files(state)}"
        command = sanitize_line(connection.command("show", execution))
        _print(f"Execution {sanitize_line(execution)} {result}. Details: {command}")


def _print(line: str) -> None:
    if is_watched():
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _describe_best(state: ExecutionState, metric: str | None) -> str:
    """Return the best value of the metric that decides, with its epoch; empty if there is none."""
    from deriva_ml_core.metric_modes import choose_metric

    fits = {name: summary for (stage, name), summary in list(state.metrics.items()) if stage == "fit"}
    name = metric if metric in fits else choose_metric(fits)
    if name is None or (best := fits[name].best) is None:
        return ""
    epoch = fits[name].best_at
    at_epoch = "" if epoch is None else f" in epoch {epoch}"
    return f", best {sanitize_line(name)} {format_number(best)}{at_epoch}"


def _describe_files(state: ExecutionState) -> str:
    """Return how many files were sent and how many wait, with their bytes; empty if there are none."""
    newest = {key: state.files[key] for key in list(state.latest_keys.values())}
    files = [file for file in newest.values() if not file.asset.record and not file.is_forgotten]
    sent = [file.stored.length for file in files if file.rid is not None and file.stored is not None]
    waiting = [_size(file) for file in files if file.rid is None and file.is_written]
    parts = []
    if sent:
        parts.append(f"{format_count(len(sent), 'file')} ({format_size(sum(sent))}) sent")
    if waiting:
        verb = "waits" if len(waiting) == 1 else "wait"
        parts.append(f"{format_count(len(waiting), 'file')} ({format_size(sum(waiting))}) {verb} for upload")
    return f"; {', '.join(parts)}" if parts else ""


def _size(file: FileState) -> int:
    path = file.asset.path
    return (path if path.exists() else file.asset.original or path).stat().st_size
