"""One execution for all processes of a training: who follows writes nothing, and a failure of anyone is recorded."""

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
"""Says of each of its executions the record id and whether it follows; then waits until it is let go."""

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


Begin = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begins the program in a process of its own; all are ended with the test."""
    with ExitStack() as ends:

        def begun(
            environ: Mapping[str, str], *words: str, count: int = 1, kind: str = "Training"
        ) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-W", "always::UserWarning", "-c", PROGRAM, str(count), kind, *words],
                env={**os.environ, **environ},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            ends.enter_context(process)
            ends.callback(process.kill)
            return process

        yield begun


def said(process: subprocess.Popen[str], lines: int = 1) -> list[str]:
    """The next lines that a process says."""
    assert process.stdout is not None
    return [process.stdout.readline().rstrip() for _ in range(lines)]


def let_go(process: subprocess.Popen[str]) -> str:
    """Let a process end well, and return what it said to the user."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return errors


@pytest.mark.parametrize("launch", LAUNCHES.values(), ids=LAUNCHES)
def test_all_processes_have_one_execution(launch: Callable[[int], dict[str, str]], begin: Begin, home: Path) -> None:
    """The process of a higher rank, though it comes first, has rank zero's execution; it leaves nothing behind."""
    follower, leader = begin(launch(1)), begin(launch(0))
    (rid, _), (same, follows) = said(leader)[0].split(), said(follower)[0].split()
    assert (same, follows) == (rid, "True")
    assert (let_go(follower), let_go(leader)) == ("", "")
    (execution,) = DerivaML().find_executions()
    assert (execution.execution_rid, execution.status) == (rid, Status.completed)
    assert [*home.rglob("rendezvous/*"), *home.rglob("scratch-*")] == []


def test_calls_pair_up(begin: Begin) -> None:
    """Where a script makes several executions, the first is the first and the second the second for all."""
    launch = LAUNCHES["torchrun"]
    leader, follower = begin(launch(0), count=3), begin(launch(1), count=3)
    leaders = [line.split()[0] for line in said(leader, 3)]
    assert [line.split()[0] for line in said(follower, 3)] == leaders
    assert len(set(leaders)) == 3
    let_go(follower)
    let_go(leader)


def test_a_launch_from_inside_the_script(begin: Begin) -> None:
    """A process that rank zero launches inherits what was created before, and hears of what comes after."""
    leader = begin({}, "launch", count=2)
    lines = said(leader, 4)
    assert leader.stdin is not None
    leader.stdin.close()
    assert leader.wait(120) == 0
    followed = [line.split()[0] for line in lines if line.endswith("True")]
    assert followed == [line.split()[0] for line in lines if line.endswith("False")]
    assert len(set(followed)) == 2


def test_a_second_launch_with_the_same_key(begin: Begin, home: Path) -> None:
    """What a killed launch left is not believed by the next one, though torchrun calls both alike."""
    launch = LAUNCHES["torchrun"]
    killed = begin(launch(0))
    (old, _) = said(killed)[0].split()
    killed.kill()
    killed.wait()
    assert len([*home.rglob("rendezvous/*/*.json")]) == 1
    follower, leader = begin(launch(1)), begin(launch(0))
    (new, _) = said(leader)[0].split()
    assert said(follower) == [f"{new} True"]
    assert new != old
    let_go(follower)
    let_go(leader)


def test_a_follower_goes_on_without_rank_zero(begin: Begin) -> None:
    """After the time limit it has no execution; it is warned once, and waits once, however many it makes."""
    alone = begin({**LAUNCHES["torchrun"](1), "DERIVA_ML_RENDEZVOUS_SECONDS": "0.2"}, count=3)
    assert said(alone, 3) == ["0000 True"] * 3
    errors = let_go(alone)
    assert errors.count("Rank 1 received no execution") == 1
    assert DerivaML().find_executions() == []


def test_what_rank_zero_cannot_create_nobody_has(begin: Begin) -> None:
    """The others raise what rank zero raised, at once."""
    launch = LAUNCHES["torchrun"]
    follower, leader = begin(launch(1), kind="No such type"), begin(launch(0), kind="No such type")
    assert said(leader) == ["UnknownTerm False"]
    assert said(follower) == ["UnknownTerm True"]
    let_go(follower)
    let_go(leader)


def test_a_process_can_stand_for_itself(begin: Begin) -> None:
    """Independent tasks of one srun have an execution each where DERIVA_ML_RANK=0 says so."""
    tasks = [begin({**LAUNCHES["srun"](rank), "DERIVA_ML_RANK": "0"}) for rank in range(2)]
    rids = {said(task)[0] for task in tasks}
    assert len(rids) == 2
    for task in tasks:
        let_go(task)
    assert {f"{execution.execution_rid} False" for execution in DerivaML().find_executions()} == rids


# One process, in which an execution was made on rank zero and is followed by rank one


@pytest.fixture
def recorder() -> HookRecorder:
    """What plugins hear."""
    return HookRecorder()


@pytest.fixture
def ml(recorder: HookRecorder) -> DerivaML:
    """A client of a new embedded catalog, whose news are recorded."""
    plugins = load_plugins({})
    plugins.register(recorder)
    return DerivaML(plugins=plugins)


def followed(ml: DerivaML, execution: Execution) -> Execution:
    """The same execution in a process of rank one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "1")
        patch.setenv("WORLD_SIZE", "2")
        return ml.restore_execution(execution.execution_rid)


def all_that_is_kept(ml: DerivaML, execution: Execution) -> tuple[Any, ...]:
    tables = ("Execution", "Model", "Model_Execution", "Image_Execution", "Execution_Execution", "Dataset_Execution")
    files = {path: path.read_bytes() for path in execution.working_dir.rglob("*") if path.is_file()}
    return [ml.select_rows(table) for table in tables], files


def test_a_follower_writes_nothing(ml: DerivaML, config: ExecutionConfiguration, recorder: HookRecorder) -> None:
    """All verbs can be called, and catalog, store, plugins and rank zero's folder stay as they are."""
    with ml.create_execution(config) as made:
        made.asset_file_path("Image", "in.png").write_text("x")
    (image,) = made.upload_execution_outputs()["Image"]
    exe = ml.create_execution(config)
    follower = followed(ml, exe)
    before, heard = all_that_is_kept(ml, exe), len(recorder.calls)
    with follower:
        follower.update_status(Status.running, "Epoch 1/2", wait=False)
        path = follower.asset_file_path("Model", "model.pt")
        path.write_text("weights")
        follower.mark_immutable(path)
        follower.add_asset_types(path, "Model_File")
        follower.record_input(image)
        assert follower.download_asset(image).read_text() == "x"
        follower.add_nested_execution(made)
        assert follower.upload_execution_outputs() == {}
        follower.forget(path)
    assert follower.upload_execution_outputs(wait=False).result() == {}
    assert all_that_is_kept(ml, exe) == before
    assert len(recorder.calls) == heard


def test_a_follower_says_whom_it_follows(ml: DerivaML, exe: Execution) -> None:
    """It has rank zero's record id, and is told apart by one property."""
    follower = followed(ml, exe)
    assert (follower.execution_rid, follower.workflow_rid) == (exe.execution_rid, exe.workflow_rid)
    assert (exe.is_rank_zero, follower.is_rank_zero) == (True, False)


def test_a_follower_has_its_own_files(ml: DerivaML, exe: Execution) -> None:
    """Paths lie in a scratch folder, which goes with the follower; names are checked as on rank zero."""
    follower = followed(ml, exe)
    path = follower.asset_file_path("Model", "model.pt")
    path.write_text("weights")
    assert not path.is_relative_to(exe.working_dir)
    with pytest.raises(UnknownTable):
        follower.asset_file_path("Nonsense", "model.pt")
    del follower
    gc.collect()
    assert not path.exists()


def test_a_follower_has_the_inputs(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Each process gets the datasets and assets that went in, in rank zero's versions."""
    with ml.create_execution(config) as made:
        made.asset_file_path("Image", "in.png").write_text("x")
    (image,) = made.upload_execution_outputs()["Image"]
    dataset = ml.create_dataset("Cats")
    inputs = {"datasets": (DatasetSpec(rid=dataset.rid),), "assets": (AssetSpec(rid=image.rid),)}
    exe = ml.create_execution(config.model_copy(update=inputs))
    dataset.increment_version("minor", "Later")
    follower = followed(ml, exe)
    assert [bag.version for bag in follower.datasets] == [bag.version for bag in exe.datasets] == ["0.1.0"]
    assert [path.read_text() for path in follower.asset_paths["Image"]] == ["x"]


def test_only_rank_zero_makes_datasets(ml: DerivaML, exe: Execution) -> None:
    """What would have to give back something that exists says whom to ask instead."""
    with pytest.raises(RankZeroRequired, match="is_rank_zero"):
        followed(ml, exe).create_dataset()


def test_a_dry_run_follows_nobody(
    ml: DerivaML, config: ExecutionConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a higher rank it waits for no word."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    exe = ml.create_execution(config, dry_run=True)
    assert (exe.execution_rid, exe.is_rank_zero) == ("0000", False)


GLOO = "[pair.cc:553] Connection closed by peer [127.0.0.1]:1451"


def fail(follower: Execution, error: BaseException) -> None:
    with pytest.raises(type(error)), follower:
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
def test_a_failure_of_another_rank_is_the_runs_failure(
    ours: BaseException | signal.Signals | None, status: Status, detail: str, ml: DerivaML, exe: Execution
) -> None:
    """What rank zero only noticed gives way to what happened; what it did itself stays."""
    error = SystemExit if isinstance(ours, signal.Signals) else type(ours) if ours else None
    with pytest.raises(error) if error else ExitStack(), exe:  # type: ignore[arg-type]
        fail(followed(ml, exe), ValueError("no data"))
        if isinstance(ours, signal.Signals):
            os.kill(os.getpid(), ours)
        elif ours is not None:
            raise ours
    assert (exe.status, exe.status_detail) == (status, detail)
    (row,) = ml.select_rows("Execution", {"RID": exe.execution_rid})
    assert (row["Status"], row["Status_Detail"]) == (status, detail)


def test_who_only_notices_is_not_blamed(ml: DerivaML, exe: Execution) -> None:
    """Of two that failed, the one whose connection broke did not begin it; rank zero's own failure stays as it is."""
    with pytest.raises(KeyError), exe:
        fail(followed(ml, exe), RuntimeError(GLOO))
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


def test_a_launcher_ends_rank_zero_while_it_records_its_end(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """SIGTERM that comes then waits until the end is recorded, as what it was; then it kills as it would have."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_end_under_sigterm, args=(config, theirs))
    child.start()
    rid = ours.recv()
    child.join()
    assert child.exitcode == -signal.SIGTERM
    row = ml.select_rows("Execution", {"RID": rid})[0]
    assert (row["Status"], row["Status_Detail"]) == ("Failed", "ValueError: no data")


def test_an_end_from_outside_is_not_a_ranks_failure(ml: DerivaML, exe: Execution) -> None:
    """A connection that breaks because all are being ended makes no failure of it."""
    with pytest.raises(SystemExit), exe:
        fail(followed(ml, exe), RuntimeError(GLOO))
        os.kill(os.getpid(), signal.SIGTERM)
    assert (exe.status, exe.status_detail) == (Status.aborted, "SIGTERM")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(0)])
def test_no_failure_of_a_rank(error: BaseException, ml: DerivaML, exe: Execution) -> None:
    """Ctrl-C, which comes to all, and an exit with code 0 are none."""
    with exe:
        fail(followed(ml, exe), error)
    assert exe.status is Status.completed


def test_a_failure_is_written_without_secrets(ml: DerivaML, exe: Execution) -> None:
    """The line in rank zero's journal, one a failure, names rank and machine, and no password."""
    fail(followed(ml, exe), ValueError("no https://me:swordfish@example.org/data"))
    (failure,) = load_state(exe.working_dir / JOURNAL_FILENAME).failures
    assert (failure.rank, failure.host) == (1, platform.node())
    assert "swordfish" not in failure.error
    assert "ValueError" in failure.error


def test_a_resumed_run_begins_without_failures(ml: DerivaML, exe: Execution) -> None:
    """What brought down the run before does not bring down the one that goes on."""
    with exe:
        fail(followed(ml, exe), ValueError("no data"))
    with ml.resume_execution(exe.execution_rid) as again:
        pass
    assert again.status is Status.completed


def _die(config: ExecutionConfiguration, sender: Connection) -> None:
    with DerivaML().create_execution(config) as exe:
        sender.send(exe.execution_rid)
        sender.recv()
        os.kill(os.getpid(), signal.SIGKILL)


def test_rank_zero_died_and_another_had_failed(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A run whose rank zero was killed failed by what another process said; a look shows it, restoring writes it."""
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
def test_an_execution_in_a_worker_process(method: str, ml: DerivaML, exe: Execution) -> None:
    """An execution that came to another process is that process's: rank zero writes, rank one follows."""
    context = multiprocessing.get_context(method)
    answers = []
    with exe:
        for rank in range(2):
            receiver, sender = multiprocessing.Pipe()
            child = context.Process(target=_report_in, args=(exe, rank, sender))
            child.start()
            assert receiver.poll(120)
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


# The rendezvous


def child_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that the present one's parent launched, had it made what `environ` says."""
    made = {**json.loads(environ[EXECUTIONS_VARIABLE]), "process": os.getppid()}
    return {EXECUTIONS_VARIABLE: json.dumps(made), "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


def test_another_script_does_not_share_the_executions_of_the_one_that_began_it(ml: DerivaML) -> None:
    """A driver that made executions itself may launch a training on two nodes, which has one of its own."""
    environ: dict[str, str] = {}
    CreateCall(ml.connection, environ).publish(RankMessage(rid="1-000A", folder=Path("/a")), rank=None)
    launched = child_of(environ)
    begun = json.loads(launched[EXECUTIONS_VARIABLE])
    launched[EXECUTIONS_VARIABLE] = json.dumps({**begun, "script": "driver.py"})
    assert CreateCall(ml.connection, launched).wait(0) is None
    heard = CreateCall(ml.connection, child_of(environ)).wait(0)
    assert heard is not None
    assert heard.rid == "1-000A"


def test_the_environment_stays_small(ml: DerivaML) -> None:
    """A process that makes thousands of executions can still launch others; those know the last, and wait for none."""
    environ: dict[str, str] = {}
    for number in range(3000):
        CreateCall(ml.connection, environ).publish(RankMessage(rid=f"1-{number}", folder=Path("/a/b/c")), rank=None)
    assert len(environ[EXECUTIONS_VARIABLE]) < 4096
    inherited = child_of(environ)
    heard = [CreateCall(ml.connection, inherited).wait(600) for _ in range(3000)]
    assert [word.rid for word in heard if word] == [f"1-{number}" for number in range(2968, 3000)]


def test_what_another_launcher_began_inherits_nothing(ml: DerivaML) -> None:
    """A torchrun inside a script that has made an execution is a launch of its own."""
    environ: dict[str, str] = {}
    CreateCall(ml.connection, environ).publish(RankMessage(rid="1-A"), rank=None)
    assert CreateCall(ml.connection, {**child_of(environ), "RANK": "1", "WORLD_SIZE": "2"}).wait(0) is None


def test_an_old_word_of_another_machine_is_not_believed(ml: DerivaML, home: Path) -> None:
    """Where nobody can see whether rank zero lives, only a word of this launch's time counts."""
    launch = LAUNCHES["torchrun"]
    CreateCall(ml.connection, launch(0)).publish(RankMessage(rid="1-A"), rank=0)
    (place,) = home.rglob("rendezvous/*/*.json")
    word = RankMessage.model_validate_json(place.read_bytes())
    assert word.lease is not None
    elsewhere = word.model_copy(update={"lease": word.lease.model_copy(update={"host": "elsewhere"})})
    place.write_text(elsewhere.model_dump_json())
    heard = CreateCall(ml.connection, launch(1)).wait(0)
    assert heard is not None
    assert heard.rid == "1-A"
    long_ago = elsewhere.time.replace(year=2001)
    place.write_text(elsewhere.model_copy(update={"time": long_ago}).model_dump_json())
    assert CreateCall(ml.connection, launch(1)).wait(0) is None


def test_a_lone_process_leaves_no_word(ml: DerivaML, exe: Execution, home: Path) -> None:
    """Who runs alone, also as torchrun's only process, writes nothing for others."""
    CreateCall(ml.connection, {**LAUNCHES["torchrun"](0), "WORLD_SIZE": "1"}).publish(RankMessage(rid="1-A"), rank=0)
    assert [*home.rglob("rendezvous")] == []


def test_a_wait_that_is_no_number(
    ml: DerivaML, config: ExecutionConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable that is wrong is named."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("DERIVA_ML_RENDEZVOUS_SECONDS", "soon")
    with pytest.raises(ConfigurationError, match="DERIVA_ML_RENDEZVOUS_SECONDS"):
        ml.create_execution(config)


def test_a_rank_without_word_warns(
    ml: DerivaML, config: ExecutionConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning says what to do, and that nothing is recorded by this process."""
    monkeypatch.delenv(EXECUTIONS_VARIABLE, raising=False)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("DERIVA_ML_RENDEZVOUS_SECONDS", "0")
    with pytest.warns(DerivaMLWarning, match="DERIVA_ML_RANK=0"):
        exe = ml.create_execution(config)
    assert exe.upload_execution_outputs() == {}
