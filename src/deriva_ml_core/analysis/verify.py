"""Whether every stored byte is what was recorded, and whether every row that another names is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from deriva_ml_core.analysis.describe import lookup_table
from deriva_ml_core.assets.lookup import asset_from_row, lookup_asset, verify_asset
from deriva_ml_core.datasets import lookup_dataset
from deriva_ml_core.definitions import MLTable, split_rid
from deriva_ml_core.errors import ChecksumMismatch, DerivaMLException, WrongTable
from deriva_ml_core.execution.recorded import lookup_execution
from deriva_ml_core.models import Asset
from deriva_ml_core.schema import asset_execution_table_name

if TYPE_CHECKING:
    from deriva_ml_core.connection import Connection

__all__ = ["VerificationResult", "Problem", "verify_catalog", "verify_record"]

MAX_PARALLEL_READS = 4
"""Objects that are read at a time."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was recorded.

    Args:
        what: ``object`` or ``link``.
        table: The table of the row.
        rid: The row.
        name: The file's name, or the column.
        problem: What is wrong.
    """

    what: str
    table: str
    rid: str
    name: str
    problem: str


@dataclass
class VerificationResult:
    """What was looked at so far.

    Args:
        progress_callback: Told after each object.
    """

    progress_callback: Callable[[Asset], None] = field(default=lambda _: None)
    objects: int = 0
    bytes: int = 0
    links: int = 0
    problems: list[Problem] = field(default_factory=list)
    checked_sources: set[str] = field(default_factory=set)

    def to_dict(self) -> dict[str, Any]:
        """Its value for programs."""
        problems = [{name: getattr(each, name) for name in Problem.__slots__} for each in self.problems]
        return {"objects": self.objects, "bytes": self.bytes, "links": self.links, "problems": problems}


def verify_record(connection: Connection, rid: str, result: VerificationResult) -> None:
    """Check an execution's files and links, a dataset's files, or one asset.

    Raises:
        InvalidRID, UnknownRID, WrongTable: It names nothing that has files.
        StoreUnavailable: The store cannot be reached now.
    """
    table, plain = lookup_table(connection, rid), split_rid(rid)[0]
    if table == MLTable.execution:
        _check_objects(connection, lookup_execution(connection, plain).list_assets(), result)
        _check_execution_links(connection, plain, result)
    elif table == MLTable.dataset:
        for assets in _iter_member_assets(connection, plain):
            _check_objects(connection, assets, result)
    elif connection.catalog.model.table(table).is_asset:
        _check_objects(connection, [lookup_asset(connection, plain)], result)
    else:
        raise WrongTable(f"{plain} is a row of {table}, which has no files; give an execution, a dataset or an asset.")


def verify_catalog(connection: Connection, result: VerificationResult) -> None:
    """Check each object of the store that a row names, and each row that another row names.

    Raises:
        StoreUnavailable: The store cannot be reached now.
    """
    catalog = connection.catalog
    for table in catalog.refresh().tables.values():
        for page in catalog.pages(table.name):
            if table.is_asset:
                _check_objects(connection, [asset_from_row(connection, table.name, row, ()) for row in page], result)
            _check_links(connection, table.name, page, result)


def _iter_member_assets(connection: Connection, rid: str) -> Iterator[list[Asset]]:
    model = connection.catalog.model
    dataset = lookup_dataset(connection, rid)
    for table in model.element_tables:
        if model.table(table).is_asset:
            for page in dataset.iterate_dataset_members(table, recurse=True):
                yield [asset_from_row(connection, table, row, ()) for row in page]


def _check_objects(connection: Connection, assets: Sequence[Asset], result: VerificationResult) -> None:
    """Read objects where they lie, each once however many rows name it."""
    new: dict[str, Asset] = {}
    for asset in assets:
        if (source := _resolve_source(connection, asset)) not in result.checked_sources:
            new[source] = asset
    result.checked_sources.update(new)
    with ThreadPoolExecutor(MAX_PARALLEL_READS) as threads:
        for asset, problem in zip(
            new.values(), threads.map(partial(_find_problem, connection), new.values()), strict=True
        ):
            result.objects += 1
            result.bytes += asset.length
            if problem:
                result.problems.append(Problem("object", asset.table, asset.rid, asset.filename, problem))
            result.progress_callback(asset)


def _resolve_source(connection: Connection, asset: Asset) -> str:
    try:
        return connection.store.source(asset.url)
    except DerivaMLException:  # a URL that names nothing of this store
        return asset.url


def _find_problem(connection: Connection, asset: Asset) -> str:
    from deriva_ml_core.errors import UnknownAddress

    try:
        verify_asset(connection, asset)
    except (ChecksumMismatch, UnknownAddress) as error:
        return str(error)
    return ""


def _check_execution_links(connection: Connection, rid: str, result: VerificationResult) -> None:
    catalog = connection.catalog
    _check_links(connection, MLTable.execution, catalog.select(MLTable.execution, {"RID": rid}), result)
    names = [MLTable.dataset_execution.value, MLTable.nested_execution.value, MLTable.dataset_version.value]
    names += [asset_execution_table_name(table.name) for table in catalog.model.tables.values() if table.is_asset]
    for name in names:
        if name in catalog.model.tables:
            _check_links(connection, name, catalog.select(name, {"Execution": rid}), result)


def _check_links(
    connection: Connection, table: str, rows: Iterable[Mapping[str, Any]], result: VerificationResult
) -> None:
    catalog = connection.catalog
    for key in catalog.model.table(table).foreign_keys:
        naming = [row for row in rows if row[key.column] is not None]
        wanted = sorted({row[key.column] for row in naming})
        there = {row[key.to] for row in catalog.select(key.table, {key.to: wanted})} if wanted else set()
        result.links += len(naming)
        for row in naming:
            if row[key.column] not in there:
                told = f"{key.table} has no row with the {key.to} {row[key.column]}"
                result.problems.append(Problem("link", table, row["RID"], key.column, told))
