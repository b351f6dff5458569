"""Runtime of a page's script: marks where a block begins, and runs shell commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NEWEST, PREVIOUS = "1-4A2C", "1-4B7E"
"""The RIDs that pages use: the newest execution in the page's catalog, and the one before it."""

STUBS = f"""\
pip() {{ "{sys.executable}" "{__file__}" pip "$@"; }}
make() {{ command make --dry-run --directory "{ROOT}" "$@" >/dev/null; }}
deriva-globus-auth-utils() {{ command deriva-globus-auth-utils "$1" --help >/dev/null; }}
"""
"""Replacements for commands that install, build or log in; each still checks its arguments."""


def begin(number: int) -> None:
    """Mark the start of a block's output."""
    print(f"\x1e{number}", flush=True)


def run_shell(code: str, names: Mapping[str, Any]) -> None:
    """Run a shell block; the page ends if one of its commands fails.

    Args:
        code: The block.
        names: The page's globals; ``ml``, if defined, is the catalog that the block's RIDs belong to.
    """
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", "-ec", STUBS + _replace_rids(code, names)], env=environ, check=True)


def _replace_rids(code: str, names: Mapping[str, Any]) -> str:
    if NEWEST not in code:
        return code
    from deriva_ml import DerivaML

    newest = [execution.execution_rid for execution in names.get("ml", DerivaML()).find_executions(limit=2)]
    return code.replace(NEWEST, newest[0]).replace(PREVIOUS, newest[-1])


def _check_pip_arguments(arguments: list[str]) -> int:
    """Check that ``pip install`` names this project with existing extras, or packages that its extras name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    packages = {re.split(r"[\[<>=]", one)[0] for extra in extras.values() for one in extra} | {"nbstripout", "torch"}
    for argument in arguments[1:]:
        if argument in ("-e", "-c", "constraints.txt") or (ROOT / argument / "pyproject.toml").is_file():
            continue
        own = re.fullmatch(r"\.(?:\[([\w,]+)\])?", argument)
        wanted = set((own[1] or "").split(",")) - {""} if own else set()
        if not (wanted <= extras.keys() if own else argument in packages):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(_check_pip_arguments(sys.argv[2:]))
