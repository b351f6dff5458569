"""What a page's program needs beside its blocks: to say where each begins, and to run its shell's."""

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
"""The record ids that pages name: of the newest execution in the page's catalog, and of the one before it."""

READER = f"""\
pip() {{ "{sys.executable}" "{__file__}" pip "$@"; }}
make() {{ command make --dry-run --directory "{ROOT}" "$@" >/dev/null; }}
deriva-globus-auth-utils() {{ command deriva-globus-auth-utils "$1" --help >/dev/null; }}
"""
"""What a test does not do for a reader: install, build, and log in; but each is looked at."""


def begin(number: int) -> None:
    """Say that what is printed from now on is of this block."""
    print(f"\x1e{number}", flush=True)


def shell(code: str, names: Mapping[str, Any]) -> None:
    """Run a shell's block, and end the page where one of its commands fails.

    Args:
        code: The block.
        names: The page's own; ``ml`` is the catalog whose record ids are meant.
    """
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", "-ec", READER + _meant(code, names)], env=environ, check=True)


def _meant(code: str, names: Mapping[str, Any]) -> str:
    if NEWEST not in code:
        return code
    from deriva_ml import DerivaML

    newest = [each.execution_rid for each in names.get("ml", DerivaML()).find_executions(limit=2)]
    return code.replace(NEWEST, newest[0]).replace(BEFORE, newest[-1])


def _check_installing(words: list[str]) -> int:
    """Whether what is installed is this project with extras that it has, or others' packages that it names."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {re.split(r"[\[<>=]", one)[0] for extra in known["optional-dependencies"].values() for one in extra}
    for word in words[1:]:
        ours = re.fullmatch(r"\.(?:\[([\w,]+)\])?", word)
        extras = set((ours[1] or "").split(",")) - {""} if ours else set()
        if not (extras <= known["optional-dependencies"].keys() if ours else word in named | {"nbstripout"}):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(_check_installing(sys.argv[2:]))
