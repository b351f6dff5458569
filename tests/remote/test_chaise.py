"""Annotations for Chaise, checked with the client library's own validator."""

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
    """Return the catalog's model as the client library reads it, with one table of the user's."""
    owner = DerivaML(fake.hostname, catalog.catalog_id, credential=fake.credential())
    owner.create_asset("Scan", [Column("Stain")])
    return Model(None, ErmrestClient(catalog._server, catalog.catalog_id).get_json("/schema", "schema"))


def tables(model: Any) -> list[Any]:
    return [table for name in ("deriva-ml", "demo") for table in model.schemas[name].tables.values()]


@pytest.mark.filterwarnings("ignore:.*RefResolver:DeprecationWarning")
def test_annotations_are_valid(model: Any) -> None:
    """Every annotation has a known tag and a valid form, and refers to existing columns and keys."""
    count = 0
    for table in tables(model):
        for element in (table, *table.column_definitions, *table.foreign_keys):
            count += len(element.annotations)
            assert validate(element) == [], element
    assert count > 200


def test_rows_have_names(model: Any) -> None:
    """Terms, workflows, executions, datasets, versions and files have readable row names."""
    row_names = {
        table.name: table.annotations[tag.table_display]["row_name"]["row_markdown_pattern"]
        for table in tables(model)
        if tag.table_display in table.annotations
    }
    for table in ("Execution_Metadata", "Execution_Asset", "File", "Model", "Image", "Scan"):
        assert row_names[table] == "{{{Filename}}}"
    for table in ("Asset_Type", "Asset_Role", "Dataset_Type", "Workflow_Type", "Workflow"):
        assert row_names[table] == "{{{Name}}}"
    assert row_names["Execution"] == "Execution {{{RID}}}"
    assert row_names["Dataset_Version"] == "{{{Dataset}}}:{{{Version}}}"


def test_files_are_links(model: Any) -> None:
    """A file's URL is shown as a link with its name and size, and forms do not ask for its properties."""
    for table in (model.schemas["deriva-ml"].tables["Execution_Asset"], model.schemas["demo"].tables["Scan"]):
        annotation = table.column_definitions["URL"].annotations[tag.asset]
        assert (
            annotation["filename_column"],
            annotation["byte_count_column"],
            annotation["md5"],
        ) == ("Filename", "Length", "MD5")
        assert annotation["url_pattern"].startswith(f"/hatrac/{table.name}/")
        entry_columns = table.annotations[tag.visible_columns]["entry"]
        assert not {"Filename", "Length", "MD5"} & set(entry_columns)
    assert "Stain" in entry_columns


def test_file_shows_its_types(model: Any) -> None:
    """The row of a file shows its asset types."""
    columns = model.schemas["demo"].tables["Scan"].annotations[tag.visible_columns]["*"]
    (types,) = [column for column in columns if isinstance(column, dict)]
    assert types["source"] == [{"inbound": ["demo", "Scan_Asset_Type_Scan_fkey"]}, "Asset_Type"]


def test_runs_are_not_created_by_hand(model: Any) -> None:
    """The pages do not offer to create executions or to change a workflow's URL; runs have a citation."""
    tables_by_name = model.schemas["deriva-ml"].tables
    assert tag.generated in tables_by_name["Execution"].annotations
    assert tag.generated in tables_by_name["Execution_Asset_Execution"].annotations
    assert tag.generated not in tables_by_name["Workflow"].annotations
    assert tag.immutable in tables_by_name["Workflow"].column_definitions["URL"].annotations
    assert "{{{RID}}}" in tables_by_name["Execution"].annotations[tag.citation]["url_pattern"]


def test_related_table_title(model: Any) -> None:
    """On an execution's page, its files have the title of their table, not of the link table."""
    keys = model.schemas["demo"].tables["Model_Execution"].foreign_keys
    (to_execution,) = [key for key in keys if key.constraint_name == "Model_Execution_Execution_fkey"]
    assert to_execution.annotations[tag.foreign_key] == {"from_name": "Model"}


def test_schema_of_web_pages_exists(model: Any) -> None:
    """The schema WWW exists, which other clients require to open a catalog."""
    assert "WWW" in model.schemas


def test_existing_annotations_stay(catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """Adding missing tables to a catalog changes no existing annotations."""
    client = ErmrestClient(catalog._server, catalog.catalog_id)
    before = client.get_json("/schema", "schema")["schemas"]
    DerivaML.create(fake.hostname, "demo", catalog_id=catalog.catalog_id, credential=fake.credential())
    assert client.get_json("/schema", "schema")["schemas"] == before
