"""What a command says, asked in a process of its own or in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Said:
    """What a command said, and the code that it ended with."""

    code: int
    out: str
    complaint: str

    @property
    def json(self) -> Any:
        assert self.out, self.complaint
        return json.loads(self.out)


def called(*words: str, **environ: str) -> Said:
    """Call ``deriva-ml`` in a process of its own, without a terminal."""
    command = [sys.executable, "-m", "deriva_ml_cli", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environ}, timeout=120, check=False
    )
    return Said(done.returncode, done.stdout, done.stderr)
