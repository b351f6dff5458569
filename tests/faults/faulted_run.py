"""A user's program that runs with a fault, and what a second process finds and repairs afterwards.

``python faulted_run.py LAYER FOLDER`` imports the package once below the layer, reads one JSON request a line and
writes one JSON result a line. Each run is a forked child, and so is the process that repairs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from file_faults import CREATE, KINDS, OTHER, WRITE, Layer, PythonLayer, SharedLibraryLayer

OPERATIONS = ("open", "create", "start", "stage", "status", "upload", "end")
"""The operations in which a fault is injected."""

CHILD_TIMEOUT = 600.0
"""Seconds without an end after which a child counts as hanging; one takes less than a second on a quiet machine."""

ROW_TIMEOUT = 5.0
"""Seconds for which the end of a run waits for the catalog."""


class Run:
    """The program, one operation of which has a fault.

    Args:
        layer: The layer that is armed in the operation.
        folder: The folder of the catalog; it is created if needed.
        notes: The file that tells what the program did, outside the layer's folder.
        operation: The operation; empty to count the calls of all operations.
        kind: The kind of fault.
        number: The number of the call in the operation.
        path: A part of the paths of the calls that count; empty for all.
    """

    def __init__(
        self, layer: Layer, folder: Path, notes: Path, operation: str, kind: str, number: int, path: str = ""
    ) -> None:
        self._layer, self._folder, self._notes, self._path = layer, folder, notes, path
        self._operation, self._kind, self._number = operation, kind, number
        self._counts: dict[str, dict[int, int]] = {name: {WRITE: 0, CREATE: 0, OTHER: 0} for name in OPERATIONS}
        self._is_over = False

    def note(self, what: str, **values: Any) -> None:
        """Tell what the program did; this call has no faults."""
        line = json.dumps({"what": what, **values}) + "\n"
        with self._notes.open("ab", buffering=0) as file:
            file.write(line.encode())

    def attempt(self, operation: str, call: Callable[[], Any]) -> Any:
        """Run a call below the layer. If it raises, tell so, and call once more without the fault."""
        from deriva_ml_core.errors import DerivaMLException

        if self._is_over or self._operation not in ("", operation):
            return call()
        self._layer.arm(self._kind, self._number, self._path)
        try:
            result = call()
        except Exception as error:
            self._disarm(operation)
            is_own = isinstance(error, DerivaMLException)
            text = f"{type(error).__name__}: {error}" if is_own else "".join(traceback.format_exception(error))
            self.note("refused" if is_own else "raised", operation=operation, error=text)
            return call()
        self._disarm(operation)
        return result

    def _disarm(self, operation: str) -> None:
        """Remove the fault; the next call of the operation continues to count."""
        for category, count in self._layer.disarm().items():
            self._counts[operation][category] += count
            self._number -= count if category & KINDS[self._kind] else 0
        if self._layer.hit:
            self._is_over = True
            self.note("hit", call=self._layer.hit.replace(str(self._folder), "…"), kind=self._kind)

    def write(self, path: Path, table: str, name: str, content: bytes) -> None:
        """Write a file completely or not at all, and tell so."""
        draft = path.with_name(f"draft of {path.name}")
        draft.write_bytes(content)
        draft.replace(path)
        self.note("written", table=table, name=name, md5=hashlib.md5(content).hexdigest())

    def run(self) -> None:
        from deriva_ml_core.client import DerivaML
        from deriva_ml_core.definitions import Status
        from deriva_ml_core.execution import ExecutionConfiguration
        from deriva_ml_core.workflow import Workflow

        workflow = Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="c")
        originals = self._folder.with_name("originals")
        ml = self.attempt("open", lambda: DerivaML(f"file:{self._folder}", exit_timeout=ROW_TIMEOUT))
        exe = self.attempt("create", lambda: ml.create_execution(ExecutionConfiguration(workflow=workflow)))
        self.note("created", rid=exe.execution_rid)
        self.attempt("start", exe.__enter__)
        self.note("started")

        def stage(*arguments: Any, **named: Any) -> Path:
            path: Path = self.attempt("stage", lambda: exe.asset_file_path(*arguments, **named))
            return path

        def upload(clean: bool) -> None:
            options = {"max_retries": 2, "retry_delay": 0.01}
            self.attempt("upload", lambda: exe.upload_execution_outputs(clean_folder=clean, **options))

        new = stage("Model", "fold-1/new.pt", asset_types=["Derived", "Model_File"])
        self.write(new, "Model", "fold-1/new.pt", b"new")
        stage("Image", originals / "copied.png", copy_file=True)
        self.note("written", table="Image", name="copied.png", md5=hashlib.md5(b"copied").hexdigest())
        log = stage("Execution_Metadata", "log.txt")
        self.write(log, "Execution_Metadata", "log.txt", b"one\n")
        self.attempt("status", lambda: exe.update_status(Status.running, "epoch 1"))
        upload(False)
        self.note("uploaded")
        best = stage("Model", "best.pt", asset_types=["Model_File"])
        self.write(best, "Model", "best.pt", b"best")
        self.attempt("stage", lambda: exe.mark_immutable(best))
        stage("Image", originals / "linked.png")
        self.note("written", table="Image", name="linked.png", md5=hashlib.md5(b"linked").hexdigest())
        described = stage("Image", "described.png", Description="a picture")
        self.write(described, "Image", "described.png", b"described")
        self.write(log, "Execution_Metadata", "log.txt", b"one\ntwo\n")
        self.attempt("status", lambda: exe.update_status(Status.running, "epoch 2", wait=False))
        upload(False)
        self.note("uploaded")
        self.attempt("stage", lambda: exe.add_asset_types(best, "Best_Checkpoint"))
        self.note("typed")
        self.attempt("end", lambda: exe.__exit__(None, None, None))
        self.note("ended")
        upload(True)
        self.note("uploaded")
        ml.close()
        self.note("counts", counts=self._counts)


def repair(folder: Path) -> dict[str, Any]:
    """Open the catalog, restore and upload every execution, and return what is there."""
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.journal.journal import load_state

    ml = DerivaML(f"file:{folder}", exit_timeout=ROW_TIMEOUT)
    executions = [each.execution_rid for each in ml.find_executions()]
    shown = {rid: ml.lookup_execution(rid).status.value for rid in executions}
    for rid in executions:
        ml.restore_execution(rid).upload_execution_outputs()
    after = _count_rows(folder)
    for rid in executions:
        sent = ml.restore_execution(rid).upload_execution_outputs()
        assert sent == {}, f"a second upload of {rid} sent {sent}"
    assert _count_rows(folder) == after, "a second upload added rows"
    found = []
    for rid in executions:
        exe = ml.lookup_execution(rid)
        assets = exe.list_assets("Output")
        journal = load_state(folder / "executions" / rid / "journal.jsonl")
        (row,) = ml.select_rows("Execution", {"RID": rid})
        found.append(
            {
                "rid": rid,
                "shown": shown[rid],
                "status": exe.status.value,
                "row": row["Status"],
                "journal": [update.status.value for update in journal.statuses],
                "rows": _statuses_of_row(folder, rid),
                "staged": [asset.filename for asset in ml.restore_execution(rid).staged_assets()],
                "assets": [[each.table, each.filename, each.md5, sorted(each.asset_types)] for each in assets],
            }
        )
    problems = [f"{each.table} {each.rid}: {each.problem}" for each in ml.verify().problems]
    ml.close()
    return {"executions": found, "problems": problems, "left": _find_leftovers(folder)}


def _count_rows(folder: Path) -> dict[str, int]:
    with sqlite3.connect(folder / "catalog.sqlite") as catalog:
        names = [name for (name,) in catalog.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        names = [name for name in names if "__history" not in name]
        return {name: catalog.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}


def _statuses_of_row(folder: Path, rid: str) -> list[str]:
    """Return the statuses that the row of an execution had, oldest first."""
    with sqlite3.connect(folder / "catalog.sqlite") as catalog:
        query = 'SELECT Status, RMT FROM "{}" WHERE RID = ?'
        rows = catalog.execute(query.format("Execution__history"), (rid,)).fetchall()
        rows += catalog.execute(query.format("Execution"), (rid,)).fetchall()
    return [status for status, _ in sorted(rows, key=lambda row: row[1])]


def _find_leftovers(folder: Path) -> list[str]:
    """Return drafts, partial files, and objects without a row."""
    with sqlite3.connect(folder / "catalog.sqlite") as catalog:
        tables = [name for (name,) in catalog.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = [name[:-10] for name in tables if name.endswith("_Execution") and f"{name[:-10]}_Asset_Type" in tables]
        known = {md5 for table in tables for (md5,) in catalog.execute(f'SELECT MD5 FROM "{table}"')}
    left = [path for path in folder.rglob("*") if path.name.startswith((".catalog-", "draft")) or ".part" in path.name]
    # killed after the new database got its name, a process leaves the empty folder of its draft
    left = [path for path in left if not path.is_dir() or any(path.iterdir())]
    for path in (folder / "objects").rglob("*"):
        # a copy of a journal that was stored before a later one took its place is no user's file
        if path.is_file() and path.name not in known and not path.read_bytes().startswith((b'{"time":', b"{")):
            left.append(path)
    return [str(path.relative_to(folder)) for path in left]


# The server of runs


def serve(layer: Layer, folder: Path) -> None:
    """Answer requests until the input ends."""
    template, work = folder / "template", folder / "run"
    _import_everything(layer, template)
    for line in sys.stdin:
        request = json.loads(line)
        shutil.rmtree(work, ignore_errors=True)
        _prepare(work, template if request["existing"] else None)
        print(json.dumps(_run_and_repair(layer, work, request)), flush=True)


def _import_everything(layer: Layer, template: Path) -> None:
    """Create the catalog that runs start with, by a run that imports what they need."""
    first = template.with_name("first")
    _prepare(first, None)
    Run(layer, first / "catalog", first / "notes", "", "none", 0).run()
    repair(first / "catalog")
    from deriva_ml_core.client import DerivaML

    with DerivaML(f"file:{template}"):
        pass


def _prepare(work: Path, template: Path | None) -> None:
    originals = work / "originals"
    originals.mkdir(parents=True)
    (originals / "copied.png").write_bytes(b"copied")
    (originals / "linked.png").write_bytes(b"linked")
    if template is not None:
        shutil.copytree(template, work / "catalog")


def _run_and_repair(layer: Layer, work: Path, request: dict[str, Any]) -> dict[str, Any]:
    catalog, notes, answer = work / "catalog", work / "notes", work / "answer"
    run = Run(layer, catalog, notes, request["operation"], request["kind"], request["number"], request["path"])
    run.note("begun")
    how = _in_child(run.run, work / "output")
    repaired = _in_child(lambda: _write(answer, repair(catalog)), work / "repair output")
    return {
        "how": how,
        "notes": [json.loads(line) for line in notes.read_text().splitlines()],
        "output": _tail(work / "output"),
        "repaired": repaired,
        "found": json.loads(answer.read_text()) if repaired == "ended" else None,
    }


def _write(file: Path, value: object) -> None:
    file.write_text(json.dumps(value))


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-6000:]


def _in_child(work: Callable[[], None], output: Path) -> str:
    """Run a function in a forked child; returns how it ended."""
    child = os.fork()
    if child == 0:
        try:
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)
    deadline = time.monotonic() + CHILD_TIMEOUT
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "does not end"
        time.sleep(0.002)
    if os.WIFSIGNALED(status):
        return "killed" if os.WTERMSIG(status) == signal.SIGKILL else f"got the signal {os.WTERMSIG(status)}"
    return "ended" if status == 0 else f"failed: {_tail(output)}"


if __name__ == "__main__":
    place = Path(sys.argv[2])
    serve({"python": PythonLayer, "library": SharedLibraryLayer}[sys.argv[1]](place / "run" / "catalog"), place)
