"""How the processes of one training learn of one execution: what rank zero leaves for the others, and where."""

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
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID
from deriva_ml_core.errors import DerivaMLException
from deriva_ml_core.journal.lease import ProcessIdentity
from deriva_ml_core.journal.story import utc_now
from deriva_ml_core.models import FrozenModel
from deriva_ml_core.ranks import is_launched_by_rank_zero, launch_key, world_size

__all__ = ["DEFAULT_TIMEOUT", "TIMEOUT_VARIABLE", "CreateCall", "RankMessage"]

log = logging.getLogger(__name__)

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
    partial_place = path.with_name(f".{path.name}.{os.getpid()}")
    partial_place.write_text(message.model_dump_json())
    partial_place.replace(path)
    # nothing depends on it: who is killed leaves a word that nobody believes
    atexit.register(partial(_remove_own_message, path, os.getpid()))


def _remove_own_message(path: Path, creator_pid: int) -> None:
    if creator_pid == os.getpid():  # not a child that it forked
        with suppress(OSError):
            _remove_message(path)


def _remove_message(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
