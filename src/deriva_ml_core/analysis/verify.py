"""Verification of stored files and links: bytes against recorded checksums, foreign keys against rows.

A row of a file is half if the upload was killed before the file was linked to its execution and its types.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

from deriva_ml_core._concurrency.thread_pool import map_unordered
from deriva_ml_core._text import format_count, format_size
from deriva_ml_core._views import Grid, Presentable, View
from deriva_ml_core.analysis.runs import lookup_table
from deriva_ml_core.assets.lookup import asset_from_row, lookup_asset, verify_asset
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets import lookup_dataset
from deriva_ml_core.definitions import DRY_RUN_RID, RID_PATTERN, MLAsset, MLTable, Role, split_rid
from deriva_ml_core.errors import ChecksumMismatch, DerivaMLException, MalformedData, UnknownAddress, WrongTable
from deriva_ml_core.execution.recorded import load_local_state, lookup_execution
from deriva_ml_core.models import Asset
from deriva_ml_core.schema import asset_execution_table_name, asset_type_table_name

__all__ = ["Problem", "VerificationProgress", "VerificationResult", "verify"]

EXECUTION_FILE_TABLES = (MLAsset.execution_metadata, MLAsset.execution_asset)
"""Asset tables that only have files of executions."""

MAX_PARALLEL_READS = 4
"""Objects that are read at the same time."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was recorded.

    Args:
        what: ``object`` for a stored file, ``link`` for a foreign key, ``row`` for a file's row whose upload is not
            complete.
        table: The table of the row.
        rid: The RID of the row.
        name: The file's name, or the column of the foreign key.
        problem: What is wrong.
    """

    what: str
    table: str
    rid: str
    name: str
    problem: str


@dataclass(frozen=True, slots=True)
class VerificationProgress:
    """What a running verification has read so far.

    Args:
        objects: The number of objects.
        bytes: Their size in bytes.
    """

    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class VerificationResult(Presentable):
    """What a verification read and found.

    Args:
        objects: The number of objects that were read.
        bytes: Their size in bytes.
        links: The number of foreign keys that were looked up.
        problems: What is not as it was recorded.
    """

    objects: int
    bytes: int
    links: int
    problems: tuple[Problem, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as ``deriva-ml verify --json`` prints it."""
        return {
            "objects": self.objects,
            "bytes": self.bytes,
            "links": self.links,
            "problems": [asdict(problem) for problem in self.problems],
        }

    def _view(self) -> View:
        links = f", {format_count(self.links, 'link')}" if self.links else ""
        checked = f"{format_count(self.objects, 'object')}, {format_size(self.bytes)}{links}"
        title = f"{format_count(len(self.problems), 'problem') if self.problems else 'No problems'} in {checked}"
        rows = [[each.table, each.rid, each.name, each.problem] for each in self.problems]
        return View(title, [Grid(rows, ("Table", "RID", "Name", "Problem"))] if rows else [])


def verify(
    connection: Connection,
    rid: str | None = None,
    *,
    progress_callback: Callable[[VerificationProgress], None] | None = None,
) -> VerificationResult:
    """Verify stored files and links; see ``DerivaML.verify``."""
    verifier = _Verifier(connection, progress_callback or (lambda _: None))
    if rid is None:
        verifier.check_catalog()
    else:
        verifier.check_row(rid)
    return VerificationResult(verifier.objects, verifier.bytes, verifier.links, tuple(verifier.problems))


@dataclass(slots=True)
class _Verifier:
    """Reads objects and looks up links, and collects what is wrong."""

    connection: Connection
    progress_callback: Callable[[VerificationProgress], None]
    objects: int = 0
    bytes: int = 0
    links: int = 0
    problems: list[Problem] = field(default_factory=list)
    checked_sources: set[str] = field(default_factory=set)
    half_rows: set[tuple[str, str]] = field(default_factory=set)

    def check_row(self, rid: str) -> None:
        """Check the files and links of an execution, the files of a dataset, or one asset."""
        table, bare_rid = lookup_table(self.connection, rid), split_rid(rid)[0]
        if table == MLTable.execution:
            assets = lookup_execution(self.connection, bare_rid).list_assets()
            self._check_objects(assets)
            self._check_execution_links(bare_rid)
            self._check_pending_files(bare_rid)
            for asset in assets:
                if asset.role == Role.output and not asset.asset_types and self._has_types(asset.table):
                    self._add_half_row(asset.table, asset.rid, asset.filename, "has no asset type")
        elif table == MLTable.dataset:
            for assets in self._iter_member_assets(bare_rid):
                self._check_objects(assets)
        elif self.connection.catalog.model.table(table).is_asset:
            self._check_objects([lookup_asset(self.connection, bare_rid)])
        else:
            raise WrongTable(
                f"{bare_rid} is a row of {table}, which has no files; use the RID of an execution, a dataset or an "
                "asset."
            )

    def check_catalog(self) -> None:
        """Check the object of every asset, and every foreign key."""
        catalog = self.connection.catalog
        tables = catalog.refresh().tables
        parent = self.connection.working_folder(DRY_RUN_RID).parent
        for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
            if re.fullmatch(RID_PATTERN, folder.name) and folder.name != DRY_RUN_RID:
                self._check_pending_files(folder.name)
        for table in tables.values():
            for rows in catalog.pages(table.name):
                if table.is_asset:
                    self._check_objects(self._convert_assets(table.name, rows))
                    self._check_asset_links(table.name, rows)
                self._check_links(table.name, rows)

    def _check_pending_files(self, execution: str) -> None:
        """Find rows of files that the execution's journal on this machine does not list as recorded."""
        state, catalog = load_local_state(self.connection, execution), self.connection.catalog
        urls: dict[str, list[str]] = {}
        for file in state.pending_files() if state is not None else ():
            if file.stored is not None and file.asset.table in catalog.model.tables:
                urls.setdefault(file.asset.table, []).append(file.stored.url)
        for table, table_urls in urls.items():
            rows = catalog.select(table, {"URL": table_urls})
            where = {table: [row["RID"] for row in rows]}
            links = catalog.select(asset_execution_table_name(table), {**where, "Execution": execution})
            linked = {link[table] for link in links}
            typed = {link[table] for link in catalog.select(asset_type_table_name(table), where)}
            for row in rows:
                if row["RID"] not in linked:
                    problem = f"is not linked to execution {execution}"
                    self._add_half_row(table, row["RID"], row["Filename"], problem)
                elif row["RID"] not in typed:
                    self._add_half_row(table, row["RID"], row["Filename"], "has no asset type")

    def _check_asset_links(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Find outputs without a type, and files of executions that no execution is linked to."""
        catalog = self.connection.catalog
        link_table = asset_execution_table_name(table)
        if link_table not in catalog.model.tables:
            return
        where = {table: [row["RID"] for row in rows]}
        roles: dict[str, set[str]] = {}
        for link in catalog.select(link_table, where):
            roles.setdefault(link[table], set()).add(link["Asset_Role"])
        has_types = self._has_types(table)
        typed = {link[table] for link in catalog.select(asset_type_table_name(table), where)} if has_types else set()
        for row in rows:
            if row["RID"] not in roles and table in EXECUTION_FILE_TABLES:
                self._add_half_row(table, row["RID"], row["Filename"], "is not linked to an execution")
            elif Role.output in roles.get(row["RID"], ()) and has_types and row["RID"] not in typed:
                self._add_half_row(table, row["RID"], row["Filename"], "has no asset type")

    def _has_types(self, table: str) -> bool:
        return asset_type_table_name(table) in self.connection.catalog.model.tables

    def _add_half_row(self, table: str, rid: str, filename: str | None, problem: str) -> None:
        if (table, rid) not in self.half_rows:
            self.half_rows.add((table, rid))
            remedy = f"on the machine of the run, `{self.connection.command('upload')}` completes its upload"
            self.problems.append(Problem("row", table, rid, filename or "", f"{problem}; {remedy}"))

    def _iter_member_assets(self, rid: str) -> Iterator[list[Asset]]:
        model = self.connection.catalog.model
        dataset = lookup_dataset(self.connection, rid)
        for table in model.element_tables:
            if model.table(table).is_asset:
                for rows in dataset.iterate_dataset_members(table, recurse=True):
                    yield self._convert_assets(table, rows)

    def _convert_assets(self, table: str, rows: Iterable[Mapping[str, Any]]) -> list[Asset]:
        """Return the assets of rows; a malformed row is a problem."""
        assets = []
        for row in rows:
            try:
                assets.append(asset_from_row(self.connection, table, dict(row), ()))
            except MalformedData as error:
                self.problems.append(Problem("object", table, row["RID"], str(row["Filename"] or ""), str(error)))
        return assets

    def _check_objects(self, assets: Sequence[Asset]) -> None:
        """Read objects in the store; an object that several rows name is read once."""
        unread: dict[str, Asset] = {}
        for asset in assets:
            if (source := self._source_of(asset)) not in self.checked_sources:
                unread[source] = asset
        self.checked_sources.update(unread)
        found: dict[str, str] = {}
        read = map_unordered(self._find_problem, [*unread.values()], MAX_PARALLEL_READS, name="deriva-ml-verify")
        with closing(read) as results:
            for asset, problem in results:
                self.objects += 1
                self.bytes += asset.length
                found[asset.rid] = problem
                self.progress_callback(VerificationProgress(self.objects, self.bytes))
        self.problems.extend(
            Problem("object", asset.table, asset.rid, asset.filename, found[asset.rid])
            for asset in unread.values()
            if found[asset.rid]
        )

    def _source_of(self, asset: Asset) -> str:
        try:
            return self.connection.store.source(asset.url)
        except DerivaMLException:  # a URL of another store
            return asset.url

    def _find_problem(self, asset: Asset) -> str:
        try:
            verify_asset(self.connection, asset)
        except (ChecksumMismatch, UnknownAddress) as error:
            return str(error)
        return ""

    def _check_execution_links(self, rid: str) -> None:
        catalog = self.connection.catalog
        self._check_links(MLTable.execution, catalog.select(MLTable.execution, {"RID": rid}))
        tables = [MLTable.dataset_execution.value, MLTable.nested_execution.value, MLTable.dataset_version.value]
        tables += [asset_execution_table_name(table.name) for table in catalog.model.tables.values() if table.is_asset]
        for table in tables:
            if table in catalog.model.tables:
                self._check_links(table, catalog.select(table, {"Execution": rid}))

    def _check_links(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        catalog = self.connection.catalog
        for key in catalog.model.table(table).foreign_keys:
            linked_rows = [row for row in rows if row[key.column] is not None]
            values = sorted({row[key.column] for row in linked_rows})
            existing = {row[key.to] for row in catalog.select(key.table, {key.to: values})} if values else set()
            self.links += len(linked_rows)
            for row in linked_rows:
                if row[key.column] not in existing:
                    problem = f"{key.table} has no row with the {key.to} {row[key.column]}"
                    self.problems.append(Problem("link", table, row["RID"], key.column, problem))
