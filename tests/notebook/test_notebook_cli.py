"""Usage errors of ``deriva-ml-run-notebook``: reported in one line with exit code 2 before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from notebooks import run_command, write_notebook

PARAMETERS = """
epochs = 3  # how often
rate: float = 0.1
name = 'a'
layers = [64, 32]
if epochs:
    deep = False
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """A notebook with a parameters cell."""
    return write_notebook(tmp_path / "a.ipynb", "print(epochs)", parameters=PARAMETERS)


def run_rejected(*arguments: object) -> str:
    """Run the command, which must report a usage error, and return its message."""
    result = run_command(*arguments)
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(autouse=True)
def _nothing_is_recorded(home: Path) -> object:
    yield
    assert not home.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"print('a script')", "is not a valid notebook"),
        (b"{}", "is not a valid notebook"),
        (b'{"cells": 3, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "is not a valid notebook"),
        (b"\xff\xfe", "is not a notebook: it is not UTF-8 text"),
        (None, "cannot be read: No such file"),
    ],
)
def test_invalid_notebook(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """The error for an invalid notebook names the file and the reason."""
    file = tmp_path / "a.ipynb"
    if content is not None:
        file.write_bytes(content)
    stderr = run_rejected(file)
    assert str(file) in stderr
    assert reason in stderr
    assert "does not end in .ipynb" in run_rejected(tmp_path / "a.py")


def test_missing_kernel(tmp_path: Path, notebook: Path) -> None:
    """The error for a missing kernel names it, the installed ones, and the option."""
    for stderr in (
        run_rejected(write_notebook(tmp_path / "r.ipynb", "1", kernel="ir")),
        run_rejected(notebook, "--kernel", "ir"),
    ):
        assert "'ir'" in stderr
        assert "python3" in stderr
        assert "--kernel" in stderr


def test_unknown_parameter(tmp_path: Path, notebook: Path) -> None:
    """The error names the unknown and the existing parameters, or the tag if no cell has it."""
    stderr = run_rejected(notebook, "-p", "epoch", "3")
    assert "'epoch'" in stderr
    for name in ("epochs", "rate", "name", "layers", "deep"):
        assert name in stderr
    untagged = run_rejected(write_notebook(tmp_path / "b.ipynb", "x = 1"), "-p", "x", "3")
    assert "the tag 'parameters'" in untagged


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("epochs 3", "contains no parameters"),
        ("a: [", "is neither JSON nor YAML"),
        (None, "cannot be read"),
        ("layers: !!set {1, 2}", "'layers' in"),
        ("name: !!binary aGVsbG8=", "'name' in"),
        ("layers: &a [*a]", "'layers' in"),
    ],
)
def test_invalid_parameters_file(tmp_path: Path, notebook: Path, text: str | None, reason: str) -> None:
    """A file that does not contain names with JSON values is rejected."""
    file = tmp_path / "parameters.yaml"
    if text is not None:
        file.write_text(text)
    assert reason in run_rejected(notebook, "-f", file)


def test_value_that_json_cannot_represent(notebook: Path) -> None:
    """The error for a value that JSON cannot represent names the parameter."""
    assert "'layers'" in run_rejected(notebook, "-p", "layers", "[1j]")


def test_overrides_without_a_configuration(notebook: Path, tmp_path: Path) -> None:
    """Overrides and --config-dir are rejected for a notebook without a configuration."""
    assert "run_notebook()" in run_rejected(notebook, "assets=some")
    assert "run_notebook()" in run_rejected(notebook, "--config-dir", tmp_path)


def test_missing_working_folder(notebook: Path, tmp_path: Path) -> None:
    """The folder of --cwd must exist."""
    assert "--cwd" in run_rejected(notebook, "--cwd", tmp_path / "none")


def test_inspect(notebook: Path, tmp_path: Path) -> None:
    """--inspect lists the parameters with type, default and comment, or reports that there are none."""
    result = run_command(notebook, "--inspect")
    assert result.code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["Parameter", "Type"],
        ["epochs", "3"],
        ["rate", "float"],
        ["name", "'a'"],
        ["layers", "[64,"],
        ["deep", "False"],
    ]
    assert result.stdout.splitlines()[1].endswith("how often")
    assert "has no parameters" in run_command(write_notebook(tmp_path / "b.ipynb", "x = 1"), "--inspect").stdout


@pytest.mark.parametrize("arguments", [("-p", "x"), ("--nonsense",)])
def test_invalid_option(notebook: Path, arguments: tuple[str, ...]) -> None:
    """An unknown option, or one without its value, is a usage error."""
    result = run_command(notebook, *arguments)
    assert result.code == 2
    assert arguments[0] in result.stderr


def test_values_are_typed_by_the_defaults(notebook: Path) -> None:
    """Values of the command line are converted to the types of the notebook's defaults."""
    from deriva_ml_core.runner.notebook.notebook_file import read_notebook
    from deriva_ml_core.runner.notebook.parameters import resolve_parameters

    pairs = [("epochs", "5"), ("rate", "1e-3"), ("name", "1e-3"), ("layers", "[8, 4]"), ("deep", "true")]
    values = resolve_parameters(read_notebook(notebook), pairs, None, {})
    assert values == {"epochs": 5, "rate": 1e-3, "name": "1e-3", "layers": [8, 4], "deep": True}


def test_home_that_cannot_be_written(notebook: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no catalog can be created, nothing runs, and the error names the folder and DERIVA_ML_HOME."""
    ran = notebook.with_name("ran")
    write_notebook(notebook, f"open({str(ran)!r}, 'w').close()")
    (notebook.parent / "a file").touch()
    monkeypatch.setenv("DERIVA_ML_HOME", str(notebook.parent / "a file"))
    result = run_command(notebook)
    assert (result.code, result.stdout, ran.exists()) == (1, "", False)
    assert "a file" in result.stderr
    assert "DERIVA_ML_HOME" in result.stderr
