"""The journal: one line per event, and the state that the events reduce to."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
from pathlib import Path

import pytest

from deriva_ml_core.definitions import Status
from deriva_ml_core.journal.journal import BufferedJournal, Journal, load_state
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.journal.state import (
    Created,
    CreationStarted,
    Event,
    FileStamp,
    Forgotten,
    InputRecorded,
    MarkedImmutable,
    ProcessAttached,
    RankFailed,
    Recorded,
    Resumed,
    Staged,
    Started,
    StatusSet,
    Stopped,
    Stored,
    TransferNoted,
    TypesAdded,
    TypesLinked,
    TypesRemoved,
    utc_now,
)
from deriva_ml_core.models import DatasetSpec, StagedAsset, StatusUpdate, StoredObject
from waits import HANG


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl")


def staged_event(name: str, times: int = 1) -> Staged:
    asset = StagedAsset(
        key=f"{times}:Model/{name}", table="Model", filename=name, path=Path("/x") / name, asset_types=("Model",)
    )
    return Staged(asset=asset)


def status_event(value: Status, message: str = "") -> StatusSet:
    return StatusSet(update=StatusUpdate(status=value, message=message, time=utc_now()))


def test_missing_journal_has_empty_state(journal: Journal) -> None:
    """Reading a missing journal creates no file."""
    assert journal.state.statuses == []
    assert not journal.path.exists()


def test_state_is_reduced_from_the_events(journal: Journal) -> None:
    """The writer and a later reader reduce the same events to the same state."""
    journal.append(Started(), status_event(Status.running, "a"), staged_event("one"), staged_event("two"))
    journal.append(Stored(key="1:Model/one", object=StoredObject(url="u", md5="m", length=1)))
    journal.append(Recorded(rids={"1:Model/one": "1-AAAA"}), status_event(Status.completed))
    for state in (journal.state, Journal(journal.path).state):
        assert [each.status for each in state.statuses] == [Status.running, Status.completed]
        assert [file.asset.filename for file in state.pending_files()] == ["two"]
        assert state.files["1:Model/one"].rid == "1-AAAA"
        assert state.start_time is not None


def test_pending_files_while_another_thread_registers(journal: Journal) -> None:
    """Listing pending files does not fail while another thread registers files."""
    state, before = journal.state, sys.getswitchinterval()
    adding = threading.Thread(target=lambda: [staged_event(f"{number}").apply(state) for number in range(3000)])
    try:
        sys.setswitchinterval(1e-6)
        adding.start()
        while adding.is_alive():
            state.pending_files()
    finally:
        adding.join()
        sys.setswitchinterval(before)
    assert len(state.pending_files()) == 3000


def test_forgotten_file_is_not_pending(journal: Journal) -> None:
    """A forgotten file is not pending and has no row."""
    journal.append(staged_event("one"), Forgotten(key="1:Model/one"))
    assert journal.state.pending_files() == []


def test_torn_last_line_is_skipped(journal: Journal) -> None:
    """A crash in the middle of a line loses only that line; the next event starts a new one."""
    journal.append(status_event(Status.running))
    with journal.path.open("ab") as file:
        file.write(b'{"event":"status","update":{"status":"Fai')
    again = Journal(journal.path)
    assert [each.status for each in again.state.statuses] == [Status.running]
    again.append(status_event(Status.completed))
    assert [each.status for each in Journal(journal.path).state.statuses] == [Status.running, Status.completed]


def test_events_of_newer_versions_are_ignored(journal: Journal) -> None:
    """Unknown events and unknown fields are ignored."""
    journal.append(status_event(Status.running))
    line = json.loads(journal.path.read_text())
    with journal.path.open("a") as file:
        file.write(json.dumps({"event": "from-the-future", "time": line["time"], "x": 1}) + "\n")
        file.write(json.dumps({"event": "created", "time": line["time"], "new_field": 1}) + "\n")
    state = Journal(journal.path).state
    assert state.is_created
    assert len(state.statuses) == 1


def test_reader_sees_later_events(journal: Journal) -> None:
    """Two journals of one file have the same state."""
    other = Journal(journal.path)
    journal.append(status_event(Status.running))
    assert other.state.status is Status.running
    other.append(status_event(Status.completed))
    assert journal.state.status is Status.completed


def _write_many(path: Path, name: str) -> None:
    journal = Journal(path)
    for number in range(200):
        journal.append(staged_event(f"{name}-{number}" + "x" * 200))


def test_events_of_several_writers_are_applied_once_in_order(journal: Journal) -> None:
    """Events of the writer, of another writer and of a forked child are applied once each, in file order."""
    other = Journal(journal.path)
    for number in range(3):
        journal.append(status_event(Status.running, f"{number} ours"), staged_event(f"{number} ours"))
        other.append(status_event(Status.running, f"{number} theirs"))
        child = os.fork()
        if child == 0:
            journal.append(status_event(Status.running, f"{number} the child's"))
            os._exit(0)
        os.waitpid(child, 0)
    messages = [f"{number} {writer}" for number in range(3) for writer in ("ours", "theirs", "the child's")]
    for state in (journal.state, other.state, Journal(journal.path).state):
        assert [update.message for update in state.statuses] == messages
        assert [file.asset.filename for file in state.pending_files()] == ["0 ours", "1 ours", "2 ours"]


def test_concurrent_processes_lose_no_event(journal: Journal) -> None:
    """Each event is one write at the end of the file, so lines of several processes do not mix."""
    writers = [
        multiprocessing.get_context("fork").Process(target=_write_many, args=(journal.path, str(number)))
        for number in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(HANG)
    assert len(journal.state.files) == 800


def test_killed_process_loses_no_written_event(journal: Journal) -> None:
    """Written events are not in a buffer of the process."""
    child = os.fork()
    if child == 0:
        journal.append(status_event(Status.running, "last message"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert journal.state.statuses[-1].message == "last message"


def test_full_disk_raises_and_keeps_earlier_events(journal: Journal) -> None:
    """An event that does not fit is rejected as a whole."""
    journal.append(Created())
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = journal.path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
        try:
            journal.append(status_event(Status.running, "x" * 100))
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert Journal(journal.path).state.is_created
    journal.append(status_event(Status.completed))
    assert [each.status for each in Journal(journal.path).state.statuses] == [Status.completed]


def test_statuses_of_a_long_run(journal: Journal) -> None:
    """A journal in use holds the newest statuses in memory, and reads all from the file when they are asked for."""
    buffered = BufferedJournal(journal)
    for number in range(100):
        buffered.append(status_event(Status.running, f"{number}"))
    assert (len(journal.state.statuses), journal.state.status_count) == (32, 100)
    assert journal.state.statuses[-1].message == "99"
    expected = [f"{number}" for number in range(100)]
    assert [update.message for update in buffered.list_statuses()] == expected
    assert [update.message for update in load_state(journal.path).statuses] == expected
    assert len(Journal(journal.path).state.statuses) == 32


@pytest.mark.parametrize("missing", [1, 2])
def test_line_cut_off_at_its_end(journal: Journal, missing: int) -> None:
    """An event of which a full disk takes all but the line break is written once."""
    journal.append(status_event(Status.created, "1"))
    size = journal.path.stat().st_size
    buffered = BufferedJournal(journal)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * size - missing, limits[1]))
    try:
        assert buffered.append(status_event(Status.running, "2")) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert journal.path.stat().st_size == 2 * size - missing
    buffered.append(status_event(Status.running, "3"))
    assert [update.message for update in load_state(journal.path).statuses] == ["1", "2", "3"]
    assert [update.message for update in Journal(journal.path).state.statuses] == ["1", "2", "3"]


def test_reading_leaves_no_file_open(journal: Journal) -> None:
    """The state of a journal that was closed is read without opening it for good."""
    journal.append(status_event(Status.running))
    journal.close()
    assert journal.state.status is Status.running
    assert journal._descriptor is None
    journal.append(status_event(Status.completed))
    assert journal.state.status is Status.completed


def test_deleted_journal_releases_its_descriptor(journal: Journal) -> None:
    """Thousands of executions and lookups in one process do not use up its descriptors."""
    journal.append(Created())
    gc.collect()  # what earlier tests left
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        assert load_state(journal.path).is_created
        again = Journal(journal.path)
        assert again.state.is_created
        del again
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def _all_events() -> list[Event]:
    """Return one event of each kind, for two files."""
    key, other, stamp = "1:Model/one", "1:Model/two", FileStamp(size=1, mtime_ns=1)
    return [
        CreationStarted(rid="1-AAAA", folder="/x"),
        Created(),
        ProcessAttached(lease=ProcessIdentity.current()),
        Started(),
        InputRecorded(dataset=DatasetSpec(rid="1-BBBB", version="1.0.0")),
        status_event(Status.running, "a"),
        staged_event("one"),
        staged_event("two"),
        MarkedImmutable(key=key, file_time=stamp),
        TypesAdded(key=key, types=("Best", "Last")),
        TypesRemoved(key=key, types=("Last",)),
        TransferNoted(key=key, note={"part": 1}),
        Stored(key=key, object=StoredObject(url="u", md5="m", length=1), file_time=stamp),
        Recorded(rids={key: "1-CCCC", other: "1-DDDD"}),
        TypesLinked(types={key: ("Best",), other: ()}),
        Forgotten(key=other),
        RankFailed(rank=1, host="h", error="ValueError: no data"),
        Stopped(),
        status_event(Status.completed, "b"),
        Resumed(),
    ]


def _damage(line: bytes, damage: str) -> bytes:
    match damage:
        case "NUL bytes":
            return b"\0" * len(line)
        case "cut":
            return line[: len(line) // 2]
        case "time without zone":
            return json.dumps({**json.loads(line), "time": "2026-01-01T00:00:00"}).encode()
        case _:
            return json.dumps(
                {name: value if name == "event" else [[]] for name, value in json.loads(line).items()}
            ).encode()


@pytest.mark.parametrize("damage", ["NUL bytes", "cut", "time without zone", "other shape"])
def test_damaged_line_loses_only_what_it_held(journal: Journal, damage: str) -> None:
    """Whichever line is damaged, the journal can be read, and events of files that are intact count."""
    events = _all_events()
    journal.append(*events)
    lines = journal.path.read_bytes().split(b"\n")[:-1]
    for number, event in enumerate(events):
        damaged = [*lines[:number], _damage(lines[number], damage), *lines[number + 1 :]]
        journal.path.write_bytes(b"\n".join(damaged) + b"\n")
        state = load_state(journal.path)
        statuses = [Status.running, Status.completed]
        if isinstance(event, StatusSet):
            statuses.remove(event.update.status)
        assert [update.status for update in state.statuses] == statuses
        names = {"one", "two"} - ({event.asset.filename} if isinstance(event, Staged) else set())
        assert {file.asset.filename for file in state.files.values()} == names


def test_event_of_a_damaged_registration_is_skipped(journal: Journal) -> None:
    """If the line that registers a file is lost, its later events change nothing; the other file is recorded."""
    events = [event for event in _all_events() if not (isinstance(event, Staged) and event.asset.filename == "two")]
    journal.append(*events)
    for state in (journal.state, load_state(journal.path)):
        assert list(state.files) == ["1:Model/one"]
        assert state.files["1:Model/one"].rid == "1-CCCC"
        assert state.pending_files() == []
        assert state.is_journal_copy_outdated
