"""Check that the target has all tables and columns before the first row is written, and creation of missing tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from deriva_ml_core.datasets.members import member_links
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.errors import UnknownColumn, UnknownTable
from deriva_ml_core.push.collect import PushPlan
from deriva_ml_core.push.context import PushContext
from deriva_ml_core.schema import (
    DOMAIN_SCHEMA,
    ML_SCHEMA,
    SYSTEM_COLUMNS,
    CatalogModel,
    Table,
    asset_execution_table_name,
    asset_type_table_name,
)

__all__ = ["ensure_schema"]


def ensure_schema(context: PushContext, plan: PushPlan, *, make_tables: bool) -> tuple[str, ...]:
    """Ensure that the target has the tables and columns that the rows require.

    Args:
        context: State of the push.
        plan: The rows.
        make_tables: Whether to create missing tables as they are at the source.

    Returns:
        The tables that were created.

    Raises:
        UnknownTable: Tables are missing, and `make_tables` is false.
        UnknownColumn: Columns are missing for which rows have values.
    """
    source, target = context.source, context.target
    model = target.refresh()
    if not make_tables:
        _drop_summaries(context, plan, model)
    missing = [table for table in _required_tables(source.model, plan) if table not in model.tables]
    if missing and not make_tables:
        raise UnknownTable(
            f"{target.name} has no table {', '.join(missing)}, which the copy requires. Create missing tables as in "
            f"{source.name} with make_tables=True (--make-tables on the command line), or create them yourself."
        )
    if missing:
        target.create_tables([_with_target_schema(source.model.table(name)) for name in missing])
        model = target.refresh()
    if lacking := sorted(set(_missing_columns(model, plan))):
        raise UnknownColumn(
            f"{target.name} has no column {', '.join(lacking)}, for which rows to copy have values. Add it to the "
            "target's table, and push again."
        )
    return tuple(missing)


_SUMMARY_TABLES = {
    MLTable.execution_metric: "runs cannot be sorted by metrics there",
    MLTable.execution_parameter: "runs cannot be found by parameters there",
    MLTable.execution_tag: "the tags of the runs are not copied",
}
"""Tables that a catalog of an earlier version lacks, and the consequence: a copy is complete enough without them."""


def _drop_summaries(context: PushContext, plan: PushPlan, model: CatalogModel) -> None:
    """Leave out metrics, parameters and tags if the target has no table for them."""
    for table, consequence in _SUMMARY_TABLES.items():
        if table not in model.tables and plan.rows.pop(table, {}):
            context.notes[f"{context.target.name} has no table {table}, so {consequence}."] = None


def _required_tables(model: CatalogModel, plan: PushPlan) -> list[str]:
    """Return the tables of the rows, of their links, and of the terms that they refer to."""
    required: dict[str, None] = {
        vocabulary: None for vocabulary, by_column in plan.terms.items() if any(by_column.values())
    }
    if any({row["Execution"], row["Nested_Execution"]} <= plan.executions.keys() for row in plan.nested_executions):
        required[MLTable.nested_execution] = None
    if plan.datasets:
        required |= dict.fromkeys((MLTable.dataset, MLTable.dataset_version, MLTable.dataset_dataset_type))
    if plan.input_datasets:
        required[MLTable.dataset_execution] = None
    for rows in plan.all_rows():
        for table, table_rows in rows.items():
            if table_rows:
                required[table] = None
                if model.table(table).is_asset:
                    required |= dict.fromkeys((asset_type_table_name(table), asset_execution_table_name(table)))
    for contents in plan.versions.values():
        for members in contents.members.values():
            required |= dict.fromkeys(member_links(model)[table].table for table, rids in members.items() if rids)
    return [*required, *(table for table in _referenced_tables(model, required) if table not in required)]


def _referenced_tables(model: CatalogModel, tables: dict[str, None]) -> Iterator[str]:
    """Yield the tables that these tables refer to, directly and indirectly."""
    seen, waiting = set(tables), list(tables)
    while waiting:
        for key in model.table(waiting.pop()).foreign_keys:
            if key.table not in seen:
                seen.add(key.table)
                waiting.append(key.table)
                yield key.table


def _with_target_schema(table: Table) -> Table:
    """Return a table with the schema that the target uses for the project's tables."""
    return table if table.schema == ML_SCHEMA else replace(table, schema=DOMAIN_SCHEMA)


def _missing_columns(model: CatalogModel, plan: PushPlan) -> Iterator[str]:
    for rows in plan.all_rows():
        for table, table_rows in rows.items():
            if not table_rows:
                continue
            used = {column for row in table_rows.values() for column, value in row.items() if value is not None}
            target_columns = model.table(table).column_names
            yield from (f"{table}.{column}" for column in used - target_columns - {*SYSTEM_COLUMNS})
