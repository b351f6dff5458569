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


def draw(home: Path, folder: Path, *arguments: str, without: str = "") -> str:
    """Return the output of a command as SVG.

    Args:
        home: The folder of the catalog.
        folder: The working folder of the command.
        *arguments: The arguments of ``deriva-ml``.
        without: A regular expression of lines to leave out.
    """
    output = _run("-m", "deriva_ml_cli", *arguments, cwd=folder, home=home)
    lines = [
        line
        for line in output.splitlines()
        if not (without and re.search(without, line))
    ]
    console = Console(
        record=True,
        width=WIDTH,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(Text(f"$ deriva-ml {' '.join(arguments)}", "bold"))
    console.print(Text.from_ansi("\n".join(lines)))
    svg = console.export_svg(title="deriva-ml", theme=MONOKAI)
    # the fonts of rich's template are on another host; the viewer's own monospace font replaces them
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


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
        listed = _run(
            "-m",
            "deriva_ml_cli",
            "list",
            "--type",
            "Training",
            "--json",
            cwd=folder,
            home=home,
        )
        (rid,) = (execution["rid"] for execution in json.loads(listed)["executions"])
        local = r"^  folder |^ +/\S+$"  # names this machine
        (IMAGES / "show.svg").write_text(
            draw(home, folder, "show", rid, without=local), encoding="utf-8"
        )
        (IMAGES / "lineage.svg").write_text(
            draw(home, folder, "lineage", rid), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
