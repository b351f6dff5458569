"""What Chaise, a Deriva server's web pages, is told of tables: names of rows, columns and their order, links to files.

The tags, and what each may hold, are those of the client library's ``deriva.core.annotation``, which tests ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deriva_ml_core.definitions import MLTable, MLVocab
from deriva_ml_core.schema import Column, ForeignKey, Table, asset_type_table

__all__ = ["UNDERLINES_AS_SPACES", "column_annotations", "key_annotations", "key_name", "table_annotations", "titled"]

Annotations = dict[str, Any]

ASSET = "tag:isrd.isi.edu,2017:asset"
CITATION = "tag:isrd.isi.edu,2018:citation"
DISPLAY = "tag:misd.isi.edu,2015:display"
FOREIGN_KEY = "tag:isrd.isi.edu,2016:foreign-key"
GENERATED = "tag:isrd.isi.edu,2016:generated"
IMMUTABLE = "tag:isrd.isi.edu,2016:immutable"
"""These two say all by being there."""

TABLE_DISPLAY = "tag:isrd.isi.edu,2016:table-display"
VISIBLE_COLUMNS = "tag:isrd.isi.edu,2016:visible-columns"

UNDERLINES_AS_SPACES: Mapping[str, Any] = {DISPLAY: {"name_style": {"underline_space": True}}}

ROW_NAMES: Mapping[str, str] = {
    MLTable.workflow: "{{{Name}}}",
    MLTable.execution: "Execution {{{RID}}}",
    MLTable.execution_metric: "{{{Name}}} ({{{Stage}}})",
    MLTable.dataset: "Dataset {{{RID}}}",
    MLTable.dataset_version: "{{{Dataset}}}:{{{Version}}}",
}

COLUMNS: Mapping[str, tuple[str, ...]] = {
    MLTable.workflow: ("Name", "Workflow_Type", "Description", "URL", "Version", "Checksum"),
    MLTable.execution: ("Workflow", "Description", "Status", "Status_Detail", "Duration"),
    MLTable.execution_metric: ("Execution", "Stage", "Name", "Last", "Best", "Best_At"),
    MLTable.dataset: ("Description", "Version", "Deleted"),
    MLTable.dataset_version: ("Dataset", "Version", "Description", "Execution", "Snapshot", "Minid"),
}
"""What is shown of a row, in this order, between its RID and who made it when."""

CITED = (MLTable.execution, MLTable.dataset)

MADE_BY_RUNS = (MLTable.execution, MLTable.execution_metric, MLTable.dataset_version)
"""Tables in which nobody makes rows by hand."""

SAYS_WHAT_RAN = frozenset({(MLTable.workflow, column) for column in ("URL", "Checksum", "Version")})
"""Columns that do not change once they are written."""


def key_name(table: Table, column: str) -> list[str]:
    """What the foreign key of a column is called: its schema, and its name there."""
    return [table.schema, f"{table.name}_{column}_fkey"]


def titled(title: str) -> Annotations:
    """What gives a column another title than its name."""
    return {DISPLAY: {"name": title}}


def table_annotations(table: Table, new: Mapping[str, Table]) -> Annotations:
    """What a table is annotated with.

    Args:
        table: The table.
        new: All tables that are made with it, by name: links between them are known by their names.
    """
    if table.is_vocabulary:
        return _shown("{{{Name}}}", "Name", _of_vocabulary())
    if table.is_asset:
        return _shown("{{{Filename}}}", "RCT", _of_asset(table, new)) | _citation(table, "{{{Filename}}}")
    if (columns := COLUMNS.get(table.name)) is not None:
        visible = {"*": _framed(table, [*columns], _dataset_types(table, new)), "entry": _entered(table, columns)}
        made: Annotations = {GENERATED: {}} if table.name in MADE_BY_RUNS else {}
        cited = _citation(table, "{{{Description}}}") if table.name in CITED else {}
        return _shown(ROW_NAMES[table.name], "RCT", visible) | made | cited
    if _links(table):
        run: Annotations = {GENERATED: {}} if "Execution" in table.column_names else {}
        return {VISIBLE_COLUMNS: {"*": [*(_shown_as(table, column.name) for column in table.columns), "RCT"]}} | run
    return {}


def column_annotations(table: Table, column: Column) -> Annotations:
    """What a column is annotated with."""
    if table.is_asset and column.name == "URL":
        path = f"/hatrac/{table.name}/{{{{{{MD5}}}}}}.{{{{#encode}}}}{{{{{{Filename}}}}}}{{{{/encode}}}}"
        named = {"filename_column": "Filename", "byte_count_column": "Length", "md5": "MD5"}
        return {ASSET: {**named, "url_pattern": path}}
    if table.is_asset and column.name in ("Filename", "Length", "MD5"):
        return {GENERATED: {}}
    if table.is_vocabulary and column.name in ("ID", "URI"):
        return {GENERATED: {}}
    return {IMMUTABLE: {}} if (table.name, column.name) in SAYS_WHAT_RAN else {}


def key_annotations(table: Table, key: ForeignKey) -> Annotations:
    """What a foreign key is annotated with: on the page of the row that it names, links go by the name of their end."""
    others = [other.table for other in table.foreign_keys[:2] if other.column != key.column]
    if not _links(table) or len(others) != 1 or key.column not in _ends(table):
        return {}
    return {FOREIGN_KEY: {"from_name": others[0].replace("_", " ")}}


def _shown(row_name: str, order: str, visible: Annotations) -> Annotations:
    ordered = {"row_order": [{"column": order, "descending": order == "RCT"}]}
    return {
        TABLE_DISPLAY: {"row_name": {"row_markdown_pattern": row_name}, "*": ordered},
        VISIBLE_COLUMNS: visible,
    }


def _of_vocabulary() -> Annotations:
    words = ["Name", "Description", "Synonyms"]
    return {"*": words, "detailed": [*words, "ID", "URI", "RID", "RCT"], "entry": words}


def _of_asset(table: Table, new: Mapping[str, Table]) -> Annotations:
    types = asset_type_table(table.name)
    listed = [_listed("Asset Types", new[types], table.name, MLVocab.asset_type)] if types in new else []
    own = ["URL", "Description", *table.metadata_columns]
    return {
        "*": _framed(table, [*own, "Length"], listed),
        "detailed": _framed(table, [*own, "Filename", "Length", "MD5"], listed),
        "entry": _entered(table, own),
    }


def _dataset_types(table: Table, new: Mapping[str, Table]) -> list[Annotations]:
    if table.name != MLTable.dataset or MLTable.dataset_dataset_type not in new:
        return []
    return [_listed("Dataset Types", new[MLTable.dataset_dataset_type], "Dataset", MLVocab.dataset_type)]


def _framed(table: Table, columns: list[str], more: list[Annotations]) -> list[Any]:
    """Columns between the record id and who made the row when."""
    there = [column for column in columns if column in table.column_names]
    return ["RID", *(_shown_as(table, column) for column in there), *more, "RCT", key_name(table, "RCB")]


def _entered(table: Table, columns: tuple[str, ...] | list[str]) -> list[Any]:
    return [_shown_as(table, column) for column in columns if column in table.column_names]


def _shown_as(table: Table, column: str) -> Any:
    """A column by its name; one that names a row elsewhere by the foreign key, so that the row's own name is shown."""
    if any(key.column == column for key in table.foreign_keys):
        return key_name(table, column)
    if column == "URL" and not table.is_asset:
        return {"source": "URL", "display": {"markdown_pattern": "[{{{URL}}}]({{{URL}}})"}}
    return column


def _listed(title: str, links: Table, to: str, column: str) -> Annotations:
    """The terms that a table of links gives a row."""
    return {
        "source": [{"inbound": key_name(links, to)}, column],
        "aggregate": "array_d",
        "array_options": {"max_length": 20},
        "markdown_name": title,
    }


def _citation(table: Table, title: str) -> Annotations:
    words = {
        "journal_pattern": "{{{$location.host}}}, catalog {{{$catalog.id}}}",
        "author_pattern": f"{{{{{{$fkeys.{table.schema}.{table.name}_RCB_fkey.values.Full_Name}}}}}}",
        "title_pattern": title,
        "year_pattern": '{{formatDate RCT "YYYY"}}',
        "url_pattern": "https://{{{$location.host}}}/id/{{{$catalog.id}}}/{{{RID}}}",
        "id_pattern": "{{{RID}}}",
        "template_engine": "handlebars",
    }
    return {CITATION: words}


def _links(table: Table) -> bool:
    """Whether a table only links others."""
    return len(table.foreign_keys) > 1 and set(_ends(table)) <= {column for key in table.keys for column in key}


def _ends(table: Table) -> tuple[str, ...]:
    return tuple(key.column for key in table.foreign_keys[:2])
