"""The lines about the begin and the end of a run, on a real pseudo-terminal: once each, and never harmful."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from pseudo_terminal import TerminalProgram, run_in_terminal
from waits import HANG

PRELUDE = """
import os, signal, sys, time
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.training import TrainingReporter
from deriva_ml_core.workflow import Workflow

ml = DerivaML()
workflow = Workflow(name=sys.argv[1] if len(sys.argv) > 1 else "Fit", workflow_type="Training", url="https://x.org/fit.py")
configuration = ExecutionConfiguration(workflow=workflow)

def write(execution, name, size):
    execution.asset_file_path("Execution_Asset", name).write_bytes(bytes(size))
"""

OWN_LINE = re.compile(r"(?m)^(?:Execution \S+|Dry run) (?:(?:of .*)?began|continues|completed|failed|was aborted)\b.*$")


def run_program(folder: Path, code: str, *arguments: str, **env: str) -> list[str]:
    """Run a program on a terminal; return the lines about runs, with the RIDs of new executions replaced."""
    script = folder / "program.py"
    script.write_text(PRELUDE + code)
    status, text = run_in_terminal([sys.executable, script, *arguments], cwd=folder, env=env)
    assert status == 0, text
    return own_lines(text)


def own_lines(text: str) -> list[str]:
    """Return the lines about runs, with the RIDs numbered and durations and the catalog's folder replaced."""
    lines = OWN_LINE.findall(re.sub(r"\x1b\[[\d;?]*[A-Za-z]|\r", "", text))  # a bar hides the cursor and shows it again
    rids = dict.fromkeys(rid for line in lines for rid in re.findall(r"Execution (\S+)", line))
    for number, rid in enumerate(rids, 1):
        lines = [re.sub(rf"\b{rid}\b", f"RID{number}", line) for line in lines]
    lines = [re.sub(r"after [\d.]+ s", "after TIME", line) for line in lines]
    return [line.replace(os.environ["DERIVA_ML_HOME"], "HOME") for line in lines]


BEGIN = "Execution RID1 of Fit began in the catalog HOME/local."


def test_plain_execution(tmp_path: Path) -> None:
    """A line names execution, workflow and catalog at the begin; one says at the end what waits for the upload."""
    code = "with ml.create_execution(configuration) as exe:\n    write(exe, 'a', 1200)\n    write(exe, 'b', 300)\n"
    assert run_program(tmp_path, code) == [
        BEGIN,
        "Execution RID1 completed after TIME; 2 files (1.5 kB) wait for upload. Details: deriva-ml show RID1",
    ]


def test_upload_within_the_run(tmp_path: Path) -> None:
    """Files that are uploaded before the end are counted as sent; a later upload prints no further line."""
    code = """
with ml.create_execution(configuration) as exe:
    write(exe, "a", 1200)
    exe.upload_execution_outputs()
    write(exe, "b", 300)
exe.upload_execution_outputs()
"""
    assert run_program(tmp_path, code) == [
        BEGIN,
        "Execution RID1 completed after TIME; 1 file (1.2 kB) sent, 1 file (300 B) waits for upload. "
        "Details: deriva-ml show RID1",
    ]


def test_reporter_that_owns_its_execution(tmp_path: Path) -> None:
    """The execution of a training is uploaded before its last line, which has the best value and its epoch."""
    code = """
reporter = TrainingReporter(lambda rid: ml.create_execution(configuration), monitor="val_acc", curves=False)
reporter.begin_fit(epochs=3)
for epoch, accuracy in ((1, 0.5), (2, 0.75), (3, 0.625)):
    reporter.end_epoch(epoch, {"val_acc": accuracy, "val_loss": 1.0 / epoch})
reporter.end_fit()
"""
    begin, end = run_program(tmp_path, code)
    assert begin == BEGIN
    assert re.sub(r"\([\d.]+ k?B\)", "(SIZE)", end) == (
        "Execution RID1 completed after TIME, best val_acc 0.75 in epoch 2; 2 files (SIZE) sent. "
        "Details: deriva-ml show RID1"
    )


def test_failures_and_ends(tmp_path: Path) -> None:
    """Each way to end a run prints one line, and the exception of the program stays its own."""
    code = """
for error in (ValueError("bad data"), KeyboardInterrupt(), SystemExit(0), SystemExit(3)):
    try:
        with ml.create_execution(configuration):
            raise error
    except BaseException as raised:
        assert raised is error
try:
    with ml.create_execution(configuration):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
except SystemExit as end:
    assert end.code == 143
"""
    lines = run_program(tmp_path, code)
    statuses = ("failed", "was aborted", "completed", "failed", "was aborted")
    ends = [f"Execution RID{n} {each} after TIME. Details: deriva-ml show RID{n}" for n, each in enumerate(statuses, 1)]
    assert lines[1::2] == ends
    assert [line.replace(f"RID{number}", "RID1") for number, line in enumerate(lines[::2], 1)] == [BEGIN] * 5


def test_killed_run(tmp_path: Path) -> None:
    """A killed run has no last line; the process that finds it dead prints none about its end either."""
    code = "with ml.create_execution(configuration):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    script = tmp_path / "program.py"
    script.write_text(PRELUDE + code)
    status, text = run_in_terminal([sys.executable, script], cwd=tmp_path)
    assert status == -signal.SIGKILL
    assert own_lines(text) == [BEGIN]


def test_nested_runs_and_forked_children(tmp_path: Path) -> None:
    """Runs within runs print their own lines; a forked child prints nothing, even if it leaves the block."""
    code = """
with ml.create_execution(configuration) as outer:
    with ml.create_execution(configuration) as inner:
        outer.add_nested_execution(inner)
    if os.fork() == 0:
        outer.__exit__(None, None, None)
        sys.exit(0)
    os.wait()
"""
    assert run_program(tmp_path, code) == [
        BEGIN,
        "Execution RID2 of Fit began in the catalog HOME/local.",
        "Execution RID2 completed after TIME. Details: deriva-ml show RID2",
        "Execution RID1 completed after TIME. Details: deriva-ml show RID1",
    ]


def test_resumed_run(tmp_path: Path) -> None:
    """A run that is resumed says so, and prints a line at its new end."""
    code = """
with ml.create_execution(configuration) as exe:
    pass
with ml.resume_execution(exe.execution_rid):
    pass
"""
    end = "Execution RID1 completed after TIME. Details: deriva-ml show RID1"
    assert run_program(tmp_path, code) == [BEGIN, end, "Execution RID1 continues in the catalog HOME/local.", end]


def test_dry_run(tmp_path: Path) -> None:
    """A dry run names no RID and no command, since there is nothing to show."""
    code = "with ml.create_execution(configuration, dry_run=True) as exe:\n    write(exe, 'a', 5)\n"
    assert run_program(tmp_path, code) == ["Dry run of Fit began; it records nothing.", "Dry run completed after TIME."]


def test_other_catalog(tmp_path: Path) -> None:
    """The command in the line names the catalog if it is not the default one."""
    code = f"ml = DerivaML('file:{tmp_path}/team')\nwith ml.create_execution(configuration):\n    pass\n"
    assert run_program(tmp_path, code) == [
        f"Execution RID1 of Fit began in the catalog {tmp_path}/team.",
        f"Execution RID1 completed after TIME. Details: deriva-ml show RID1 --host file:{tmp_path}/team",
    ]


def test_hostile_name(tmp_path: Path) -> None:
    """A workflow's name cannot control the terminal or imitate a second line."""
    name = "\x1b[2J\x1b]0;owned\x07fit\nRun 1 completed\r\u202e"
    lines = run_program(tmp_path, "with ml.create_execution(configuration):\n    pass\n", name)
    assert lines[0] == (
        "Execution RID1 of \\x1b[2J\\x1b]0;owned\\x07fit Run 1 completed \\x202e began in the catalog HOME/local."
    )
    assert len(lines) == 2


@pytest.mark.parametrize("value", ["1", "true", "on"])
def test_quiet(tmp_path: Path, value: str) -> None:
    """DERIVA_ML_QUIET silences both lines."""
    code = "with ml.create_execution(configuration):\n    pass\n"
    assert run_program(tmp_path, code, DERIVA_ML_QUIET=value) == []


@pytest.mark.parametrize("streams", [(1,), ()])
def test_not_watched(tmp_path: Path, streams: tuple[int, ...]) -> None:
    """If standard error is no terminal, nothing is printed anywhere."""
    script = tmp_path / "program.py"
    script.write_text(PRELUDE + "with ml.create_execution(configuration):\n    pass\n")
    status, text = run_in_terminal([sys.executable, script], cwd=tmp_path, streams=streams)
    assert (status, text) == (0, "")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_lost_terminal(tmp_path: Path) -> None:
    """A terminal that closes during the run does not end the run."""
    script = tmp_path / "program.py"
    script.write_text(
        PRELUDE
        + "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nwith ml.create_execution(configuration):\n"
        + "    print('inside', flush=True)\n    while os.isatty(2):\n        time.sleep(0.02)\nopen('end', 'w')\n"
    )
    program = TerminalProgram([sys.executable, script], cwd=tmp_path)
    program.read_until(lambda text: "inside" in text)
    os.close(program._master)
    assert program.process.wait(HANG) == 0
    assert (tmp_path / "end").exists()
    (found,) = DerivaML().find_executions()
    assert found.status == "Completed"


def test_best_value_of_two_fits(tmp_path: Path) -> None:
    """The last line has the best value of all fits of the run."""
    code = """
with ml.create_execution(configuration) as exe:
    reporter = TrainingReporter(exe, checkpoints="none", curves=False, upload="never")
    for losses in ((0.5, 0.125), (0.25, 0.75)):
        reporter.begin_fit(epochs=2)
        for epoch, loss in enumerate(losses, 1):
            reporter.end_epoch(epoch, {"loss": loss})
        reporter.end_fit()
"""
    _, end = run_program(tmp_path, code)
    assert end.startswith("Execution RID1 completed after TIME, best loss 0.125 in epoch 2; 2 files (")


KERNEL_PROGRAM = """
import sys
from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel(kernel_name="python3")
parts = []
def collect(message):
    if message["msg_type"] == "stream":
        parts.append((message["content"]["name"], message["content"]["text"]))
reply = client.execute_interactive(open(sys.argv[1]).read(), output_hook=collect, timeout=300)
client.stop_channels()
manager.shutdown_kernel(now=True)
assert reply["content"]["status"] == "ok", reply
for name in ("stdout", "stderr"):
    print(name, repr("".join(text for each, text in parts if each == name)))
"""


@pytest.mark.parametrize("quiet", ["", "1"])
def test_notebook_kernel(tmp_path: Path, quiet: str) -> None:
    """A cell shows both lines, although its standard error is no terminal."""
    pytest.importorskip("ipykernel")
    cell = tmp_path / "cell.py"
    cell.write_text(
        PRELUDE.replace("sys.argv[1] if len(sys.argv) > 1 else ", "")
        + "with ml.create_execution(configuration):\n    pass\n"
    )
    command = [sys.executable, "-c", KERNEL_PROGRAM, cell]
    env = {**os.environ, "DERIVA_ML_QUIET": quiet}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    texts = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    lines = own_lines(str(ast.literal_eval(texts["stderr"])))
    end = "Execution RID1 completed after TIME. Details: deriva-ml show RID1"
    assert lines == ([] if quiet else [BEGIN, end])
    assert texts["stdout"] == "''"
