"""How long a thing takes beside its floor: medians of runs that take turns, so that a busy machine slows both alike."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

__all__ = ["Beside", "Trial", "beside", "calls", "environment", "process", "seconds"]

Trial = Callable[[], float]
"""One run; it returns the seconds that count, so that what it prepares does not."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What the runs took.

    Args:
        seconds: The subject's median.
        floor: The floor's median.
        ratio: The median of the ratios of runs that were neighbours in time.
    """

    seconds: float
    floor: float
    ratio: float


def beside(subject: Trial, floor: Trial, rounds: int) -> Beside:
    """Run both in turn, each going first every other time, after one run of each that does not count."""
    floor(), subject()
    pairs = []
    for turn in range(rounds):
        if turn % 2:
            taken = subject()
            pairs.append((taken, floor()))
        else:
            least = floor()
            pairs.append((subject(), least))
    taken_each, least_each = zip(*pairs, strict=True)
    return Beside(median(taken_each), median(least_each), median(taken / least for taken, least in pairs))


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


def calls(call: Callable[[int], object], times: int) -> Trial:
    """A run of many calls, each given a number that no call was given before; it returns the seconds of one."""
    following = 0

    def trial() -> float:
        nonlocal following
        first, following = following, following + times
        start = perf_counter()
        for number in range(first, following):
            call(number)
        return (perf_counter() - start) / times

    return trial


def environment(**added: str) -> dict[str, str]:
    """The environment variables of a fresh Python process: ours and these."""
    # pip compiles what it installs; a checkout's modules are to be compiled once too, and not in every process
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **added}


def process(arguments: Sequence[str | Path], folder: Path, **environ: str) -> Trial:
    """A run of a fresh Python process, from its start to its end.

    Args:
        arguments: What follows ``python``.
        folder: Its working directory.
        **environ: Environment variables beside those of this process.
    """
    command = [sys.executable, *map(str, arguments)]
    surroundings = environment(**environ)

    def trial() -> float:
        start = perf_counter()
        done = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True)
        taken = perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr}")
        return taken

    return trial
