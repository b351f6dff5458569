"""Run a documentation page: its blocks, in order, become a script that is committed to a repository."""

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

from pages import Block, split_console

TESTS = Path(__file__).parent

TRAINING_PRELUDE = '''\
"""`model`, `data`, `network`, `x` and `y` belong to the reader; these are the smallest that work."""
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
"""Separates the output of one block from that of the next; the block's number follows it."""


@dataclass(frozen=True)
class PageRun:
    """Result of running a page.

    Args:
        code: The exit code of the script.
        printed: The output of each block, by its index among the page's blocks.
        stderr: The standard error of the script.
    """

    code: int
    printed: Mapping[int, str]
    stderr: str


def run_blocks(blocks: Sequence[Block], prelude: str, folder: Path, **environ: str) -> PageRun:
    """Run a page's Python, bash and console blocks in order, in one process, in a repository that has them committed.

    Args:
        blocks: The blocks. A block with a title is a file and exists from the start.
        prelude: Python code that runs before the first block.
        folder: The parent of the repository and of the reader's home.
        **environ: Additional environment variables.
    """
    project = folder / "project"
    for name, code in files_of(blocks).items():
        file = project / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, encoding="utf-8")
    commit_script(project, "\n".join([prelude, *_statements(blocks)]))
    done = run_script(project, PYTHONPATH=os.pathsep.join([str(folder / "installed"), str(TESTS)]), **environ)
    outputs = re.findall(rf"{MARK}(\d+)\n([^{MARK}]*)", done.stdout)
    return PageRun(done.returncode, {int(number): output for number, output in outputs}, done.stderr)


def files_of(blocks: Sequence[Block]) -> dict[str, str]:
    """Return the files that a page shows, by name; blocks whose titles name a cell are joined to a notebook."""
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


def _statements(blocks: Sequence[Block]) -> list[str]:
    statements = ["import page_reader"]
    for number, block in enumerate(blocks):
        if block.title or block.language not in ("python", "bash", "console"):
            continue
        statements.append(f"page_reader.begin({number})")
        if block.language == "python":
            statements.append(block.code)
        else:
            script = block.code if block.language == "bash" else "\n".join(split_console(block.code)[0])
            statements.append(f"page_reader.run_shell({script!r}, globals())")
    return statements


def commit_script(folder: Path, program: str) -> None:
    """Write a program as ``train.py`` into a new repository, and commit it with all files of the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(program, encoding="utf-8")
    with git.Repo.init(folder) as repository:
        repository.create_remote("origin", "https://github.com/reader/project.git")
        repository.git.add(".")
        author = git.Actor("Reader", "reader@example.org")
        repository.index.commit("Train", author=author, committer=author)


def run_script(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``train.py`` in its folder, with ``DERIVA_ML_HOME`` next to the folder."""
    variables = {"DERIVA_ML_HOME": str(folder.parent / "home"), "COLUMNS": "80", **environ}
    command = [sys.executable, "train.py"]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


def install_plugin(site: Path, project: Mapping[str, Any], module: str) -> None:
    """Install a plugin as pip does.

    Args:
        site: The folder for the module and its metadata.
        project: The ``[project]`` table of its pyproject.toml.
        module: The source of its only module.
    """
    ((name, imported),) = project["entry-points"]["deriva_ml"].items()
    metadata = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (site / f"{imported}.py").write_text(module, encoding="utf-8")
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (metadata / "entry_points.txt").write_text(f"[deriva_ml]\n{name} = {imported}\n")
