"""What the promises of a catalog are tested with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import pytest

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.schema import Column, Table

__all__ = [
    "CatalogFixtures",
    "CatalogFactory",
    "insert_row",
    "insert_dataset",
    "unique_name",
    "insert_named_dataset",
    "select_row",
]

CatalogFactory = Callable[[], Catalog]


def unique_name(name: str) -> str:
    """A name that no other test has used, so that one catalog may serve them all."""
    return f"{name}_{uuid4().hex[:12]}"


def insert_row(catalog: Catalog, table: str, row: Mapping[str, Any]) -> str:
    """Add one row and return its record id."""
    (rid,) = catalog.reserve(1)
    assert catalog.insert(table, [{"RID": rid, **row}]) == 1
    return rid


def insert_dataset(catalog: Catalog) -> str:
    """Add a dataset and return its record id."""
    return insert_row(catalog, MLTable.dataset, {"Description": unique_name("dataset")})


def select_row(catalog: Catalog, table: str, rid: str) -> Row:
    """The row of that id."""
    (row,) = catalog.select(table, {"RID": rid})
    return row


def insert_named_dataset(catalog: Catalog, name: str) -> None:
    """Add a row from another process."""
    catalog.insert(MLTable.dataset, [{"Description": name}])


class CatalogFixtures:
    """A catalog to test; override `open_catalog`."""

    @pytest.fixture
    def open_catalog(self) -> CatalogFactory:
        """How to open the catalog of one test, again each time: it has the standard tables and terms."""
        raise NotImplementedError("override the fixture open_catalog")

    @pytest.fixture
    def catalog(self, open_catalog: CatalogFactory) -> Catalog:
        """The catalog, open."""
        return open_catalog()

    @pytest.fixture
    def things(self, catalog: Catalog) -> str:
        """The name of a new table with one column of each type."""
        types = {"Text": "text", "Whole": "int8", "Real": "float8", "Truth": "boolean", "Texts": "text[]"}
        more = {"Json": "jsonb", "Time": "timestamptz", "Words": "markdown", "Place": "ermrest_uri"}
        name = unique_name("Thing")
        columns = tuple(Column(column, type_) for column, type_ in (types | more).items())
        catalog.create_tables([Table(name, columns, schema="domain")])
        return name
