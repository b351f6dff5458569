"""Time of ``import deriva_ml`` in a new process, and the heavy modules that it must not load."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, comparison_figure
from benchmarks.scale import Scale
from benchmarks.timing import compare, process_trial

HEAVY = ("torch", "keras", "lightning", "pytorch_lightning", "git", "deriva", "sqlalchemy", "pandas", "bdbag", "psutil")
_COUNT_LOADED = "import sys, deriva_ml; print(sum(name in sys.modules for name in sys.argv[1:]))"


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time processes that execute a single import."""
    subject, floor = "import deriva_ml", "from pydantic import BaseModel"
    comparison = compare(process_trial(["-c", subject], folder), process_trial(["-c", floor], folder), 2 * scale.rounds)
    yield comparison_figure(subject, floor, comparison, target=1.8)
    done = subprocess.run([sys.executable, "-c", _COUNT_LOADED, *HEAVY], cwd=folder, capture_output=True, check=True)
    yield Figure("heavy modules that it loads", int(done.stdout), "modules", target=0)
