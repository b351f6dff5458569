"""Console output of runs: kept after every ending, while the run neither waits for anything nor fails because of it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import RecordedExecution
from deriva_ml_core.execution.console_text import collapse
from pseudo_terminal import MAX_SILENCE, TerminalProgram, run_in_terminal

PRELUDE = """
import os, signal, subprocess, sys, time
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

ml = DerivaML()
configuration = ExecutionConfiguration(workflow=Workflow(name="W", workflow_type="Training", url="https://x.org/w.py"))

def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.01)
"""


def program(folder: Path, code: str) -> list[str | Path]:
    """Write a program and return the command that runs it."""
    script = folder / "program.py"
    script.write_text(PRELUDE + code)
    return [sys.executable, script]


def newest() -> RecordedExecution:
    """Return the newest execution."""
    return DerivaML().find_executions()[0]


def kept_names(execution: RecordedExecution) -> list[str]:
    """Return the names of the kept files with console output."""
    return sorted(asset.filename for asset in execution.list_assets("Output") if asset.filename.startswith("console"))


def find_copier(pid: int) -> psutil.Process:
    """Return the process that copies the output of a run."""
    deadline = time.monotonic() + MAX_SILENCE
    while time.monotonic() < deadline:
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            if any(part.endswith("console_copy.py") for part in line) and str(pid) in line and process.ppid() != pid:
                return process
        time.sleep(0.05)
    raise AssertionError("no process copies the output")


def own_lines_removed(text: str) -> str:
    """Return a terminal's text without the lines about runs."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("Execution "))


RUN = """
print("before", flush=True)
with ml.create_execution(configuration, console=True) as exe:
    print("from Python", sys.stdout.isatty(), os.isatty(1), flush=True)
    print("to the error stream", file=sys.stderr)
    os.write(1, b"by the descriptor\\n")
    subprocess.run(["sh", "-c", "echo from a child; echo and its error >&2"])
    if os.fork() == 0:
        print("from a fork", flush=True)
        os._exit(0)
    os.wait()
print("after", sys.stdout.isatty(), os.isatty(1), os.isatty(2))
"""


def test_run_on_a_terminal(tmp_path: Path) -> None:
    """The terminal shows everything in order, and the catalog keeps what was printed within the run."""
    status, text = run_in_terminal(program(tmp_path, RUN), cwd=tmp_path)
    inside = (
        "from Python False False\nto the error stream\nby the descriptor\nfrom a child\nand its error\nfrom a fork\n"
    )
    assert (status, own_lines_removed(text)) == (0, f"before\n{inside}after True True True\n")
    assert newest().read_console() == inside
    assert kept_names(newest()) == ["console.txt"]
    assert not list((newest().working_dir / "records").glob("*.raw"))


def test_other_targets(tmp_path: Path) -> None:
    """Streams that go to different files still do, and are kept apart."""
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        assert subprocess.run(program(tmp_path, RUN), cwd=tmp_path, stdout=out, stderr=err).returncode == 0
    assert (tmp_path / "out").read_text().splitlines() == [
        *("before", "from Python False False", "by the descriptor", "from a child", "from a fork"),
        "after False False False",
    ]
    assert (tmp_path / "err").read_text().splitlines() == ["to the error stream", "and its error"]
    assert newest().read_console() == (
        "from Python False False\nby the descriptor\nfrom a child\nfrom a fork\n"
        "Standard error:\nto the error stream\nand its error\n"
    )
    assert kept_names(newest()) == ["console.txt", "console_stderr.txt"]


@pytest.mark.parametrize("closing", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_closed_streams(tmp_path: Path, closing: str) -> None:
    """A run whose streams the shell has closed completes; what is open is kept."""
    code = (
        "with ml.create_execution(configuration, console=True):\n"
        "    for stream in (sys.stdout, sys.stderr):\n        stream and print('text', file=stream)\n"
    )
    command = " ".join(map(str, program(tmp_path, code)))
    assert subprocess.run(["sh", "-c", f"{command} {closing}"], cwd=tmp_path, capture_output=True).returncode == 0
    assert newest().status == "Completed"
    assert newest().read_console() == (None if closing == "1>&- 2>&-" else "text\n")


def test_off_by_default(tmp_path: Path) -> None:
    """Without the option the streams are untouched and nothing is kept."""
    code = "with ml.create_execution(configuration):\n    print(os.isatty(1), os.isatty(2))\n"
    status, text = run_in_terminal(program(tmp_path, code), cwd=tmp_path)
    assert (status, own_lines_removed(text)) == (0, "True True\n")
    assert newest().read_console() is None


def test_failure(tmp_path: Path) -> None:
    """The traceback of a failed run is kept, and the terminal shows it once."""
    code = (
        "with ml.create_execution(configuration, console=True):\n    print('start')\n    raise ValueError('no data')\n"
    )
    status, text = run_in_terminal(program(tmp_path, code), cwd=tmp_path)
    assert status == 1
    assert text.count("ValueError: no data") == 1
    kept = newest().read_console() or ""
    assert kept.startswith("start\nTraceback (most recent call last):\n")
    assert kept.endswith("ValueError: no data\n")


def test_killed_run(tmp_path: Path) -> None:
    """The output of a killed run is on the terminal, is readable at once, and is kept by the next upload."""
    code = (
        "with ml.create_execution(configuration, console=True):\n"
        "    for number in range(2000):\n        print('line', number)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    status, text = run_in_terminal(program(tmp_path, code), cwd=tmp_path)
    expected = "".join(f"line {number}\n" for number in range(2000))
    assert status == -signal.SIGKILL
    assert own_lines_removed(text) == expected
    assert (newest().read_console(), kept_names(newest())) == (expected, [])
    DerivaML().restore_execution(newest().execution_rid).upload_execution_outputs()
    assert (newest().read_console(), kept_names(newest())) == (expected, ["console.txt"])
    DerivaML().restore_execution(newest().execution_rid).upload_execution_outputs()
    assert kept_names(newest()) == ["console.txt"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_copier_killed_or_stopped(tmp_path: Path, number: signal.Signals) -> None:
    """If the process that copies is killed or stopped, the run prints megabytes, completes, and all is kept."""
    code = (
        "with ml.create_execution(configuration, console=True):\n    print('first', flush=True)\n    wait_for('go')\n"
        "    for number in range(50000):\n        print(number, 'x' * 60, flush=True)\nprint('done')\n"
    )
    run = TerminalProgram(program(tmp_path, code), cwd=tmp_path)
    run.read_until(lambda text: "first" in text)
    copier = find_copier(run.process.pid)
    try:
        copier.send_signal(number)
        (tmp_path / "go").touch()
        assert run.wait() == 0
        assert "done" in run.text
    finally:
        run.close()
        with suppress(psutil.NoSuchProcess):
            copier.kill()
    assert newest().status == "Completed"
    assert (newest().read_console() or "").splitlines() == ["first", *(f"{n} {'x' * 60}" for n in range(50000))]


def test_ended_copier_leaves_no_process(tmp_path: Path) -> None:
    """After a run, no process of it is left, and the run has no child that it does not know."""
    code = (
        "import psutil\nwith ml.create_execution(configuration, console=True):\n"
        "    print(psutil.Process().children())\nprint([p for p in psutil.process_iter(['cmdline'])"
        " if str(os.getpid()) in (p.info['cmdline'] or [])])\n"
    )
    status, text = run_in_terminal(program(tmp_path, code), cwd=tmp_path)
    assert (status, own_lines_removed(text)) == (0, "[]\n[]\n")


def test_nested_runs(tmp_path: Path) -> None:
    """A run within a run has its own output, which the outer one has too."""
    code = """
with ml.create_execution(configuration, console=True) as outer:
    print("outer 1")
    with ml.create_execution(configuration, console=True) as inner:
        print("inner")
    print("outer 2")
print(inner.read_console(), end="")
print(outer.read_console(), end="")
print("end", os.isatty(1))
"""
    status, text = run_in_terminal(program(tmp_path, code), cwd=tmp_path)
    shown = "outer 1\ninner\nouter 2\n"
    assert (status, own_lines_removed(text)) == (0, f"{shown}inner\n{shown}end True\n")
    rids = [line.split()[1] for line in text.splitlines() if line.startswith("Execution ")]
    assert rids in ([outer, inner, inner, outer, inner, inner] for outer, inner in [rids[:2]])  # two are printed again


def test_overlapping_runs(tmp_path: Path) -> None:
    """If the outer run ends first, the inner one still records, and the terminal shows everything."""
    code = """
outer = ml.create_execution(configuration, console=True).__enter__()
inner = ml.create_execution(configuration, console=True).__enter__()
print("one")
outer.__exit__(None, None, None)
print("two")
inner.__exit__(None, None, None)
print("three", flush=True)
"""
    status, text = run_in_terminal(program(tmp_path, code), cwd=tmp_path)
    assert (status, own_lines_removed(text)) == (0, "one\ntwo\nthree\n")
    assert own_lines_removed(newest().read_console() or "") == "one\ntwo\n"


def test_resumed_run(tmp_path: Path) -> None:
    """The output of a resumed run is added to that of its earlier part."""
    code = """
with ml.create_execution(configuration, console=True) as exe:
    print("first")
with ml.resume_execution(exe.execution_rid, console=True):
    print("second")
"""
    assert run_in_terminal(program(tmp_path, code), cwd=tmp_path)[0] == 0
    assert newest().read_console() == "first\nsecond\n"


def test_full_disk(tmp_path: Path) -> None:
    """When the file cannot grow, the run goes on and prints to the terminal; what was written is kept."""
    code = """
import resource
with ml.create_execution(configuration, console=True):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    for number in range(10_000):
        print("line", number, "y" * 40)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
print("done")
"""
    status, text = run_in_terminal(program(tmp_path, code), cwd=tmp_path)
    assert (status, text.count("done\n")) == (0, 1)
    assert "line 9999 " in text
    assert "no longer recorded" in text
    assert newest().status == "Completed"
    kept = newest().read_console() or ""
    assert kept.startswith("line 0 ")
    assert 190_000 < len(kept) <= 200_001


def test_kernel(tmp_path: Path) -> None:
    """In a kernel, the cell shows its output as ever, and what Python code prints is kept."""
    pytest.importorskip("ipykernel")
    code = (
        PRELUDE
        + "with ml.create_execution(configuration, console=True):\n    print('text')\n    print('e', file=sys.stderr)\n"
    )
    code += "print('after')\n"
    driver = (
        "import sys\nfrom jupyter_client.manager import start_new_kernel\nmanager, client = start_new_kernel()\n"
        "shown = []\nreply = client.execute_interactive(sys.stdin.read(), timeout=300, output_hook=lambda message: "
        "shown.append(message['content'].get('text', '')))\nclient.stop_channels()\nmanager.shutdown_kernel(now=True)\n"
        "print(''.join(shown), reply['content']['status'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", driver], input=code, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert [line for line in done.stdout.split() if line in ("text", "e", "after", "ok")].count("ok") == 1
    assert {"text", "e", "after"} <= set(done.stdout.split())
    assert newest().read_console() == "text\ne\n"


@pytest.mark.parametrize(
    ("printed", "kept"),
    [
        ("plain\nlines\n", "plain\nlines\n"),
        ("without a break", "without a break\n"),
        ("\r 10%|#   |\r 50%|##  |\r100%|####|\ndone\n", "100%|####|\ndone\n"),
        ("abc\rx\n", "xbc\n"),
        ("\x1b[31mred\x1b[0m\x1b]0;title\x07\n", "red\n"),
        ("one\ntwo\n\x1b[2A\x1b[2KONE\n\x1b[2KTWO\n", "ONE\nTWO\n"),
        ("12\b3\x00\n", "13\n"),
        ("longer text\r\x1b[Kshort\n", "short\n"),
        ("api_key='sk-proj-abcdefghijklmnop1234567890'\n", "api_key='[redacted: API key]'\n"),
        ("\x1b[999999999A\x1b[99999999999B\x1b[5000Gx\n", " " * 4999 + "x\n"),
    ],
)
def test_collapse(printed: str, kept: str) -> None:
    """The text is that of a terminal at the end, without control sequences and secrets, however it is cut."""
    assert collapse([printed]) == kept
    assert collapse(list(printed)) == kept
    assert collapse([printed[:3], printed[3:]]) == kept


def test_collapse_limit() -> None:
    """Of a long text the begin and the end are kept, and the note says how much is missing."""
    text = "".join(f"{number:09}\n" for number in range(1000))
    assert collapse([text], max_bytes=40) == "000000000\n000000001\n[10.0 kB left out]\n000000998\n000000999\n"
    assert collapse([f"\r{number:09}" for number in range(1000)], max_bytes=40) == "000000999\n"
    assert len(collapse(["x" * 65536] * 400)) <= 10 * 2**20 + 100


def test_logs_command(tmp_path: Path) -> None:
    """The command shows what a run printed, while it runs and later without its folder; it says if there is nothing."""
    code = (
        "with ml.create_execution(configuration, console=True) as exe:\n    print('one', flush=True)\n"
        "    wait_for('go')\n    print('two')\nwith ml.create_execution(configuration):\n    print('three')\n"
    )
    run = TerminalProgram(program(tmp_path, code), cwd=tmp_path)
    run.read_until(lambda text: "one\n" in text)

    def logs(rid: str) -> str:
        command = [sys.executable, "-m", "deriva_ml_cli", "logs", rid]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    first = newest()
    assert logs(first.execution_rid) == "one\n"
    (tmp_path / "go").touch()
    assert run.wait() == 0
    run.close()
    shutil.rmtree(first.working_dir)
    assert logs(first.execution_rid) == "one\ntwo\n"
    assert "has not recorded what it printed" in logs(newest().execution_rid)
