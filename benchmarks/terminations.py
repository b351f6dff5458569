"""What trackers have stored after a training ended: normally, by an exception, or by a signal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.processes import installed_trackers, run_python
from benchmarks.scale import Scale
from benchmarks.scripts.recorders import OWN_RECORDERS

_NORMAL, _FAILED, _STOPPED = {"normal", "fit + fit + test"}, {"exception"}, {"Ctrl-C", "SIGTERM", "SIGKILL"}

CORRECT_TERMINATIONS = {
    "Completed": _NORMAL,
    "Failed": _FAILED,
    "Aborted": _STOPPED,
    "FINISHED": _NORMAL,
    "FAILED": _FAILED | _STOPPED,
    "KILLED": _STOPPED,
    "exit 0": _NORMAL,
    "exit 1": _FAILED | _STOPPED,
    "exit 130": {"Ctrl-C"},
    "exit 143": {"SIGTERM"},
    "exit 255": _FAILED | _STOPPED,
    "ended": _NORMAL,
}
"""For each status that a tracker can store, the terminations for which it is correct. No status is never correct."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What a tracker has stored of one training.

    Args:
        termination: How the training ended.
        code: Its exit code.
        states: The stored status of each run.
        logged: The number of points that the training logged.
        stored: The number of points that the tracker stored.
    """

    termination: str
    code: int
    states: tuple[str, ...]
    logged: int
    stored: int

    @property
    def has_correct_status(self) -> bool:
        """Whether the tracker has one run with the correct status."""
        return len(self.states) == 1 and self.termination in CORRECT_TERMINATIONS.get(self.states[0], ())

    @property
    def has_correct_exit_code(self) -> bool:
        """Whether the exit code is 0 exactly if the training ended normally."""
        return (self.code == 0) == (self.termination in _NORMAL)


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """End trainings in six ways, two at a time. Nothing is timed."""
    names = [*OWN_RECORDERS[1:], *installed_trackers(scale)]
    with ThreadPoolExecutor(2) as pool:
        trials = list(product(names, scale.terminations))
        results = dict(zip(trials, pool.map(lambda trial: _end_training(*trial, folder), trials), strict=True))
    for name in names:
        runs = [results[name, termination] for termination in scale.terminations]
        target = 0 if name.startswith("deriva-ml") else None
        for result in runs:
            note = f"{' and '.join(result.states) or 'no status'}, exit {result.code}"
            correct = result.stored == result.logged and result.has_correct_status and result.has_correct_exit_code
            fine = None if target is None else correct
            yield Figure(result.termination, result.stored, f"of {result.logged}", of=name, note=note, fine=fine)
        wrong = len(runs) - sum(result.has_correct_status for result in runs)
        yield Figure("wrong status", wrong, f"of {len(runs)}", target=target, of=name)
        lost = sum(result.logged - result.stored for result in runs)
        yield Figure("lost points", lost, "points", target=target, of=name)


def _end_training(name: str, termination: str, folder: Path) -> StoredRun:
    place = folder / name / termination
    training = run_python(["-m", "benchmarks.scripts.termination", name, place, termination], place)
    reader = run_python(["-m", "benchmarks.scripts.stored_metrics", name, place], place)
    if reader.code:
        raise RuntimeError(
            f"The data of {name} after {termination} could not be read: {reader.output}\n"
            f"Output of the training: {training.output}"
        )
    stored = json.loads((place / "stored.json").read_text())
    logged = {float(line) for line in (place / "logged.txt").read_text().split()}
    return StoredRun(
        termination, training.code, tuple(stored["states"]), len(logged), len(logged & set(stored["values"]))
    )
