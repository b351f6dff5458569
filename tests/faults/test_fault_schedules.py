"""A call of the operating system fails or kills the process: nothing is lost, twice, half, or goes back.

A failing test prints its schedules. ``DERIVA_ML_FAULT=library:17`` runs only that one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fail_points import MEMORY
from fault_schedules import FaultRunner, Schedule, find_violations, serve_runs
from file_faults import NO_COMPILER, compile_library

LAYERS = ("python", "library")
SAMPLE = 20
"""Schedules of each layer that `make test` runs."""

LONG = 1000
"""Schedules of each layer that `make test-long` runs."""

CHUNKS = 10


@pytest.fixture(scope="module", params=LAYERS)
def runner(request: pytest.FixtureRequest) -> Iterator[FaultRunner]:
    """A process that runs schedules below one of the layers."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, ExitStack() as stack:
        library = None
        if request.param == "library" and (library := compile_library(Path(folder))) is None:
            pytest.skip(NO_COMPILER)
        yield stack.enter_context(serve_runs(Path(folder), request.param, library))


def run_seeds(runner: FaultRunner, seeds: Iterable[int]) -> None:
    """Run schedules, and fail with all that they violated and how to repeat it."""
    if chosen := os.environ.get("DERIVA_ML_FAULT"):
        layer, _, seed = chosen.partition(":")
        seeds = [int(seed)] if layer == runner.layer else []
    failures = []
    for seed in seeds:
        schedule = runner.schedule(seed)
        outcome = runner.run(schedule)
        failures += [f"{runner.layer}:{seed} {schedule} {outcome.hit}\n  {each}" for each in find_violations(outcome)]
    assert not failures, "\n".join(failures)


FOUND = [
    ("create", "ENOSPC", "/records/configuration.json"),
    ("create", "EIO", "/records/environment_snapshot"),
    ("create", "EIO", "/executions"),
    ("create", "short", "/journal.jsonl"),
    ("create", "full", "/journal.jsonl"),
    ("stage", "EIO", "/outputs"),
    ("stage", "ENOSPC", ".part"),
    ("stage", "short", "/journal.jsonl"),
]
"""Operation, kind and path of faults that have shown mistakes."""


@pytest.mark.parametrize(("operation", "kind", "path"), FOUND)
def test_fault_that_has_shown_a_mistake(runner: FaultRunner, operation: str, kind: str, path: str) -> None:
    """The first call on a path of that kind fails."""
    outcome = runner.run(Schedule(runner.layer, operation, kind, 1, path=path))
    assert path in outcome.hit
    assert list(find_violations(outcome)) == []


def test_sample(runner: FaultRunner) -> None:
    """A fixed sample of schedules violates nothing."""
    run_seeds(runner, range(SAMPLE))


@pytest.mark.long
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_all_schedules(runner: FaultRunner, chunk: int) -> None:
    """Two thousand schedules violate nothing."""
    run_seeds(runner, range(SAMPLE + chunk, SAMPLE + LONG, CHUNKS))
