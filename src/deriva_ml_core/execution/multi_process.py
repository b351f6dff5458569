"""Shares one execution between all processes of a distributed run.

Rank 0 creates and records the execution. It publishes the RID in a file; higher ranks read it and record nothing.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import time
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from deriva_ml_core import errors
from deriva_ml_core._files.atomic import write_atomic
from deriva_ml_core._files.permissions import create_folder
from deriva_ml_core._text import error_message
from deriva_ml_core.assets.lookup import lookup_assets
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets import resolve_version
from deriva_ml_core.definitions import DRY_RUN_RID, RID, MLTable, Role, Status
from deriva_ml_core.distributed import RANK_VARIABLE, current_rank, is_launched_by_rank_zero, launch_key, world_size
from deriva_ml_core.errors import ConfigurationError, DerivaMLException
from deriva_ml_core.execution import create, restore
from deriva_ml_core.execution.configuration import ExecutionConfiguration
from deriva_ml_core.execution.execution import Execution
from deriva_ml_core.execution.kernel_registry import register_execution
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.journal.state import utc_now
from deriva_ml_core.models import DatasetSpec, FrozenModel, JsonPath
from deriva_ml_core.user_warnings import warn
from deriva_ml_core.workflow import Workflow

__all__ = [
    "DEFAULT_TIMEOUT",
    "TIMEOUT_VARIABLE",
    "CreateCall",
    "RankMessage",
    "create_execution",
    "restore_execution",
    "resume_execution",
]

log = logging.getLogger(__name__)


def create_execution(
    connection: Connection, configuration: ExecutionConfiguration, workflow: Workflow | RID | None, *, dry_run: bool
) -> Execution:
    """Create an execution, or open that of rank 0; see ``DerivaML.create_execution``."""
    from deriva_ml_core.redaction import redact_text

    rank = current_rank(os.environ)
    if dry_run:
        if rank:
            return _open_as_nonzero_rank(connection, RankMessage(rid=DRY_RUN_RID), rank, configuration)
        execution = create.create_execution(connection, configuration, workflow, dry_run=True)
        register_execution(execution, configuration.workflow or workflow, os.environ)
        return execution
    call = CreateCall(connection, os.environ)
    if rank:
        return _open_as_nonzero_rank(connection, _receive_message(call, rank, connection), rank, configuration)
    try:
        execution = create.create_execution(connection, configuration, workflow, dry_run=False)
    except Exception as error:
        call.publish(RankMessage(error=(type(error).__name__, redact_text(error_message(error)))), rank=rank)
        raise
    call.publish(RankMessage(rid=execution.execution_rid, folder=execution.working_dir), rank=rank)
    register_execution(execution, configuration.workflow or workflow, os.environ)
    return execution


def restore_execution(connection: Connection, rid: RID) -> Execution:
    """Restore an execution, on higher ranks without recording; see ``DerivaML.restore_execution``."""
    if rank := current_rank(os.environ):
        return _open_as_nonzero_rank(connection, RankMessage(rid=rid), rank)
    return restore.restore_execution(connection, rid)


def resume_execution(connection: Connection, rid: RID) -> Execution:
    """Restore an execution to resume its run, on higher ranks without recording; see ``DerivaML.resume_execution``."""
    if rank := current_rank(os.environ):
        return _open_as_nonzero_rank(connection, RankMessage(rid=rid), rank)
    execution = restore.resume_execution(connection, rid)
    register_execution(execution, None, os.environ)
    return execution


def _receive_message(call: CreateCall, rank: int, connection: Connection) -> RankMessage:
    """Wait for the message of rank 0; after the timeout, return the message of a dry run."""
    seconds = _rendezvous_timeout()
    had_timed_out = call.timed_out
    if (message := call.wait(seconds)) is not None:
        message.raise_error()
        return message
    if not had_timed_out:
        warn(
            f"Rank {rank} received no execution from rank 0 within {seconds:g} s and continues unrecorded. All nodes "
            f"must share the folder {connection.folder}. Set {TIMEOUT_VARIABLE} to wait longer, or {RANK_VARIABLE}=0 "
            "for a process that runs on its own."
        )
    return RankMessage(rid=DRY_RUN_RID)


def _rendezvous_timeout() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        return float(text) if text else DEFAULT_TIMEOUT
    except ValueError as error:
        raise ConfigurationError(f"{TIMEOUT_VARIABLE}={text!r} is not a number of seconds.") from error


def _open_as_nonzero_rank(
    connection: Connection, message: RankMessage, rank: int, configuration: ExecutionConfiguration | None = None
) -> Execution:
    folder = message.folder or connection.working_folder(message.rid)
    row = _load_row(connection, message.rid, configuration)
    execution = Execution(connection, row, folder, configuration=configuration, restored=True, rank=rank)
    if configuration is not None:
        versions = {spec.rid: spec.version for spec in execution.info.datasets}
        datasets = [_pin_recorded_version(connection, spec, versions) for spec in configuration.datasets]
        execution._runtime.inputs.record(datasets, lookup_assets(connection, configuration.asset_rids))
    elif not folder.is_dir():
        execution._runtime.inputs.record(execution.list_input_datasets(), execution.list_assets(Role.input))
    return execution


def _pin_recorded_version(
    connection: Connection, spec: DatasetSpec, recorded_versions: dict[RID, str | None]
) -> DatasetSpec:
    """Set the version that rank 0 recorded, if it is visible to this process; else resolve it."""
    if spec.version is None and spec.rid in recorded_versions:
        return spec.model_copy(update={"version": recorded_versions[spec.rid]})
    return resolve_version(connection, spec)


def _load_row(connection: Connection, rid: RID, configuration: ExecutionConfiguration | None) -> dict[str, Any]:
    if rid != DRY_RUN_RID and (rows := connection.catalog.select(MLTable.execution, {"RID": rid})):
        return rows[0]
    description = "" if configuration is None else configuration.description
    return {"RID": rid, "Description": description, "Status": Status.created}


EXECUTIONS_VARIABLE = "DERIVA_ML_EXECUTIONS"
"""Environment variable with the executions that a process has created, inherited by the processes that it launches.

The number of calls belongs to the process, not to a connection, and must reach child processes that share nothing else
with it. It is therefore in the environment, together with the id of the process.
"""

TIMEOUT_VARIABLE = "DERIVA_ML_RENDEZVOUS_SECONDS"
"""Environment variable with the seconds that higher ranks wait for the message of rank 0."""

DEFAULT_TIMEOUT = 60.0
"""Seconds that higher ranks wait by default."""

MAX_INHERITED = 32
"""Maximum number of executions in the environment variable: the environment of a process is limited (128 KiB)."""

MIN_POLL_INTERVAL, MAX_POLL_INTERVAL = 0.01, 0.25
"""Seconds between two polls: the interval doubles each time, from the first value to the second."""

START_TOLERANCE = 60.0
"""Seconds by which a process may start after the message of rank 0, where only the clock distinguishes launches."""

MAX_MESSAGE_AGE = 86400.0
"""Seconds after which the message of a killed process is removed."""


class RankMessage(FrozenModel):
    """The message of rank 0 to higher ranks about one call of ``create_execution``.

    Args:
        rid: RID of the execution; empty if it could not be created.
        folder: Its working folder.
        error: Type and message of the error.
        lease: The process that published the message.
        time: Time of publication, in UTC.
    """

    rid: RID = ""
    folder: JsonPath | None = None
    error: tuple[str, str] | None = None
    lease: ProcessIdentity | None = None
    time: datetime = Field(default_factory=utc_now)

    def raise_error(self) -> None:
        """Raise the error of rank 0, as the same class if it is an error of this package."""
        if self.error is None:
            return
        name, text = self.error
        error_class = getattr(errors, name, None)
        is_ours = isinstance(error_class, type) and issubclass(error_class, DerivaMLException)
        message = f"Rank 0 failed to create the execution: {'' if is_ours else f'{name}: '}{text}"
        raise (error_class if is_ours else DerivaMLException)(message)  # type: ignore[misc]


class CreateCall:
    """One call of ``create_execution``, identified by its number in every process that runs the same script.

    Args:
        connection: The connection whose folders hold the messages.
        environ: The process's environment, in which the call is counted.
    """

    def __init__(self, connection: Connection, environ: MutableMapping[str, str]) -> None:
        self._connection = connection
        self._environ = environ
        self._counter = _load_counter(environ)
        self._counter["count"] += 1
        self._save_counter()

    @property
    def number(self) -> int:
        """Number of the call in the process, from 1."""
        return int(self._counter["count"])

    @property
    def timed_out(self) -> bool:
        """Whether an earlier call in this process timed out."""
        return bool(self._counter["in_vain"])

    def publish(self, message: RankMessage, *, rank: int | None) -> None:
        """Publish a message for higher ranks; log a warning if it cannot be written.

        Args:
            message: The message.
            rank: 0 if other processes were launched together with this one; None if only this process can launch them.
        """
        self._save_execution(message)
        if rank is None or world_size(self._environ) == 1:
            return
        signed = message.model_copy(update={"lease": ProcessIdentity.current()})
        for path in self._message_paths():
            try:
                _write_message(path, signed)
            except OSError as error:
                log.warning("Failed to publish execution %s to higher ranks: %s", message.rid, error)

    def wait(self, timeout: float) -> RankMessage | None:
        """Wait for the message of rank 0.

        Args:
            timeout: Maximum seconds to wait; after an earlier timeout the message is only checked once.

        Returns:
            The message; None if there was none.
        """
        if self.number <= self._counter["inherited"]:
            inherited = self._counter["made"].get(str(self.number))
            return RankMessage(rid=inherited[0], folder=inherited[1]) if inherited else None
        deadline = time.monotonic() + (0 if self.timed_out else timeout)
        interval = MIN_POLL_INTERVAL
        while (message := self._read_message()) is None and time.monotonic() < deadline:
            time.sleep(interval)
            interval = min(2 * interval, MAX_POLL_INTERVAL)
        if message is None:
            self._counter["in_vain"] = True
            self._save_counter()
        else:
            self._save_execution(message)
        return message

    def _message_paths(self) -> list[Path]:
        """Paths of the message; it is written to two folders, since a launch may share only one of them."""
        key = sha256(launch_key(self._environ).encode()).hexdigest()[:16]
        folders = dict.fromkeys((self._connection.folder, self._connection.address.working_dir))
        return [folder / "rendezvous" / key / f"{self.number}.json" for folder in folders if folder is not None]

    def _read_message(self) -> RankMessage | None:
        for path in self._message_paths():
            with suppress(OSError, ValidationError):
                message = RankMessage.model_validate_json(path.read_bytes())
                if _is_from_this_launch(message):
                    return message
        return None

    def _save_execution(self, message: RankMessage) -> None:
        if message.rid:
            entry = [message.rid, message.folder and str(message.folder)]
            executions = {**self._counter["made"], str(self.number): entry}
            self._counter["made"] = dict(list(executions.items())[-MAX_INHERITED:])
            self._save_counter()

    def _save_counter(self) -> None:
        self._environ[EXECUTIONS_VARIABLE] = json.dumps(self._counter)


def _load_counter(environ: MutableMapping[str, str]) -> dict[str, Any]:
    """Load the number of calls in this process, and the executions inherited from the process that launched it."""
    empty: dict[str, Any] = {
        "process": os.getpid(),
        "script": sys.argv[0],
        "count": 0,
        "inherited": 0,
        "in_vain": False,
        "made": {},
    }
    # only this module writes the variable, so it needs no validation
    counter: dict[str, Any] = json.loads(environ.get(EXECUTIONS_VARIABLE, "{}"))
    if counter.get("process") == os.getpid():
        return counter
    # a script that starts another script as part of a distributed run does not share its executions with it
    if (
        counter.get("process") != os.getppid()
        or counter.get("script") != sys.argv[0]
        or not is_launched_by_rank_zero(environ)
    ):
        return empty
    inherited = {**empty, "inherited": counter["count"], "made": counter["made"]}
    # a multiprocessing child continues where its parent was; a child that Lightning launched runs the script from the
    # start
    return {**inherited, "count": counter["count"]} if _is_multiprocessing_child() else inherited


def _is_multiprocessing_child() -> bool:
    module = sys.modules.get("multiprocessing.process")
    return module is not None and module.parent_process() is not None


def _is_from_this_launch(message: RankMessage) -> bool:
    """Whether a message is from rank 0 of this launch, and not of an earlier launch with the same key."""
    import psutil

    if message.lease is None:
        return False
    if (is_dead := message.lease.is_dead()) is None:
        return message.time.timestamp() >= psutil.Process().create_time() - START_TOLERANCE
    return not is_dead


def _write_message(path: Path, message: RankMessage) -> None:
    create_folder(path.parent, root=path.parents[2])
    for old in path.parents[1].glob("*/*.json"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > MAX_MESSAGE_AGE:
                _remove_message(old)
    write_atomic(path, message.model_dump_json())
    # only a clean-up: readers ignore the message of a killed process
    atexit.register(partial(_remove_own_message, path, os.getpid()))


def _remove_own_message(path: Path, creator_pid: int) -> None:
    if creator_pid == os.getpid():  # a forked child must not remove the message of its parent
        with suppress(OSError):
            _remove_message(path)


def _remove_message(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
