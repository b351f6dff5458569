"""What the command refuses before anything runs, in plain words and with the code of wrong use."""

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
    """A notebook with parameters."""
    return write_notebook(tmp_path / "a.ipynb", "print(epochs)", parameters=PARAMETERS)


def refused(*words: object) -> str:
    """What the command says as it refuses."""
    result = run_command(*words)
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
        (b"print('a script')", "is no notebook"),
        (b"{}", "is no notebook"),
        (b'{"cells": 3, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "is no notebook"),
        (b"\xff\xfe", "no text in UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_no_notebook(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """A file that is none is named, with what is wrong with it."""
    file = tmp_path / "a.ipynb"
    if content is not None:
        file.write_bytes(content)
    stderr = refused(file)
    assert str(file) in stderr
    assert reason in stderr
    assert "does not end in .ipynb" in refused(tmp_path / "a.py")


def test_a_missing_kernel(tmp_path: Path, notebook: Path) -> None:
    """The kernel is named, those that are installed too, and what to do."""
    for stderr in (
        refused(write_notebook(tmp_path / "r.ipynb", "1", kernel="ir")),
        refused(notebook, "--kernel", "ir"),
    ):
        assert "'ir'" in stderr
        assert "python3" in stderr
        assert "--kernel" in stderr


def test_parameters_that_it_does_not_have(tmp_path: Path, notebook: Path) -> None:
    """An unknown one is named beside those that it has; without the tagged cell there are none."""
    stderr = refused(notebook, "-p", "epoch", "3")
    assert "'epoch'" in stderr
    for name in ("epochs", "rate", "name", "layers", "deep"):
        assert name in stderr
    untagged = refused(write_notebook(tmp_path / "b.ipynb", "x = 1"), "-p", "x", "3")
    assert "the tag 'parameters'" in untagged


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("epochs 3", "holds no parameters"),
        ("a: [", "neither JSON nor YAML"),
        (None, "cannot be read"),
        ("layers: !!set {1, 2}", "'layers' in"),
        ("name: !!binary aGVsbG8=", "'name' in"),
        ("layers: &a [*a]", "'layers' in"),
    ],
)
def test_a_file_of_parameters_that_is_none(tmp_path: Path, notebook: Path, text: str | None, reason: str) -> None:
    """A file that holds no names with values is refused."""
    file = tmp_path / "parameters.yaml"
    if text is not None:
        file.write_text(text)
    assert reason in refused(notebook, "-f", file)


def test_a_value_that_json_cannot_hold(notebook: Path) -> None:
    """A list of what is no JSON is refused by the parameter's name."""
    assert "'layers'" in refused(notebook, "-p", "layers", "[1j]")


def test_overrides_that_nobody_reads(notebook: Path, tmp_path: Path) -> None:
    """A notebook without a configuration takes no overrides."""
    assert "run_notebook()" in refused(notebook, "assets=some")
    assert "run_notebook()" in refused(notebook, "--config-dir", tmp_path)


def test_a_folder_that_is_none(notebook: Path, tmp_path: Path) -> None:
    """The kernel's folder must be there."""
    assert "--cwd" in refused(notebook, "--cwd", tmp_path / "none")


def test_inspect(notebook: Path, tmp_path: Path) -> None:
    """The parameters are listed with type, default and comment; a notebook without any says so."""
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
    assert "takes no parameters" in run_command(write_notebook(tmp_path / "b.ipynb", "x = 1"), "--inspect").stdout


@pytest.mark.parametrize("words", [("-p", "x"), ("--nonsense",)])
def test_words_that_the_command_does_not_know(notebook: Path, words: tuple[str, ...]) -> None:
    """An option that lacks its words, or does not exist, ends with the code of wrong use."""
    result = run_command(notebook, *words)
    assert result.code == 2
    assert words[0] in result.stderr


def test_values_are_typed_by_the_defaults(notebook: Path) -> None:
    """Numbers, truth, lists and texts of the command line become what the notebook's own default is."""
    from deriva_ml_core.runner.notebook.notebook_file import read_notebook
    from deriva_ml_core.runner.notebook.parameters import resolve_parameters

    given = [("epochs", "5"), ("rate", "1e-3"), ("name", "1e-3"), ("layers", "[8, 4]"), ("deep", "true")]
    found = resolve_parameters(read_notebook(notebook), given, None, {})
    assert found == {"epochs": 5, "rate": 1e-3, "name": "1e-3", "layers": [8, 4], "deep": True}


def test_a_place_that_cannot_be_written(notebook: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no catalog can be made nothing runs, and the words say which folder it is."""
    ran = notebook.with_name("ran")
    write_notebook(notebook, f"open({str(ran)!r}, 'w').close()")
    (notebook.parent / "a file").touch()
    monkeypatch.setenv("DERIVA_ML_HOME", str(notebook.parent / "a file"))
    result = run_command(notebook)
    assert (result.code, result.stdout, ran.exists()) == (1, "", False)
    assert "a file" in result.stderr
    assert "DERIVA_ML_HOME" in result.stderr
