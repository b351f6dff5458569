"""What survives when a training ends: well, badly, by a signal, or by going on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks.contest.recorders import OURS
from benchmarks.figures import Figure
from benchmarks.fresh import peers, started
from benchmarks.scale import Scale

_WELL, _FAILED, _STOPPED = {"normal", "fit + fit + test"}, {"exception"}, {"Ctrl-C", "SIGTERM", "SIGKILL"}

RIGHT = {
    "Completed": _WELL,
    "Failed": _FAILED,
    "Aborted": _STOPPED,
    "FINISHED": _WELL,
    "FAILED": _FAILED | _STOPPED,
    "KILLED": _STOPPED,
    "exit 0": _WELL,
    "exit 1": _FAILED | _STOPPED,
    "exit 130": {"Ctrl-C"},
    "exit 143": {"SIGTERM"},
    "exit 255": _FAILED | _STOPPED,
    "ended": _WELL,
}
"""Which endings a store's word for a run is right for. A store that says nothing, or that the run goes on, is never."""


@dataclass(frozen=True, slots=True)
class Survived:
    """What was left of one training.

    Args:
        how: How it ended.
        code: Its exit status.
        states: What the store says of each run.
        emitted: How many points it logged.
        kept: How many of them the store has.
    """

    how: str
    code: int
    states: tuple[str, ...]
    emitted: int
    kept: int

    @property
    def right(self) -> bool:
        """Whether the store has one run, and says of it how it ended."""
        return len(self.states) == 1 and self.how in RIGHT.get(self.states[0], ())

    @property
    def honest(self) -> bool:
        """Whether the exit status is 0 where the training ended well, and nowhere else."""
        return (self.code == 0) == (self.how in _WELL)


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """End trainings in six ways, two at a time: nothing is timed."""
    names = [*OURS[1:], *peers(scale)]
    with ThreadPoolExecutor(2) as pool:
        trials = list(product(names, scale.endings))
        survivals = dict(zip(trials, pool.map(lambda trial: _survived(*trial, folder), trials), strict=True))
    for name in names:
        each = [survivals[name, how] for how in scale.endings]
        target = 0 if name.startswith("ours") else None
        for one in each:
            note = f"{' and '.join(one.states) or 'no status'}, exit {one.code}"
            right = None if target is None else one.kept == one.emitted and one.right and one.honest
            yield Figure(one.how, one.kept, f"of {one.emitted}", of=name, note=note, fine=right)
        wrong = len(each) - sum(one.right for one in each)
        yield Figure("status wrong", wrong, f"of {len(each)}", target=target, of=name)
        lost = sum(one.emitted - one.kept for one in each)
        yield Figure("points lost", lost, "points", target=target, of=name)


def _survived(name: str, how: str, folder: Path) -> Survived:
    place = folder / name / how
    done = started(["-m", "benchmarks.contest.ending", name, place, how], place)
    read = started(["-m", "benchmarks.contest.reading", name, place], place)
    if read.code:
        raise RuntimeError(f"What {name} kept after {how} could not be read: {read.said}\nIt had said: {done.said}")
    kept = json.loads((place / "kept.json").read_text())
    emitted = {float(line) for line in (place / "emitted.txt").read_text().split()}
    return Survived(how, done.code, tuple(kept["states"]), len(emitted), len(emitted & set(kept["values"])))
