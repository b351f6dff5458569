"""The command ``deriva-ml``: imports, help, errors, exit codes, JSON and plain terminals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from typer.main import get_command

from deriva_ml_cli.app import COMMANDS
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import Execution, ExecutionConfiguration


def deriva_ml(*args: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own, without a terminal."""
    command = [sys.executable, "-m", "deriva_ml_cli", *args]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environ}, check=False)


def test_help_does_not_import_the_core() -> None:
    """The main help lists every command, and imports neither the core nor its dependencies."""
    code = (
        "import sys; from deriva_ml_cli.app import app; app(['--help'], standalone_mode=False); "
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert (
        loaded & {"deriva_ml_core", "deriva_ml", "pydantic", "pluggy", "sqlalchemy", "git", "torch", "psutil"} == set()
    )
    assert [name for name in COMMANDS if name not in done.stdout] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_examples(cli, name: str) -> None:
    """The help of a command begins with its sentence in the list of commands, and has examples."""
    result = cli(name, "--help", columns=200)
    assert result.code == 0
    assert COMMANDS[name][1] in (line.strip() for line in result.stdout.splitlines())
    assert f"deriva-ml {name}" in result.stdout.partition("Examples:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_no_fixed_line_breaks(name: str) -> None:
    """Each paragraph of a command's help is one line, which the terminal wraps at its own width."""
    help_text = get_command(import_module(f"deriva_ml_cli.commands.{name}").app).help
    assert [paragraph for paragraph in help_text.split("\n\n") if "\n" in paragraph or not paragraph] == []


def test_error_is_one_line(exe: Execution) -> None:
    """An unknown RID prints one line on standard error, without a traceback, and exits with 2."""
    done = deriva_ml("show", "9-ZZZZ")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: 9-ZZZZ names no row")
    assert done.stderr.count(b"\n") == 1


def test_damaged_catalog(tmp_path: Path) -> None:
    """A file that is not a catalog prints one line and exits with 1."""
    (tmp_path / "catalog.sqlite").write_text("not a catalog, but long enough to be read")
    done = deriva_ml("list", "--host", f"file:{tmp_path}")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Traceback" not in done.stderr
    assert done.stderr.startswith(b"error: ")


def test_unknown_command(cli) -> None:
    """An unknown command exits with 2 and suggests the nearest one."""
    result = cli("lst")
    assert result.code == 2
    assert "list" in result.stderr


def test_output_without_colour_and_unicode(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Without a terminal no escape code is printed, and characters that ASCII lacks are escaped."""
    ml.create_execution(config.model_copy(update={"description": "Grüße 数"}))
    done = deriva_ml("list", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout
    assert rb"Gr\xfc\xdfe" in done.stdout


def test_json_is_one_value(exe: Execution) -> None:
    """With --json standard output is one JSON value in ASCII."""
    done = deriva_ml("list", "--json")
    assert json.loads(done.stdout.decode("ascii"))["executions"][0]["rid"] == exe.execution_rid


def test_shell_completion() -> None:
    """Shell completion offers the commands that begin with the typed text."""
    done = deriva_ml(
        _DERIVA_ML_COMPLETE="complete_bash", _PYTHON__M_DERIVA_ML_CLI_COMPLETE="complete_bash",
        COMP_WORDS="deriva-ml sho", COMP_CWORD="1",
    )  # fmt: skip
    assert b"show" in done.stdout


def test_version(cli) -> None:
    """--version prints the version of the distribution."""
    assert cli("--version").stdout.startswith("deriva-ml-core 0.")


def test_readme_commands_exist(cli) -> None:
    """Every command line in the README has an existing command and existing options."""
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^(?:\$ )?deriva-ml ([^#\n]+)", text, re.MULTILINE)
    lines = [line.split() for line in found if not line.startswith("--")]
    assert len(lines) >= 6
    for name, *args in lines:
        options = [arg for arg in args if arg.startswith("--")]
        result = cli(name, "--help", columns=200).stdout
        assert [option for option in options if option not in result] == [], name


def test_command_is_installed() -> None:
    """Installing the distribution installs the command."""
    from importlib.metadata import distribution

    (script,) = distribution("deriva-ml-core").entry_points.select(group="console_scripts", name="deriva-ml")
    assert callable(script.load())


EXECUTION_COMMANDS = (("status",), ("abort", "--yes"), ("upload",), ("reproduce",), ("export",))


def test_rid_that_is_not_an_execution(cli, ml: DerivaML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands for executions reject rows of other tables, unknown RIDs and invalid RIDs, and name them."""
    monkeypatch.chdir(tmp_path)
    dataset = ml.create_dataset("Scans").rid
    for name, *options in EXECUTION_COMMANDS:
        for rid, word in ((dataset, "Dataset"), ("9-ZZZZ", "9-ZZZZ"), ("no rid", "no rid")):
            result = cli(name, rid, *options)
            assert (result.code, result.stdout) == (2, ""), (name, rid)
            assert word in result.stderr
    assert cli("diff", dataset, dataset).code == 2
    assert list(tmp_path.glob("reproduce-*")) == list(tmp_path.glob("crate-*")) == []
