"""README.md tells the truth: its Python blocks, one after the other, are one program that runs as it stands."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from page_program import A_TRAINING, PageResult, install_plugin, run_blocks
from pages import blocks, code_blocks

pytest.importorskip("pytorch_lightning", reason="the README's first program trains with pytorch_lightning")
if importlib.util.find_spec("keras") is None:
    pytest.skip("a block of the README trains with Keras, which is not installed", allow_module_level=True)

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
OURS = {"deriva_ml", "deriva_ml_lightning", "deriva_ml_keras"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> PageResult:
    """All Python blocks of the README, as a committed script that was run with the README's plugin installed."""
    folder = tmp_path_factory.mktemp("readme")
    *program, plugin = (block for block in blocks(README) if block.language == "python")
    (pyproject,) = code_blocks(README, "toml")
    install_plugin(folder / "installed", tomllib.loads(pyproject)["project"], plugin.code)
    return run_blocks(program, A_TRAINING, folder)


def test_every_block_runs(done: PageResult) -> None:
    """The program of all blocks ends well, and none of our warnings is in what it says."""
    assert done.code == 0, done.stderr
    assert "DerivaMLWarning" not in done.stderr


def test_the_run_is_on_record(done: PageResult) -> None:
    """The first block ends with a completed execution, and the blocks after it read back one and what it left."""
    printed = "".join(done.printed.values())
    assert re.search(r"^Execution \S+ is Completed$", printed, re.MULTILINE)
    assert re.search(
        r"^train\.py https://github\.com/reader/project/blob/\w{40}/train\.py \w{40}$", printed, re.MULTILINE
    )
    assert len(re.findall(r"^Model epoch-0002\.txt 7 \w{32}$", printed, re.MULTILINE)) == 1


def test_the_plugin_hears(done: PageResult) -> None:
    """The plugin in ten lines, named in pyproject.toml as shown, hears of each epoch."""
    printed = "".join(done.printed.values())
    assert re.findall(r"^\S+: epoch (\d), \{", printed, re.MULTILINE)[:3] == ["1", "2", "3"]


def test_the_payoff_comes_first() -> None:
    """Within the first 30 lines stands a whole program, and it imports from nobody but us and its framework."""
    first, *_ = code_blocks(README, "python")
    lines = README.read_text(encoding="utf-8").splitlines()
    assert lines.index(first.splitlines()[-1]) < 30
    imported = {str(node.module) for node in ast.walk(ast.parse(first)) if isinstance(node, ast.ImportFrom)}
    assert imported - OURS == {"pytorch_lightning"}


def test_the_options_of_a_training_are_those_that_there_are() -> None:
    """The table names each field of `TrainingOptions` with its default, in their order, and no other."""
    from deriva_ml_core.training import TrainingOptions

    rows = re.findall(r"^\| `([a-z_]+)=(.+?)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    defaults = {name: field.default for name, field in TrainingOptions.model_fields.items()}
    assert [(name, ast.literal_eval(default)) for name, default in rows] == list(defaults.items())


def test_what_it_points_to_is_there() -> None:
    """Every linked file, folder of the repository and make target that the README names exists."""
    text = README.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.findall(r"\]\(([\w./-]+)\)", text) + re.findall(
        r"`((?:src|plugins|examples|tests|benchmarks)/[\w./]*)`", text
    )
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert [target for target in set(re.findall(r"\bmake (\w+)", text)) if f"\n{target}:" not in makefile] == []
