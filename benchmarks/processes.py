"""Run measuring scripts in new processes, in the environment of the other trackers if it is installed."""

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

from benchmarks.scale import Scale
from benchmarks.scripts.recorders import MODULES, RECORDERS, isolated_environment
from benchmarks.timing import process_environment

__all__ = ["ProcessResult", "installed_trackers", "interpreter", "run_python", "run_script"]

ROOT = Path(__file__).parents[1]

TIMEOUT = 1200
"""Seconds after which a process is considered to hang."""


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """The result of a process.

    Args:
        code: The exit code; negative if a signal ended the process.
        output: What it printed.
        started_at: When it started, on the monotonic clock that all processes share.
        ended_at: When it ended, on the same clock.
        figures: The figures that it wrote; empty if it wrote none.
    """

    code: int
    output: str
    started_at: float
    ended_at: float
    figures: dict[str, Any]


def interpreter() -> str:
    """Return the Python of the environment that `make bench` creates for the other trackers, or this one."""
    tracker_python = Path(f"{sys.prefix}-trackers") / "bin" / "python"
    return str(tracker_python) if tracker_python.exists() else sys.executable


def installed_trackers(scale: Scale) -> tuple[str, ...]:
    """Return the names of the other trackers that are installed; only Lightning's CSVLogger in small benchmarks."""
    return _find_trackers() if scale.trackers else ("lightning csv",)


@cache
def _find_trackers() -> tuple[str, ...]:
    program = "import sys, importlib.util as u; print(*(n for n in sys.argv[1:] if u.find_spec(n)))"
    modules = sorted(set(MODULES.values()))
    done = subprocess.run([interpreter(), "-c", program, *modules], capture_output=True, text=True, check=True)
    installed = {"pytorch_lightning", *done.stdout.split()}
    others = (name for name in RECORDERS if name != "bare" and not name.startswith("deriva-ml"))
    return tuple(name for name in others if MODULES.get(name, "pytorch_lightning") in installed)


def run_python(arguments: Sequence[str | Path], folder: Path, cwd: Path | None = None) -> ProcessResult:
    """Run a Python process to its end.

    Args:
        arguments: The arguments of ``python``.
        folder: The folder for all its files; created if missing.
        cwd: The working directory; `folder` by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = process_environment(**isolated_environment(folder), PYTHONPATH=str(ROOT), KERAS_BACKEND="torch")
    started_at = monotonic()
    done = subprocess.run(
        [interpreter(), *map(str, arguments)],
        cwd=cwd or folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    ended_at = monotonic()
    file = folder / "figures.json"
    figures = json.loads(file.read_text()) if file.exists() else {}
    return ProcessResult(done.returncode, done.stdout, started_at, ended_at, figures)


def run_script(script: str, folder: Path, *arguments: object, recorder: str = "") -> ProcessResult:
    """Run a script of `benchmarks.scripts`, which must succeed.

    Args:
        script: The name of the script.
        folder: The folder of the script, which must be new.
        *arguments: The arguments after the folder.
        recorder: The argument before the folder, if any.
    """
    leading = [recorder] if recorder else []
    done = run_python(["-m", f"benchmarks.scripts.{script}", *leading, folder, *map(str, arguments)], folder)
    if done.code or not done.figures:
        raise RuntimeError(f"{script} {recorder} exited with code {done.code}: {done.output}")
    return done
