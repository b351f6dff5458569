"""The result of a command, run in a process of its own or in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CommandResult:
    """The exit code and the output of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        assert self.stdout, self.stderr
        return json.loads(self.stdout)


def run_in_process(*args: str, **environ: str) -> CommandResult:
    """Run ``deriva-ml`` in a process of its own, without a terminal."""
    command = [sys.executable, "-m", "deriva_ml_cli", *args]
    process = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environ}, check=False)
    return CommandResult(process.returncode, process.stdout, process.stderr)
