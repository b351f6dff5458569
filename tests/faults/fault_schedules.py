"""Schedules of faults, the process that runs them, and the promises that must hold afterwards."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faulted_run import OPERATIONS
from file_faults import KINDS

__all__ = ["FaultRunner", "Outcome", "Schedule", "find_violations", "serve_runs"]

CONTENTS = {
    ("Model", "fold-1/new.pt"): (b"new",),
    ("Model", "best.pt"): (b"best",),
    ("Image", "copied.png"): (b"copied",),
    ("Image", "linked.png"): (b"linked",),
    ("Image", "described.png"): (b"described",),
    ("Execution_Metadata", "log.txt"): (b"one\n", b"one\ntwo\n"),
}
"""What `faulted_run` writes to each file."""

TYPES = {
    ("Model", "fold-1/new.pt"): ["Derived", "Model_File"],
    ("Model", "best.pt"): ["Best_Checkpoint", "Model_File"],
}
"""The asset types of files that have other ones than the name of their table."""

STATUS_RANKS = {
    "Created": 0,
    "Running": 1,
    "Pending": 1,
    "Initializing": 1,
    "Completed": 2,
    "Failed": 2,
    "Aborted": 2,
}


@dataclass(frozen=True)
class Schedule:
    """One fault: the n-th call of an operation.

    Args:
        layer: ``python`` or ``library``.
        operation: The operation of `faulted_run`.
        kind: The kind of fault.
        number: The number of the call, from 1.
        existing: Whether the catalog exists before the program opens it.
        path: A part of the paths of the calls that count; empty for all.
    """

    layer: str
    operation: str
    kind: str
    number: int
    existing: bool = True
    path: str = ""

    @classmethod
    def from_seed(cls, layer: str, seed: int, counts: dict[str, dict[str, int]]) -> Schedule:
        """Return the schedule of a seed.

        Args:
            layer: The layer.
            seed: The seed.
            counts: The number of calls of each operation by category, on an existing catalog.
        """
        chance = random.Random(f"{layer} {seed}")
        operation = chance.choice(OPERATIONS)
        kind = chance.choice([kind for kind in KINDS if kind != "none"])
        existing = operation != "open" or chance.random() < 0.2
        calls = sum(
            count for category, count in counts[f"{operation} {existing}"].items() if int(category) & KINDS[kind]
        )
        return cls(layer, operation, kind, chance.randint(1, max(calls, 1)), existing)


@dataclass(frozen=True)
class Outcome:
    """What a run with a fault did, and what the next process found.

    Args:
        how: How the program ended: ``ended``, ``killed``, or a description of a failure.
        notes: What the program did, in order.
        output: The end of its standard output and error.
        repaired: How the second process ended.
        found: What that process found; None if it failed.
    """

    how: str
    notes: list[dict[str, Any]]
    output: str
    repaired: str
    found: dict[str, Any] | None

    @property
    def hit(self) -> str:
        """The call that failed; empty if none did or the process was killed."""
        return next((note["call"] for note in self.notes if note["what"] == "hit"), "")


class FaultRunner:
    """A process that runs schedules, each in children.

    Args:
        process: The process of `faulted_run`.
        layer: Its layer.
    """

    def __init__(self, process: subprocess.Popen[str], layer: str) -> None:
        self._process = process
        self.layer = layer
        self.counts = {
            f"{operation} {existing}": counts
            for existing in (True, False)
            for operation, counts in self._count_calls(existing=existing).items()
        }

    def run(self, schedule: Schedule) -> Outcome:
        """Run the program with a fault, and let another process repair."""
        request = asdict(schedule)
        del request["layer"]
        return self._request(request)

    def schedule(self, seed: int) -> Schedule:
        """Return the schedule of a seed."""
        return Schedule.from_seed(self.layer, seed, self.counts)

    def _count_calls(self, *, existing: bool) -> dict[str, dict[str, int]]:
        outcome = self._request({"operation": "", "kind": "none", "number": 0, "existing": existing, "path": ""})
        assert list(find_violations(outcome)) == []
        (counts,) = [note["counts"] for note in outcome.notes if note["what"] == "counts"]
        return dict(counts)

    def _request(self, request: dict[str, Any]) -> Outcome:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, f"the process that runs schedules ended at {request}"
        return Outcome(**json.loads(answer))


@contextmanager
def serve_runs(folder: Path, layer: str, library: Path | None = None) -> Iterator[FaultRunner]:
    """Start a process that runs schedules.

    Args:
        folder: An empty folder for its files.
        layer: ``python`` or ``library``.
        library: The library of the second layer.
    """
    environment = os.environ | ({"LD_PRELOAD": str(library)} if library else {})
    command = [sys.executable, str(Path(__file__).with_name("faulted_run.py")), layer, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield FaultRunner(process, layer)
        assert process.stdin is not None
        process.stdin.close()


def find_violations(outcome: Outcome) -> Iterator[str]:
    """Yield what was lost, is there twice, went back, is half, or was reported in the wrong way."""
    if outcome.how not in ("ended", "killed"):
        yield f"the program {outcome.how}"
    if outcome.found is None:
        yield f"the second process {outcome.repaired}"
    for text in ("Exception in thread", "Exception ignored"):
        if text in outcome.output:
            yield f"the program printed: {outcome.output}"
    yield from _find_wrong_errors(outcome.notes)
    if outcome.found is not None:
        yield from _find_wrong_records(outcome.notes, outcome.found)


def _find_wrong_errors(notes: list[dict[str, Any]]) -> Iterator[str]:
    for note in notes:
        if note["what"] == "raised":
            yield f"{note['operation']} raised an error that is not the package's own:\n{note['error']}"
        if note["what"] == "refused" and note["operation"] in ("start", "status", "end"):
            yield f"{note['operation']} stopped the training: {note['error']}"


def _find_wrong_records(notes: list[dict[str, Any]], found: dict[str, Any]) -> Iterator[str]:
    for what in ("problems", "left"):
        if found[what]:
            yield f"{what}: {found[what]}"
    created = {note["rid"] for note in notes if note["what"] == "created"}
    executions = {execution["rid"]: execution for execution in found["executions"]}
    if missing := created - executions.keys():
        yield f"lost executions: {missing}"
    for rid, execution in executions.items():
        steps = [note["what"] for note in notes] if rid in created or not created else []
        # a disk that stays full takes neither the row nor the journal; the next process tells that the creation ended
        stays_full = any(note["what"] == "hit" and note["kind"] == "full" for note in notes)
        if (
            created
            and rid not in created
            and execution["shown"] not in ("Failed", "Aborted" if stays_full else "Failed")
        ):
            yield f"the creation of {rid} was refused, and its status is {execution['shown']}"
        yield from _find_wrong_statuses(execution, steps)
        # a creation that was refused left another execution, without files
        yield from _find_wrong_files(notes if rid in created else [], execution)


def _find_wrong_statuses(execution: dict[str, Any], steps: list[str]) -> Iterator[str]:
    last = (execution["journal"] or [execution["status"]])[-1]
    if not execution["status"] == execution["row"] == last:
        yield f"the status is {execution['status']}, in the row {execution['row']}, in the journal {last}"
    for where in ("journal", "rows"):
        statuses = execution[where]
        for earlier, later in itertools.pairwise(statuses):
            is_ended = STATUS_RANKS[earlier] == 2
            if STATUS_RANKS[later] < STATUS_RANKS[earlier] or (is_ended and later != earlier):
                yield f"the status goes back in {where}: {statuses}"
    allowed = {"Completed"} if "ended" in steps else {"Aborted", "Completed"} if "started" in steps else {*STATUS_RANKS}
    for status in (execution["shown"], execution["status"]):
        if status not in allowed:
            yield f"the status is {status} after {steps}"
    if execution["staged"] and "ended" in steps:
        yield f"files are still staged: {execution['staged']}"


def _find_wrong_files(notes: list[dict[str, Any]], execution: dict[str, Any]) -> Iterator[str]:
    rows = Counter((table, name, md5) for table, name, md5, _ in execution["assets"])
    for file in _required_files(notes):
        if rows[file] != 1:
            yield f"{file} has {rows[file]} rows"
    for (table, name, md5), count in rows.items():
        contents = CONTENTS.get((table, name))
        if contents and (count > 1 or not notes or md5 not in [hashlib.md5(each).hexdigest() for each in contents]):
            yield f"{table}/{name} has {count} rows with the MD5 {md5}"
    is_typed = any(note["what"] == "typed" for note in notes)
    for table, name, _, types in execution["assets"]:
        allowed = [TYPES.get((table, name), [table])] if (table, name) in CONTENTS else [types]
        if name == "best.pt" and not is_typed:
            allowed.append(["Model_File"])
        if types not in allowed or not types:
            yield f"{table}/{name} has the types {types}"


def _required_files(notes: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Return table, name and MD5 of each file that must have a row: each last content at an upload or at the end."""
    required: set[tuple[str, str, str]] = set()
    written: dict[tuple[str, str], str] = {}
    for note in notes:
        if note["what"] == "written":
            written[note["table"], note["name"]] = note["md5"]
        if note["what"] == "uploaded":
            required |= {(*key, md5) for key, md5 in written.items()}
    return required | {(*key, md5) for key, md5 in written.items()}
