"""Resuming a training from a checkpoint: the run it belongs to, and its best value so far."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core._text import escape_surrogates
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable, Role
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.execution.execution import Execution
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.execution.restore import restore_execution
from deriva_ml_core.metric_modes import MetricMode, Monitor, MonitoredValue, is_validation
from deriva_ml_core.models import Asset
from deriva_ml_core.training.options import ResumePolicy

if TYPE_CHECKING:
    from pydantic import JsonValue

    from deriva_ml_core._concurrency.background_worker import BackgroundWorker
    from deriva_ml_core.training.checkpoints import Checkpoints

__all__ = ["ResumeState", "build_resume_state", "link_checkpoint", "record_files_as_inputs"]

log = logging.getLogger(__name__)


def build_resume_state(
    execution: Execution | None, checkpoints: Checkpoints | None, monitor: Monitor
) -> dict[str, JsonValue]:
    """Return the state that a checkpoint stores about its run, as JSON."""
    if execution is None:
        return {}
    state: dict[str, JsonValue] = {
        "execution": execution.execution_rid,
        "catalog": execution._connection.catalog.name,
        "best": checkpoints.state() if checkpoints is not None else {},
        "monitor": monitor.state(),
    }
    extremes = checkpoints.best_values() if checkpoints is not None else []
    if len(extremes) > 1:
        state["extremes"] = [value.value for value in extremes]
    return state


@dataclass(frozen=True)
class ResumeState:
    """State of the run that a training resumes.

    Args:
        execution: RID of the run's execution; None if the training is not resumed.
        checkpoint: Path of the checkpoint; None if unknown.
        best: Best monitored value so far.
        catalog: Name of the execution's catalog; None if unknown.
        monitor: Name of the monitored metric, whether it is final, and its mode; None if unknown.
        extremes: Smallest and largest monitored value so far, if the mode is unknown.
    """

    execution: RID | None = None
    checkpoint: Path | None = None
    best: MonitoredValue | None = None
    catalog: str | None = None
    monitor: tuple[str, bool, MetricMode | None] | None = None
    extremes: tuple[float, float] | None = None

    @classmethod
    def from_state(cls, state: Mapping[str, object], checkpoint: Path | None) -> ResumeState:
        """Read the state from `build_resume_state`, also of an earlier version; ignore values of another form."""
        rid, catalog = state.get("execution"), state.get("catalog")
        best = None
        match state.get("best"):
            case {"name": str(name), "value": (int() | float()) as value, "larger": bool(larger)}:
                best = MonitoredValue(name, value, larger)
        monitor: tuple[str, bool, MetricMode | None] | None = None
        match state.get("monitor"):
            case {"name": str(name), "final": bool(is_final), "mode": ("min" | "max" | None) as mode}:
                monitor = (name, is_final, mode)
            case _ if best is not None:  # an earlier version, whose mode may be a guess
                monitor = (best.name, is_validation(best.name), None)
        extremes = None
        match state.get("extremes"):
            case [(int() | float()) as smallest, (int() | float()) as largest]:
                extremes = (float(smallest), float(largest))
        execution = rid if isinstance(rid, str) else None
        return cls(execution, checkpoint, best, catalog if isinstance(catalog, str) else None, monitor, extremes)

    @property
    def best_values(self) -> list[MonitoredValue]:
        """Best monitored value so far; the smallest and the largest value if the mode is unknown."""
        if self.best is None and self.monitor is not None and self.extremes is not None:
            return [
                MonitoredValue(self.monitor[0], value, larger)
                for value, larger in zip(self.extremes, (False, True), strict=True)
            ]
        return [] if self.best is None else [self.best]

    def restore_monitor(self, monitor: Monitor) -> None:
        """Restore the choice of the metric in the resumed training."""
        if self.monitor is not None:
            name, is_final, mode = self.monitor
            monitor.restore(name, is_final=is_final, mode=mode)

    def execution_to_resume(self, resume: ResumePolicy) -> RID | None:
        """Return the execution to continue; None unless the policy is ``same``."""
        return self.execution if resume == "same" else None

    def check_catalog(self, execution: Execution) -> None:
        """Check that the checkpoint's run is in this catalog; in another catalog its RID names another row.

        Raises:
            ConfigurationError: The checkpoint's run is in another catalog.
        """
        if not self._is_same_catalog(execution):
            raise ConfigurationError(
                f"The checkpoint's execution {self.execution} is in the catalog {self.catalog}, not in "
                f"{execution._connection.catalog.name}. Pass ml= with that catalog, or omit resume='same'."
            )

    def linked_checkpoint(self, execution: Execution) -> tuple[RID, Path] | None:
        """Return the earlier execution and its checkpoint if the checkpoint is an input of this execution."""
        if self.execution is None or self.checkpoint is None:
            return None
        if not self._is_same_catalog(execution):
            log.warning(
                "Checkpoint %s belongs to execution %s in another catalog, %s; it is not recorded as an input.",
                self.checkpoint,
                self.execution,
                self.catalog,
            )
            return None
        return None if self.execution == execution.execution_rid else (self.execution, self.checkpoint)

    def _is_same_catalog(self, execution: Execution) -> bool:
        return self.catalog in (None, execution._connection.catalog.name)

    def to_summary(self) -> dict[str, JsonValue] | None:
        """Return the state for the training summary; None if the training is not resumed."""
        if self.execution is None:
            return None
        return {"execution": self.execution, "checkpoint": None if self.checkpoint is None else str(self.checkpoint)}


def link_checkpoint(execution: Execution, earlier_rid: RID, checkpoint: Path, worker: BackgroundWorker) -> None:
    """Record a checkpoint from an earlier run as an input, so that the lineage includes that run.

    Args:
        execution: The execution that resumes.
        earlier_rid: RID of the execution that wrote the checkpoint.
        checkpoint: The file or folder. In the earlier run's working folder it does not change, so it is recorded in
            the background. Elsewhere a framework may overwrite it, so it is recorded before training starts.
        worker: Background worker.
    """
    if checkpoint.is_relative_to(execution._connection.working_folder(earlier_rid)):
        worker.submit(lambda: _record_checkpoint_input(execution, earlier_rid, checkpoint))
    else:
        _record_checkpoint_input(execution, earlier_rid, checkpoint)


def _record_checkpoint_input(execution: Execution, earlier_rid: RID, checkpoint: Path) -> None:
    if not record_files_as_inputs(execution, earlier_rid, checkpoint):
        log.warning(
            "Checkpoint %s is not an output of execution %s, so it is not recorded as an input of execution %s; "
            "training.json names it.",
            checkpoint,
            earlier_rid,
            execution.execution_rid,
        )


def record_files_as_inputs(execution: Execution, producer: RID, path: Path) -> list[Asset]:
    """Record the output of an earlier execution at a local path as inputs of an execution.

    Files that the earlier execution staged and did not upload, for example because it was killed, are uploaded first.
    If the path no longer exists, for example because an upload moved it into the store, the newest file uploaded from
    it is recorded.

    Args:
        execution: The execution that gets the inputs.
        producer: RID of the execution that wrote the files.
        path: A file, or a folder of files.

    Returns:
        The recorded assets; empty if no output of the earlier execution has these bytes.

    Raises:
        UnknownRID, WrongTable: There is no such execution in this catalog.
        UploadFailed: A staged file of the earlier execution cannot be uploaded.
    """
    connection = execution._connection
    files = [each for each in sorted(path.rglob("*")) if each.is_file()] if path.is_dir() else [path]
    if not path.exists():
        assets = _find_uploaded_from(connection, producer, path)
    elif len(assets := list(_match_outputs(connection, producer, files))) < len(files):
        _upload_staged_files(connection, producer, files)
        assets = list(_match_outputs(connection, producer, files))
    for asset in assets:
        execution.record_input(asset)
    return assets


def _match_outputs(connection: Connection, producer: RID, files: list[Path]) -> Iterator[Asset]:
    """Yield the outputs of an execution that have the same name and bytes as the files."""
    outputs = _list_outputs(connection, producer)
    for file in files:
        size = file.stat().st_size
        name = escape_surrogates(file.name)
        candidates = [asset for asset in outputs if asset.length == size and Path(asset.filename).name == name]
        if candidates:
            with file.open("rb") as opened:
                md5 = hashlib.file_digest(opened, "md5").hexdigest()
            yield from [asset for asset in candidates if asset.md5 == md5][:1]


def _upload_staged_files(connection: Connection, producer: RID, files: list[Path]) -> None:
    restored = restore_execution(connection, producer)
    if staged := [asset.path for asset in restored.staged_assets() if {asset.path, asset.original} & {*files}]:
        restored.upload_execution_outputs(only=staged, clean_folder=False)


def _find_uploaded_from(connection: Connection, producer: RID, path: Path) -> list[Asset]:
    """Return the outputs that an execution uploaded from a file, or from a folder."""
    last: dict[Path, RID | None] = {}
    for file in restore_execution(connection, producer)._runtime.journal.state.files.values():
        if path in (file.asset.path, file.asset.original) or path in file.asset.path.parents:
            last[file.asset.path] = file.rid
    return [asset for asset in _list_outputs(connection, producer) if asset.rid in last.values()]


def _list_outputs(connection: Connection, producer: RID) -> list[Asset]:
    return RecordedExecution(connection, connection.require_row(MLTable.execution, producer)).list_assets(Role.output)
