"""The command as such: what it loads, how it fails, what it says to programs and to terminals that know little."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_cli.app import COMMANDS
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import Execution, ExecutionConfiguration


def deriva_ml(*words: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own, without a terminal."""
    command = [sys.executable, "-m", "deriva_ml_cli", *words]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environ}, timeout=120, check=False)


def test_help_is_light() -> None:
    """The help of the whole names every command, and loads neither the core nor what it stands on."""
    code = (
        "import sys; from deriva_ml_cli.app import app; app(['--help'], standalone_mode=False); "
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert (
        loaded & {"deriva_ml_core", "deriva_ml", "pydantic", "pluggy", "sqlalchemy", "git", "torch", "psutil"} == set()
    )
    assert [name for name in COMMANDS if name not in done.stdout] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_examples(ask, name: str) -> None:
    """A command says in its help what it does, as the list of all says, and shows how it is called."""
    said = ask(name, "--help", columns=200)
    assert said.code == 0
    assert COMMANDS[name][1] in (line.strip() for line in said.out.splitlines())
    assert f"deriva-ml {name}" in said.out.partition("Examples:")[2]


def test_a_mistake_is_one_line(exe: Execution) -> None:
    """A record id that names nothing is told on standard error in one line, without a traceback, and is wrong use."""
    done = deriva_ml("show", "9-ZZZZ")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: 9-ZZZZ names no row")
    assert done.stderr.count(b"\n") == 1


def test_a_catalog_that_cannot_be_opened(tmp_path: Path) -> None:
    """A file that is no catalog is told in one line, and ends with 1."""
    (tmp_path / "catalog.sqlite").write_text("not a catalog, but long enough to be looked at")
    done = deriva_ml("list", "--host", f"file:{tmp_path}")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Traceback" not in done.stderr
    assert done.stderr.startswith(b"error: ")


def test_an_unknown_command(ask) -> None:
    """A command that does not exist is wrong use, and the nearest one is named."""
    said = ask("lst")
    assert said.code == 2
    assert "list" in said.complaint


def test_without_colour_and_unicode(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Without a terminal no escape code is written, and what an ASCII screen cannot show is spelt out."""
    ml.create_execution(config.model_copy(update={"description": "Grüße 数"}))
    done = deriva_ml("list", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout
    assert rb"Gr\xfc\xdfe" in done.stdout


def test_json_is_one_value(exe: Execution) -> None:
    """With --json nothing but one JSON value in ASCII is on standard output."""
    done = deriva_ml("list", "--json")
    assert json.loads(done.stdout.decode("ascii"))["executions"][0]["rid"] == exe.execution_rid


def test_shell_completion() -> None:
    """A shell is told the commands that begin with what was typed."""
    done = deriva_ml(
        _DERIVA_ML_COMPLETE="complete_bash", _PYTHON__M_DERIVA_ML_CLI_COMPLETE="complete_bash",
        COMP_WORDS="deriva-ml sho", COMP_CWORD="1",
    )  # fmt: skip
    assert b"show" in done.stdout


def test_version(ask) -> None:
    """The version of the distribution can be asked."""
    assert ask("--version").out.startswith("deriva-ml-core 0.")


def test_the_readme_names_commands_that_exist(ask) -> None:
    """Each command line of the README is one that this command takes."""
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    lines = [line.partition("#")[0].split()[1:] for line in text.splitlines() if line.startswith("deriva-ml ")]
    assert len(lines) >= 7
    for name, *words in lines:
        options = [word for word in words if word.startswith("--")]
        said = ask(name, "--help", columns=200).out
        assert [option for option in options if option not in said] == [], name


def test_it_is_installed() -> None:
    """Installing the distribution installs the command."""
    from importlib.metadata import distribution

    (script,) = distribution("deriva-ml-core").entry_points.select(group="console_scripts", name="deriva-ml")
    assert callable(script.load())


COMMANDS_OF_RUNS = (("status",), ("abort", "--yes"), ("upload",), ("reproduce",), ("export",))


def test_a_row_that_is_no_execution(ask, ml: DerivaML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command about a run refuses another row, a RID that names nothing, and what is no RID, and names it."""
    monkeypatch.chdir(tmp_path)
    dataset = ml.create_dataset("Scans").rid
    for name, *options in COMMANDS_OF_RUNS:
        for rid, word in ((dataset, "Dataset"), ("9-ZZZZ", "9-ZZZZ"), ("no rid", "no rid")):
            said = ask(name, rid, *options)
            assert (said.code, said.out) == (2, ""), (name, rid)
            assert word in said.complaint
    assert ask("diff", dataset, dataset).code == 2
    assert list(tmp_path.glob("reproduce-*")) == list(tmp_path.glob("crate-*")) == []
