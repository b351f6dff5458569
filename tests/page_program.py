"""Run the code blocks of a page as one committed script."""

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
"""Minimal `model`, `data`, `network`, `x` and `y`, which pages do not define."""
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
"""Precedes the index of a block at the start of the block's output."""


@dataclass(frozen=True)
class PageResult:
    """Result of a page's program.

    Args:
        code: Exit code.
        printed: Output of each block, by the block's index in the page.
        stderr: Standard error.
    """

    code: int
    printed: Mapping[int, str]
    stderr: str


def run_blocks(blocks: Sequence[Block], prelude: str, folder: Path, **environ: str) -> PageResult:
    """Run the Python and bash blocks of a page in order, in one process, in a repository that contains them.

    Args:
        blocks: The blocks. A block with a title is a file that exists from the start.
        prelude: Python code that runs before the blocks.
        folder: Parent folder of the repository and of the home folder.
        **environ: Further environment variables.
    """
    project = folder / "project"
    for name, code in page_files(blocks).items():
        file = project / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, encoding="utf-8")
    commit_script(project, "\n".join([prelude, *_steps(blocks)]))
    done = run_script(project, PYTHONPATH=os.pathsep.join([str(folder / "installed"), str(TESTS)]), **environ)
    numbered = re.findall(rf"{MARK}(\d+)\n([^{MARK}]*)", done.stdout)
    return PageResult(done.returncode, {int(number): output for number, output in numbered}, done.stderr)


def page_files(blocks: Sequence[Block]) -> dict[str, str]:
    """Return the files that a page shows, by name. Blocks whose titles name a cell form a notebook."""
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
        steps.append(f"page_reader.begin_block({number})")
        steps.append(block.code if block.language == "python" else f"page_reader.run_shell({block.code!r}, globals())")
    return steps


def commit_script(folder: Path, program: str) -> None:
    """Write a program to ``train.py`` in a new repository, and commit all files of the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(program, encoding="utf-8")
    with git.Repo.init(folder) as repository:
        repository.create_remote("origin", "https://github.com/reader/project.git")
        repository.git.add(".")
        author = git.Actor("Reader", "reader@example.org")
        repository.index.commit("Train", author=author, committer=author)


def run_script(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``train.py`` in its folder, with ``DERIVA_ML_HOME`` next to that folder."""
    settings = {"DERIVA_ML_HOME": str(folder.parent / "home"), "COLUMNS": "100", **environ}
    command = [sys.executable, "train.py"]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **settings}, capture_output=True, text=True, check=False, timeout=280
    )


def install_plugin(site: Path, project: Mapping[str, Any], module: str) -> None:
    """Install a plugin as pip does, from the project table of its pyproject.toml."""
    ((name, imported),) = project["entry-points"]["deriva_ml"].items()
    metadata = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (site / f"{imported}.py").write_text(module, encoding="utf-8")
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (metadata / "entry_points.txt").write_text(f"[deriva_ml]\n{name} = {imported}\n")
