"""A column that a later version adds to a standard table, in catalogs on a server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deriva_ml_core import DerivaML, default_schema
from deriva_ml_core.backends.deriva import DerivaCatalog
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.schema import Column, Table
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer


@pytest.fixture
def declare_host(monkeypatch: pytest.MonkeyPatch, catalog: DerivaCatalog) -> None:
    """Declare a new column of Execution after the catalog was created."""
    tables: tuple[Table, ...] = default_schema._execution_tables()
    with_host = tuple(
        replace(table, columns=(*table.columns, Column("Host"))) if table.name == "Execution" else table
        for table in tables
    )
    monkeypatch.setattr(default_schema, "_execution_tables", lambda: with_host)
    monkeypatch.setattr(default_schema, "ADDED_COLUMNS", frozenset({("Execution", "Host")}))


def open_client(fake: DerivaServer, catalog: DerivaCatalog) -> DerivaML:
    return DerivaML(fake.hostname, catalog.catalog_id, credential=fake.credential())


def record_run(ml: DerivaML) -> str:
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
    with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as execution:
        pass
    return str(execution.execution_rid)


@pytest.mark.usefixtures("declare_host")
def test_catalog_without_the_column(fake: DerivaServer, catalog: DerivaCatalog) -> None:
    """A catalog that lacks the column records runs; the column reads as empty and cannot match a value."""
    ml = open_client(fake, catalog)
    rid = record_run(ml)
    (row,) = ml.connection.catalog.select("Execution", {"RID": rid})
    assert (row["Status"], row["Host"]) == ("Completed", None)
    ml.connection.catalog.update("Execution", [{"RID": rid, "Host": "node-1"}])
    assert ml.connection.catalog.select("Execution", {"Host": "node-1"}) == []
    assert "Host" not in catalog.refresh().table("Execution").column_names


@pytest.mark.usefixtures("declare_host")
def test_owner_adds_the_column(fake: DerivaServer, catalog: DerivaCatalog) -> None:
    """``DerivaML.create`` with the number of a catalog adds the column once; rows before it are empty."""
    before = record_run(open_client(fake, catalog))
    for _ in range(2):
        DerivaML.create(fake.hostname, "test-project", catalog_id=catalog.catalog_id, credential=fake.credential())
    posts = [request.path for request in fake.requests if request.method == "POST" and request.path.endswith("/column")]
    assert posts == [f"/ermrest/catalog/{catalog.catalog_id}/schema/deriva-ml/table/Execution/column"]
    ml = open_client(fake, catalog)
    after = record_run(ml)
    ml.connection.catalog.update("Execution", [{"RID": after, "Host": "node-1"}])
    rows = ml.connection.catalog.select("Execution", {"RID": [before, after]}, order=["RCT"])
    assert [row["Host"] for row in rows] == [None, "node-1"]
    assert [row["RID"] for row in ml.connection.catalog.select("Execution", {"Host": "node-1"})] == [after]


@pytest.mark.usefixtures("declare_host")
def test_two_owners_add_the_column(fake: DerivaServer, catalog: DerivaCatalog) -> None:
    """An owner whose view of the catalog is older than another owner's column finds it there."""
    catalog.model.table("Execution")  # cached before the other adds the column
    DerivaML.create(fake.hostname, "test-project", catalog_id=catalog.catalog_id, credential=fake.credential())
    catalog.add_columns("Execution", [Column("Host")])
    assert "Host" in catalog.model.table("Execution").column_names
