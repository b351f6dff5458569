"""A page as a program: its blocks, one after the other, as a committed script that its reader runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import git
import nbformat

from pages import Block

TESTS = Path(__file__).parent

A_TRAINING = '''\
"""`model`, `data`, `network`, `x` and `y` are the reader's own: here the smallest that there are."""
import logging, os, warnings

os.environ["KERAS_BACKEND"] = "torch"
import keras
from pytorch_lightning.demos.boring_classes import BoringModel, RandomDataset
from torch.utils.data import DataLoader

warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
model, data = BoringModel(), DataLoader(RandomDataset(32, 8))
x, y = keras.random.normal((32, 3), seed=1), keras.random.normal((32, 1), seed=2)
network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
network.compile("sgd", "mse")
'''

MARK = "\x1e"
"""Stands before the number of a block, where what it prints begins."""


@dataclass(frozen=True)
class Ran:
    """What became of a page.

    Args:
        code: The exit code of its program.
        printed: What each block printed, by its number among the page's blocks.
        complaints: What was said on standard error.
    """

    code: int
    printed: Mapping[int, str]
    complaints: str


def run_blocks(blocks: Sequence[Block], prelude: str, folder: Path, **environ: str) -> Ran:
    """Run a page's Python and bash blocks in order, in one process, in a repository that has them committed.

    Args:
        blocks: The blocks; one with a title is a file, which is there from the beginning.
        prelude: What the reader has already, as Python.
        folder: Where the repository and the reader's home are made.
        **environ: Further environment variables.
    """
    project = folder / "project"
    for name, code in files_of(blocks).items():
        file = project / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, encoding="utf-8")
    commit_script(project, "\n".join([prelude, *_steps(blocks)]))
    done = run_script(project, PYTHONPATH=os.pathsep.join([str(folder / "installed"), str(TESTS)]), **environ)
    numbered = re.findall(rf"{MARK}(\d+)\n([^{MARK}]*)", done.stdout)
    return Ran(done.returncode, {int(number): said for number, said in numbered}, done.stderr)


def files_of(blocks: Sequence[Block]) -> dict[str, str]:
    """The files that a page shows, by name; blocks whose titles say which cell they are make a notebook."""
    files = {}
    notebooks: dict[str, Any] = {}
    for block in blocks:
        name, _, cell = block.title.partition(", the ")
        if cell:
            tags = re.findall(r"tagged (\w+)", cell)
            notebook = notebooks.setdefault(name, nbformat.v4.new_notebook())
            notebook.cells.append(nbformat.v4.new_code_cell(block.code.rstrip(), metadata={"tags": tags}))
        elif name:
            files[name] = block.code
    return files | {name: nbformat.writes(notebook) for name, notebook in notebooks.items()}


def _steps(blocks: Sequence[Block]) -> list[str]:
    steps = ["import page_reader"]
    for number, block in enumerate(blocks):
        if block.title or block.language not in ("python", "bash"):
            continue
        steps.append(f"page_reader.begin({number})")
        steps.append(block.code if block.language == "python" else f"page_reader.shell({block.code!r}, globals())")
    return steps


def commit_script(folder: Path, program: str) -> None:
    """Lay a program down as ``train.py`` in a repository of its reader's, with all that is there, and commit it."""
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(program, encoding="utf-8")
    with git.Repo.init(folder) as repository:
        repository.create_remote("origin", "https://github.com/reader/project.git")
        repository.git.add(".")
        author = git.Actor("Reader", "reader@example.org")
        repository.index.commit("Train", author=author, committer=author)


def run_script(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it in its own folder, as its reader would, with a ``DERIVA_ML_HOME`` beside it."""
    given = {"DERIVA_ML_HOME": str(folder.parent / "home"), "COLUMNS": "100", **environ}
    command = [sys.executable, "train.py"]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **given}, capture_output=True, text=True, check=False, timeout=280
    )


def install_plugin(site: Path, project: Mapping[str, Any], module: str) -> None:
    """Lay a plugin out as pip does, by the project of its pyproject.toml."""
    ((name, imported),) = project["entry-points"]["deriva_ml"].items()
    metadata = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (site / f"{imported}.py").write_text(module, encoding="utf-8")
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (metadata / "entry_points.txt").write_text(f"[deriva_ml]\n{name} = {imported}\n")
