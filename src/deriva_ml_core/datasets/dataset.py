"""Datasets in a catalog: create, look up, change, list and download them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

from deriva_ml_core._text import format_time
from deriva_ml_core._views import Grid, Link, Presentable, View
from deriva_ml_core.backend import AnyOf, Catalog, Row, catalog_transaction
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets.members import (
    MemberLink,
    ancestors,
    descendants,
    locate_members,
    lookup_member_link,
    member_links,
    member_pages,
    split_batches,
)
from deriva_ml_core.datasets.versions import (
    DatasetVersion,
    VersionPart,
    create_versions,
    current_version,
    drop_creations,
    lookup_version,
    version_history,
)
from deriva_ml_core.definitions import RID, MLTable, MLVocab, split_rid
from deriva_ml_core.descriptions import write_description
from deriva_ml_core.errors import ConfigurationError, DatasetCycle, UnknownVersion
from deriva_ml_core.models import DatasetSpec
from deriva_ml_core.row_values import convert_rows, convert_values, list_valid_rows
from deriva_ml_core.schema import ForeignKey, association_table, dataset_element_table_name

if TYPE_CHECKING:
    from deriva_ml_core.datasets.bag import DatasetBag

__all__ = [
    "Dataset",
    "add_dataset_element_type",
    "create_dataset",
    "delete_dataset",
    "find_datasets",
    "list_input_datasets",
    "lookup_dataset",
    "record_input",
]

MemberRIDs = Sequence[RID] | Mapping[str, Sequence[RID]]


class Dataset(Presentable):
    """A dataset in a catalog.

    Every version is a snapshot: it always lists the same members with the same values, even if they change later.

    Args:
        connection: The catalog and store.
        row: The dataset's row.
        dataset_types: Terms of the vocabulary Dataset_Type.
        execution: The execution to record as the creator of each version made through this object.
    """

    def __init__(
        self, connection: Connection, row: Row, dataset_types: Iterable[str] = (), execution: RID | None = None
    ) -> None:
        self._connection = connection
        self._catalog = connection.catalog
        self._row = row
        self._types = tuple(sorted(dataset_types))
        self._execution = execution

    def __repr__(self) -> str:
        return f"<Dataset {self.rid}: {self.description!r}>"

    def _view(self) -> View:
        members = [(table, f"{count:,}") for table, count in self._count_members().items()]
        history = self.dataset_history()[::-1]
        versions = [(each.version, format_time(each.created), each.description) for each in history]
        grids = [Grid(members, title="Members"), Grid(versions, title="Versions, newest first")]
        return View(
            Link(f"Dataset {self.rid}, version {self.current_version}", self._connection.catalog.cite(self.rid)),
            [self.description, *(grid for grid in grids if grid.rows)],
            note=", ".join(self.dataset_types),
        )

    def _count_members(self) -> dict[str, int]:
        return {table: len(rows) for table, rows in self.list_dataset_members().items() if rows}

    @property
    def rid(self) -> RID:
        """The record identifier (RID)."""
        return str(self._row["RID"])

    @property
    def dataset_rid(self) -> RID:
        """The same as ``rid``."""
        return self.rid

    @property
    def description(self) -> str:
        """The description, as of this object's last read or change. Assigning it updates the catalog at once.

        Existing versions keep the description that the dataset had then.
        """
        return self._row["Description"] or ""

    @description.setter
    def description(self, text: str) -> None:
        written = write_description(self._connection, MLTable.dataset, self.rid, text)
        self._row = {**self._row, "Description": written}

    @property
    def dataset_types(self) -> tuple[str, ...]:
        """Terms of the vocabulary Dataset_Type, as of this object's last read or change."""
        return self._types

    def add_dataset_type(self, dataset_type: str) -> None:
        """Add a term of the vocabulary Dataset_Type; does nothing if the dataset has it already.

        Args:
            dataset_type: The term to add.

        Raises:
            UnknownTerm: The vocabulary has no such type. The message lists the known ones.
        """
        self._connection.terms.require(MLVocab.dataset_type, [dataset_type])
        row = {"Dataset": self.rid, "Dataset_Type": dataset_type}
        self._catalog.insert(MLTable.dataset_dataset_type, [row], skip_existing=True)
        self._types = tuple(sorted({*self._types, dataset_type}))

    def remove_dataset_type(self, dataset_type: str) -> None:
        """Remove a dataset type; does nothing if the dataset does not have it.

        Args:
            dataset_type: The term to remove.
        """
        row = {"Dataset": self.rid, "Dataset_Type": dataset_type}
        self._catalog.delete(MLTable.dataset_dataset_type, row)
        self._types = tuple(name for name in self._types if name != dataset_type)

    @property
    def current_version(self) -> str:
        """The highest version number at present."""
        return current_version(self._catalog, self.rid).version

    def dataset_history(self) -> list[DatasetVersion]:
        """Return all versions, the lowest number first.

        Returns:
            The versions with their numbers, snapshots and descriptions.
        """
        return version_history(self._catalog, self.rid)

    def increment_version(self, component: VersionPart | str, description: str = "") -> str:
        """Create a new version with the present members and their present values.

        The datasets that contain this one, at any depth, get a new version too.

        Args:
            component: ``major``, ``minor`` or ``patch``.
            description: What changed.

        Returns:
            The new version.
        """
        reason = f"Nested dataset {self.rid} has a new version" + (f": {description}" if description else "")
        changed = {self.rid: description, **dict.fromkeys(ancestors(self._catalog, self.rid), reason)}
        return create_versions(self._catalog, changed, component, self._execution)[self.rid]

    def add_dataset_members(self, members: MemberRIDs, description: str = "") -> None:
        """Add members, and create a new minor version if any of them is new.

        Args:
            members: RIDs of rows in element tables, including datasets; or a mapping of tables to RIDs.
            description: What changed, for the history.

        Raises:
            UnknownRID: A RID names no row. Nothing was added.
            WrongTable: A row's table is not an element table. Nothing was added.
            DatasetCycle: The dataset would contain itself. Nothing was added.
        """
        located = locate_members(self._catalog, members)
        self._check_no_cycle(located.get(MLTable.dataset, ()))
        added = sum(
            [self._insert_members(lookup_member_link(self._catalog, table), rids) for table, rids in located.items()]
        )
        try:
            self._check_no_cycle(located.get(MLTable.dataset, ()))
        except DatasetCycle:
            # another process closed the cycle between the check and the insert, and may have created a version of it
            self._delete_members(lookup_member_link(self._catalog, MLTable.dataset), located[MLTable.dataset])
            self.increment_version(VersionPart.minor, "Removed members that would have closed a cycle")
            raise
        if added or not self._is_version_current(located, present=True):
            self.increment_version(VersionPart.minor, description or f"Added {_format_counts(located)}")

    def delete_dataset_members(self, members: MemberRIDs, description: str = "") -> None:
        """Remove members, and create a new minor version if any was removed; the rows themselves stay.

        Args:
            members: RIDs, or a mapping of tables to RIDs; those that are not members are ignored.
            description: What changed, for the history.

        Raises:
            UnknownRID: A RID names no row.
            WrongTable: A row's table is not an element table.
        """
        located = locate_members(self._catalog, members)
        removed = sum(
            [self._delete_members(lookup_member_link(self._catalog, table), rids) for table, rids in located.items()]
        )
        if removed or not self._is_version_current(located, present=False):
            self.increment_version(VersionPart.minor, description or f"Removed {_format_counts(located)}")

    def list_dataset_members(
        self, version: str | None = None, recurse: bool = False, limit: int | None = None
    ) -> dict[str, list[Row]]:
        """Return the complete rows of the members, by element table, as they were in a version.

        Args:
            version: The version; None for the current one.
            recurse: Whether to include the members of nested datasets, each once.
            limit: Maximum number of rows per table; None for all.

        Returns:
            The rows in the order in which they were added. A table without members has an empty list.

        Raises:
            UnknownVersion: The dataset has no such version.
        """
        then, datasets = self._at_version(version, recurse)
        pages = {table: member_pages(then, link, datasets) for table, link in member_links(then.model).items()}
        return {table: list(islice(chain.from_iterable(rows), limit)) for table, rows in pages.items()}

    def iterate_dataset_members(
        self, table: str, version: str | None = None, recurse: bool = False, page_size: int = 2000
    ) -> Iterator[list[Row]]:
        """Iterate over the members of one element table in pages, with constant memory.

        Args:
            table: The element table.
            version: The version; None for the current one.
            recurse: Whether to include the members of nested datasets, each once.
            page_size: Maximum number of rows per page.

        Returns:
            An iterator over lists of at most `page_size` rows, each with the values of its columns by name.

        Raises:
            UnknownVersion: The dataset has no such version.
            WrongTable: The table is not an element table.
        """
        then, datasets = self._at_version(version, recurse)
        return member_pages(then, lookup_member_link(self._catalog, table), datasets, size=page_size)

    def list_dataset_children(self, version: str | None = None, recurse: bool = False) -> list[Dataset]:
        """Return the datasets that are members of this one.

        Args:
            version: The version; None for the current one.
            recurse: Whether to include their nested datasets at any depth, the nearest first.

        Returns:
            The datasets. An empty list if there are none.
        """
        then, datasets = self._at_version(version, recurse)
        pages = member_pages(then, lookup_member_link(then, MLTable.dataset), datasets)
        return _datasets_from_rows(self._connection, list(chain.from_iterable(pages)))

    def list_dataset_parents(self, recurse: bool = False) -> list[Dataset]:
        """Return the datasets that this one is a member of at present.

        Args:
            recurse: Whether to include their own parents at any depth.

        Returns:
            The datasets. An empty list if there are none.
        """
        link = lookup_member_link(self._catalog, MLTable.dataset)
        parents = (
            ancestors(self._catalog, self.rid)
            if recurse
            else [row[link.dataset_column] for row in self._catalog.select(link.table, {link.member_column: self.rid})]
        )
        return _datasets_from_rows(self._connection, self._catalog.select(MLTable.dataset, {"RID": parents}))

    def download_dataset_bag(self, version: str | None = None, materialize: bool = True) -> DatasetBag:
        """Download a version, or return it from the cache on this machine.

        Args:
            version: The version; None for the current one.
            materialize: Whether to download the files too, not only their rows.

        Returns:
            The bag. The cache stores it, so that each version is downloaded once.

        Raises:
            ChecksumMismatch: The store's bytes differ from those recorded. The message names the files.
            UnknownVersion: The dataset has no such version.
        """
        from deriva_ml_core.datasets.bag_cache import download_bag

        return download_bag(self._connection, DatasetSpec(rid=self.rid, version=version, materialize=materialize))

    def _at_version(self, version: str | None, recurse: bool) -> tuple[Catalog, list[RID]]:
        """Return the catalog's snapshot of a version, and the datasets whose members to list."""
        then = self._catalog.at(lookup_version(self._connection, self.rid, version).snapshot)
        return then, [self.rid, *(descendants(then, self.rid) if recurse else ())]

    def _insert_members(self, link: MemberLink, rids: Sequence[RID]) -> int:
        added = 0
        for portion in split_batches(rids):
            rows = [{link.dataset_column: self.rid, link.member_column: rid} for rid in portion]
            added += self._catalog.insert(link.table, rows, skip_existing=True)
        return added

    def _delete_members(self, link: MemberLink, rids: Sequence[RID]) -> int:
        return sum(
            self._catalog.delete(link.table, {link.dataset_column: self.rid, link.member_column: portion})
            for portion in split_batches(rids)
        )

    def _check_no_cycle(self, children: Collection[RID]) -> None:
        if children and (cycle := {self.rid, *ancestors(self._catalog, self.rid)}.intersection(children)):
            raise DatasetCycle(
                f"Dataset {self.rid} cannot contain {', '.join(sorted(cycle))}: the dataset would contain itself. "
                "Leave it out of the members."
            )

    def _is_version_current(self, members: Mapping[str, Sequence[RID]], *, present: bool) -> bool:
        """Whether the current version has all of these members, or none.

        A process may have died between its change and its new version.
        """
        try:
            then = self._catalog.at(current_version(self._catalog, self.rid).snapshot)
        except UnknownVersion:
            return False
        for table, rids in members.items():
            link = lookup_member_link(self._catalog, table)
            for portion in split_batches(rids):
                count = len(then.select(link.table, {link.dataset_column: self.rid, link.member_column: portion}))
                if count != (len(portion) if present else 0):
                    return False
        return True


def create_dataset(
    connection: Connection, *, description: str = "", dataset_types: Iterable[str] = (), execution: RID | None = None
) -> Dataset:
    """Create an empty dataset with its first version, 0.1.0.

    Args:
        connection: The catalog.
        description: What the dataset is.
        dataset_types: Terms of the vocabulary Dataset_Type.
        execution: The execution to record as the creator of the dataset, and of each version made through the
            returned object.

    Raises:
        UnknownTerm: The vocabulary has no such type. The message lists the known ones.
    """
    from deriva_ml_core.redaction import redact_text  # many patterns to compile

    types = sorted({dataset_types} if isinstance(dataset_types, str) else set(dataset_types))
    connection.terms.require(MLVocab.dataset_type, types)
    catalog = connection.catalog
    rid = catalog.reserve(1)[0]
    with catalog_transaction(catalog):
        catalog.insert(MLTable.dataset, [{"RID": rid, "Description": redact_text(description), "Deleted": False}])
        catalog.insert(MLTable.dataset_dataset_type, [{"Dataset": rid, "Dataset_Type": name} for name in types])
    create_versions(catalog, {rid: "First version"}, VersionPart.minor, execution)
    return lookup_dataset(connection, rid, execution)


def lookup_dataset(connection: Connection, rid: RID, execution: RID | None = None) -> Dataset:
    """Look up a dataset; a deleted one is found too.

    Args:
        connection: The catalog.
        rid: The dataset's RID.
        execution: The execution to record as the creator of each version made through the returned object.

    Raises:
        UnknownRID, WrongTable: The RID names no dataset.
    """
    return _datasets_from_rows(connection, [connection.require_row(MLTable.dataset, split_rid(rid)[0])], execution)[0]


def find_datasets(connection: Connection) -> list[Dataset]:
    """Return all datasets that are not deleted, the oldest first. A malformed row is left out, with a warning."""
    living = AnyOf(({"Deleted": None}, {"Deleted": False}))
    rows = connection.catalog.select(MLTable.dataset, living, order=("RCT", "RID"))
    return _datasets_from_rows(connection, list_valid_rows(MLTable.dataset, rows))


def delete_dataset(connection: Connection, rid: RID) -> None:
    """Mark a dataset as deleted: `find_datasets` omits it, and executions that used its versions keep them.

    Raises:
        UnknownRID, WrongTable: The RID names no dataset.
    """
    row = connection.require_row(MLTable.dataset, split_rid(rid)[0])
    connection.catalog.update(MLTable.dataset, [{"RID": row["RID"], "Deleted": True}])


def add_dataset_element_type(connection: Connection, table: str) -> None:
    """Allow rows of a table to be members of datasets; does nothing if they are already allowed.

    Raises:
        ConfigurationError: Another table has the name of the link table.
        UnknownTable: The catalog has no such table.
    """
    element = connection.catalog.refresh().table(table)
    if element.name in member_links(connection.catalog.model):
        return
    name = dataset_element_table_name(element.name)
    if name in connection.catalog.model.tables:
        raise ConfigurationError(f"Rows of {table} cannot be members of datasets: another table has the name {name}.")
    ends = ForeignKey("Dataset", MLTable.dataset), ForeignKey(element.name, element.name)
    connection.catalog.create_tables([association_table(name, *ends, schema=element.schema)])
    connection.catalog.refresh()


def record_input(connection: Connection, execution: RID, spec: DatasetSpec) -> DatasetSpec:
    """Record a version of a dataset as an execution's input; recording it again changes nothing.

    Args:
        connection: The catalog.
        execution: The execution.
        spec: The dataset and its version; None for the current one.

    Returns:
        The same spec with its version filled in.

    Raises:
        UnknownRID, WrongTable: The RID names no dataset.
        UnknownVersion: The dataset has no such version.
    """
    version = lookup_version(connection, spec.rid, spec.version)
    row = {"Dataset": version.dataset, "Execution": execution, "Dataset_Version": version.rid}
    connection.catalog.insert(MLTable.dataset_execution, [row], skip_existing=True)
    return DatasetSpec(rid=version.dataset, version=version.version, materialize=spec.materialize)


def list_input_datasets(connection: Connection, execution: RID) -> list[DatasetSpec]:
    """Return the datasets that an execution read, with their versions, in the order of recording."""
    catalog = connection.catalog
    inputs = drop_creations(catalog, catalog.select(MLTable.dataset_execution, {"Execution": execution}))
    versions = catalog.select(MLTable.dataset_version, {"RID": [row["Dataset_Version"] for row in inputs]})
    numbers = {row["RID"]: row["Version"] for row in versions}

    def convert(row: Row) -> DatasetSpec:
        version = row["Dataset_Version"]
        return convert_values(
            MLTable.dataset_version, version, lambda: DatasetSpec(rid=row["Dataset"], version=numbers.get(version))
        )

    return list(convert_rows(convert, inputs))


def _datasets_from_rows(connection: Connection, rows: Sequence[Row], execution: RID | None = None) -> list[Dataset]:
    links = connection.catalog.select(MLTable.dataset_dataset_type, {"Dataset": [row["RID"] for row in rows]})
    types: dict[RID, list[str]] = {}
    for link in links:
        types.setdefault(link["Dataset"], []).append(link["Dataset_Type"])
    return [Dataset(connection, row, types.get(row["RID"], ()), execution) for row in rows]


def _format_counts(members: Mapping[str, Sequence[RID]]) -> str:
    return ", ".join(f"{len(rids)} {table}" for table, rids in members.items())
