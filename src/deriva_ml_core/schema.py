"""Tables as data, for every backend: columns, keys, vocabularies, asset tables and association tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from deriva_ml_core._deprecation import deprecated_keywords, deprecated_names
from deriva_ml_core.definitions import MLTable, MLVocab
from deriva_ml_core.errors import UnknownTable

__all__ = [
    "ASSET_COLUMNS",
    "DOMAIN_SCHEMA",
    "ML_SCHEMA",
    "SYSTEM_COLUMNS",
    "CatalogModel",
    "Column",
    "ForeignKey",
    "Table",
    "asset_tables",
    "asset_type_table_name",
    "association_table",
    "dataset_element_table_name",
    "asset_execution_table_name",
    "vocabulary_table",
]

ML_SCHEMA = "deriva-ml"
DOMAIN_SCHEMA = "domain"

SYSTEM_COLUMNS = ("RID", "RCT", "RMT", "RCB", "RMB")
"""Columns of every table, which the backend sets.

They are the RID, the times of creation and last modification, and the users who created and last modified the row.
"""

ASSET_COLUMNS = ("URL", "Filename", "Description", "Length", "MD5")
VOCABULARY_COLUMNS = ("ID", "URI", "Name", "Description", "Synonyms")


@dataclass(frozen=True, slots=True)
class Column:
    """Column of a table.

    Args:
        name: Name of the column.
        type: An ERMrest type: ``text``, ``markdown``, ``int4``, ``int8``, ``float8``, ``boolean``, ``date``,
            ``timestamptz``, ``jsonb``, ``text[]``, ``ermrest_curie``, ``ermrest_uri``.
        nullok: Whether the column can be empty.
        default: Default value. ``{RID}`` in it is replaced by the row's RID.
        comment: Description of the column.
    """

    name: str
    type: str = "text"
    nullok: bool = True
    default: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """Reference from a column to another table.

    Args:
        column: The column that refers to the other table.
        table: Name of the other table.
        to: Key column of the other table.
        cascade: Whether a row is deleted together with the row that it refers to.
    """

    column: str
    table: str
    to: str = "RID"
    cascade: bool = False


@dataclass(frozen=True)
class Table:
    """Table of a catalog, without the system columns.

    Args:
        name: Name of the table, unique in the catalog.
        columns: Columns, without the system columns.
        keys: Sets of unique columns, in addition to ``RID``.
        foreign_keys: References to other tables.
        schema: Schema of the table.
        comment: Description of the table.
    """

    name: str
    columns: tuple[Column, ...] = ()
    keys: tuple[tuple[str, ...], ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    schema: str = ML_SCHEMA
    comment: str | None = None

    @cached_property
    def column_names(self) -> frozenset[str]:
        """Names of the columns, without the system columns."""
        return frozenset(column.name for column in self.columns)

    @cached_property
    def is_vocabulary(self) -> bool:
        """Whether the table is a vocabulary."""
        return self.column_names.issuperset(VOCABULARY_COLUMNS)

    @cached_property
    def is_asset(self) -> bool:
        """Whether the table is an asset table, with one row per file."""
        return self.column_names.issuperset(ASSET_COLUMNS)

    @cached_property
    def metadata_columns(self) -> tuple[str, ...]:
        """Columns of an asset table that are not standard columns."""
        return tuple(column.name for column in self.columns if column.name not in ASSET_COLUMNS)


@dataclass(frozen=True)
class CatalogModel:
    """All tables of a catalog.

    Args:
        tables: The tables by name.
    """

    tables: Mapping[str, Table]

    def table(self, name: str) -> Table:
        """Return a table, or raise `UnknownTable` with the names of the existing tables."""
        if name not in self.tables:
            raise UnknownTable(f"The catalog has no table {str(name)!r}; it has {_format_names(self.tables)}.")
        return self.tables[name]

    def asset_table(self, name: str) -> Table:
        """Return an asset table, or raise `UnknownTable` with the names of the existing asset tables."""
        table = self.tables.get(name)
        if table is None or not table.is_asset:
            existing = (other.name for other in self.tables.values() if other.is_asset)
            raise UnknownTable(
                f"The catalog has no asset table {str(name)!r}; it has {_format_names(existing)}. "
                f"Create it with ml.create_asset({str(name)!r})."
            )
        return table

    def vocabulary(self, name: str) -> Table:
        """Return a vocabulary, or raise `UnknownTable` with the names of the existing vocabularies."""
        table = self.tables.get(name)
        if table is None or not table.is_vocabulary:
            existing = (other.name for other in self.tables.values() if other.is_vocabulary)
            raise UnknownTable(
                f"The catalog has no vocabulary {str(name)!r}; it has {_format_names(existing)}. "
                f"Create it with ml.create_vocabulary({str(name)!r})."
            )
        return table

    @cached_property
    def element_tables(self) -> Mapping[str, str]:
        """Tables whose rows can be members of datasets, with the association table of each. Includes Dataset."""
        links = {}
        for table in self.tables.values():
            targets = [key.table for key in table.foreign_keys]
            if (
                len(targets) == 2
                and table.name == dataset_element_table_name(targets[1])
                and targets[1] not in _NON_ELEMENT_TABLES
            ):
                links[targets[1]] = table.name
        return links


_NON_ELEMENT_TABLES = frozenset({MLTable.execution.value, MLVocab.dataset_type.value})


def _format_names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def vocabulary_table(name: str, *, schema: str = ML_SCHEMA, curie_prefix: str = ML_SCHEMA, comment: str = "") -> Table:
    """Return a vocabulary. Other tables refer to a term by its Name.

    Args:
        name: Name of the table.
        schema: Schema of the table.
        curie_prefix: Prefix of the terms' IDs.
        comment: Description of the table.
    """
    return Table(
        name=name,
        columns=(
            Column("ID", "ermrest_curie", nullok=False, default=f"{curie_prefix}:{{RID}}"),
            Column("URI", "ermrest_uri", nullok=False, default="/id/{RID}"),
            Column("Name", nullok=False),
            Column("Description", "markdown", nullok=False),
            Column("Synonyms", "text[]"),
        ),
        keys=(("ID",), ("URI",), ("Name",)),
        schema=schema,
        comment=comment or None,
    )


@deprecated_keywords({"further": "extra_foreign_keys"})
def association_table(
    name: str,
    first: ForeignKey,
    second: ForeignKey,
    *columns: Column,
    schema: str = ML_SCHEMA,
    key: tuple[str, ...] | None = None,
    extra_foreign_keys: tuple[ForeignKey, ...] = (),
) -> Table:
    """Return a table that associates rows of two tables. Its rows are deleted together with either of them.

    Args:
        name: Name of the table.
        first: Foreign key to the first table.
        second: Foreign key to the second table.
        *columns: Further columns.
        schema: Schema of the table.
        key: Unique columns. By default the two foreign keys.
        extra_foreign_keys: Foreign keys of the further columns.
    """
    return Table(
        name=name,
        columns=(Column(first.column, nullok=False), Column(second.column, nullok=False), *columns),
        keys=(key or (first.column, second.column),),
        foreign_keys=(_with_cascade(first), _with_cascade(second), *extra_foreign_keys),
        schema=schema,
    )


def _with_cascade(key: ForeignKey) -> ForeignKey:
    return ForeignKey(key.column, key.table, key.to, cascade=True)


def asset_type_table_name(asset: str) -> str:
    """Return the name of the table that associates assets with asset types."""
    return f"{asset}_{MLVocab.asset_type}"


def asset_execution_table_name(asset: str) -> str:
    """Return the name of the table that associates assets with executions. Its key does not include the role."""
    return f"{asset}_{MLTable.execution}"


def dataset_element_table_name(element: str) -> str:
    """Return the name of the table that associates datasets with members of one table."""
    return f"Dataset_{element}"


def asset_tables(
    name: str,
    *columns: Column,
    foreign_keys: tuple[ForeignKey, ...] = (),
    schema: str = DOMAIN_SCHEMA,
    comment: str = "",
) -> tuple[Table, Table, Table]:
    """Return an asset table, and its associations with asset types and executions.

    Args:
        name: Name of the asset table.
        *columns: Metadata columns, in addition to the standard columns of assets.
        foreign_keys: Foreign keys of the metadata columns.
        schema: Schema of the tables.
        comment: Description of the asset table.
    """
    table = Table(
        name=name,
        columns=(
            Column("URL", "ermrest_uri", nullok=False),
            Column("Filename"),
            Column("Description", "markdown"),
            Column("Length", "int8", nullok=False),
            Column("MD5", nullok=False),
            *columns,
        ),
        keys=(("URL",),),
        foreign_keys=foreign_keys,
        schema=schema,
        comment=comment or None,
    )
    types = association_table(
        asset_type_table_name(name),
        ForeignKey(name, name),
        ForeignKey("Asset_Type", MLVocab.asset_type, "Name"),
        schema=schema,
    )
    executions = association_table(
        asset_execution_table_name(name),
        ForeignKey(name, name),
        ForeignKey("Execution", MLTable.execution),
        Column("Asset_Role", nullok=False),
        schema=schema,
        extra_foreign_keys=(ForeignKey("Asset_Role", MLVocab.asset_role, "Name"),),
    )
    return table, types, executions


__getattr__ = deprecated_names(
    __name__,
    {
        "asset_type_table": "asset_type_table_name",
        "execution_table": "asset_execution_table_name",
        "dataset_table": "dataset_element_table_name",
        "association": "association_table",
    },
)
