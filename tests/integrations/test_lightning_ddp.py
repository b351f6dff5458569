"""Trainings of two real processes: one execution, written by rank 0, without hangs, and every failure recorded."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from training_helpers import outputs, status_messages

from deriva_ml import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import RecordedExecution
from waits import HANG

pytest.importorskip("lightning.pytorch", reason="Lightning is not installed.")

EPOCHS = ["Epoch 1/2: loss=1, rank=0.5", "Epoch 2/2: loss=1, rank=0.5"]
SCRIPT = str(Path(__file__).with_name("ddp_program.py"))
TRAINING = (SCRIPT, "lightning.pytorch")


@contextmanager
def start_process(
    program: tuple[str, ...], environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a process; it and its children end with the test."""
    with subprocess.Popen(
        [sys.executable, *program],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)


def run_programs(*programs: tuple[str, ...], environ: tuple[Mapping[str, str], ...] = ()) -> tuple[list[int], str]:
    """Run programs concurrently, and return the exit code and output of each."""
    with ExitStack() as ends:
        processes = [
            ends.enter_context(start_process(program, environ[number] if environ else None))
            for number, program in enumerate(programs)
        ]
        output = [process.communicate(timeout=HANG)[0] for process in processes]
        return [process.returncode for process in processes], "\n".join(output)


def torchrun(*options: str, nodes: int = 1, node: int = 0, port: int) -> tuple[str, ...]:
    address = ("--master_addr", "127.0.0.1", "--master_port", str(port))
    place = ("--nnodes", str(nodes), "--node_rank", str(node), "--nproc_per_node", str(2 // nodes))
    return "-m", "torch.distributed.run", *place, *address, *TRAINING, "--nodes", str(nodes), *options


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def parse_ranks(output: str) -> list[list[str]]:
    """Return what each process printed about its execution: rank, RID, whether it is above rank 0."""
    # not by lines, since the processes may write to the same line
    return sorted(list(match) for match in re.findall(r"rank (\d+) (\S+) (True|False)", output))


def assert_recorded_once(ml: DerivaML, output: str) -> RecordedExecution:
    """The only execution has both processes, two epochs and their checkpoints."""
    (execution,) = ml.find_executions()
    assert parse_ranks(output) == [["0", execution.execution_rid, "False"], ["1", execution.execution_rid, "True"]]
    assert (execution.status, status_messages(execution)[:2]) == (Status.completed, EPOCHS)  # type: ignore[arg-type]
    assert outputs(ml, execution, "Model")  # type: ignore[arg-type]
    return execution


def only(ml: DerivaML) -> tuple[Status, str]:
    (execution,) = ml.find_executions()
    return execution.status, execution.status_detail


def test_lightning_launcher(ml: DerivaML) -> None:
    """Lightning starts the script again for rank 1; each of two executions covers both processes."""
    codes, output = run_programs((*TRAINING, "--runs", "2"))
    assert codes == [0], output
    second, first = ml.find_executions()
    rids = [first.execution_rid, second.execution_rid]
    assert parse_ranks(output) == [
        ["0", rids[0], "False"],
        ["0", rids[1], "False"],
        ["1", rids[0], "True"],
        ["1", rids[1], "True"],
    ], output
    for execution in (first, second):
        assert (execution.status, status_messages(execution)[:2]) == (Status.completed, EPOCHS)  # type: ignore[arg-type]


def test_torchrun(ml: DerivaML) -> None:
    """A job after a failed one, with the same torchrun name and port, is a new execution."""
    port = free_port()
    (first,), first_output = run_programs(torchrun("--fail", "1", port=port))
    (second,), output = run_programs(torchrun(port=port))
    assert (first, second) == (1, 0), first_output + output
    newest, oldest = ml.find_executions()
    assert parse_ranks(output) == [["0", newest.execution_rid, "False"], ["1", newest.execution_rid, "True"]]
    assert (newest.status, oldest.status) == (Status.completed, Status.failed)
    assert oldest.status_detail == "rank 1: ValueError: No data on rank 1"


def test_torchrun_on_two_nodes(ml: DerivaML) -> None:
    """Two nodes, here two torchrun agents, share one execution."""
    port = free_port()
    codes, output = run_programs(torchrun(nodes=2, node=0, port=port), torchrun(nodes=2, node=1, port=port))
    assert codes == [0, 0], output
    assert_recorded_once(ml, output)


def test_failure_on_rank_one(ml: DerivaML) -> None:
    """An exception in a training step of rank 1 ends both processes and fails the run."""
    (code,), output = run_programs((*TRAINING, "--fail", "1"))
    assert code != 0, output
    assert only(ml) == (Status.failed, "rank 1: ValueError: No data on rank 1")


@pytest.mark.long
def test_failure_on_rank_zero(ml: DerivaML) -> None:
    """A later connection error on rank 1 does not change the recorded failure."""
    (code,), output = run_programs((*TRAINING, "--fail", "0"))
    assert code != 0, output
    assert only(ml) == (Status.failed, "ValueError: No data on rank 0")


@pytest.mark.long
def test_lightning_on_two_nodes(ml: DerivaML) -> None:
    """A script started by hand on each node, with Lightning's own variables, is one execution."""
    master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    nodes = tuple({**master, "NODE_RANK": str(node)} for node in range(2))
    codes, output = run_programs((*TRAINING, "--nodes", "2"), (*TRAINING, "--nodes", "2"), environ=nodes)
    assert codes == [0, 0], output
    assert_recorded_once(ml, output)


@pytest.mark.long
def test_pytorch_lightning(ml: DerivaML) -> None:
    """A Trainer of pytorch_lightning behaves like one of lightning.pytorch."""
    pytest.importorskip("pytorch_lightning")
    codes, output = run_programs((SCRIPT, "pytorch_lightning"))
    assert codes == [0], output
    assert_recorded_once(ml, output)


@pytest.mark.long
def test_rank_zero_is_killed(ml: DerivaML) -> None:
    """The other process ends too, and the next look marks the run as aborted, not as failed by rank 1."""
    (code,), output = run_programs(torchrun("--fail", "0", "--by", "SIGKILL", port=free_port()))
    assert code != 0, output
    status, detail = only(ml)
    assert status is Status.aborted
    assert "without a word" in detail


@pytest.mark.long
def test_rank_one_is_killed(ml: DerivaML) -> None:
    """Rank 0 ends too and records what it noticed, or the launcher's SIGTERM if that was faster."""
    (code,), output = run_programs(torchrun("--fail", "1", "--by", "SIGKILL", port=free_port()))
    assert code != 0, output
    status, detail = only(ml)
    how = detail.partition(":")[0].partition(",")[0]
    assert (status, how) in ((Status.failed, "RuntimeError"), (Status.aborted, "SIGTERM"))


@pytest.mark.long
def test_all_processes_get_sigterm(ml: DerivaML) -> None:
    """A run that a scheduler ends is aborted, whatever each process does with the signal."""
    (code,), output = run_programs(torchrun("--fail", "all", "--by", "SIGTERM", port=free_port()))
    assert code != 0, output
    assert only(ml) == (Status.aborted, "SIGTERM")


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_failure_in_spawned_process(strategy: str, ml: DerivaML) -> None:
    """If the Trainer spawns or forks its processes, the run fails with the exception of one of them."""
    (code,), output = run_programs((*TRAINING, "--strategy", strategy, "--fail", "1"))
    assert code != 0, output
    status, detail = only(ml)
    assert status is Status.failed
    assert "ValueError: No data on rank 1" in detail


@pytest.mark.long
def test_own_execution(ml: DerivaML) -> None:
    """An owned execution is one for all processes, and fails with the exception of any of them."""
    (code,), output = run_programs((*TRAINING, "--own"))
    assert code == 0, output
    assert only(ml)[0] is Status.completed
    (code,), output = run_programs((*TRAINING, "--own", "--fail", "1"))
    assert code != 0, output
    failed, _ = ml.find_executions()
    assert (failed.status, failed.status_detail) == (Status.failed, "rank 1: ValueError: No data on rank 1")
