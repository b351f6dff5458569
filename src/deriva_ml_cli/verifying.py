"""Whether every stored byte is what was recorded, and whether every row that another names is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from deriva_ml_cli.subjects import table_of
from deriva_ml_core.assets.recorded import as_asset, verify_asset
from deriva_ml_core.definitions import MLTable, split_rid
from deriva_ml_core.errors import ChecksumMismatch, DerivaMLException, WrongTable
from deriva_ml_core.models import Asset
from deriva_ml_core.schema import execution_table

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["Checked", "Problem", "verify_all", "verify_one"]

AT_ONCE = 4
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
class Checked:
    """What was looked at so far.

    Args:
        tell: Told after each object.
    """

    tell: Callable[[Asset], None] = field(default=lambda _: None)
    objects: int = 0
    bytes: int = 0
    links: int = 0
    problems: list[Problem] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def as_json(self) -> dict[str, Any]:
        """Its value for programs."""
        problems = [{name: getattr(each, name) for name in Problem.__slots__} for each in self.problems]
        return {"objects": self.objects, "bytes": self.bytes, "links": self.links, "problems": problems}


def verify_one(ml: DerivaML, rid: str, checked: Checked) -> None:
    """Check an execution's files and links, a dataset's files, or one asset.

    Raises:
        InvalidRID, UnknownRID, WrongTable: It names nothing that has files.
        StoreUnavailable: The store cannot be reached now.
    """
    table, plain = table_of(ml, rid), split_rid(rid)[0]
    if table == MLTable.execution:
        _check_objects(ml, ml.lookup_execution(plain).list_assets(), checked)
        _check_execution_links(ml, plain, checked)
    elif table == MLTable.dataset:
        for assets in _member_assets(ml, plain):
            _check_objects(ml, assets, checked)
    elif ml.connection.catalog.model.table(table).is_asset:
        _check_objects(ml, [ml.lookup_asset(plain)], checked)
    else:
        raise WrongTable(f"{plain} is a row of {table}, which has no files; give an execution, a dataset or an asset.")


def verify_all(ml: DerivaML, checked: Checked) -> None:
    """Check each object of the store that a row names, and each row that another row names.

    Raises:
        StoreUnavailable: The store cannot be reached now.
    """
    catalog = ml.connection.catalog
    for table in catalog.refresh().tables.values():
        for page in catalog.pages(table.name):
            if table.is_asset:
                _check_objects(ml, [as_asset(ml.connection, table.name, row, ()) for row in page], checked)
            _check_links(ml, table.name, page, checked)


def _member_assets(ml: DerivaML, rid: str) -> Iterator[list[Asset]]:
    model = ml.connection.catalog.model
    dataset = ml.lookup_dataset(rid)
    for table in model.element_tables:
        if model.table(table).is_asset:
            for page in dataset.iterate_dataset_members(table, recurse=True):
                yield [as_asset(ml.connection, table, row, ()) for row in page]


def _check_objects(ml: DerivaML, assets: Sequence[Asset], checked: Checked) -> None:
    """Read objects where they lie, each once however many rows name it."""
    new: dict[str, Asset] = {}
    for asset in assets:
        if (source := _source(ml, asset)) not in checked.seen:
            new[source] = asset
    checked.seen.update(new)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for asset, problem in zip(new.values(), threads.map(partial(_problem, ml), new.values()), strict=True):
            checked.objects += 1
            checked.bytes += asset.length
            if problem:
                checked.problems.append(Problem("object", asset.table, asset.rid, asset.filename, problem))
            checked.tell(asset)


def _source(ml: DerivaML, asset: Asset) -> str:
    try:
        return ml.connection.store.source(asset.url)
    except DerivaMLException:  # a URL that names nothing of this store
        return asset.url


def _problem(ml: DerivaML, asset: Asset) -> str:
    from deriva_ml_core.errors import UnknownAddress

    try:
        verify_asset(ml.connection, asset)
    except (ChecksumMismatch, UnknownAddress) as error:
        return str(error)
    return ""


def _check_execution_links(ml: DerivaML, rid: str, checked: Checked) -> None:
    catalog = ml.connection.catalog
    _check_links(ml, MLTable.execution, catalog.select(MLTable.execution, {"RID": rid}), checked)
    names = [MLTable.dataset_execution.value, MLTable.nested_execution.value, MLTable.dataset_version.value]
    names += [execution_table(table.name) for table in catalog.model.tables.values() if table.is_asset]
    for name in names:
        if name in catalog.model.tables:
            _check_links(ml, name, catalog.select(name, {"Execution": rid}), checked)


def _check_links(ml: DerivaML, table: str, rows: Iterable[Mapping[str, Any]], checked: Checked) -> None:
    catalog = ml.connection.catalog
    for key in catalog.model.table(table).foreign_keys:
        naming = [row for row in rows if row[key.column] is not None]
        wanted = sorted({row[key.column] for row in naming})
        there = {row[key.to] for row in catalog.select(key.table, {key.to: wanted})} if wanted else set()
        checked.links += len(naming)
        for row in naming:
            if row[key.column] not in there:
                told = f"{key.table} has no row with the {key.to} {row[key.column]}"
                checked.problems.append(Problem("link", table, row["RID"], key.column, told))
