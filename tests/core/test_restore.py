"""Restoring an execution whose working folder is not on this machine: what the catalog holds is data."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import Role, Status, TransferMode
from deriva_ml_core.errors import ExecutionRunning, InvalidRID
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.journal.journal import load_state
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.journal.state import (
    CreationStarted,
    Event,
    InputRecorded,
    ProcessAttached,
    Recorded,
    Restored,
    Staged,
    Started,
    StatusSet,
    Stored,
    TransferNoted,
    TypesAdded,
    utc_now,
)
from deriva_ml_core.models import StagedAsset, StatusUpdate, StoredObject, UploadOptions

PNG = b"\x89PNG\r\n\x1a\n a picture of the caller"


def add_metadata_file(
    connection: Connection, rid: str, name: str, content: bytes, folder: Path, *, role: Role = Role.output
) -> str:
    """Store a file and link it to an execution, as anyone with write access can; return the file's RID."""
    source = folder / f"{time.monotonic_ns()}"
    source.write_bytes(content)
    stored = connection.store.put(
        "Execution_Metadata", name, source, handover=TransferMode.copy, options=UploadOptions(), note=lambda _: None
    )
    row = {"URL": stored.url, "Filename": name, "Length": stored.length, "MD5": stored.md5}
    (inserted,) = connection.catalog.insert_missing("Execution_Metadata", [row], "URL")
    link = {"Execution_Metadata": inserted["RID"], "Execution": rid, "Asset_Role": role}
    connection.catalog.insert("Execution_Metadata_Execution", [link])
    types = {"Execution_Metadata": inserted["RID"], "Asset_Type": "Execution_Metadata"}
    connection.catalog.insert("Execution_Metadata_Asset_Type", [types], skip_existing=True)
    return str(inserted["RID"])


def to_lines(*events: Event) -> bytes:
    return "".join(event.model_dump_json(exclude_none=True) + "\n" for event in events).encode()


def status_set(status: Status, message: str = "") -> StatusSet:
    return StatusSet(update=StatusUpdate(status=status, message=message, time=utc_now(), previous=Status.created))


def staged(table: str, path: Path, **fields: object) -> Staged:
    key = f"1:{table}/{path.name}"
    return Staged(
        asset=StagedAsset(key=key, table=table, filename=path.name, path=path, asset_types=(table,), **fields)
    )


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the caller that has nothing to do with the execution."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def caller_files(tmp_path: Path) -> dict[str, Path]:
    """Files of the caller that a forged journal names."""
    folder = tmp_path / "private"
    folder.mkdir()
    files = {"key": folder / "id_rsa", "link": folder / "notes.txt", "picture": folder / "training_curves.png"}
    files["key"].write_bytes(b"a private key")
    files["link"].write_bytes(b"private notes")
    files["picture"].write_bytes(PNG)
    return files


@pytest.fixture
def forged(
    ml: DerivaML, exe: Execution, caller_files: dict[str, Path], sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> str:
    """An execution with a journal in the catalog that names files and a process of the caller; return its RID."""
    with exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
    exe.upload_execution_outputs()
    rid = exe.execution_rid
    key, link, picture = caller_files["key"], caller_files["link"], caller_files["picture"]
    identity = ProcessIdentity.current()
    process = identity.model_copy(
        update={"pid": sleeper.pid, "started": psutil.Process(sleeper.pid).create_time(), "host": platform.node()}
    )
    journal = to_lines(
        CreationStarted(rid=rid, folder=str(key.parent)),
        status_set(Status.created),
        staged("Model", key),
        staged("Execution_Asset", link, original=link),
        staged("Execution_Metadata", picture),
        staged("Model", key.with_name("stored.pt")),
        Stored(key="1:Model/stored.pt", object=StoredObject(url="/x", md5="0" * 32, length=1)),
        TypesAdded(key="1:Model/id_rsa", types=("Best_Checkpoint",)),
        TransferNoted(key="1:Model/id_rsa", note={"job": "https://example.org/"}),
        ProcessAttached(lease=process),
        Started(),
        status_set(Status.running, "still running"),
    )
    ml.connection.catalog.update("Execution", [{"RID": rid, "Status": "Running", "Status_Detail": "still running"}])
    add_metadata_file(ml.connection, rid, "journal.jsonl", journal, tmp_path)
    return rid


def test_restore_takes_no_path_from_the_catalog(forged: str, caller_files: dict[str, Path], tmp_path: Path) -> None:
    """A journal from the catalog causes no file of the caller to be uploaded, moved or deleted."""
    elsewhere = DerivaML(working_dir=tmp_path / "elsewhere")
    before = {path: path.read_bytes() for path in caller_files.values()}
    restored = elsewhere.restore_execution(forged)
    assert restored.staged_assets() == []
    restored.update_status(Status.completed)
    assert restored.upload_execution_outputs() == {}
    assert {path: path.read_bytes() for path in caller_files.values()} == before
    names = {asset.filename for asset in restored.list_assets(Role.output)}
    assert names.isdisjoint({"id_rsa", "notes.txt", "training_curves.png", "stored.pt"})
    events = [json.loads(line) for line in (restored.working_dir / "journal.jsonl").open()]
    last = max(number for number, event in enumerate(events) if event["event"] == "restored")
    assert {event["event"] for event in events[:last]} <= {"creating", "status", "lease", "start"}
    assert [event["asset"]["filename"] for event in events if event["event"] == "staged"] == ["journal.jsonl"]


def test_files_named_before_a_restoration_are_ignored(
    forged: str, ml: DerivaML, caller_files: dict[str, Path], tmp_path: Path
) -> None:
    """A working folder that an earlier version restored holds the downloaded events; they name no files either."""
    elsewhere = DerivaML(working_dir=tmp_path / "elsewhere")
    folder = elsewhere.connection.working_folder(forged)
    folder.mkdir(parents=True)
    own = folder / "outputs" / "Model" / "own.pt"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"own")
    later = (Restored(source="elsewhere"), TypesAdded(key="1:Model/id_rsa", types=("Model",)), staged("Model", own))
    downloaded = to_lines(
        CreationStarted(rid=forged), staged("Model", caller_files["key"]), status_set(Status.completed), *later
    )
    (folder / "journal.jsonl").write_bytes(downloaded)
    restored = elsewhere.restore_execution(forged)
    assert [asset.filename for asset in restored.staged_assets()] == ["own.pt"]
    assert list(restored.upload_execution_outputs()) == ["Model"]
    assert caller_files["key"].read_bytes() == b"a private key"


def test_abort_signals_no_process_that_the_catalog_names(
    forged: str, sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Aborting a restored execution sends no signal to a process that a downloaded journal names."""
    from deriva_ml_cli.commands.abort import _stop_process

    elsewhere = DerivaML(working_dir=tmp_path / "elsewhere")
    elsewhere.restore_execution(forged)
    with pytest.raises(ExecutionRunning, match="not reachable"):
        _stop_process(elsewhere, forged, 5, kill=True)
    assert sleeper.poll() is None


def test_html_shows_no_file_that_the_catalog_names(forged: str, tmp_path: Path) -> None:
    """The notebook view of an execution reads no file of the caller because a downloaded journal names it."""
    from base64 import b64encode

    elsewhere = DerivaML(working_dir=tmp_path / "elsewhere")
    picture = b64encode(PNG).decode()
    assert picture not in elsewhere.lookup_execution(forged)._repr_html_()
    assert picture not in elsewhere.restore_execution(forged)._repr_html_()


def test_restore_writes_nothing_that_is_only_in_a_downloaded_journal(
    ml: DerivaML, exe: Execution, tmp_path: Path
) -> None:
    """The row stays as it is: the copy of the journal may be older, as the run was resumed on another machine."""
    with exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
    exe.upload_execution_outputs()
    ml.connection.catalog.update(
        "Execution", [{"RID": exe.execution_rid, "Status": "Running", "Status_Detail": "epoch 7"}]
    )
    elsewhere = DerivaML(working_dir=tmp_path / "elsewhere")
    restored = elsewhere.restore_execution(exe.execution_rid)
    assert (restored.status, restored.status_detail) == (Status.running, "epoch 7")
    row = ml.connection.require_row("Execution", exe.execution_rid)
    assert (row["Status"], row["Status_Detail"]) == ("Running", "epoch 7")
    ml.connection.catalog.update(
        "Execution", [{"RID": exe.execution_rid, "Status": "Running", "Status_Detail": "epoch 8"}]
    )
    assert elsewhere.lookup_execution(exe.execution_rid).status_detail == "epoch 8"
    assert elsewhere.restore_execution(exe.execution_rid).execution_rid == exe.execution_rid
    assert ml.connection.require_row("Execution", exe.execution_rid)["Status_Detail"] == "epoch 8"


def test_downloaded_journal_yields_statuses_inputs_and_times(
    ml: DerivaML, config: ExecutionConfiguration, exe: Execution, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Statuses, inputs and times of a run on another machine are restored, and its unsent files are named."""
    with ml.create_execution(config) as producer:
        producer.asset_file_path("Image", "x.png").write_bytes(b"x")
    (image,) = producer.upload_execution_outputs()["Image"]
    with exe:
        exe.record_input(image)
        exe.update_status(Status.running, "epoch 1")
        exe.asset_file_path("Model", "sent.pt").write_bytes(b"x")
        exe.upload_execution_outputs()
        exe.asset_file_path("Model", "unsent.pt").write_bytes(b"x")
    expected = [(update.status, update.message) for update in exe.list_statuses()]
    elsewhere = DerivaML(working_dir=tmp_path / "elsewhere")
    recorded = elsewhere.lookup_execution(exe.execution_rid)
    assert [(update.status, update.message) for update in recorded.list_statuses()] == expected
    assert elsewhere.describe(exe.execution_rid).unsent == ("unsent.pt",)
    with caplog.at_level(logging.WARNING):
        restored = elsewhere.restore_execution(exe.execution_rid)
    assert "unsent.pt" in caplog.text and f"{platform.node()}:{exe.working_dir}" in caplog.text
    assert [(update.status, update.message) for update in restored.list_statuses()] == expected
    assert (restored.start_time, restored.stop_time) == (exe.start_time, exe.stop_time)
    assert restored.info.assets == (image.rid,)
    assert elsewhere.describe(exe.execution_rid).unsent == ("unsent.pt",)


def test_inputs_are_not_taken_for_records(ml: DerivaML, config: ExecutionConfiguration, tmp_path: Path) -> None:
    """An input called ``journal.jsonl`` is not the execution's own journal."""
    with ml.create_execution(config) as other:
        other.asset_file_path("Model", "m.pt").write_bytes(b"x")
    other.upload_execution_outputs()
    journal = next(asset for asset in other.list_assets() if asset.filename == "journal.jsonl")
    run = ml.create_execution(config)
    run.record_input(journal)
    with run:
        elsewhere = DerivaML(working_dir=tmp_path / "elsewhere")
        assert elsewhere.lookup_execution(run.execution_rid).list_statuses() == []
        assert elsewhere.restore_execution(run.execution_rid).status is Status.running
        assert ml.connection.require_row("Execution", run.execution_rid)["Status"] == "Running"


def test_outputs_are_not_taken_for_records(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """An output called ``journal.jsonl`` is the execution's journal only if it is one of this execution."""
    with exe:
        exe.update_status(Status.running, "epoch 1")
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
    exe.upload_execution_outputs()
    expected = [update.message for update in exe.list_statuses()]
    forged = to_lines(CreationStarted(rid="1-ZZZZ"), status_set(Status.failed, "of another run"))
    add_metadata_file(ml.connection, exe.execution_rid, "journal.jsonl", forged, tmp_path)
    elsewhere = DerivaML(working_dir=tmp_path / "elsewhere")
    recorded = elsewhere.lookup_execution(exe.execution_rid)
    assert [update.message for update in recorded.list_statuses()] == expected
    assert elsewhere.restore_execution(exe.execution_rid).status is Status.completed


def test_working_folder_is_below_the_folder_of_executions(ml: DerivaML) -> None:
    """A row's RID that leads out of the folder of executions is refused."""
    with pytest.raises(InvalidRID):
        ml.connection.working_folder("../../private")


def test_state_of_a_restored_journal(tmp_path: Path) -> None:
    """What precedes the restoration yields statuses, inputs and names; what follows is of this machine."""
    file = tmp_path / "journal.jsonl"
    path = tmp_path / "outputs" / "Execution_Metadata" / "metrics.jsonl"
    file.write_bytes(
        to_lines(
            CreationStarted(rid="1-AAAA"),
            InputRecorded(asset="1-BBBB"),
            ProcessAttached(lease=ProcessIdentity.current()),
            status_set(Status.completed),
            staged("Execution_Metadata", path, original=tmp_path / "metrics.jsonl"),
            Recorded(rids={"1:Execution_Metadata/metrics.jsonl": "1-CCCC"}),
            staged("Model", tmp_path / "outputs" / "Model" / "m.pt"),
            Restored(source="host:/folder"),
        )
    )
    state = load_state(file)
    assert (state.files, state.process, state.pending_files()) == ({}, None, [])
    assert state.unsent_filenames() == ("m.pt",)
    assert list(state.own_record_rids()) == ["1-CCCC"]
    assert (state.status, list(state.assets), state.has_local_statuses) == (Status.completed, ["1-BBBB"], False)
