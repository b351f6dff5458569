"""A dataset in a catalog: made, found, filled, listed, and brought here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

from deriva_ml_core.backend import AnyOf, Catalog, Row
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
    lookup_version,
    version_history,
)
from deriva_ml_core.definitions import RID, MLTable, MLVocab, split_rid
from deriva_ml_core.errors import ConfigurationError, DatasetCycle, UnknownVersion
from deriva_ml_core.models import DatasetSpec
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


class Dataset:
    """A dataset in a catalog.

    Every version is a snapshot: what it lists never changes, whatever happens to its members later.

    Args:
        connection: The catalog and store.
        row: The dataset's row.
        dataset_types: Terms of the vocabulary Dataset_Type.
        execution: The execution that is noted as the maker of each version made through this object.
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

    @property
    def rid(self) -> RID:
        """The record id."""
        return str(self._row["RID"])

    @property
    def dataset_rid(self) -> RID:
        """The record id."""
        return self.rid

    @property
    def description(self) -> str:
        """What it is, in words, as it was when this object was made."""
        return self._row["Description"] or ""

    @property
    def dataset_types(self) -> tuple[str, ...]:
        """Terms of the vocabulary Dataset_Type, as this object last knew them."""
        return self._types

    def add_dataset_type(self, dataset_type: str) -> None:
        """Add a term of the vocabulary Dataset_Type; one that is there already stays.

        Raises:
            UnknownTerm: The vocabulary has no such type; the known ones are named.
        """
        self._connection.terms.require(MLVocab.dataset_type, [dataset_type])
        row = {"Dataset": self.rid, "Dataset_Type": dataset_type}
        self._catalog.insert(MLTable.dataset_dataset_type, [row], skip_existing=True)
        self._types = tuple(sorted({*self._types, dataset_type}))

    def remove_dataset_type(self, dataset_type: str) -> None:
        """Take a dataset type away; one that is not there is no mistake."""
        row = {"Dataset": self.rid, "Dataset_Type": dataset_type}
        self._catalog.delete(MLTable.dataset_dataset_type, row)
        self._types = tuple(name for name in self._types if name != dataset_type)

    @property
    def current_version(self) -> str:
        """The highest version now."""
        return current_version(self._catalog, self.rid).version

    def dataset_history(self) -> list[DatasetVersion]:
        """All versions, the first one first."""
        return version_history(self._catalog, self.rid)

    def increment_version(self, component: VersionPart | str, description: str = "") -> str:
        """Make a new version with the present members and their present values, of the datasets it lies in too.

        Args:
            component: ``major``, ``minor`` or ``patch``.
            description: What changed.

        Returns:
            The new version.
        """
        around = f"Dataset {self.rid} in it has a new version" + (f": {description}" if description else "")
        changed = {self.rid: description, **dict.fromkeys(ancestors(self._catalog, self.rid), around)}
        return create_versions(self._catalog, changed, component, self._execution)[self.rid]

    def add_dataset_members(self, members: MemberRIDs, description: str = "") -> None:
        """Add rows, and make a new minor version if any of them is not yet a member.

        Args:
            members: Record ids of rows of element tables, datasets among them; or such record ids by table.
            description: What changed, for the history.

        Raises:
            UnknownRID: A record id names no row; nothing was added.
            WrongTable: A row's table is not an element table; nothing was added.
            DatasetCycle: The dataset would contain itself; nothing was added.
        """
        located = locate_members(self._catalog, members)
        self._check_no_cycle(located.get(MLTable.dataset, ()))
        added = sum(
            [self._insert_members(lookup_member_link(self._catalog, table), rids) for table, rids in located.items()]
        )
        try:
            self._check_no_cycle(located.get(MLTable.dataset, ()))
        except DatasetCycle:
            # another process closed the circle between our look and our insert, and may have made a version of it
            self._delete_members(lookup_member_link(self._catalog, MLTable.dataset), located[MLTable.dataset])
            self.increment_version(VersionPart.minor, "Took out what would have closed a circle")
            raise
        if added or not self._is_version_current(located, present=True):
            self.increment_version(VersionPart.minor, description or f"Added {_format_counts(located)}")

    def delete_dataset_members(self, members: MemberRIDs, description: str = "") -> None:
        """Take rows out of the dataset (the rows themselves stay), and make a new minor version if any was in it.

        Args:
            members: Record ids, or record ids by table; those that are not members are left alone.
            description: What changed, for the history.

        Raises:
            UnknownRID: A record id names no row.
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
        """The complete rows of the members, by element table, as they were when the version was made.

        Args:
            version: The version; None for the current one.
            recurse: Whether the members of nested datasets count too, each once.
            limit: The most rows of each table; None for all.

        Returns:
            The rows in the order in which they were added; a table without members has an empty list.

        Raises:
            UnknownVersion: The dataset has no such version.
        """
        then, datasets = self._at_version(version, recurse)
        pages = {table: member_pages(then, link, datasets) for table, link in member_links(then.model).items()}
        return {table: list(islice(chain.from_iterable(found), limit)) for table, found in pages.items()}

    def iterate_dataset_members(
        self, table: str, version: str | None = None, recurse: bool = False, page_size: int = 2000
    ) -> Iterator[list[Row]]:
        """The members of one element table in pages, so that memory stays flat however many there are.

        Args:
            table: The element table.
            version: The version; None for the current one.
            recurse: Whether the members of nested datasets count too, each once.
            page_size: The most rows a page.

        Raises:
            UnknownVersion: The dataset has no such version.
            WrongTable: The table is not an element table.
        """
        then, datasets = self._at_version(version, recurse)
        return member_pages(then, lookup_member_link(self._catalog, table), datasets, size=page_size)

    def list_dataset_children(self, version: str | None = None, recurse: bool = False) -> list[Dataset]:
        """The datasets that lie in this one.

        Args:
            version: The version; None for the current one.
            recurse: Whether those in them count too, at any depth, the nearest first.
        """
        then, datasets = self._at_version(version, recurse)
        pages = member_pages(then, lookup_member_link(then, MLTable.dataset), datasets)
        return _datasets_from_rows(self._connection, list(chain.from_iterable(pages)))

    def list_dataset_parents(self, recurse: bool = False) -> list[Dataset]:
        """The datasets that this one lies in now.

        Args:
            recurse: Whether those around them count too, at any depth.
        """
        link = lookup_member_link(self._catalog, MLTable.dataset)
        around = (
            ancestors(self._catalog, self.rid)
            if recurse
            else [row[link.dataset_column] for row in self._catalog.select(link.table, {link.member_column: self.rid})]
        )
        return _datasets_from_rows(self._connection, self._catalog.select(MLTable.dataset, {"RID": around}))

    def download_dataset_bag(self, version: str | None = None, materialize: bool = True) -> DatasetBag:
        """Bring a version to this machine, or find it there.

        Args:
            version: The version; None for the current one.
            materialize: Whether the files are brought too, not only their rows.

        Returns:
            The bag, kept in the cache, so that the same version is brought once.

        Raises:
            ChecksumMismatch: The store's bytes are not those recorded; the files are named.
            UnknownVersion: The dataset has no such version.
        """
        from deriva_ml_core.datasets.bag_cache import download_bag

        return download_bag(self._connection, DatasetSpec(rid=self.rid, version=version, materialize=materialize))

    def _at_version(self, version: str | None, recurse: bool) -> tuple[Catalog, list[RID]]:
        """The catalog as it was at a version, and the datasets whose members count."""
        then = self._catalog.at(lookup_version(self._connection, self.rid, version).snapshot)
        return then, [self.rid, *(descendants(then, self.rid) if recurse else ())]

    def _insert_members(self, link: MemberLink, rids: Sequence[RID]) -> int:
        added = 0
        for portion in split_batches(rids):
            rows = [{link.dataset_column: self.rid, link.member_column: rid} for rid in portion]
            added += self._catalog.insert(link.table, rows, skip_existing=True)
        return added

    def _delete_members(self, link: MemberLink, rids: Sequence[RID]) -> int:
        found = split_batches(rids)
        return sum(
            self._catalog.delete(link.table, {link.dataset_column: self.rid, link.member_column: rids})
            for rids in found
        )

    def _check_no_cycle(self, children: Collection[RID]) -> None:
        if children and (circle := {self.rid, *ancestors(self._catalog, self.rid)}.intersection(children)):
            raise DatasetCycle(
                f"Dataset {self.rid} lies in {', '.join(sorted(circle))}, or is it, and so cannot contain it; "
                "leave it out of the members."
            )

    def _is_version_current(self, members: Mapping[str, Sequence[RID]], *, present: bool) -> bool:
        """Whether the current version has all of these, or none: a process may have died before it made its own."""
        try:
            then = self._catalog.at(current_version(self._catalog, self.rid).snapshot)
        except UnknownVersion:
            return False
        for table, rids in members.items():
            link = lookup_member_link(self._catalog, table)
            for portion in split_batches(rids):
                there = len(then.select(link.table, {link.dataset_column: self.rid, link.member_column: portion}))
                if there != (len(portion) if present else 0):
                    return False
        return True


def create_dataset(
    connection: Connection, *, description: str = "", dataset_types: Iterable[str] = (), execution: RID | None = None
) -> Dataset:
    """Make an empty dataset with its first version, 0.1.0.

    Args:
        connection: The catalog.
        description: What it is, in words.
        dataset_types: Terms of the vocabulary Dataset_Type.
        execution: The execution that makes it, and each version made through the returned object.

    Raises:
        UnknownTerm: The vocabulary has no such type; the known ones are named.
    """
    types = sorted({dataset_types} if isinstance(dataset_types, str) else set(dataset_types))
    connection.terms.require(MLVocab.dataset_type, types)
    catalog = connection.catalog
    rid = catalog.reserve(1)[0]
    catalog.insert(MLTable.dataset, [{"RID": rid, "Description": description, "Deleted": False}])
    catalog.insert(MLTable.dataset_dataset_type, [{"Dataset": rid, "Dataset_Type": name} for name in types])
    create_versions(catalog, {rid: "First version"}, VersionPart.minor, execution)
    return lookup_dataset(connection, rid, execution)


def lookup_dataset(connection: Connection, rid: RID, execution: RID | None = None) -> Dataset:
    """One dataset, also one that was deleted since.

    Args:
        connection: The catalog.
        rid: Its record id.
        execution: The execution that is noted as the maker of each version made through the returned object.

    Raises:
        UnknownRID, WrongTable: The record id names no dataset.
    """
    return _datasets_from_rows(connection, [connection.require_row(MLTable.dataset, split_rid(rid)[0])], execution)[0]


def find_datasets(connection: Connection) -> list[Dataset]:
    """All datasets that were not deleted, the oldest first."""
    living = AnyOf(({"Deleted": None}, {"Deleted": False}))
    return _datasets_from_rows(connection, connection.catalog.select(MLTable.dataset, living, order=("RCT", "RID")))


def delete_dataset(connection: Connection, rid: RID) -> None:
    """Mark a dataset as deleted: it is found no more, and its versions stay for the executions that used them.

    Raises:
        UnknownRID, WrongTable: The record id names no dataset.
    """
    row = connection.require_row(MLTable.dataset, split_rid(rid)[0])
    connection.catalog.update(MLTable.dataset, [{"RID": row["RID"], "Deleted": True}])


def add_dataset_element_type(connection: Connection, table: str) -> None:
    """Allow rows of a table to be members of datasets; one that is allowed already stays so.

    Raises:
        ConfigurationError: The name of its link table is taken by another one.
        UnknownTable: The catalog has no such table.
    """
    element = connection.catalog.refresh().table(table)
    if element.name in member_links(connection.catalog.model):
        return
    name = dataset_element_table_name(element.name)
    if name in connection.catalog.model.tables:
        raise ConfigurationError(f"Rows of {table} cannot be members of datasets: {name} is another table already.")
    ends = ForeignKey("Dataset", MLTable.dataset), ForeignKey(element.name, element.name)
    connection.catalog.create_tables([association_table(name, *ends, schema=element.schema)])
    connection.catalog.refresh()


def record_input(connection: Connection, execution: RID, spec: DatasetSpec) -> DatasetSpec:
    """Note a version of a dataset as an execution's input; noting it again changes nothing.

    Args:
        connection: The catalog.
        execution: The execution.
        spec: The dataset; without a version the current one is meant.

    Returns:
        The same with its version.

    Raises:
        UnknownRID, WrongTable: The record id names no dataset.
        UnknownVersion: The dataset has no such version.
    """
    found = lookup_version(connection, spec.rid, spec.version)
    row = {"Dataset": found.dataset, "Execution": execution, "Dataset_Version": found.rid}
    connection.catalog.insert(MLTable.dataset_execution, [row], skip_existing=True)
    return DatasetSpec(rid=found.dataset, version=found.version, materialize=spec.materialize)


def list_input_datasets(connection: Connection, execution: RID) -> list[DatasetSpec]:
    """The datasets that an execution read, with their versions, in the order in which they were noted."""
    catalog = connection.catalog
    inputs = catalog.select(MLTable.dataset_execution, {"Execution": execution})
    versions = catalog.select(MLTable.dataset_version, {"RID": [row["Dataset_Version"] for row in inputs]})
    numbers = {row["RID"]: row["Version"] for row in versions}
    return [DatasetSpec(rid=row["Dataset"], version=numbers.get(row["Dataset_Version"])) for row in inputs]


def _datasets_from_rows(connection: Connection, rows: Sequence[Row], execution: RID | None = None) -> list[Dataset]:
    links = connection.catalog.select(MLTable.dataset_dataset_type, {"Dataset": [row["RID"] for row in rows]})
    types: dict[RID, list[str]] = {}
    for link in links:
        types.setdefault(link["Dataset"], []).append(link["Dataset_Type"])
    return [Dataset(connection, row, types.get(row["RID"], ()), execution) for row in rows]


def _format_counts(members: Mapping[str, Sequence[RID]]) -> str:
    return ", ".join(f"{len(rids)} {table}" for table, rids in members.items())
