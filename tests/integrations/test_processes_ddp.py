"""Trainings of two real processes: one execution, rank zero writes, nobody hangs, a failure of anyone is recorded."""

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
from trainings import outputs, told

from deriva_ml import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import RecordedExecution

pytest.importorskip("lightning.pytorch", reason="Lightning is not installed.")

LIMIT = 240.0
"""Seconds after which a training is said to hang, on two busy processors."""

EPOCHS = ["Epoch 1/2: loss=1, rank=0.5", "Epoch 2/2: loss=1, rank=0.5"]
SCRIPT = str(Path(__file__).with_name("processes_training.py"))
TRAINING = (SCRIPT, "lightning.pytorch")


@contextmanager
def begun(program: tuple[str, ...], environ: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process and its children, of which none outlives the test."""
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


def ran(*programs: tuple[str, ...], environ: tuple[Mapping[str, str], ...] = ()) -> tuple[list[int], str]:
    """Run programs beside one another, and give back how each ended and all that they said."""
    with ExitStack() as ends:
        processes = [
            ends.enter_context(begun(program, environ[number] if environ else None))
            for number, program in enumerate(programs)
        ]
        said = [process.communicate(timeout=LIMIT)[0] for process in processes]
        return [process.returncode for process in processes], "\n".join(said)


def torchrun(*words: str, nodes: int = 1, node: int = 0, port: int) -> tuple[str, ...]:
    address = ("--master_addr", "127.0.0.1", "--master_port", str(port))
    place = ("--nnodes", str(nodes), "--node_rank", str(node), "--nproc_per_node", str(2 // nodes))
    return "-m", "torch.distributed.run", *place, *address, *TRAINING, "--nodes", str(nodes), *words


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def ranks(said: str) -> list[list[str]]:
    """What each process said of its execution: rank, record id, whether it follows."""
    # not by lines, since the other process may have begun one
    return sorted(list(found) for found in re.findall(r"rank (\d+) (\S+) (True|False)", said))


def assert_recorded_once(ml: DerivaML, said: str) -> RecordedExecution:
    """The only execution is that of both processes, with two epochs and their checkpoints."""
    (execution,) = ml.find_executions()
    assert ranks(said) == [["0", execution.execution_rid, "False"], ["1", execution.execution_rid, "True"]]
    assert (execution.status, told(execution)[:2]) == (Status.completed, EPOCHS)  # type: ignore[arg-type]
    assert outputs(ml, execution, "Model")  # type: ignore[arg-type]
    return execution


def only(ml: DerivaML) -> tuple[Status, str]:
    (execution,) = ml.find_executions()
    return execution.status, execution.status_detail


def test_lightnings_own_launcher(ml: DerivaML) -> None:
    """Lightning begins the script once more for rank one; of its two executions each is one for both processes."""
    codes, said = ran((*TRAINING, "--runs", "2"))
    assert codes == [0], said
    second, first = ml.find_executions()
    rids = [first.execution_rid, second.execution_rid]
    assert ranks(said) == [
        ["0", rids[0], "False"],
        ["0", rids[1], "False"],
        ["1", rids[0], "True"],
        ["1", rids[1], "True"],
    ], said
    for execution in (first, second):
        assert (execution.status, told(execution)[:2]) == (Status.completed, EPOCHS)  # type: ignore[arg-type]


def test_torchrun(ml: DerivaML) -> None:
    """A job after one that failed, to which torchrun gives the same name and port, is an execution of its own."""
    port = free_port()
    (first,), said_first = ran(torchrun("--fail", "1", port=port))
    (second,), said = ran(torchrun(port=port))
    assert (first, second) == (1, 0), said_first + said
    newest, oldest = ml.find_executions()
    assert ranks(said) == [["0", newest.execution_rid, "False"], ["1", newest.execution_rid, "True"]]
    assert (newest.status, oldest.status) == (Status.completed, Status.failed)
    assert oldest.status_detail == "rank 1: ValueError: No data on rank 1"


def test_two_nodes(ml: DerivaML) -> None:
    """Two machines, here two agents of torchrun, share one execution."""
    port = free_port()
    codes, said = ran(torchrun(nodes=2, node=0, port=port), torchrun(nodes=2, node=1, port=port))
    assert codes == [0, 0], said
    assert_recorded_once(ml, said)


def test_a_failure_on_rank_one(ml: DerivaML) -> None:
    """An exception in a training step of rank one ends both processes, and the run has failed by it."""
    (code,), said = ran((*TRAINING, "--fail", "1"))
    assert code != 0, said
    assert only(ml) == (Status.failed, "rank 1: ValueError: No data on rank 1")


@pytest.mark.long
def test_a_failure_on_rank_zero(ml: DerivaML) -> None:
    """What rank one then says of a broken connection changes nothing."""
    (code,), said = ran((*TRAINING, "--fail", "0"))
    assert code != 0, said
    assert only(ml) == (Status.failed, "ValueError: No data on rank 0")


@pytest.mark.long
def test_lightning_on_two_nodes(ml: DerivaML) -> None:
    """A script begun by hand on each node, with Lightning's own variables."""
    master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    nodes = tuple({**master, "NODE_RANK": str(node)} for node in range(2))
    codes, said = ran((*TRAINING, "--nodes", "2"), (*TRAINING, "--nodes", "2"), environ=nodes)
    assert codes == [0, 0], said
    assert_recorded_once(ml, said)


@pytest.mark.long
def test_the_other_package(ml: DerivaML) -> None:
    """A Trainer of pytorch_lightning does as one of lightning.pytorch."""
    pytest.importorskip("pytorch_lightning")
    codes, said = ran((SCRIPT, "pytorch_lightning"))
    assert codes == [0], said
    assert_recorded_once(ml, said)


@pytest.mark.long
def test_rank_zero_is_killed(ml: DerivaML) -> None:
    """The other ends too; the next look says that the run ended without a word, not that the other broke it."""
    (code,), said = ran(torchrun("--fail", "0", "--by", "SIGKILL", port=free_port()))
    assert code != 0, said
    status, detail = only(ml)
    assert status is Status.aborted
    assert "without a word" in detail


@pytest.mark.long
def test_rank_one_is_killed(ml: DerivaML) -> None:
    """Rank zero ends too, and says so itself: by what it noticed, or by the launcher's SIGTERM if that was faster."""
    (code,), said = ran(torchrun("--fail", "1", "--by", "SIGKILL", port=free_port()))
    assert code != 0, said
    status, detail = only(ml)
    how = detail.partition(":")[0].partition(",")[0]
    assert (status, how) in ((Status.failed, "RuntimeError"), (Status.aborted, "SIGTERM"))


@pytest.mark.long
def test_all_get_sigterm(ml: DerivaML) -> None:
    """What a scheduler ends was aborted, whatever each process makes of the signal."""
    (code,), said = ran(torchrun("--fail", "all", "--by", "SIGTERM", port=free_port()))
    assert code != 0, said
    assert only(ml) == (Status.aborted, "SIGTERM")


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_a_failure_in_a_worker(strategy: str, ml: DerivaML) -> None:
    """Where the Trainer spawns or forks its processes, the run fails by what one of them raised."""
    (code,), said = ran((*TRAINING, "--strategy", strategy, "--fail", "1"))
    assert code != 0, said
    status, detail = only(ml)
    assert status is Status.failed
    assert "ValueError: No data on rank 1" in detail


@pytest.mark.long
def test_a_callbacks_own_execution(ml: DerivaML) -> None:
    """The callback's own execution is one for all processes, and fails by what any of them raised."""
    (code,), said = ran((*TRAINING, "--own"))
    assert code == 0, said
    assert only(ml)[0] is Status.completed
    (code,), said = ran((*TRAINING, "--own", "--fail", "1"))
    assert code != 0, said
    failed, _ = ml.find_executions()
    assert (failed.status, failed.status_detail) == (Status.failed, "rank 1: ValueError: No data on rank 1")
