"""Embedded catalogs, execution configurations, committed scripts and file contents for benchmarks."""

from __future__ import annotations

import subprocess
from itertools import count
from pathlib import Path

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow

__all__ = ["committed_script", "execution_configuration", "open_catalog", "unique_bytes"]

_REMOTE = "https://github.com/org/repo.git"
_number = count()


def open_catalog(folder: Path) -> DerivaML:
    """Open the embedded catalog in a folder."""
    return DerivaML(f"file:{folder}")


def execution_configuration() -> ExecutionConfiguration:
    """Return the configuration of an execution with an explicit source, so that nothing is detected."""
    workflow = Workflow(name="Benchmark", workflow_type="Training", url="https://example.org/benchmark", checksum="b")
    return ExecutionConfiguration(workflow=workflow, description="A benchmark")


def committed_script(folder: Path, text: str) -> Path:
    """Create a repository with a committed script and a remote, and return the script."""
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


def unique_bytes(length: int) -> bytes:
    """Return bytes that no other call in this process returns, so that no store contains them yet."""
    return f"{next(_number):020}".encode().ljust(min(length, 2**20), b"-") * max(1, length // 2**20)
