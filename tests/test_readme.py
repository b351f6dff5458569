"""README.md: its code blocks run as one program, and what it refers to exists."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from page_program import TRAINING_PRELUDE, PageRun, install_plugin, run_blocks
from pages import blocks, code_blocks

pytest.importorskip("pytorch_lightning", reason="the README's first program uses pytorch_lightning")
if importlib.util.find_spec("keras") is None:
    pytest.skip("a block of the README uses Keras, which is not installed", allow_module_level=True)

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
OWN_PACKAGES = {"deriva_ml", "deriva_ml_lightning", "deriva_ml_keras"}


@pytest.fixture(scope="module")
def page_run(tmp_path_factory: pytest.TempPathFactory) -> PageRun:
    """All blocks of the README, run as a committed script with the README's plugin installed."""
    folder = tmp_path_factory.mktemp("readme")
    program = blocks(README)
    plugin = next(block for block in program if "@hookimpl" in block.code)
    (pyproject,) = code_blocks(README, "toml")
    install_plugin(folder / "installed", tomllib.loads(pyproject)["project"], plugin.code)
    program.remove(plugin)
    return run_blocks(program, TRAINING_PRELUDE, folder)


def test_all_blocks_run(page_run: PageRun) -> None:
    """The program succeeds without a DerivaMLWarning."""
    assert page_run.code == 0, page_run.stderr
    assert "DerivaMLWarning" not in page_run.stderr


def test_run_is_recorded(page_run: PageRun) -> None:
    """The first block completes an execution; later blocks print a run, its workflow and its checkpoint."""
    printed = "".join(page_run.printed.values())
    assert re.search(r"^Execution \S+ is Completed$", printed, re.MULTILINE)
    assert re.search(
        r"^train\.py https://github\.com/reader/project/blob/\w{40}/train\.py \w{40}$", printed, re.MULTILINE
    )
    assert len(re.findall(r"^Model epoch-0002\.txt 7 \w{32}$", printed, re.MULTILINE)) == 1


def test_plugin_is_called(page_run: PageRun) -> None:
    """The plugin, installed by its entry point, is called for each epoch."""
    printed = "".join(page_run.printed.values())
    assert re.findall(r"^\S+: epoch (\d), \{", printed, re.MULTILINE)[:3] == ["1", "2", "3"]


def test_first_program_is_near_the_top() -> None:
    """A whole program ends within the first 30 lines and imports only this project and the framework."""
    first, *_ = code_blocks(README, "python")
    lines = README.read_text(encoding="utf-8").splitlines()
    assert lines.index(first.splitlines()[-1]) < 30
    imported = {str(node.module) for node in ast.walk(ast.parse(first)) if isinstance(node, ast.ImportFrom)}
    assert imported - OWN_PACKAGES == {"pytorch_lightning"}


def test_readme_is_short() -> None:
    """The README has at most 250 lines, and shows no picture from another host."""
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    assert re.findall(r"!\[[^\]]*\]\((?:https?:)?//", text) == []


def test_references_exist() -> None:
    """Every linked file, folder of the repository and make target that the README names exists."""
    text = README.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text) + re.findall(
        r"`((?:src|plugins|examples|tests|benchmarks)/[\w./]*)`", text
    )
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert [target for target in set(re.findall(r"\bmake (\w+)", text)) if f"\n{target}:" not in makefile] == []


def test_citation_files_agree() -> None:
    """CITATION.cff and codemeta.json have the version and the licence of pyproject.toml, and name no person."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    codemeta = json.loads((ROOT / "codemeta.json").read_text(encoding="utf-8"))
    authors = ["The deriva-ml-core developers"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert (codemeta["version"], codemeta["license"].rpartition("/")[2]) == (project["version"], project["license"])
    assert [author["name"] for author in citation["authors"]] == authors
    assert [author["name"] for author in codemeta["author"]] == authors


def test_workflow_runs_make_test() -> None:
    """The GitHub workflow runs the same command as a developer."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    steps = [step.get("run") for job in workflow["jobs"].values() for step in job["steps"]]
    assert "make test" in steps


def test_changelog_has_a_format() -> None:
    """The changelog has an unreleased part, and only the headings of Keep a Changelog."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)", text, re.MULTILINE)[0] == "[Unreleased]"
    sections = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)", text, re.MULTILINE)) <= sections
