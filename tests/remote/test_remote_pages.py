"""Chaise, the server's web pages, is told how to show a catalog's tables, in words that it understands."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.backends.deriva.ermrest_client import ErmrestClient
from deriva_ml_core.client import DerivaML
from deriva_ml_core.schema import Column
from fakes.deriva_server import DerivaServer

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # the client library's validator uses an old name of jsonschema
    from deriva.core import tag
    from deriva.core.annotation import validate
    from deriva.core.ermrest_model import Model


@pytest.fixture
def model(catalog: DerivaCatalog, fake: DerivaServer) -> Any:
    """The catalog's tables as the client library reads them, with one of the user's own."""
    owner = DerivaML(fake.hostname, catalog.catalog_id, credential=fake.credential())
    owner.create_asset("Scan", [Column("Stain")])
    return Model(None, ErmrestClient(catalog._server, catalog.catalog_id).get_json("/schema", "schema"))


def tables(model: Any) -> list[Any]:
    return [table for name in ("deriva-ml", "demo") for table in model.schemas[name].tables.values()]


@pytest.mark.filterwarnings("ignore:.*RefResolver:DeprecationWarning")
def test_all_is_understood(model: Any) -> None:
    """Every annotation is of a kind that is known, has that kind's form, and names columns and keys that exist."""
    found = 0
    for table in tables(model):
        for part in (table, *table.column_definitions, *table.foreign_keys):
            found += len(part.annotations)
            assert validate(part) == [], part
    assert found > 200


def test_rows_have_names(model: Any) -> None:
    """Terms, workflows, executions, datasets, their versions and files go by names that people know."""
    named = {
        table.name: table.annotations[tag.table_display]["row_name"]["row_markdown_pattern"]
        for table in tables(model)
        if tag.table_display in table.annotations
    }
    for table in ("Execution_Metadata", "Execution_Asset", "File", "Model", "Image", "Scan"):
        assert named[table] == "{{{Filename}}}"
    for table in ("Asset_Type", "Asset_Role", "Dataset_Type", "Workflow_Type", "Workflow"):
        assert named[table] == "{{{Name}}}"
    assert named["Execution"] == "Execution {{{RID}}}"
    assert named["Dataset_Version"] == "{{{Dataset}}}:{{{Version}}}"


def test_files_are_links(model: Any) -> None:
    """A file's URL is shown by its name and size, as a link, and what the bytes say is asked of nobody."""
    for table in (model.schemas["deriva-ml"].tables["Execution_Asset"], model.schemas["demo"].tables["Scan"]):
        told = table.column_definitions["URL"].annotations[tag.asset]
        assert (told["filename_column"], told["byte_count_column"], told["md5"]) == ("Filename", "Length", "MD5")
        assert told["url_pattern"].startswith(f"/hatrac/{table.name}/")
        entered = table.annotations[tag.visible_columns]["entry"]
        assert not {"Filename", "Length", "MD5"} & set(entered)
    assert "Stain" in entered


def test_a_file_shows_its_types(model: Any) -> None:
    """The terms that links give a file stand in its row."""
    shown = model.schemas["demo"].tables["Scan"].annotations[tag.visible_columns]["*"]
    (types,) = [each for each in shown if isinstance(each, dict)]
    assert types["source"] == [{"inbound": ["demo", "Scan_Asset_Type_Scan_fkey"]}, "Asset_Type"]


def test_runs_are_not_made_by_hand(model: Any) -> None:
    """The pages offer no new execution, and no other URL for a workflow; they say how to cite a run."""
    ours = model.schemas["deriva-ml"].tables
    assert tag.generated in ours["Execution"].annotations
    assert tag.generated in ours["Execution_Asset_Execution"].annotations
    assert tag.generated not in ours["Workflow"].annotations
    assert tag.immutable in ours["Workflow"].column_definitions["URL"].annotations
    assert "{{{RID}}}" in ours["Execution"].annotations[tag.citation]["url_pattern"]


def test_a_related_table_is_called_by_its_end(model: Any) -> None:
    """On an execution's page its files are called by their table, not by that of the links."""
    keys = model.schemas["demo"].tables["Model_Execution"].foreign_keys
    (to_execution,) = [key for key in keys if key.constraint_name == "Model_Execution_Execution_fkey"]
    assert to_execution.annotations[tag.foreign_key] == {"from_name": "Model"}


def test_the_schema_of_pages_is_there(model: Any) -> None:
    """Other clients look for tables in it, and cannot open a catalog without."""
    assert "WWW" in model.schemas


def test_what_is_there_is_not_changed(catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """A catalog that has its tables gets no other annotations when it is given what it lacks."""
    asking = ErmrestClient(catalog._server, catalog.catalog_id)
    before = asking.get_json("/schema", "schema")["schemas"]
    DerivaML.create(fake.hostname, "demo", catalog_id=catalog.catalog_id, credential=fake.credential())
    assert asking.get_json("/schema", "schema")["schemas"] == before
