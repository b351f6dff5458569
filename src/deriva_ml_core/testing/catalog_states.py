"""What every catalog promises of its states, its tables, and of those who share it."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest

from deriva_ml_core.backend import Catalog
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.errors import CatalogReadOnly, DuplicateRow, UnknownRID, UnknownTable
from deriva_ml_core.schema import Column, ForeignKey, Table, association_table, vocabulary_table
from deriva_ml_core.testing.catalog_fixtures import (
    CatalogFactory,
    CatalogFixtures,
    insert_dataset,
    insert_named_dataset,
    insert_row,
    select_row,
    unique_name,
)

__all__ = ["StateContract"]


class StateContract(CatalogFixtures):
    """Snapshots, new tables, threads and processes."""

    def test_snapshot(self, catalog: Catalog, things: str) -> None:
        """A snapshot shows what was there: not what was added, but what was changed or deleted later."""
        catalog.insert(things, [{"Whole": number} for number in range(6)])
        snapshot, then = catalog.snapshot(), catalog.select(things)
        catalog.update(things, [{"RID": then[0]["RID"], "Whole": 10}])
        catalog.update(things, [{"RID": then[0]["RID"], "Whole": 11}])
        catalog.delete(things, {"RID": [then[0]["RID"], then[1]["RID"]]})
        catalog.insert(things, [{"Whole": 12}])
        past = catalog.at(snapshot)
        assert past.select(things) == then
        assert past.select(things, {"Whole": [0, 1, 10, 11, 12]}, order=("Whole",), descending=True) == then[1::-1]
        assert past.select(things, limit=2) == then[:2]
        assert [row for page in past.pages(things, size=4) for row in page] == then
        assert past.locate([row["RID"] for row in then]) == {row["RID"]: things for row in then}

    def test_snapshot_of_links(self, catalog: Catalog) -> None:
        """A snapshot shows the links that went when what they link went."""
        parent, child = insert_dataset(catalog), insert_dataset(catalog)
        catalog.insert(MLTable.nested_dataset, [{"Dataset": parent, "Nested_Dataset": child}])
        snapshot = catalog.snapshot()
        catalog.delete(MLTable.dataset, {"RID": child})
        (link,) = catalog.at(snapshot).select(MLTable.nested_dataset, {"Dataset": parent})
        assert link["Nested_Dataset"] == child

    def test_snapshots_are_independent(self, catalog: Catalog, open_catalog: CatalogFactory, things: str) -> None:
        """Each snapshot shows its own state, for ever, also to another process."""
        rid = insert_row(catalog, things, {"Whole": 0})
        seen = [(catalog.snapshot(), catalog.update(things, [{"RID": rid, "Whole": n}])) for n in range(1, 6)]
        other = open_catalog()
        assert [select_row(other.at(snapshot), things, rid)["Whole"] for snapshot, _ in seen] == [0, 1, 2, 3, 4]

    def test_snapshot_before_a_table(self, catalog: Catalog) -> None:
        """A table that was made later is empty in a snapshot."""
        snapshot, name = catalog.snapshot(), unique_name("Later")
        catalog.create_tables([Table(name, (Column("Text"),))])
        insert_row(catalog, name, {})
        assert catalog.at(snapshot).select(name) == []

    def test_snapshot_is_read_only(self, catalog: Catalog, things: str) -> None:
        """Every write to a snapshot is refused."""
        past = catalog.at(catalog.snapshot())
        for write in (
            lambda: past.insert(things, [{}]),
            lambda: past.insert_missing(things, [{}], "RID"),
            lambda: past.insert_unless(things, {"Whole": 1}, {}),
            lambda: past.update(things, [{"RID": "1-0000", "Text": ""}]),
            lambda: past.delete(things, {}),
            lambda: past.create_tables([Table(unique_name("T"))]),
            lambda: past.reserve(1),
        ):
            with pytest.raises(CatalogReadOnly):
                write()

    def test_create_tables_twice(self, catalog: Catalog) -> None:
        """Making a table again changes nothing; one of that name with other columns is refused."""
        name = unique_name("T")
        catalog.create_tables([Table(name, (Column("A"),))])
        rid = insert_row(catalog, name, {"A": "kept"})
        catalog.create_tables([Table(name, (Column("A"),))])
        assert select_row(catalog, name, rid)["A"] == "kept"
        with pytest.raises(DuplicateRow, match=name):
            catalog.create_tables([Table(name, (Column("A"), Column("B")))])

    def test_create_tables_all_or_none(self, catalog: Catalog) -> None:
        """If one table cannot be made, none is."""
        good, bad = unique_name("Good"), unique_name("Bad")
        key = ForeignKey("X", unique_name("Nonesuch"))
        with pytest.raises(UnknownTable, match="Nonesuch"):
            catalog.create_tables([Table(good, (Column("A"),)), Table(bad, (Column("X"),), foreign_keys=(key,))])
        assert good not in catalog.refresh().tables

    def test_create_tables_with_references(self, catalog: Catalog) -> None:
        """Tables made at once may refer to each other, to a vocabulary by name, and to those there."""
        term, link = unique_name("Term"), unique_name("Link")
        catalog.create_tables(
            [
                vocabulary_table(term),
                association_table(link, ForeignKey("Dataset", MLTable.dataset), ForeignKey("T", term, "Name")),
            ]
        )
        catalog.insert(term, [{"Name": "red", "Description": ""}])
        dataset = insert_dataset(catalog)
        insert_row(catalog, link, {"Dataset": dataset, "T": "red"})
        with pytest.raises(UnknownRID, match="blue"):
            catalog.insert(link, [{"Dataset": dataset, "T": "blue"}])

    def test_refresh(self, catalog: Catalog, open_catalog: CatalogFactory) -> None:
        """A table that another process made is known after a refresh, and its rows are read."""
        other, name = open_catalog(), unique_name("T")
        other.create_tables([Table(name, (Column("A"),))])
        rid = insert_row(other, name, {"A": "x"})
        assert name in catalog.refresh().tables
        assert select_row(catalog, name, rid)["A"] == "x"

    def test_cite(self, catalog: Catalog) -> None:
        """A citation is a URL with the id, and with the snapshot where one is asked for."""
        rid, snapshot = insert_dataset(catalog), catalog.snapshot()
        assert ":" in catalog.cite(rid)
        assert rid in catalog.cite(rid)
        assert f"@{snapshot}" in catalog.cite(rid, snapshot)
        assert catalog.cite(rid) == catalog.cite(rid) != catalog.cite(rid, snapshot)

    def test_use_after_close(self, catalog: Catalog) -> None:
        """A closed catalog opens again by itself."""
        catalog.close()
        assert catalog.locate([insert_dataset(catalog)])
        catalog.close()

    def test_threads(self, catalog: Catalog, things: str) -> None:
        """Several threads may read and write at once."""
        with ThreadPoolExecutor(8) as threads:
            rids = list(threads.map(lambda number: insert_row(catalog, things, {"Whole": number}), range(40)))
        assert len(catalog.select(things, {"RID": rids})) == 40

    def test_fork(self, catalog: Catalog) -> None:
        """A forked process may use the catalog that its parent opened, and the parent after it."""
        name = unique_name("forked")
        child = multiprocessing.get_context("fork").Process(target=insert_named_dataset, args=(catalog, name))
        child.start()
        child.join()
        assert child.exitcode == 0
        insert_named_dataset(catalog, name)
        assert len(catalog.select(MLTable.dataset, {"Description": name})) == 2
