"""One execution for all processes of a distributed run: only rank 0 writes, and a failure of any rank is recorded."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError, DerivaMLWarning, RankZeroRequired, UnknownTable
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.multi_process import EXECUTIONS_VARIABLE, CreateCall, RankMessage
from deriva_ml_core.journal.journal import Journal, load_state
from deriva_ml_core.journal.state import JOURNAL_FILENAME, RankFailed
from deriva_ml_core.models import AssetSpec, DatasetSpec
from deriva_ml_core.plugins import load_plugins
from deriva_ml_core.testing import HookRecorder
from waits import HANG

PROGRAM = """
import os, subprocess, sys
from deriva_ml import DerivaML, ExecutionConfiguration, Workflow

workflow = Workflow(name="Ranks", workflow_type=sys.argv[2], url="https://example.org/ranks.py", checksum="r")
ml, children = DerivaML(), []
for _ in range(int(sys.argv[1])):
    try:
        with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as execution:
            if "launch" in sys.argv and "LOCAL_RANK" not in os.environ:  # as Lightning does in fit
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "NODE_RANK": "0", "LOCAL_RANK": "0"}
                environ = {**os.environ, "LOCAL_RANK": "1"}
                children.append(subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env=environ))
            execution.asset_file_path("Model", "model.pt").write_text("weights")
            print(execution.execution_rid, not execution.is_rank_zero, flush=True)
    except Exception as error:
        print(type(error).__name__, "RANK" in os.environ and os.environ["RANK"] != "0", flush=True)
sys.stdin.read()
sys.exit(sum(child.wait() for child in children))
"""
"""Prints RID and whether the rank is above 0 for each of its executions; exits once its input is closed."""

TORCHRUN = {
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "0",
}
LAUNCHES: dict[str, Callable[[int], dict[str, str]]] = {
    "torchrun": lambda rank: {**TORCHRUN, "RANK": str(rank), "LOCAL_RANK": str(rank)},
    "srun": lambda rank: {"SLURM_PROCID": str(rank), "SLURM_NTASKS": "2", "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0"},
    "mpirun": lambda rank: {
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": "2",
        "PMIX_NAMESPACE": "prterun-1@1",
    },
    "by hand": lambda rank: {"RANK": str(rank), "WORLD_SIZE": "2"},
    "Lightning on two nodes": lambda rank: {"NODE_RANK": str(rank), "MASTER_ADDR": "localhost", "MASTER_PORT": "7"},
}


StartProgram = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start_program() -> Iterator[StartProgram]:
    """Starts the program in another process; all processes are killed at the end of the test."""
    with ExitStack() as stack:

        def start(
            environ: Mapping[str, str], *options: str, count: int = 1, kind: str = "Training"
        ) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-W", "always::UserWarning", "-c", PROGRAM, str(count), kind, *options],
                env={**os.environ, **environ},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def read_lines(process: subprocess.Popen[str], lines: int = 1) -> list[str]:
    """Return the next output lines of a process."""
    assert process.stdout is not None
    return [process.stdout.readline().rstrip() for _ in range(lines)]


def finish(process: subprocess.Popen[str]) -> str:
    """Let a process exit and return its error output."""
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return errors


@pytest.mark.parametrize("launch", LAUNCHES.values(), ids=LAUNCHES)
def test_all_processes_have_one_execution(
    launch: Callable[[int], dict[str, str]], start_program: StartProgram, home: Path
) -> None:
    """A process of a higher rank gets the execution of rank 0, even if it starts first, and leaves no files."""
    rank_one, rank_zero = start_program(launch(1)), start_program(launch(0))
    (rid, _), (same, follows) = read_lines(rank_zero)[0].split(), read_lines(rank_one)[0].split()
    assert (same, follows) == (rid, "True")
    assert finish(rank_one) == ""
    assert finish(rank_zero).startswith(f"Execution {rid} ended with 1 staged files that are not uploaded.")
    (execution,) = DerivaML().find_executions()
    assert (execution.execution_rid, execution.status) == (rid, Status.completed)
    assert [*home.rglob("rendezvous/*"), *home.rglob("scratch-*")] == []


def test_calls_are_matched_by_number(start_program: StartProgram) -> None:
    """If a script creates several executions, their order is the same in all processes."""
    launch = LAUNCHES["torchrun"]
    rank_zero, rank_one = start_program(launch(0), count=3), start_program(launch(1), count=3)
    rids_of_rank_zero = [line.split()[0] for line in read_lines(rank_zero, 3)]
    assert [line.split()[0] for line in read_lines(rank_one, 3)] == rids_of_rank_zero
    assert len(set(rids_of_rank_zero)) == 3
    finish(rank_one)
    finish(rank_zero)


def test_launch_from_inside_the_script(start_program: StartProgram) -> None:
    """A process launched by rank 0 inherits earlier executions and receives later ones."""
    rank_zero = start_program({}, "launch", count=2)
    lines = read_lines(rank_zero, 4)
    assert rank_zero.stdin is not None
    rank_zero.stdin.close()
    assert rank_zero.wait(HANG) == 0
    rids_of_rank_one = [line.split()[0] for line in lines if line.endswith("True")]
    assert rids_of_rank_one == [line.split()[0] for line in lines if line.endswith("False")]
    assert len(set(rids_of_rank_one)) == 2


def test_message_of_a_killed_launch_is_ignored(start_program: StartProgram, home: Path) -> None:
    """The message of a killed launch is ignored by the next launch, although torchrun gives both the same key."""
    launch = LAUNCHES["torchrun"]
    killed = start_program(launch(0))
    (old, _) = read_lines(killed)[0].split()
    killed.kill()
    killed.wait()
    assert len([*home.rglob("rendezvous/*/*.json")]) == 1
    rank_one, rank_zero = start_program(launch(1)), start_program(launch(0))
    (new, _) = read_lines(rank_zero)[0].split()
    assert read_lines(rank_one) == [f"{new} True"]
    assert new != old
    finish(rank_one)
    finish(rank_zero)


def test_rank_without_message_continues_unrecorded(start_program: StartProgram) -> None:
    """After the timeout a higher rank continues without an execution; it warns once and waits once."""
    alone = start_program({**LAUNCHES["torchrun"](1), "DERIVA_ML_RENDEZVOUS_SECONDS": "0.2"}, count=3)
    assert read_lines(alone, 3) == ["0000 True"] * 3
    errors = finish(alone)
    assert errors.count("Rank 1 received no execution") == 1
    assert DerivaML().find_executions() == []


def test_failed_creation_raises_on_all_ranks(start_program: StartProgram) -> None:
    """Higher ranks raise the error of rank 0 at once."""
    launch = LAUNCHES["torchrun"]
    rank_one, rank_zero = start_program(launch(1), kind="No such type"), start_program(launch(0), kind="No such type")
    assert read_lines(rank_zero) == ["UnknownTerm False"]
    assert read_lines(rank_one) == ["UnknownTerm True"]
    finish(rank_one)
    finish(rank_zero)


def test_rank_variable_separates_tasks(start_program: StartProgram) -> None:
    """With DERIVA_ML_RANK=0, independent tasks of one srun have an execution each."""
    tasks = [start_program({**LAUNCHES["srun"](rank), "DERIVA_ML_RANK": "0"}) for rank in range(2)]
    rids = {read_lines(task)[0] for task in tasks}
    assert len(rids) == 2
    for task in tasks:
        finish(task)
    assert {f"{execution.execution_rid} False" for execution in DerivaML().find_executions()} == rids


# One process with an execution of rank 0 and the same execution as seen by rank 1


@pytest.fixture
def recorder() -> HookRecorder:
    """Records the notifications."""
    return HookRecorder()


@pytest.fixture
def ml(recorder: HookRecorder) -> DerivaML:
    """A client of a new embedded catalog whose notifications are recorded."""
    plugins = load_plugins({})
    plugins.register(recorder)
    return DerivaML(plugins=plugins)


def as_rank_one(ml: DerivaML, execution: Execution) -> Execution:
    """Return the same execution as seen by a process of rank 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "1")
        patch.setenv("WORLD_SIZE", "2")
        return ml.restore_execution(execution.execution_rid)


def snapshot(ml: DerivaML, execution: Execution) -> tuple[Any, ...]:
    tables = ("Execution", "Model", "Model_Execution", "Image_Execution", "Execution_Execution", "Dataset_Execution")
    files = {path: path.read_bytes() for path in execution.working_dir.rglob("*") if path.is_file()}
    return [ml.select_rows(table) for table in tables], files


def test_higher_rank_writes_nothing(ml: DerivaML, config: ExecutionConfiguration, recorder: HookRecorder) -> None:
    """All methods can be called; catalog, store, plugins and the folder of rank 0 do not change."""
    with ml.create_execution(config) as earlier:
        earlier.asset_file_path("Image", "in.png").write_text("x")
    (image,) = earlier.upload_execution_outputs()["Image"]
    exe = ml.create_execution(config)
    rank_one = as_rank_one(ml, exe)
    before, number_of_calls = snapshot(ml, exe), len(recorder.calls)
    with rank_one:
        rank_one.update_status(Status.running, "Epoch 1/2", wait=False)
        path = rank_one.asset_file_path("Model", "model.pt")
        path.write_text("weights")
        rank_one.mark_immutable(path)
        rank_one.add_asset_types(path, "Model_File")
        rank_one.record_input(image)
        assert rank_one.download_asset(image).read_text() == "x"
        rank_one.add_nested_execution(earlier)
        assert rank_one.upload_execution_outputs() == {}
        rank_one.forget(path)
    assert rank_one.upload_execution_outputs(wait=False).result() == {}
    assert snapshot(ml, exe) == before
    assert len(recorder.calls) == number_of_calls


def test_higher_rank_has_the_rid_of_rank_zero(ml: DerivaML, exe: Execution) -> None:
    """A higher rank has the RID of rank 0; is_rank_zero distinguishes them."""
    rank_one = as_rank_one(ml, exe)
    assert (rank_one.execution_rid, rank_one.workflow_rid) == (exe.execution_rid, exe.workflow_rid)
    assert (exe.is_rank_zero, rank_one.is_rank_zero) == (True, False)


def test_higher_rank_has_a_scratch_folder(ml: DerivaML, exe: Execution) -> None:
    """Paths are in a scratch folder that is deleted with the execution object; names are checked as on rank 0."""
    rank_one = as_rank_one(ml, exe)
    path = rank_one.asset_file_path("Model", "model.pt")
    path.write_text("weights")
    assert not path.is_relative_to(exe.working_dir)
    with pytest.raises(UnknownTable):
        rank_one.asset_file_path("Nonsense", "model.pt")
    del rank_one
    gc.collect()
    assert not path.exists()


def test_higher_rank_has_the_inputs(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Each process gets the input datasets and assets in the versions of rank 0."""
    with ml.create_execution(config) as earlier:
        earlier.asset_file_path("Image", "in.png").write_text("x")
    (image,) = earlier.upload_execution_outputs()["Image"]
    dataset = ml.create_dataset("Cats")
    inputs = {"datasets": (DatasetSpec(rid=dataset.rid),), "assets": (AssetSpec(rid=image.rid),)}
    exe = ml.create_execution(config.model_copy(update=inputs))
    dataset.increment_version("minor", "Later")
    rank_one = as_rank_one(ml, exe)
    assert [bag.version for bag in rank_one.datasets] == [bag.version for bag in exe.datasets] == ["0.1.0"]
    assert [path.read_text() for path in rank_one.asset_paths["Image"]] == ["x"]


def test_only_rank_zero_creates_datasets(ml: DerivaML, exe: Execution) -> None:
    """create_dataset on a higher rank raises an error that names is_rank_zero."""
    with pytest.raises(RankZeroRequired, match="is_rank_zero"):
        as_rank_one(ml, exe).create_dataset()


def test_dry_run_on_a_higher_rank(
    ml: DerivaML, config: ExecutionConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run on a higher rank waits for no message."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    exe = ml.create_execution(config, dry_run=True)
    assert (exe.execution_rid, exe.is_rank_zero) == ("0000", False)


GLOO = "[pair.cc:553] Connection closed by peer [127.0.0.1]:1451"


def fail(rank_one: Execution, error: BaseException) -> None:
    with pytest.raises(type(error)), rank_one:
        raise error


@pytest.mark.parametrize(
    ("ours", "status", "detail"),
    [
        pytest.param(None, Status.failed, "rank 1: ValueError: no data", id="completed"),
        pytest.param(RuntimeError(GLOO), Status.failed, "rank 1: ValueError: no data", id="broken collective"),
        pytest.param(signal.SIGTERM, Status.failed, "rank 1: ValueError: no data", id="killed by the launcher"),
        pytest.param(KeyboardInterrupt(), Status.aborted, "KeyboardInterrupt", id="Ctrl-C"),
        pytest.param(
            KeyError("a"), Status.failed, "KeyError: 'a' (and rank 1: ValueError: no data)", id="a failure of its own"
        ),
    ],
)
def test_failure_of_another_rank_fails_the_run(
    ours: BaseException | signal.Signals | None, status: Status, detail: str, ml: DerivaML, exe: Execution
) -> None:
    """A lost peer is replaced by the root cause; an error of rank 0 itself stays."""
    error = SystemExit if isinstance(ours, signal.Signals) else type(ours) if ours else None
    with pytest.raises(error) if error else ExitStack(), exe:  # type: ignore[arg-type]
        fail(as_rank_one(ml, exe), ValueError("no data"))
        if isinstance(ours, signal.Signals):
            os.kill(os.getpid(), ours)
        elif ours is not None:
            raise ours
    assert (exe.status, exe.status_detail) == (status, detail)
    (row,) = ml.select_rows("Execution", {"RID": exe.execution_rid})
    assert (row["Status"], row["Status_Detail"]) == (status, detail)


def test_lost_peer_is_not_the_root_cause(ml: DerivaML, exe: Execution) -> None:
    """A rank that only lost its peer is not the root cause; an error of rank 0 itself stays."""
    with pytest.raises(KeyError), exe:
        fail(as_rank_one(ml, exe), RuntimeError(GLOO))
        raise KeyError("a")
    assert exe.status_detail == "KeyError: 'a'"
    journal = Journal(exe.working_dir / JOURNAL_FILENAME)
    with pytest.raises(RuntimeError), ml.resume_execution(exe.execution_rid) as again:
        journal.append(RankFailed(rank=2, host="b", error="DistBackendError: NCCL error"))
        journal.append(RankFailed(rank=3, host="c", error="ValueError: no data"))
        raise RuntimeError(GLOO)
    assert again.status_detail == "rank 3: ValueError: no data"


def _end_under_sigterm(config: ExecutionConfiguration, sender: Connection) -> None:
    exe = DerivaML().create_execution(config)
    exe.add_exit_callback(lambda error: os.kill(os.getpid(), signal.SIGTERM))
    sender.send(exe.execution_rid)
    with exe:
        raise ValueError("no data")


def test_sigterm_while_the_end_is_recorded(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """SIGTERM waits until the end is recorded with its own reason, and kills the process then."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_end_under_sigterm, args=(config, theirs))
    child.start()
    rid = ours.recv()
    child.join()
    assert child.exitcode == -signal.SIGTERM
    row = ml.select_rows("Execution", {"RID": rid})[0]
    assert (row["Status"], row["Status_Detail"]) == ("Failed", "ValueError: no data")


def test_sigterm_of_all_ranks_aborts(ml: DerivaML, exe: Execution) -> None:
    """A connection that breaks since all ranks are terminated does not fail the run."""
    with pytest.raises(SystemExit), exe:
        fail(as_rank_one(ml, exe), RuntimeError(GLOO))
        os.kill(os.getpid(), signal.SIGTERM)
    assert (exe.status, exe.status_detail) == (Status.aborted, "SIGTERM")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(0)])
def test_exits_that_are_no_failure(error: BaseException, ml: DerivaML, exe: Execution) -> None:
    """Ctrl-C, which reaches all ranks, and exit code 0 are no failure of a rank."""
    with exe:
        fail(as_rank_one(ml, exe), error)
    assert exe.status is Status.completed


def test_failure_is_redacted(ml: DerivaML, exe: Execution) -> None:
    """The event in the journal of rank 0 has rank and host, and no password."""
    fail(as_rank_one(ml, exe), ValueError("no https://me:swordfish@example.org/data"))
    (failure,) = load_state(exe.working_dir / JOURNAL_FILENAME).failures
    assert (failure.rank, failure.host) == (1, platform.node())
    assert "swordfish" not in failure.error
    assert "ValueError" in failure.error


def test_resumed_run_starts_without_failures(ml: DerivaML, exe: Execution) -> None:
    """Failures of ranks in the first run do not fail the resumed run."""
    with exe:
        fail(as_rank_one(ml, exe), ValueError("no data"))
    with ml.resume_execution(exe.execution_rid) as again:
        pass
    assert again.status is Status.completed


def _die(config: ExecutionConfiguration, sender: Connection) -> None:
    with DerivaML().create_execution(config) as exe:
        sender.send(exe.execution_rid)
        sender.recv()
        os.kill(os.getpid(), signal.SIGKILL)


def test_killed_rank_zero_and_failed_rank(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """If rank 0 was killed, the run failed with the error of another rank; a lookup shows it, a restore writes it."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_die, args=(config, theirs))
    child.start()
    rid = ours.recv()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "1")
        patch.setenv("WORLD_SIZE", "2")
        fail(ml.restore_execution(rid), ValueError("no data"))
    ours.send("die")
    child.join()
    (found,) = ml.find_executions(status=Status.failed)
    assert (found.execution_rid, found.status_detail) == (rid, "rank 1: ValueError: no data")
    assert ml.select_rows("Execution", {"RID": rid})[0]["Status"] == "Running"
    ml.restore_execution(rid)
    row = ml.select_rows("Execution", {"RID": rid})[0]
    assert (row["Status"], row["Status_Detail"]) == ("Failed", "rank 1: ValueError: no data")


def _report_in(exe: Execution, rank: int, sender: Connection) -> None:
    os.environ["LOCAL_RANK"] = str(rank)  # ddp_spawn sets it when the execution is long unpickled
    exe.update_status(Status.running, f"from rank {rank}")
    sender.send((not exe.is_rank_zero, exe.asset_file_path("Model", f"model-{rank}.pt"), exe.execution_rid))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_execution_in_a_worker_process_has_its_rank(method: str, ml: DerivaML, exe: Execution) -> None:
    """An execution passed to another process has the rank of that process."""
    context = multiprocessing.get_context(method)
    answers = []
    with exe:
        for rank in range(2):
            receiver, sender = multiprocessing.Pipe()
            child = context.Process(target=_report_in, args=(exe, rank, sender))
            child.start()
            assert receiver.poll(HANG)
            answers.append(receiver.recv())
            child.join()
        messages = [status.message for status in exe.list_statuses()]
    (leads, model, rid), (follows, other, same) = answers
    assert (leads, follows) == (False, True)
    assert rid == same == exe.execution_rid
    assert model.is_relative_to(exe.working_dir)
    assert not other.is_relative_to(exe.working_dir)
    assert messages[-1] == "from rank 0"
    assert "from rank 1" not in messages


# Messages between ranks


def child_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that the parent launched after creating these executions."""
    counter = {**json.loads(environ[EXECUTIONS_VARIABLE]), "process": os.getppid()}
    return {EXECUTIONS_VARIABLE: json.dumps(counter), "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


def test_other_script_inherits_no_executions(ml: DerivaML) -> None:
    """A driver script that created executions can launch a distributed run with executions of its own."""
    environ: dict[str, str] = {}
    CreateCall(ml.connection, environ).publish(RankMessage(rid="1-000A", folder=Path("/a")), rank=None)
    launched = child_environ(environ)
    counter = json.loads(launched[EXECUTIONS_VARIABLE])
    launched[EXECUTIONS_VARIABLE] = json.dumps({**counter, "script": "driver.py"})
    assert CreateCall(ml.connection, launched).wait(0) is None
    message = CreateCall(ml.connection, child_environ(environ)).wait(0)
    assert message is not None
    assert message.rid == "1-000A"


def test_environment_variable_is_bounded(ml: DerivaML) -> None:
    """After thousands of executions a child process inherits the last ones and waits for none."""
    environ: dict[str, str] = {}
    for number in range(3000):
        CreateCall(ml.connection, environ).publish(RankMessage(rid=f"1-{number}", folder=Path("/a/b/c")), rank=None)
    assert len(environ[EXECUTIONS_VARIABLE]) < 4096
    inherited = child_environ(environ)
    messages = [CreateCall(ml.connection, inherited).wait(600) for _ in range(3000)]
    assert [message.rid for message in messages if message] == [f"1-{number}" for number in range(2968, 3000)]


def test_process_of_another_launcher_inherits_nothing(ml: DerivaML) -> None:
    """A torchrun inside a script that created an execution is a launch of its own."""
    environ: dict[str, str] = {}
    CreateCall(ml.connection, environ).publish(RankMessage(rid="1-A"), rank=None)
    assert CreateCall(ml.connection, {**child_environ(environ), "RANK": "1", "WORLD_SIZE": "2"}).wait(0) is None


def test_old_message_of_another_machine_is_ignored(ml: DerivaML, home: Path) -> None:
    """If rank 0 cannot be checked, only a message from the time of this launch counts."""
    launch = LAUNCHES["torchrun"]
    CreateCall(ml.connection, launch(0)).publish(RankMessage(rid="1-A"), rank=0)
    (path,) = home.rglob("rendezvous/*/*.json")
    published = RankMessage.model_validate_json(path.read_bytes())
    assert published.lease is not None
    elsewhere = published.model_copy(update={"lease": published.lease.model_copy(update={"host": "elsewhere"})})
    path.write_text(elsewhere.model_dump_json())
    message = CreateCall(ml.connection, launch(1)).wait(0)
    assert message is not None
    assert message.rid == "1-A"
    long_ago = elsewhere.time.replace(year=2001)
    path.write_text(elsewhere.model_copy(update={"time": long_ago}).model_dump_json())
    assert CreateCall(ml.connection, launch(1)).wait(0) is None


def test_single_process_publishes_no_message(ml: DerivaML, exe: Execution, home: Path) -> None:
    """A process that runs alone, also as torchrun's only process, writes no message."""
    CreateCall(ml.connection, {**LAUNCHES["torchrun"](0), "WORLD_SIZE": "1"}).publish(RankMessage(rid="1-A"), rank=0)
    assert [*home.rglob("rendezvous")] == []


def test_invalid_timeout_variable(
    ml: DerivaML, config: ExecutionConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the environment variable."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("DERIVA_ML_RENDEZVOUS_SECONDS", "soon")
    with pytest.raises(ConfigurationError, match="DERIVA_ML_RENDEZVOUS_SECONDS"):
        ml.create_execution(config)


def test_timeout_warning(ml: DerivaML, config: ExecutionConfiguration, monkeypatch: pytest.MonkeyPatch) -> None:
    """The warning names the remedy, and this process records nothing."""
    monkeypatch.delenv(EXECUTIONS_VARIABLE, raising=False)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("DERIVA_ML_RENDEZVOUS_SECONDS", "0")
    with pytest.warns(DerivaMLWarning, match="DERIVA_ML_RANK=0"):
        exe = ml.create_execution(config)
    assert exe.upload_execution_outputs() == {}
