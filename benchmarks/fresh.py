"""Fresh processes that measure one recorder each, all in one environment: the peers' own, where it is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.contest.recorders import MODULES, RECORDERS, settings
from benchmarks.measure import environment
from benchmarks.scale import Scale

__all__ = ["Done", "interpreter", "measured", "peers", "started"]

ROOT = Path(__file__).parents[1]

LIMIT = 1200
"""Seconds after which a process is taken to hang."""


@dataclass(frozen=True, slots=True)
class Done:
    """A process that has ended.

    Args:
        code: Its exit status; negative where a signal ended it.
        said: What it wrote.
        began: When it began, on the clock that all processes share.
        ended: When it had ended.
        figures: What it told; empty where it told nothing.
    """

    code: int
    said: str
    began: float
    ended: float
    figures: dict[str, Any]


def interpreter() -> str:
    """The Python of the environment that `make bench` makes beside ours; where there is none, this one."""
    of_peers = Path(f"{sys.prefix}-peers") / "bin" / "python"
    return str(of_peers) if of_peers.exists() else sys.executable


def peers(scale: Scale) -> tuple[str, ...]:
    """The recorders that are not ours, by name: those that are installed, where they are measured at all."""
    return _installed() if scale.peers else ("lightning csv",)


@cache
def _installed() -> tuple[str, ...]:
    asked = "import sys, importlib.util as u; print(*(n for n in sys.argv[1:] if u.find_spec(n)))"
    modules = sorted(set(MODULES.values()))
    found = subprocess.run([interpreter(), "-c", asked, *modules], capture_output=True, text=True, check=True)
    there = {"pytorch_lightning", *found.stdout.split()}
    others = (name for name in RECORDERS if name != "bare" and not name.startswith("ours"))
    return tuple(name for name in others if MODULES.get(name, "pytorch_lightning") in there)


def started(command: Sequence[str | Path], folder: Path, place: Path | None = None) -> Done:
    """Run a Python process to its end.

    Args:
        command: What follows ``python``.
        folder: Where it keeps everything, made here unless it is there.
        place: Its working directory; `folder` by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    surroundings = environment(**settings(folder), PYTHONPATH=str(ROOT), KERAS_BACKEND="torch")
    began = monotonic()
    done = subprocess.run(
        [interpreter(), *map(str, command)],
        cwd=place or folder,
        env=surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    ended = monotonic()
    told = folder / "figures.json"
    return Done(done.returncode, done.stdout, began, ended, json.loads(told.read_text()) if told.exists() else {})


def measured(script: str, folder: Path, *arguments: object, recorder: str = "") -> Done:
    """Run a script of `benchmarks.contest` that must end well.

    Args:
        script: Its name.
        folder: The folder it works in, which must be new.
        *arguments: What it is given after the folder.
        recorder: What it is given before the folder, if anything.
    """
    leading = [recorder] if recorder else []
    done = started(["-m", f"benchmarks.contest.{script}", *leading, folder, *map(str, arguments)], folder)
    if done.code or not done.figures:
        raise RuntimeError(f"{script} {recorder} ended with {done.code}: {done.said}")
    return done
