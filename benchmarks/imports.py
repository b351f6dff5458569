"""What ``import deriva_ml`` costs a process, and what it must not load."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, compared
from benchmarks.measure import beside, process
from benchmarks.scale import Scale

HEAVY = ("torch", "keras", "lightning", "pytorch_lightning", "git", "deriva", "sqlalchemy", "pandas", "bdbag", "psutil")
_LOADED = "import sys, deriva_ml; print(sum(name in sys.modules for name in sys.argv[1:]))"


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time whole processes that import one thing."""
    ours, theirs = "import deriva_ml", "from pydantic import BaseModel"
    taken = beside(process(["-c", ours], folder), process(["-c", theirs], folder), 2 * scale.rounds)
    yield compared(ours, theirs, taken, target=1.8)
    done = subprocess.run([sys.executable, "-c", _LOADED, *HEAVY], cwd=folder, capture_output=True, check=True)
    yield Figure("heavy modules that it loads", int(done.stdout), "modules", target=0)
