"""Tables as data, for every backend: columns and keys, and the shapes of vocabularies, assets and links."""

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
"""Record id, creation and modification time, and who did either: every table has them, the backend fills them."""

ASSET_COLUMNS = ("URL", "Filename", "Description", "Length", "MD5")
VOCABULARY_COLUMNS = ("ID", "URI", "Name", "Description", "Synonyms")


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Args:
        name: Its name.
        type: An ERMrest type: ``text``, ``markdown``, ``int4``, ``int8``, ``float8``, ``boolean``, ``date``,
            ``timestamptz``, ``jsonb``, ``text[]``, ``ermrest_curie``, ``ermrest_uri``.
        nullok: Whether it may be empty.
        default: The value where none is given; ``{RID}`` in it stands for the row's own id.
        comment: What it holds.
    """

    name: str
    type: str = "text"
    nullok: bool = True
    default: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A column that names a row of another table; the row goes when that one goes, where `cascade` says so."""

    column: str
    table: str
    to: str = "RID"
    cascade: bool = False


@dataclass(frozen=True)
class Table:
    """A table, without the system columns, which each has.

    Args:
        name: Its name, unique in the catalog.
        columns: Its own columns.
        keys: The sets of columns that are unique, beside RID.
        foreign_keys: The columns that name rows elsewhere.
        schema: The schema it lies in.
        comment: What it holds.
    """

    name: str
    columns: tuple[Column, ...] = ()
    keys: tuple[tuple[str, ...], ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    schema: str = ML_SCHEMA
    comment: str | None = None

    @cached_property
    def column_names(self) -> frozenset[str]:
        """The names of its own columns."""
        return frozenset(column.name for column in self.columns)

    @cached_property
    def is_vocabulary(self) -> bool:
        """Whether it holds terms."""
        return self.column_names.issuperset(VOCABULARY_COLUMNS)

    @cached_property
    def is_asset(self) -> bool:
        """Whether its rows are files."""
        return self.column_names.issuperset(ASSET_COLUMNS)

    @cached_property
    def metadata_columns(self) -> tuple[str, ...]:
        """The columns of an asset table that its user made."""
        return tuple(column.name for column in self.columns if column.name not in ASSET_COLUMNS)


@dataclass(frozen=True)
class CatalogModel:
    """All tables of a catalog by name."""

    tables: Mapping[str, Table]

    def table(self, name: str) -> Table:
        """Return the table of that name, or raise `UnknownTable` naming the known ones."""
        if name not in self.tables:
            raise UnknownTable(f"The catalog has no table {name!r}; it has {_format_names(self.tables)}.")
        return self.tables[name]

    def asset_table(self, name: str) -> Table:
        """Return the asset table of that name, or raise `UnknownTable` naming the known ones."""
        found = self.tables.get(name)
        if found is None or not found.is_asset:
            known = (table.name for table in self.tables.values() if table.is_asset)
            raise UnknownTable(
                f"The catalog has no asset table {name!r}; it has {_format_names(known)}. "
                f"Make one with ml.create_asset({name!r})."
            )
        return found

    def vocabulary(self, name: str) -> Table:
        """Return the vocabulary of that name, or raise `UnknownTable` naming the known ones."""
        found = self.tables.get(name)
        if found is None or not found.is_vocabulary:
            known = (table.name for table in self.tables.values() if table.is_vocabulary)
            raise UnknownTable(
                f"The catalog has no vocabulary {name!r}; it has {_format_names(known)}. "
                f"Make one with ml.create_vocabulary({name!r})."
            )
        return found

    @cached_property
    def element_tables(self) -> Mapping[str, str]:
        """The tables whose rows may be members of datasets (datasets too), each with the table that links them."""
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
    """A table of terms; other tables refer to a term by its Name."""
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
    """A table that links two others; a link goes when either end goes."""
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
    """The name of the table that links an asset table to its types."""
    return f"{asset}_{MLVocab.asset_type}"


def asset_execution_table_name(asset: str) -> str:
    """The name of the table that links an asset table to executions; its key has no role."""
    return f"{asset}_{MLTable.execution}"


def dataset_element_table_name(element: str) -> str:
    """The name of the table that links datasets to their members of one table."""
    return f"Dataset_{element}"


def asset_tables(
    name: str,
    *columns: Column,
    foreign_keys: tuple[ForeignKey, ...] = (),
    schema: str = DOMAIN_SCHEMA,
    comment: str = "",
) -> tuple[Table, Table, Table]:
    """An asset table with the two that link it to its types and to executions.

    Args:
        name: Its name.
        columns: Metadata columns beside those that each asset has.
        foreign_keys: Of the metadata columns.
        schema: The schema it lies in.
        comment: What it holds.
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
