"""Regenerate docs/images: train on the digits, and draw the output of ``deriva-ml`` as SVG.

Run it from a clone: ``.venv/bin/python docs/made_pictures.py``.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import git
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
WIDTH = 88
"""Columns of the terminal in a picture."""


def record_digits(folder: Path) -> Path:
    """Commit the example to a repository of its own, run it, and return the folder of its catalog."""
    project, home = folder / "digits", folder / "home"
    project.mkdir()
    for name in ("digits_lightning.py", "digits_data.py", "show_run.py"):
        shutil.copy(ROOT / "examples" / name, project)
    with git.Repo.init(project) as repository:
        repository.create_remote("origin", "https://github.com/example/digits.git")
        repository.git.add(".")
        author = git.Actor("Reader", "reader@example.org")
        repository.index.commit("Train on digits", author=author, committer=author)
    _run("digits_lightning.py", "--epochs", "5", cwd=project, home=home)
    return home


def draw(home: Path, folder: Path, *arguments: str) -> str:
    """Return the output of a command as SVG, without the facts that change with the machine and the clock.

    Args:
        home: The folder of the catalog.
        folder: The working folder of the command.
        *arguments: The arguments of ``deriva-ml``.
    """
    output = _run("-m", "deriva_ml_cli", *arguments, cwd=folder, home=home)
    console = Console(
        record=True,
        width=WIDTH,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(Text(f"$ deriva-ml {' '.join(arguments)}", "bold"))
    for line in _without_facts(output.splitlines(), "created", "by", "on", "folder"):
        console.print(Text.from_ansi(line))
    svg = console.export_svg(title="deriva-ml", theme=MONOKAI)
    # the fonts of rich's template are on another host; the viewer's own monospace font replaces them
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    if str(folder) in svg:
        sys.exit(
            f"The picture of {' '.join(arguments)} names a folder of this machine."
        )
    return svg


def _without_facts(lines: Iterable[str], *names: str) -> Iterator[str]:
    """Leave out facts by name, each with the indented lines that continue it."""
    is_left_out = False
    for line in lines:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
        if not (is_left_out and plain.startswith(" " * 12)):
            is_left_out = bool(re.match(rf"  (?:{'|'.join(names)}) ", plain))
        if not is_left_out:
            yield line


def _run(*command: str, cwd: Path, home: Path) -> str:
    environ = {
        **os.environ,
        "DERIVA_ML_HOME": str(home),
        "COLUMNS": str(WIDTH),
        "FORCE_COLOR": "1",
    }
    done = subprocess.run(  # noqa: S603 - the command is this interpreter
        [sys.executable, *command],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def main() -> None:
    """Write both pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        home = record_digits(folder)
        listing = ("-m", "deriva_ml_cli", "list", "--type", "Training", "--json")
        listed = json.loads(_run(*listing, cwd=folder, home=home))
        (rid,) = (execution["rid"] for execution in listed["executions"])
        for command in ("show", "lineage"):
            picture = draw(home, folder, command, rid)
            (IMAGES / f"{command}.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
