"""Child processes that are killed at a chosen step: a change to a file, journal, catalog or store."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pluggy

from deriva_ml_core.backend import Backend
from deriva_ml_core.client import DerivaML
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.models import Address
from deriva_ml_core.plugins import hookimpl, load_plugins

MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
"""Folder in memory, where nothing waits for a disk; a killed process loses nothing that it wrote there."""

CATALOG_WRITES = {"reserve", "insert", "insert_missing", "insert_unless", "update", "delete", "create_tables"}
STORE_WRITES = {"put", "sync"}
FILE_CHANGES = {f"os.{name}" for name in ("chmod", "link", "mkdir", "remove", "rename", "rmdir", "symlink", "truncate")}
REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/")
OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Step(NamedTuple):
    """A step of a kind, which is the same step in each run, also where threads take their steps in another order.

    Args:
        kind: What the step is, as in `Steps.steps_taken`.
        number: Which one of the steps of this kind, from 1.
    """

    kind: str
    number: int = 1

    @classmethod
    def last(cls, kind: str, steps: list[str]) -> Step:
        """Return the last step of a kind in an undisturbed run."""
        return cls(kind, steps.count(kind))


@dataclass
class Steps:
    """Counts the steps of a process and kills the process at one of them.

    Args:
        folder: Changes to files below this folder are steps.
        last: The step before which the process is killed, or its number from 1; None for never.
    """

    folder: Path
    last: Step | int | None = None
    steps_taken: list[str] = field(default_factory=list)

    def take(self, what: str) -> None:
        self.steps_taken.append(what)
        if self.last in (len(self.steps_taken), Step(what, self.steps_taken.count(what))):
            os.kill(os.getpid(), signal.SIGKILL)

    def handle_audit_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count a change to a file or a server request, as reported by Python's audit hook."""
        if event == "http.client.send" and isinstance(arguments[1], bytes) and (request := REQUEST.match(arguments[1])):
            self.take(_kind_of_request(request[1].decode(), request[2].decode()))
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(flags, int) and flags & OPEN_TO_WRITE):
                return
        elif event in FILE_CHANGES:
            path = arguments[event in ("os.symlink", "os.link")]
        else:
            return
        if isinstance(path, str | os.PathLike) and Path(path).is_relative_to(self.folder):
            self.take(f"{event} {_kind_of_path(Path(path).relative_to(self.folder))}")

    def around(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same call with a step before and one after."""

        def stepping(*arguments: Any, **named: Any) -> Any:
            self.take(f"before {what}")
            result = call(*arguments, **named)
            self.take(f"after {what}")
            return result

        return stepping


def _kind_of_request(method: str, path: str) -> str:
    """Return a request without the parts that differ from run to run."""
    bare = re.sub(r"/catalog/\d+(@[^/]+)?|(?<=[=/(,])[0-9A-Z-]{2,}(?=[),/]|$)|;upload/\w+", "…", path.partition("?")[0])
    return f"{method} {re.sub(r'[0-9a-f]{32}|=.*', '…', bare)}"


def _kind_of_path(path: Path) -> str:
    """Return a path without the parts that differ from run to run."""
    return re.sub(
        r"[0-9a-f]{16,}|\d{8}T[\d.]+Z|(?<=draft-)\d+|(?<=executions/)[^/]+|(?<=objects/)\w\w(?=/|$)", "…", str(path)
    )


class SteppedBackend:
    """A catalog or a store with a step before and after each call that changes something."""

    def __init__(self, real: Any, steps: Steps, verbs: set[str]) -> None:
        self._real = real
        self._steps = steps
        self._verbs = verbs

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._real, name)
        if name not in self._verbs:
            return attribute

        def stepped_call(*arguments: Any, **named: Any) -> Any:
            table = f" {arguments[0]}" if arguments and isinstance(arguments[0], str) else ""
            return self._steps.around(f"{name}{table}", attribute)(*arguments, **named)

        return stepped_call


@dataclass
class StepsPlugin:
    """Wraps both halves of each backend in a `SteppedBackend`."""

    steps: Steps

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Generator[None, Backend, Backend]:
        backend = yield
        catalog, store = (
            SteppedBackend(half, self.steps, verbs)
            for half, verbs in ((backend.catalog, CATALOG_WRITES), (backend.store, STORE_WRITES))
        )
        return replace(backend, catalog=catalog, store=store)  # type: ignore[arg-type]


def first_of_each_kind(steps: list[str]) -> list[int]:
    """Return the numbers, from 1, of the first step of each kind."""
    return [steps.index(kind) + 1 for kind in dict.fromkeys(steps)]


def in_child(
    work: Callable[[DerivaML], None],
    folder: Path,
    open_catalog: Callable[[pluggy.PluginManager], DerivaML],
    last: Step | int | None = None,
) -> list[str] | None:
    """Run a function in a forked child, with a client of a catalog.

    Args:
        work: The function.
        folder: Changes to files below this folder are steps.
        open_catalog: Opens the catalog with plugins.
        last: The step before which the child is killed, or its number from 1; None for never.

    Returns:
        The steps that the child took; None if it was killed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.write(writer, json.dumps(_stepped(work, open_catalog, Steps(folder, last))).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        steps_taken = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    assert status == 0, "the child failed by itself; see its output"
    return json.loads(steps_taken)


def _stepped(
    work: Callable[[DerivaML], None], open_catalog: Callable[[pluggy.PluginManager], DerivaML], steps: Steps
) -> list[str]:
    sys.addaudithook(steps.handle_audit_event)
    append = Journal.append

    def appending(journal: Journal, *events: Any) -> None:
        steps.around("journal " + " ".join(type(event).__name__ for event in events), append)(journal, *events)

    Journal.append = appending  # type: ignore[method-assign]
    manager = load_plugins({})
    manager.register(StepsPlugin(steps), "steps")
    work(open_catalog(manager))
    return steps.steps_taken
