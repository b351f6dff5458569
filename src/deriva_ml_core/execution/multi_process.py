"""One execution for all processes of a training: rank zero's, which the others follow and write nothing to."""

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
from deriva_ml_core.models import DatasetSpec, FrozenModel
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
    """Make an execution, or follow that of rank zero; see ``DerivaML.create_execution``."""
    from deriva_ml_core.redaction import redact_text

    rank = current_rank(os.environ)
    if dry_run:
        if rank:
            return _open_as_nonzero_rank(connection, RankMessage(rid=DRY_RUN_RID), rank, configuration)
        trial = create.create_execution(connection, configuration, workflow, dry_run=True)
        register_execution(trial, configuration.workflow or workflow, os.environ)
        return trial
    call = CreateCall(connection, os.environ)
    if rank:
        return _open_as_nonzero_rank(connection, _receive_message(call, rank, connection), rank, configuration)
    try:
        execution = create.create_execution(connection, configuration, workflow, dry_run=False)
    except Exception as error:
        call.publish(RankMessage(error=(type(error).__name__, redact_text(str(error)))), rank=rank)
        raise
    call.publish(RankMessage(rid=execution.execution_rid, folder=execution.working_dir), rank=rank)
    register_execution(execution, configuration.workflow or workflow, os.environ)
    return execution


def restore_execution(connection: Connection, rid: RID) -> Execution:
    """Find an execution again, or follow rank zero in it; see ``DerivaML.restore_execution``."""
    if rank := current_rank(os.environ):
        return _open_as_nonzero_rank(connection, RankMessage(rid=rid), rank)
    return restore.restore_execution(connection, rid)


def resume_execution(connection: Connection, rid: RID) -> Execution:
    """Find an execution again to go on with it, or follow rank zero in it; see ``DerivaML.resume_execution``."""
    if rank := current_rank(os.environ):
        return _open_as_nonzero_rank(connection, RankMessage(rid=rid), rank)
    execution = restore.resume_execution(connection, rid)
    register_execution(execution, None, os.environ)
    return execution


def _receive_message(call: CreateCall, rank: int, connection: Connection) -> RankMessage:
    """Rank zero's word, waited for; a word without an execution where none came."""
    seconds = _rendezvous_timeout()
    was_in_vain = call.timed_out
    if (word := call.wait(seconds)) is not None:
        word.raise_error()
        return word
    if not was_in_vain:
        warn(
            f"This process has rank {rank}, and that of rank zero did not tell it of its execution within {seconds:g} "
            f"seconds: it goes on without one. They meet in {connection.folder}, which all nodes should share; "
            f"{TIMEOUT_VARIABLE} says how long to wait, and {RANK_VARIABLE}=0 makes a process stand for itself."
        )
    return RankMessage(rid=DRY_RUN_RID)


def _rendezvous_timeout() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        return float(text) if text else DEFAULT_TIMEOUT
    except ValueError as error:
        raise ConfigurationError(f"{TIMEOUT_VARIABLE}={text!r} is no number of seconds.") from error


def _open_as_nonzero_rank(
    connection: Connection, message: RankMessage, rank: int, configuration: ExecutionConfiguration | None = None
) -> Execution:
    folder = message.folder or connection.working_folder(message.rid)
    row = _load_row(connection, message.rid, configuration)
    execution = Execution(connection, row, folder, configuration=configuration, restored=True, rank=rank)
    if configuration is not None:
        known = {spec.rid: spec.version for spec in execution.info.datasets}
        datasets = [_pin_recorded_version(connection, spec, known) for spec in configuration.datasets]
        execution._runtime.inputs.record(datasets, lookup_assets(connection, configuration.asset_rids))
    elif not folder.is_dir():
        execution._runtime.inputs.record(execution.list_input_datasets(), execution.list_assets(Role.input))
    return execution


def _pin_recorded_version(
    connection: Connection, spec: DatasetSpec, recorded_versions: dict[RID, str | None]
) -> DatasetSpec:
    """The version that rank zero took, where that can be seen from here."""
    if spec.version is None and spec.rid in recorded_versions:
        return spec.model_copy(update={"version": recorded_versions[spec.rid]})
    return resolve_version(connection, spec)


def _load_row(connection: Connection, rid: RID, configuration: ExecutionConfiguration | None) -> dict[str, Any]:
    if rid != DRY_RUN_RID and (rows := connection.catalog.select(MLTable.execution, {"RID": rid})):
        return rows[0]
    description = "" if configuration is None else configuration.description
    return {"RID": rid, "Description": description, "Status": Status.created}


EXECUTIONS_VARIABLE = "DERIVA_ML_EXECUTIONS"
"""What a process has created so far, for the processes that it launches to inherit.

The count of calls belongs to the process, not to one of its connections, and has to reach children that know nothing
else of it: so it lives in the environment, beside the number of the process that it counts for.
"""

TIMEOUT_VARIABLE = "DERIVA_ML_RENDEZVOUS_SECONDS"
"""The variable that says how long a follower waits for rank zero's word."""

DEFAULT_TIMEOUT = 60.0

MAX_INHERITED = 32
"""Executions that are handed on by the environment: all that a process launches has room for less than 128 KiB."""

MIN_POLL_INTERVAL, MAX_POLL_INTERVAL = 0.01, 0.25
"""Seconds between two looks: twice as long each time, from the first of these to the second."""

START_TOLERANCE = 60.0
"""Seconds by which a process may begin later than rank zero's word came, where only a clock can tell launches apart."""

MAX_MESSAGE_AGE = 86400.0
"""Seconds after which a word that a killed process left is taken away."""


class RankMessage(FrozenModel):
    """What rank zero has to say of one call of ``create_execution``.

    Args:
        rid: The execution; empty where it could not be created.
        folder: Its working folder.
        error: The type and the text of what went wrong.
        lease: The process that says so.
        time: When.
    """

    rid: RID = ""
    folder: Path | None = None
    error: tuple[str, str] | None = None
    lease: ProcessIdentity | None = None
    time: datetime = Field(default_factory=utc_now)

    def raise_error(self) -> None:
        """Raise what rank zero raised, as the same class where it is one of ours."""
        if self.error is None:
            return
        name, text = self.error
        kind = getattr(errors, name, None)
        is_ours = isinstance(kind, type) and issubclass(kind, DerivaMLException)
        message = f"Rank zero could not create the execution: {'' if is_ours else f'{name}: '}{text}"
        raise (kind if is_ours else DerivaMLException)(message)  # type: ignore[misc]


class CreateCall:
    """One call of ``create_execution``, which is the same one in every process that runs the same script.

    Args:
        connection: Whose folders words are left in.
        environ: The process's environment; the call is counted in it.
    """

    def __init__(self, connection: Connection, environ: MutableMapping[str, str]) -> None:
        self._connection = connection
        self._environ = environ
        self._counter = _load_counter(environ)
        self._counter["count"] += 1
        self._save_counter()

    @property
    def number(self) -> int:
        """Which call of the process this is, from 1."""
        return int(self._counter["count"])

    @property
    def timed_out(self) -> bool:
        """Whether this process has waited in vain for a word before."""
        return bool(self._counter["in_vain"])

    def publish(self, message: RankMessage, *, rank: int | None) -> None:
        """Leave a word for the processes of higher ranks; a disk that does not take it is warned about.

        Args:
            message: What to say.
            rank: 0 where others were launched beside this process; None where it can only launch them itself.
        """
        self._save_execution(message)
        if rank is None or world_size(self._environ) == 1:
            return
        signed = message.model_copy(update={"lease": ProcessIdentity.current()})
        for place in self._message_paths():
            try:
                _write_message(place, signed)
            except OSError as error:
                log.warning("The processes of higher ranks cannot be told of execution %s: %s", message.rid, error)

    def wait(self, timeout: float) -> RankMessage | None:
        """Take rank zero's word, as soon as it is there.

        Args:
            timeout: How long to wait for it; at most one look where an earlier call has waited in vain.

        Returns:
            None where there was none.
        """
        if self.number <= self._counter["inherited"]:
            made = self._counter["made"].get(str(self.number))
            return RankMessage(rid=made[0], folder=made[1]) if made else None
        end = time.monotonic() + (0 if self.timed_out else timeout)
        pause = MIN_POLL_INTERVAL
        while (word := self._read_message()) is None and time.monotonic() < end:
            time.sleep(pause)
            pause = min(2 * pause, MAX_POLL_INTERVAL)
        if word is None:
            self._counter["in_vain"] = True
            self._save_counter()
        else:
            self._save_execution(word)
        return word

    def _message_paths(self) -> list[Path]:
        """Where the word lies: of two folders that a launch may share, either will do."""
        key = sha256(launch_key(self._environ).encode()).hexdigest()[:16]
        folders = dict.fromkeys((self._connection.folder, self._connection.address.working_dir))
        return [folder / "rendezvous" / key / f"{self.number}.json" for folder in folders if folder is not None]

    def _read_message(self) -> RankMessage | None:
        for place in self._message_paths():
            with suppress(OSError, ValidationError):
                word = RankMessage.model_validate_json(place.read_bytes())
                if _is_from_this_launch(word):
                    return word
        return None

    def _save_execution(self, message: RankMessage) -> None:
        if message.rid:
            made = {**self._counter["made"], str(self.number): [message.rid, message.folder and str(message.folder)]}
            self._counter["made"] = dict(list(made.items())[-MAX_INHERITED:])
            self._save_counter()

    def _save_counter(self) -> None:
        self._environ[EXECUTIONS_VARIABLE] = json.dumps(self._counter)


def _load_counter(environ: MutableMapping[str, str]) -> dict[str, Any]:
    """How many calls this process has made, and what is known of those that it shares with the one that launched it."""
    empty: dict[str, Any] = {
        "process": os.getpid(),
        "script": sys.argv[0],
        "count": 0,
        "inherited": 0,
        "in_vain": False,
        "made": {},
    }
    found: dict[str, Any] = json.loads(environ.get(EXECUTIONS_VARIABLE, "{}"))  # ours: no user writes it
    if found.get("process") == os.getpid():
        return found
    # a script that begins another one as a process of some training does not share its own executions with it
    if (
        found.get("process") != os.getppid()
        or found.get("script") != sys.argv[0]
        or not is_launched_by_rank_zero(environ)
    ):
        return empty
    shared = {**empty, "inherited": found["count"], "made": found["made"]}
    # what multiprocessing began goes on where its parent was; what Lightning launched runs the script from its top
    return {**shared, "count": found["count"]} if _is_multiprocessing_child() else shared


def _is_multiprocessing_child() -> bool:
    module = sys.modules.get("multiprocessing.process")
    return module is not None and module.parent_process() is not None


def _is_from_this_launch(message: RankMessage) -> bool:
    """Whether a word was left by the rank zero of this launch, not by that of an earlier one with the same key."""
    import psutil

    if message.lease is None:
        return False
    if (is_dead := message.lease.is_dead()) is None:
        return message.time.timestamp() >= psutil.Process().create_time() - START_TOLERANCE
    return not is_dead


def _write_message(path: Path, message: RankMessage) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parents[1].glob("*/*.json"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > MAX_MESSAGE_AGE:
                _remove_message(old)
    write_atomic(path, message.model_dump_json())
    # nothing depends on it: who is killed leaves a word that nobody believes
    atexit.register(partial(_remove_own_message, path, os.getpid()))


def _remove_own_message(path: Path, creator_pid: int) -> None:
    if creator_pid == os.getpid():  # not a child that it forked
        with suppress(OSError):
            _remove_message(path)


def _remove_message(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
