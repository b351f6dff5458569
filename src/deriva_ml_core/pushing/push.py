"""The push: what goes, what stands against it, and the steps, each of which may be done again."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deriva_ml_core.assets.progress import shown
from deriva_ml_core.backend import Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLAsset, MLTable, MLVocab, Role
from deriva_ml_core.disk import explained
from deriva_ml_core.errors import ConfigurationError, ExecutionRunning
from deriva_ml_core.execution.provenance import RecordedExecution, local_story
from deriva_ml_core.models import UploadOptions, UploadProgress
from deriva_ml_core.pushing.datasets import bring_datasets
from deriva_ml_core.pushing.fitting import fit
from deriva_ml_core.pushing.gathering import Gathered, Rows, gather
from deriva_ml_core.pushing.ledger import Ledger
from deriva_ml_core.pushing.linking import link_runs, nest_runs
from deriva_ml_core.pushing.passage import Passage
from deriva_ml_core.pushing.provenance import is_record, read_record, record_name
from deriva_ml_core.pushing.records import keep_records
from deriva_ml_core.pushing.report import PushReport
from deriva_ml_core.pushing.rows import bring_rows, bring_types
from deriva_ml_core.pushing.runs import Runs, bring_runs, bring_workflows, finish_runs
from deriva_ml_core.pushing.terms import bring_terms
from deriva_ml_core.schema import execution_table

__all__ = ["push"]

LEDGERS = "pushed"
"""The folder of the ledgers, in the target's own folder."""

log = logging.getLogger(__name__)


def push(
    source: Connection,
    rid: RID,
    target: Connection,
    *,
    children: bool = True,
    lineage: bool = False,
    make_tables: bool = False,
    options: UploadOptions | None = None,
    tell: Callable[[UploadProgress], None] | None = None,
) -> PushReport:
    """Copy an execution to another catalog; see ``DerivaML.push``."""
    rows = _chosen(source, rid, children=children, lineage=lineage)
    runs = {each: RecordedExecution(source, row) for each, row in rows.items()}
    _refuse_running(runs)
    unsent = tuple(_unsent(source, runs))
    gathered = gather(source, rows.values())
    _refuse_originals(source, target, gathered)
    gathered.terms[MLVocab.asset_type]["Name"]["Execution_Metadata"] = None
    with _under_way(source, target) as passage, shown(tell, "Copying") as heard:
        tables = fit(passage, gathered, make_tables=make_tables)
        _bring_all(passage, gathered, runs, options or UploadOptions(), heard)
    return PushReport(
        source=source.catalog.cite(rid),
        target=target.catalog.cite(passage.copy_of(rid)),
        execution=passage.copy_of(rid),
        rows=tuple(row for each, row in passage.rows.items() if each not in gathered.relatives),
        tables=tables,
        terms=tuple(passage.terms),
        files=passage.files,
        bytes=passage.bytes,
        unsent=unsent,
        notes=tuple(passage.notes),
    )


def _bring_all(
    passage: Passage,
    gathered: Gathered,
    runs: Runs,
    options: UploadOptions,
    tell: Callable[[UploadProgress], None] | None,
) -> None:
    def bring(rows: Rows, mend: bool) -> None:
        bring_rows(passage, rows, options, tell, mend=mend)

    bring_terms(passage, gathered)
    bring_workflows(passage, gathered)
    copies = bring_runs(passage, gathered)
    bring_datasets(passage, gathered, bring)
    bring(gathered.rows, True)
    bring_types(passage, gathered.types)
    link_runs(passage, gathered)
    nest_runs(passage, gathered)
    keep_records(passage, gathered, runs, options)
    finish_runs(passage, runs, copies)


# which executions


def _chosen(source: Connection, rid: RID, *, children: bool, lineage: bool) -> dict[RID, Row]:
    """The rows of the executions that go: the one that is asked for, then those in it and, by lineage, before it."""
    first = source.require_row(MLTable.execution, rid)
    chosen = {str(first["RID"]): dict(first)}
    waiting = list(chosen)
    while waiting:
        found: set[RID] = set()
        if children and MLTable.nested_execution in source.catalog.model.tables:
            links = source.catalog.select(MLTable.nested_execution, {"Execution": waiting})
            found |= {link["Nested_Execution"] for link in links}
        if lineage:
            found |= set(_makers(source, [chosen[each] for each in waiting]))
        waiting = sorted(found - chosen.keys())
        rows = source.catalog.select(MLTable.execution, {"RID": waiting}) if waiting else []
        chosen |= {row["RID"]: row for row in rows}
    return chosen


def _makers(source: Connection, runs: Iterable[Row]) -> Iterator[RID]:
    """The executions that made what went into others: files, dataset versions, and the files in datasets."""
    gathered = gather(source, runs)
    for table, model in source.catalog.model.tables.items():
        rids = sorted({rid for rows in gathered.all_rows() for rid in rows.get(table, ())}) if model.is_asset else []
        if rids and execution_table(table) in source.catalog.model.tables:
            where = {table: rids, "Asset_Role": Role.output}
            yield from (link["Execution"] for link in source.catalog.select(execution_table(table), where))
    for contents in gathered.versions.values():
        if contents.version.execution is not None:
            yield contents.version.execution


# what stands against it


def _refuse_originals(source: Connection, target: Connection, gathered: Gathered) -> None:
    """Refuse executions that the target has as themselves: it is the same catalog, or these are copies from there."""
    originals = {rid: (rid, record_name(row)) for rid, row in gathered.runs.items()}
    records = {
        rid: row for rid, row in gathered.rows.get(MLAsset.execution_metadata, {}).items() if is_record(row["Filename"])
    }
    for (record, run), role in gathered.roles.get(MLAsset.execution_metadata, {}).items():
        if record in records and role == Role.output:
            originals[f"{run} by {record}"] = read_record(source, records[record]).rid, records[record]["Filename"]
    wanted = sorted({rid for rid, _ in originals.values() if rid})
    there = {row["RID"]: row for row in target.catalog.select(MLTable.execution, {"RID": wanted})}
    for told, (rid, name) in originals.items():
        if rid in there and record_name(there[rid]) == name:
            raise ConfigurationError(
                f"{told.partition(' ')[0]} is execution {rid} of {target.catalog.name}, or a copy of it: there is "
                "nothing to copy to there."
            )


def _refuse_running(runs: Runs) -> None:
    going = {rid: run.status for rid, run in runs.items() if not run.status.ended}
    if going:
        told = ", ".join(f"{rid} is {status}" for rid, status in going.items())
        raise ExecutionRunning(
            f"Only executions that have ended are copied, and {told}. Push when it has ended; `deriva-ml status` says "
            "when, and `deriva-ml abort` ends one that nobody will finish."
        )


def _unsent(source: Connection, runs: Runs) -> Iterator[str]:
    """The files that were registered on this machine and never uploaded."""
    for rid in runs:
        story = local_story(source, rid)
        names = [file.asset.filename for file in story.open_files() if not file.asset.record] if story else []
        if names:
            log.warning(
                "Execution %s has %d files that are not uploaded, so that they are not copied: %s. "
                "`deriva-ml upload %s` sends them; push again afterwards.",
                rid,
                len(names),
                ", ".join(names[:5]),
                rid,
            )
        yield from names


# where it is written down


@contextmanager
def _under_way(source: Connection, target: Connection) -> Iterator[Passage]:
    """One push at a time between two catalogs from this machine: the next goes on from what this one wrote down."""
    from filelock import FileLock, Timeout

    folder = target.folder / LEDGERS / hashlib.sha256(source.catalog.name.encode()).hexdigest()[:16]
    with explained(f"What is copied cannot be written down in {folder}", _existing(folder)):
        (folder / "files").mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("Another process copies to %s just now; this one goes on when that has ended.", target.folder)
            lock.acquire()
    try:
        yield Passage(source, target, Ledger(folder / "ledger.jsonl"), folder / "files")
    finally:
        lock.release()


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())
