"""Functions that a page's program calls: mark the output of each block, and run shell blocks."""

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
NEWEST, BEFORE = "1-4A2C", "1-4B7E"
"""RIDs in the pages, which stand for the newest execution of the page's catalog and the one before it."""

SHELL_FUNCTIONS = f"""\
pip() {{ "{sys.executable}" "{__file__}" pip "$@"; }}
make() {{ command make --dry-run --directory "{ROOT}" "$@" >/dev/null; }}
deriva-globus-auth-utils() {{ command deriva-globus-auth-utils "$1" --help >/dev/null; }}
"""
"""Replacements of commands that install, build or log in. They only check the arguments."""


def begin_block(number: int) -> None:
    """Mark the output that follows as the output of a block."""
    print(f"\x1e{number}", flush=True)


def run_shell(code: str, names: Mapping[str, Any]) -> None:
    """Run a shell block, and stop the page if one of its commands fails.

    Args:
        code: The block.
        names: Global names of the page. ``ml`` is the client whose RIDs replace those of the page.
    """
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", "-ec", SHELL_FUNCTIONS + _replace_rids(code, names)], env=environ, check=True)


def _replace_rids(code: str, names: Mapping[str, Any]) -> str:
    if NEWEST not in code:
        return code
    from deriva_ml import DerivaML

    newest = [execution.execution_rid for execution in names.get("ml", DerivaML()).find_executions(limit=2)]
    return code.replace(NEWEST, newest[0]).replace(BEFORE, newest[-1])


def _check_pip_arguments(arguments: list[str]) -> int:
    """Return 0 if the arguments are this project with existing extras, or packages that it names, else 1."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    packages = {re.split(r"[\[<>=]", requirement)[0] for extra in extras.values() for requirement in extra}
    for argument in arguments[1:]:
        if this_project := re.fullmatch(r"\.(?:\[([\w,]+)\])?", argument):
            is_valid = set((this_project[1] or "").split(",")) - {""} <= extras.keys()
        else:
            is_valid = argument in packages | {"nbstripout"}
        if not is_valid:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(_check_pip_arguments(sys.argv[2:]))
