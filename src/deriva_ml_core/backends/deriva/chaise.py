"""Annotations for Chaise, the web interface of a Deriva server: row names, visible columns and their order, file links.

Tags and their contents follow ``deriva.core.annotation`` of the client library; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deriva_ml_core.definitions import MLTable, MLVocab
from deriva_ml_core.schema import Column, ForeignKey, Table, asset_type_table_name

__all__ = [
    "UNDERSCORES_AS_SPACES",
    "column_annotations",
    "foreign_key_annotations",
    "foreign_key_name",
    "table_annotations",
    "title_annotation",
]

Annotations = dict[str, Any]

ASSET_TAG = "tag:isrd.isi.edu,2017:asset"
CITATION_TAG = "tag:isrd.isi.edu,2018:citation"
DISPLAY_TAG = "tag:misd.isi.edu,2015:display"
FOREIGN_KEY_TAG = "tag:isrd.isi.edu,2016:foreign-key"
GENERATED_TAG = "tag:isrd.isi.edu,2016:generated"
IMMUTABLE_TAG = "tag:isrd.isi.edu,2016:immutable"
"""Tags without content: their presence is what counts."""

TABLE_DISPLAY_TAG = "tag:isrd.isi.edu,2016:table-display"
VISIBLE_COLUMNS_TAG = "tag:isrd.isi.edu,2016:visible-columns"

UNDERSCORES_AS_SPACES: Mapping[str, Any] = {DISPLAY_TAG: {"name_style": {"underline_space": True}}}

ROW_NAME_PATTERNS: Mapping[str, str] = {
    MLTable.workflow: "{{{Name}}}",
    MLTable.execution: "Execution {{{RID}}}",
    MLTable.execution_metric: "{{{Name}}} ({{{Stage}}})",
    MLTable.execution_parameter: "{{{Name}}}",
    MLTable.execution_tag: "{{{Tag}}}",
    MLTable.dataset: "Dataset {{{RID}}}",
    MLTable.dataset_version: "{{{Dataset}}}:{{{Version}}}",
}

DISPLAYED_COLUMNS: Mapping[str, tuple[str, ...]] = {
    MLTable.workflow: ("Name", "Workflow_Type", "Description", "URL", "Version", "Checksum"),
    MLTable.execution: ("Workflow", "Description", "Status", "Status_Detail", "Duration"),
    MLTable.execution_metric: ("Execution", "Stage", "Name", "Last", "Best", "Best_At"),
    MLTable.execution_parameter: ("Execution", "Name", "Value"),
    MLTable.execution_tag: ("Execution", "Tag"),
    MLTable.dataset: ("Description", "Version", "Deleted"),
    MLTable.dataset_version: ("Dataset", "Version", "Description", "Execution", "Snapshot", "Minid"),
}
"""The columns of a row that Chaise shows, in this order, between the RID and the creation time and creator."""

CITABLE_TABLES = (MLTable.execution, MLTable.dataset)

GENERATED_TABLES = (
    MLTable.execution,
    MLTable.execution_metric,
    MLTable.execution_parameter,
    MLTable.dataset_version,
)
"""Tables whose rows are not created by hand."""

IMMUTABLE_COLUMNS = frozenset({(MLTable.workflow, column) for column in ("URL", "Checksum", "Version")})
"""Columns that do not change after they are written."""


def foreign_key_name(table: Table, column: str) -> list[str]:
    """Return the schema and name of a column's foreign key."""
    return [table.schema, f"{table.name}_{column}_fkey"]


def title_annotation(title: str) -> Annotations:
    """Return the annotation that gives a column a title other than its name."""
    return {DISPLAY_TAG: {"name": title}}


def table_annotations(table: Table, new_tables: Mapping[str, Table]) -> Annotations:
    """Return the annotations of a table.

    Args:
        table: The table.
        new_tables: All tables that the same request creates, by name; link tables are identified by their names.
    """
    if table.is_vocabulary:
        return _display_annotations("{{{Name}}}", "Name", _visible_vocabulary_columns())
    if table.is_asset:
        return _display_annotations(
            "{{{Filename}}}", "RCT", _visible_asset_columns(table, new_tables)
        ) | _citation_annotation(table, "{{{Filename}}}")
    if (columns := DISPLAYED_COLUMNS.get(table.name)) is not None:
        visible = {
            "*": _with_system_columns(table, [*columns], _dataset_type_columns(table, new_tables)),
            "entry": _entry_columns(table, columns),
        }
        generated: Annotations = {GENERATED_TAG: {}} if table.name in GENERATED_TABLES else {}
        citation = _citation_annotation(table, "{{{Description}}}") if table.name in CITABLE_TABLES else {}
        return _display_annotations(ROW_NAME_PATTERNS[table.name], "RCT", visible) | generated | citation
    if _is_association_table(table):
        of_execution: Annotations = {GENERATED_TAG: {}} if "Execution" in table.column_names else {}
        return {
            VISIBLE_COLUMNS_TAG: {"*": [*(_column_directive(table, column.name) for column in table.columns), "RCT"]}
        } | of_execution
    return {}


def column_annotations(table: Table, column: Column) -> Annotations:
    """Return the annotations of a column."""
    if table.is_asset and column.name == "URL":
        path = f"/hatrac/{table.name}/{{{{{{MD5}}}}}}.{{{{#encode}}}}{{{{{{Filename}}}}}}{{{{/encode}}}}"
        columns = {"filename_column": "Filename", "byte_count_column": "Length", "md5": "MD5"}
        return {ASSET_TAG: {**columns, "url_pattern": path}}
    if table.is_asset and column.name in ("Filename", "Length", "MD5"):
        return {GENERATED_TAG: {}}
    if table.is_vocabulary and column.name in ("ID", "URI"):
        return {GENERATED_TAG: {}}
    return {IMMUTABLE_TAG: {}} if (table.name, column.name) in IMMUTABLE_COLUMNS else {}


def foreign_key_annotations(table: Table, key: ForeignKey) -> Annotations:
    """Return the annotations of a foreign key: the referenced row's page titles its links by the table at their end."""
    others = [other.table for other in table.foreign_keys[:2] if other.column != key.column]
    if not _is_association_table(table) or len(others) != 1 or key.column not in _association_columns(table):
        return {}
    return {FOREIGN_KEY_TAG: {"from_name": others[0].replace("_", " ")}}


def _display_annotations(row_name: str, order: str, visible: Annotations) -> Annotations:
    ordered = {"row_order": [{"column": order, "descending": order == "RCT"}]}
    return {
        TABLE_DISPLAY_TAG: {"row_name": {"row_markdown_pattern": row_name}, "*": ordered},
        VISIBLE_COLUMNS_TAG: visible,
    }


def _visible_vocabulary_columns() -> Annotations:
    columns = ["Name", "Description", "Synonyms"]
    return {"*": columns, "detailed": [*columns, "ID", "URI", "RID", "RCT"], "entry": columns}


def _visible_asset_columns(table: Table, new_tables: Mapping[str, Table]) -> Annotations:
    type_table = asset_type_table_name(table.name)
    type_columns = (
        [_term_list_column("Asset Types", new_tables[type_table], table.name, MLVocab.asset_type)]
        if type_table in new_tables
        else []
    )
    columns = ["URL", "Description", *table.metadata_columns]
    return {
        "*": _with_system_columns(table, [*columns, "Length"], type_columns),
        "detailed": _with_system_columns(table, [*columns, "Filename", "Length", "MD5"], type_columns),
        "entry": _entry_columns(table, columns),
    }


def _dataset_type_columns(table: Table, new_tables: Mapping[str, Table]) -> list[Annotations]:
    if table.name != MLTable.dataset or MLTable.dataset_dataset_type not in new_tables:
        return []
    return [
        _term_list_column("Dataset Types", new_tables[MLTable.dataset_dataset_type], "Dataset", MLVocab.dataset_type)
    ]


def _with_system_columns(table: Table, columns: list[str], extra_columns: list[Annotations]) -> list[Any]:
    """Return columns between the RID and the creation time and creator."""
    present = [column for column in columns if column in table.column_names]
    return [
        "RID",
        *(_column_directive(table, column) for column in present),
        *extra_columns,
        "RCT",
        foreign_key_name(table, "RCB"),
    ]


def _entry_columns(table: Table, columns: tuple[str, ...] | list[str]) -> list[Any]:
    return [_column_directive(table, column) for column in columns if column in table.column_names]


def _column_directive(table: Table, column: str) -> Any:
    """Return a column's name, or its foreign key if it has one, so that Chaise shows the referenced row's name."""
    if any(key.column == column for key in table.foreign_keys):
        return foreign_key_name(table, column)
    if column == "URL" and not table.is_asset:
        return {"source": "URL", "display": {"markdown_pattern": "[{{{URL}}}]({{{URL}}})"}}
    return column


def _term_list_column(title: str, association: Table, target: str, column: str) -> Annotations:
    """Return a column that lists the terms linked to a row."""
    return {
        "source": [{"inbound": foreign_key_name(association, target)}, column],
        "aggregate": "array_d",
        "array_options": {"max_length": 20},
        "markdown_name": title,
    }


def _citation_annotation(table: Table, title: str) -> Annotations:
    patterns = {
        "journal_pattern": "{{{$location.host}}}, catalog {{{$catalog.id}}}",
        "author_pattern": f"{{{{{{$fkeys.{table.schema}.{table.name}_RCB_fkey.values.Full_Name}}}}}}",
        "title_pattern": title,
        "year_pattern": '{{formatDate RCT "YYYY"}}',
        "url_pattern": "https://{{{$location.host}}}/id/{{{$catalog.id}}}/{{{RID}}}",
        "id_pattern": "{{{RID}}}",
        "template_engine": "handlebars",
    }
    return {CITATION_TAG: patterns}


def _is_association_table(table: Table) -> bool:
    """Whether a table only links other tables."""
    return len(table.foreign_keys) > 1 and set(_association_columns(table)) <= {
        column for key in table.keys for column in key
    }


def _association_columns(table: Table) -> tuple[str, ...]:
    return tuple(key.column for key in table.foreign_keys[:2])
