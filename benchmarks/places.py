"""Where benchmarks happen: new embedded catalogs, and a committed script in a real repository."""

from __future__ import annotations

import subprocess
from itertools import count
from pathlib import Path

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow

__all__ = ["committed_script", "configuration", "fresh_bytes", "open_catalog"]

_REMOTE = "https://github.com/org/repo.git"
_number = count()


def open_catalog(folder: Path) -> DerivaML:
    """The embedded catalog in a folder."""
    return DerivaML(f"file:{folder}")


def configuration() -> ExecutionConfiguration:
    """What an execution needs, with its source given, so that nothing is detected."""
    workflow = Workflow(name="Benchmark", workflow_type="Training", url="https://example.org/benchmark", checksum="b")
    return ExecutionConfiguration(workflow=workflow, description="A benchmark")


def committed_script(folder: Path, text: str) -> Path:
    """A script in a repository of its own, committed, with a remote."""
    folder.mkdir(parents=True)
    script = folder / "train.py"
    script.write_text(text)
    author = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@example.org")
    for arguments in (
        ("init", "-q"),
        ("add", "."),
        (*author, "commit", "-qm", "x"),
        ("remote", "add", "origin", _REMOTE),
    ):
        subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
    return script


def fresh_bytes(length: int) -> bytes:
    """Bytes that no other call in this process has given, so that no store has them yet."""
    return f"{next(_number):020}".encode().ljust(min(length, 2**20), b"-") * max(1, length // 2**20)
