"""Whether the target has a place for every row, before the first is written; and places made, where that is asked."""

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
    """See to it that the target has the tables and columns that the rows need.

    Args:
        context: From where, and where to.
        plan: The rows.
        make_tables: Whether tables that lack are made as they are at the source.

    Returns:
        The tables that were made.

    Raises:
        UnknownTable: Tables lack, and are not to be made; all are named.
        UnknownColumn: Columns lack, of which rows have values; all are named.
    """
    source, target = context.source, context.target
    model = target.refresh()
    if MLTable.execution_metric not in model.tables and not make_tables:
        _drop_metrics(context, plan)
    missing = [table for table in _required_tables(source.model, plan) if table not in model.tables]
    if missing and not make_tables:
        raise UnknownTable(
            f"{target.name} has no table {', '.join(missing)}, which the copy needs. Make what lacks as it is in "
            f"{source.name} with make_tables=True (deriva-ml push --make-tables), or make it there in your own way."
        )
    if missing:
        target.create_tables([_with_target_schema(source.model.table(name)) for name in missing])
        model = target.refresh()
    if lacking := sorted(set(_missing_columns(model, plan))):
        raise UnknownColumn(
            f"{target.name} has no column {', '.join(lacking)}, of which rows that are to be copied have values. "
            "Add it to the table there, and push again."
        )
    return tuple(missing)


def _drop_metrics(context: PushContext, plan: PushPlan) -> None:
    """Do without the metrics' own table, by which runs are ordered: the journal and the files have them too."""
    if plan.rows.pop(MLTable.execution_metric, None):
        context.notes[
            f"{context.target.name} has no table {MLTable.execution_metric}, so that runs cannot be ordered by their "
            "metrics there."
        ] = None


def _required_tables(model: CatalogModel, plan: PushPlan) -> list[str]:
    """The tables that rows lie in, that link them, and that hold the terms they name."""
    found: dict[str, None] = {vocabulary: None for vocabulary, named in plan.terms.items() if any(named.values())}
    if any({row["Execution"], row["Nested_Execution"]} <= plan.executions.keys() for row in plan.nested_executions):
        found[MLTable.nested_execution] = None
    if plan.datasets:
        found |= dict.fromkeys((MLTable.dataset, MLTable.dataset_version, MLTable.dataset_dataset_type))
    if plan.input_datasets:
        found[MLTable.dataset_execution] = None
    for rows in plan.all_rows():
        for table, of_table in rows.items():
            if of_table:
                found[table] = None
                if model.table(table).is_asset:
                    found |= dict.fromkeys((asset_type_table_name(table), asset_execution_table_name(table)))
    for contents in plan.versions.values():
        for members in contents.members.values():
            found |= dict.fromkeys(member_links(model)[table].table for table, rids in members.items() if rids)
    return [*found, *(table for table in _referenced_tables(model, found) if table not in found)]


def _referenced_tables(model: CatalogModel, tables: dict[str, None]) -> Iterator[str]:
    """What these tables refer to, without which they cannot be made."""
    seen, waiting = set(tables), list(tables)
    while waiting:
        for key in model.table(waiting.pop()).foreign_keys:
            if key.table not in seen:
                seen.add(key.table)
                waiting.append(key.table)
                yield key.table


def _with_target_schema(table: Table) -> Table:
    """A table of the project's, for the schema that the target has for those."""
    return table if table.schema == ML_SCHEMA else replace(table, schema=DOMAIN_SCHEMA)


def _missing_columns(model: CatalogModel, plan: PushPlan) -> Iterator[str]:
    for rows in plan.all_rows():
        for table, of_table in rows.items():
            if not of_table:
                continue
            given = {column for row in of_table.values() for column, value in row.items() if value is not None}
            takes = model.table(table).column_names
            yield from (f"{table}.{column}" for column in given - takes - {*SYSTEM_COLUMNS})
