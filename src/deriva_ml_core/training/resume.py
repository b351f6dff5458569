"""A training that goes on from a checkpoint: which run it belongs to, and what its best was."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable, Role
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.execution.execution import Execution
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.execution.restore import restore_execution
from deriva_ml_core.metric_modes import MonitoredValue
from deriva_ml_core.models import Asset
from deriva_ml_core.training.options import ResumePolicy

if TYPE_CHECKING:
    from pydantic import JsonValue

    from deriva_ml_core._concurrency.background_worker import BackgroundWorker
    from deriva_ml_core.training.checkpoints import Checkpoints

__all__ = ["ResumeState", "build_resume_state", "link_checkpoint", "record_files_as_inputs"]

log = logging.getLogger(__name__)


def build_resume_state(execution: Execution | None, checkpoints: Checkpoints | None) -> dict[str, JsonValue]:
    """What a checkpoint carries of its run, as JSON."""
    if execution is None:
        return {}
    best = checkpoints.state() if checkpoints is not None else {}
    return {"execution": execution.execution_rid, "catalog": execution._connection.catalog.name, "best": best}


@dataclass(frozen=True)
class ResumeState:
    """The run that a training goes on from.

    Args:
        execution: Its execution; None where the training begins anew.
        checkpoint: The checkpoint, where it is known.
        best: The best score until then.
        catalog: The name of the execution's catalog, where it is told.
    """

    execution: RID | None = None
    checkpoint: Path | None = None
    best: MonitoredValue | None = None
    catalog: str | None = None

    @classmethod
    def from_state(cls, state: Mapping[str, object], checkpoint: Path | None) -> ResumeState:
        """Read what `build_resume_state` wrote, also in an earlier version; ignore what has another form."""
        rid, catalog = state.get("execution"), state.get("catalog")
        best = None
        match state.get("best"):
            case {"name": str(name), "value": (int() | float()) as value, "larger": bool(larger)}:
                best = MonitoredValue(name, value, larger)
        known = rid if isinstance(rid, str) else None
        return cls(known, checkpoint, best, catalog if isinstance(catalog, str) else None)

    def execution_to_resume(self, resume: ResumePolicy) -> RID | None:
        """The execution that is to go on, where that was asked for by name."""
        return self.execution if resume == "same" else None

    def check_catalog(self, execution: Execution) -> None:
        """Raise where the run that is to go on was found in another catalog than its own, in which its id is another's.

        Raises:
            ConfigurationError: It says which catalog it is.
        """
        if not self._is_same_catalog(execution):
            raise ConfigurationError(
                f"The checkpoint's execution {self.execution} is in the catalog {self.catalog}, and not in "
                f"{execution._connection.catalog.name}: give ml= that catalog, or leave out resume='same'."
            )

    def linked_checkpoint(self, execution: Execution) -> tuple[RID, Path] | None:
        """The earlier execution and its checkpoint, where they are an input of the present one."""
        if self.execution is None or self.checkpoint is None:
            return None
        if not self._is_same_catalog(execution):
            log.warning(
                "The checkpoint %s is of execution %s in another catalog, %s, so it is no input here.",
                self.checkpoint,
                self.execution,
                self.catalog,
            )
            return None
        return None if self.execution == execution.execution_rid else (self.execution, self.checkpoint)

    def _is_same_catalog(self, execution: Execution) -> bool:
        return self.catalog in (None, execution._connection.catalog.name)

    def to_summary(self) -> dict[str, JsonValue] | None:
        """The same, to be kept."""
        if self.execution is None:
            return None
        return {"execution": self.execution, "checkpoint": None if self.checkpoint is None else str(self.checkpoint)}


def link_checkpoint(execution: Execution, earlier_rid: RID, checkpoint: Path, worker: BackgroundWorker) -> None:
    """Record the checkpoint that a training goes on from as an input, so that its lineage leads to the earlier run.

    Args:
        execution: The run that goes on.
        earlier_rid: The run whose checkpoint it is.
        checkpoint: The file or folder. In the earlier run's own folder it lies safe, and is recorded beside the
            training; anywhere else a framework may soon write it again, so that it is recorded first.
        worker: What works beside the training.
    """
    if checkpoint.is_relative_to(execution._connection.working_folder(earlier_rid)):
        worker.submit(lambda: _record_checkpoint_input(execution, earlier_rid, checkpoint))
    else:
        _record_checkpoint_input(execution, earlier_rid, checkpoint)


def _record_checkpoint_input(execution: Execution, earlier_rid: RID, checkpoint: Path) -> None:
    if not record_files_as_inputs(execution, earlier_rid, checkpoint):
        log.warning(
            "The checkpoint %s is no output of execution %s, so it is not recorded as an input of execution %s; "
            "training.json names it.",
            checkpoint,
            earlier_rid,
            execution.execution_rid,
        )


def record_files_as_inputs(execution: Execution, producer: RID, path: Path) -> list[Asset]:
    """Record what an earlier execution made, and lies or lay here as a file or a folder, as inputs of an execution.

    What the earlier one staged and did not send yet, since it was killed say, is sent for it. Of what lies here no
    more, since it was moved into the store say, the last that was sent from here is meant.

    Args:
        execution: What it goes into.
        producer: The execution that made it.
        path: The file, or the folder of files.

    Returns:
        What was recorded; empty where the earlier execution does not know these bytes.

    Raises:
        UnknownRID, WrongTable: There is no such execution in this catalog.
        UploadFailed: It is staged there and cannot be sent.
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
    """The earlier execution's outputs whose bytes these are."""
    outputs = _list_outputs(connection, producer)
    for file in files:
        size = file.stat().st_size
        alike = [asset for asset in outputs if asset.length == size and Path(asset.filename).name == file.name]
        if alike:
            with file.open("rb") as opened:
                md5 = hashlib.file_digest(opened, "md5").hexdigest()
            yield from [asset for asset in alike if asset.md5 == md5][:1]


def _upload_staged_files(connection: Connection, producer: RID, files: list[Path]) -> None:
    restored = restore_execution(connection, producer)
    if staged := [asset.path for asset in restored.staged_assets() if {asset.path, asset.original} & {*files}]:
        restored.upload_execution_outputs(only=staged, clean_folder=False)


def _find_uploaded_from(connection: Connection, producer: RID, path: Path) -> list[Asset]:
    """What the earlier execution sent from a place, or from the folder there."""
    last: dict[Path, RID | None] = {}
    for file in restore_execution(connection, producer)._runtime.journal.state.files.values():
        if path in (file.asset.path, file.asset.original) or path in file.asset.path.parents:
            last[file.asset.path] = file.rid
    return [asset for asset in _list_outputs(connection, producer) if asset.rid in last.values()]


def _list_outputs(connection: Connection, producer: RID) -> list[Asset]:
    return RecordedExecution(connection, connection.require_row(MLTable.execution, producer)).list_assets(Role.output)
