"""Time subjects against baselines in alternating runs, so that load on the machine affects both equally."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

__all__ = ["Comparison", "Trial", "compare", "process_environment", "process_trial", "repeat_calls", "time_call"]

Trial = Callable[[], float]
"""A single run, which returns the measured seconds and excludes its own preparation."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing a subject with a baseline.

    Args:
        seconds: The median of the subject, in seconds.
        floor: The median of the baseline, in seconds.
        ratio: The median of the ratios of consecutive runs.
    """

    seconds: float
    floor: float
    ratio: float


def compare(subject: Trial, floor: Trial, rounds: int) -> Comparison:
    """Run subject and baseline in alternating order, after a warm-up run of each."""
    floor(), subject()
    pairs = []
    for turn in range(rounds):
        if turn % 2:
            seconds = subject()
            pairs.append((seconds, floor()))
        else:
            floor_seconds = floor()
            pairs.append((subject(), floor_seconds))
    subject_times, floor_times = zip(*pairs, strict=True)
    ratios = (seconds / floor_seconds for seconds, floor_seconds in pairs)
    return Comparison(median(subject_times), median(floor_times), median(ratios))


def time_call(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


def repeat_calls(call: Callable[[int], object], times: int) -> Trial:
    """Return a trial of many calls, each with a new number; it returns the mean seconds of a call."""
    next_number = 0

    def trial() -> float:
        nonlocal next_number
        first, next_number = next_number, next_number + times
        start = perf_counter()
        for number in range(first, next_number):
            call(number)
        return (perf_counter() - start) / times

    return trial


def process_environment(**added: str) -> dict[str, str]:
    """Return the environment variables for a new Python process: those of this process and the added ones."""
    # lets Python store the bytecode of a checkout, which pip does for installed packages
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **added}


def process_trial(arguments: Sequence[str | Path], folder: Path, **environ: str) -> Trial:
    """Return a trial that times a new Python process from its start to its end.

    Args:
        arguments: The arguments of ``python``.
        folder: The working directory.
        **environ: Environment variables, added to those of this process.
    """
    command = [sys.executable, *map(str, arguments)]
    environment = process_environment(**environ)

    def trial() -> float:
        start = perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        seconds = perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"{command} exited with code {done.returncode}: {done.stderr}")
        return seconds

    return trial
