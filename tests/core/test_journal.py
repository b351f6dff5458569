"""The journal: one line a step, and what the lines add up to."""

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
from deriva_ml_core.journal.journal import Journal, load_state
from deriva_ml_core.journal.state import Created, Forgotten, Recorded, Staged, Started, StatusSet, Stored, utc_now
from deriva_ml_core.models import StagedAsset, StatusUpdate, StoredObject


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl")


def staged(name: str, times: int = 1) -> Staged:
    asset = StagedAsset(
        key=f"{times}:Model/{name}", table="Model", filename=name, path=Path("/x") / name, asset_types=("Model",)
    )
    return Staged(asset=asset)


def status(value: Status, message: str = "") -> StatusSet:
    return StatusSet(update=StatusUpdate(status=value, message=message, time=utc_now()))


def test_a_journal_that_is_not_there_tells_nothing(journal: Journal) -> None:
    """Reading makes no file."""
    assert journal.state.statuses == []
    assert not journal.path.exists()


def test_lines_add_up(journal: Journal) -> None:
    """What a process knows is a fold over the lines, the same in the writer and in a reader that comes later."""
    journal.append(Started(), status(Status.running, "a"), staged("one"), staged("two"))
    journal.append(Stored(key="1:Model/one", object=StoredObject(url="u", md5="m", length=1)))
    journal.append(Recorded(rids={"1:Model/one": "1-AAAA"}), status(Status.completed))
    for story in (journal.state, Journal(journal.path).state):
        assert [each.status for each in story.statuses] == [Status.running, Status.completed]
        assert [file.asset.filename for file in story.pending_files()] == ["two"]
        assert story.files["1:Model/one"].rid == "1-AAAA"
        assert story.start_time is not None


def test_the_open_files_are_listed_while_another_thread_adds_to_them(journal: Journal) -> None:
    """An upload beside the training registers and records while the training looks: no look fails."""
    story, before = journal.state, sys.getswitchinterval()
    adding = threading.Thread(target=lambda: [staged(f"{number}").apply(story) for number in range(3000)])
    try:
        sys.setswitchinterval(1e-6)
        adding.start()
        while adding.is_alive():
            story.pending_files()
    finally:
        adding.join()
        sys.setswitchinterval(before)
    assert len(story.pending_files()) == 3000


def test_a_forgotten_file_is_no_longer_open(journal: Journal) -> None:
    """Forgetting closes the file without a row."""
    journal.append(staged("one"), Forgotten(key="1:Model/one"))
    assert journal.state.pending_files() == []


def test_a_torn_last_line_is_dropped_and_the_next_stands_alone(journal: Journal) -> None:
    """A machine that died in the middle of a line loses that line and no other."""
    journal.append(status(Status.running))
    with journal.path.open("ab") as file:
        file.write(b'{"event":"status","update":{"status":"Fai')
    again = Journal(journal.path)
    assert [each.status for each in again.state.statuses] == [Status.running]
    again.append(status(Status.completed))
    assert [each.status for each in Journal(journal.path).state.statuses] == [Status.running, Status.completed]


def test_a_line_of_a_newer_version_is_passed_over(journal: Journal) -> None:
    """A kind of line, or a field of one, that this version does not know harms nothing."""
    journal.append(status(Status.running))
    line = json.loads(journal.path.read_text())
    with journal.path.open("a") as file:
        file.write(json.dumps({"event": "from-the-future", "time": line["time"], "x": 1}) + "\n")
        file.write(json.dumps({"event": "created", "time": line["time"], "new_field": 1}) + "\n")
    story = Journal(journal.path).state
    assert story.is_created
    assert len(story.statuses) == 1


def test_a_reader_sees_what_another_wrote_since(journal: Journal) -> None:
    """Two journals of one file know the same."""
    other = Journal(journal.path)
    journal.append(status(Status.running))
    assert other.state.status is Status.running
    other.append(status(Status.completed))
    assert journal.state.status is Status.completed


def _write_many(path: Path, name: str) -> None:
    journal = Journal(path)
    for number in range(200):
        journal.append(staged(f"{name}-{number}" + "x" * 200))


def test_own_lines_and_those_of_others_count_once_each_in_their_order(journal: Journal) -> None:
    """A writer knows its own line unread, and still reads what others wrote before it, also a forked child."""
    other = Journal(journal.path)
    for number in range(3):
        journal.append(status(Status.running, f"{number} ours"), staged(f"{number} ours"))
        other.append(status(Status.running, f"{number} theirs"))
        child = os.fork()
        if child == 0:
            journal.append(status(Status.running, f"{number} the child's"))
            os._exit(0)
        os.waitpid(child, 0)
    messages = [f"{number} {whose}" for number in range(3) for whose in ("ours", "theirs", "the child's")]
    for story in (journal.state, other.state, Journal(journal.path).state):
        assert [update.message for update in story.statuses] == messages
        assert [file.asset.filename for file in story.pending_files()] == ["0 ours", "1 ours", "2 ours"]


def test_processes_writing_at_once_lose_no_line(journal: Journal) -> None:
    """Each line is one write to the end of the file, so that lines of several processes never mix."""
    writers = [
        multiprocessing.get_context("fork").Process(target=_write_many, args=(journal.path, str(number)))
        for number in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert len(journal.state.files) == 800


def test_a_killed_process_loses_no_line_that_it_wrote(journal: Journal) -> None:
    """No buffer of ours dies with the process."""
    child = os.fork()
    if child == 0:
        journal.append(status(Status.running, "last words"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert journal.state.statuses[-1].message == "last words"


def test_a_full_disk_raises_and_leaves_the_earlier_lines(journal: Journal) -> None:
    """A line that does not fit is refused as a whole."""
    journal.append(Created())
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = journal.path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
        try:
            journal.append(status(Status.running, "x" * 100))
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert Journal(journal.path).state.is_created
    journal.append(status(Status.completed))
    assert [each.status for each in Journal(journal.path).state.statuses] == [Status.completed]


def test_a_journal_that_is_gone_holds_no_descriptor(journal: Journal) -> None:
    """Thousands of executions in one process, and looks at them, do not use up its descriptors."""
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
