"""What is on disk when: the journal is flushed before rows name what it says, and never by the training's thread."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

LOG_CALLS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
/* Log each write and flush: whether the main thread calls, the call, the path, and the first bytes. */
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
static void note(const char *call, int descriptor, const void *data, size_t size) {
    static int log = -1;
    char link[64], path[4096], line[8192];
    if (log < 0) log = open(getenv("CALL_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || descriptor == log) return;
    path[length] = 0;
    int used = snprintf(line, sizeof line, "%d\\t%s\\t%s\\t", getpid() == syscall(SYS_gettid), call, path);
    if (strstr(path, ".sqlite"))
        used += sprintf(line + used, "%s", memmem(data, size, "Completed", 9) ? "Completed" : "");
    else
        for (size_t i = 0; i < size && i < 3000 && used < (int)sizeof line - 2; i++)
            line[used++] = ((char *)data)[i] == '\\n' ? ' ' : ((char *)data)[i];
    line[used++] = '\\n';
    REAL(write)(log, line, used);
}
ssize_t write(int d, const void *b, size_t n) { note("write", d, b, n); return REAL(write)(d, b, n); }
ssize_t pwrite(int d, const void *b, size_t n, off_t o) { note("write", d, b, n); return REAL(pwrite)(d, b, n, o); }
ssize_t pwrite64(int d, const void *b, size_t n, off64_t o) { note("write", d, b, n); return REAL(pwrite)(d, b, n, o); }
int fsync(int d) { note("flush", d, "", 0); return REAL(fsync)(d); }
int fdatasync(int d) { note("flush", d, "", 0); return REAL(fdatasync)(d); }
"""

TRAIN = """
import os, sys
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

marks = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
workflow = Workflow(name="Durable", workflow_type="Training", url="https://example.org/d.py", checksum="3" * 40)
ml = DerivaML()
with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
    path = exe.asset_file_path("Model", "m.pt")
    path.write_text("weights")
    os.write(marks, b"training starts")
    for epoch in range(20):
        exe.update_status(Status.running, f"epoch {epoch}", wait=False)
    os.write(marks, b"training ends")
os.write(marks, b"with is left")
exe.upload_execution_outputs()
"""


class Call(NamedTuple):
    """A file call of the program."""

    is_main_thread: bool
    name: str
    path: str
    text: str

    @property
    def is_journal_flush(self) -> bool:
        return self.name == "flush" and self.path.endswith("/journal.jsonl")

    @property
    def is_row_write(self) -> bool:
        return self.name == "write" and self.path.endswith("/catalog.sqlite-wal")


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """Return the writes and flushes of a training that is uploaded after its end, in order."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("there is no C compiler, or the system does not preload libraries")
    folder = tmp_path_factory.mktemp("calls")
    (folder / "log.c").write_text(LOG_CALLS)
    command = [compiler, "-shared", "-fPIC", "-o", folder / "log.so", folder / "log.c", "-ldl"]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    if compiled.returncode:
        pytest.skip(f"the library cannot be compiled here: {compiled.stderr}")
    environment = os.environ | {"LD_PRELOAD": str(folder / "log.so"), "CALL_LOG": str(folder / "log")}
    environment["DERIVA_ML_HOME"] = str(folder / "home")
    subprocess.run([sys.executable, "-c", TRAIN, str(folder / "marks")], env=environment, check=True)
    lines = [line.split("\t", 3) for line in (folder / "log").read_text(errors="replace").splitlines()]
    return [Call(line[0] == "1", *line[1:]) for line in lines if len(line) == 4]


def find(calls: list[Call], text: str, file: str = "/journal.jsonl") -> int:
    """Return the number of the first write of a text to a file."""
    writes = ((number, call) for number, call in enumerate(calls) if call.name == "write")
    return next(number for number, call in writes if call.path.endswith(file) and text in call.text)


def test_creation_is_on_disk_before_its_row(calls: list[Call]) -> None:
    """The intent to create an execution, and the names of its folder and journal, are flushed before the row."""
    intent = find(calls, '"event":"creating"')
    row = next(number for number, call in enumerate(calls) if number > intent and call.is_row_write)
    flushed = [call.path for call in calls[intent:row] if call.name == "flush"]
    folder = Path(next(path for path in flushed if path.endswith("/journal.jsonl"))).parent
    assert flushed == [f"{folder}/journal.jsonl", str(folder), str(folder.parent)]


def test_stored_is_on_disk_before_rows_name_the_object(calls: list[Call]) -> None:
    """Each line that says that objects are stored is flushed before the catalog is written."""
    stored = [number for number, call in enumerate(calls) if '"event":"stored"' in call.text and call.name == "write"]
    assert len(stored) >= 3  # the records, the model, the journal
    for number in stored:
        following = calls[number:]
        row = next(index for index, call in enumerate(following) if call.is_row_write)
        assert any(call.is_journal_flush for call in following[:row])


def test_training_thread_flushes_nothing(calls: list[Call]) -> None:
    """A status costs the training's thread one write to the journal and no flush."""
    of_training = calls[find(calls, "training starts", "/marks") + 1 : find(calls, "training ends", "/marks")]
    of_thread = [call for call in of_training if call.is_main_thread]
    assert len(of_thread) == 20
    assert all(call.name == "write" and call.path.endswith("/journal.jsonl") for call in of_thread)


def test_end_is_on_disk(calls: list[Call]) -> None:
    """The end of a run is flushed by another thread before its row says so, and before the block is left."""
    completed = find(calls, '"status":"Completed"')
    ending = calls[completed : find(calls, "with is left", "/marks")]
    flush = next(number for number, call in enumerate(ending) if call.is_journal_flush)
    assert not ending[flush].is_main_thread
    assert not any(call.is_row_write and "Completed" in call.text for call in ending[:flush])
    assert any(call.is_row_write and "Completed" in call.text for call in ending[flush:])
