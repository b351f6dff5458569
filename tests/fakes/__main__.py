"""``python -m fakes``: run the fake server, print its address, and stop when standard input is closed."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from fakes.deriva_server import serving

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as fake:
        print(fake.hostname, flush=True)
        sys.stdin.read()
