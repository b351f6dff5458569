"""``python -m fakes``: the fake server alone; it prints its address, and ends with its standard input."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from fakes.deriva_server import serving

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as fake:
        print(fake.hostname, flush=True)
        sys.stdin.read()
