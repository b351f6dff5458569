"""Bags: one version of a dataset with its rows and files, in a folder that can be read without a catalog."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deriva_ml_core._files.locks import SharedLock
from deriva_ml_core._lazy import require_extra
from deriva_ml_core._views import Grid, Presentable, View
from deriva_ml_core.backend import Row
from deriva_ml_core.datasets.bag_build import SCHEMA_FILE, asset_path, table_path
from deriva_ml_core.datasets.bag_tables import read_table
from deriva_ml_core.definitions import RID, MLTable
from deriva_ml_core.errors import ChecksumMismatch, InvalidBag, UnknownTable, UnknownVersion
from deriva_ml_core.paths import to_absolute_path

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

__all__ = ["DatasetBag", "iterate_assets"]

MAX_LISTED_FILES = 5
"""Number of wrong files that an error names."""


class DatasetBag(Presentable):
    """A version of a dataset as a BDBag on this machine.

    A bag can be opened from its folder alone, copied, pickled, and read in any process.

    Args:
        path: The bag's folder.
        dataset_rid: One of the datasets in the bag; None for the outermost one.

    Raises:
        InvalidBag: The folder is not a dataset's bag, or the bag does not contain the dataset.
    """

    _lock: SharedLock | None = None
    """Lock that keeps a bag of the cache from being deleted while the object exists."""

    def __init__(self, path: Path | str, dataset_rid: RID | None = None) -> None:
        self._path = to_absolute_path(path)
        try:
            self._schema: dict[str, Any] = json.loads((self._path / SCHEMA_FILE).read_text(encoding="utf-8"))
            self._rid: RID = dataset_rid or self._schema["dataset"]["RID"]
        except (OSError, ValueError, KeyError) as error:
            raise InvalidBag(f"{path} is not a dataset's bag: {error}.") from error
        self._rows = {
            table: {row[column]: row for row in self.iterate_table(table)}
            for table, column in ((MLTable.dataset, "RID"), (MLTable.dataset_version, "Dataset"))
        }
        if self._rid not in self._rows[MLTable.dataset]:
            raise InvalidBag(f"The bag {path} does not contain dataset {self._rid}.")

    def __getstate__(self) -> dict[str, Any]:
        # a process that unpickles it has not locked the files
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __repr__(self) -> str:
        return f"<DatasetBag {self.dataset_rid} {self.version} in {self.path}>"

    def _view(self) -> View:
        fields = [("folder", str(self._path)), ("tables", ", ".join(self.list_tables()))]
        title = f"Bag of dataset {self._rid}, version {self.version}"
        return View(title, [self.description, Grid(fields)], note=", ".join(self.dataset_types))

    @property
    def path(self) -> Path:
        """The bag's folder."""
        return self._path

    @property
    def dataset_rid(self) -> RID:
        """The dataset's record identifier (RID)."""
        return self._rid

    @property
    def version(self) -> str:
        """The dataset's version."""
        if self._rid not in self._rows[MLTable.dataset_version]:
            raise UnknownVersion(f"Dataset {self._rid} had no version when the bag {self._path} was created.")
        return str(self._rows[MLTable.dataset_version][self._rid]["Version"])

    @property
    def description(self) -> str:
        """The dataset's description."""
        return self._rows[MLTable.dataset][self._rid]["Description"] or ""

    @property
    def dataset_types(self) -> tuple[str, ...]:
        """Terms of the vocabulary Dataset_Type."""
        links = self.iterate_table(MLTable.dataset_dataset_type)
        return tuple(sorted(link["Dataset_Type"] for link in links if link["Dataset"] == self._rid))

    def list_tables(self) -> list[str]:
        """Return the names of the bag's tables in alphabetical order.

        Returns:
            The table names.
        """
        return sorted(self._schema["tables"])

    def list_dataset_members(self, recurse: bool = False) -> dict[str, list[Row]]:
        """Return the complete rows of the members, by element table.

        An asset's ``Filename`` is the local path of its file if the file is in the bag, else its name.
        ``Original_Filename`` is always its name.

        Args:
            recurse: Whether to include the members of nested datasets, each once.

        Returns:
            The rows in the order in which they were added. A table without members has an empty list.
        """
        datasets = {self._rid, *(self._descendants() if recurse else ())}
        return {element: self._member_rows(element, datasets) for element in self._schema["elements"]}

    def list_dataset_children(self, recurse: bool = False) -> list[DatasetBag]:
        """Return the datasets that are members of this one, read from the same folder.

        Args:
            recurse: Whether to include their nested datasets at any depth, the nearest first.

        Returns:
            The bags. An empty list if there are none.
        """
        nearest = self._children_by_dataset().get(self._rid, [])
        children = [DatasetBag(self._path, rid) for rid in (self._descendants() if recurse else nearest)]
        for child in children:
            child._lock = self._lock
        return children

    def get_table(self, table: str) -> list[Row]:
        """Return all rows of a table in the bag, including those of nested datasets.

        Args:
            table: The name of the table.

        Returns:
            The rows, each with the values of its columns by name.

        Raises:
            UnknownTable: The bag has no such table. The message lists the known ones.
        """
        return list(self.iterate_table(table))

    def iterate_table(self, table: str) -> Iterator[Row]:
        """Iterate over the rows of a table, with constant memory.

        Args:
            table: The name of the table.

        Returns:
            An iterator over the rows, each with the values of its columns by name.

        Raises:
            UnknownTable: The bag has no such table. The message lists the known ones.
        """
        rows = self._read_rows(table)
        return (self._add_file_path(table, row) for row in rows) if self._schema["tables"][table]["asset"] else rows

    def get_table_as_dataframe(self, table: str) -> pd.DataFrame:
        """Return all rows of a table as a pandas DataFrame.

        Args:
            table: The name of the table.

        Returns:
            The data frame, with a column for each column of the table.

        Raises:
            ConfigurationError: pandas is not installed.
            UnknownTable: The bag has no such table. The message lists the known ones.
        """
        with require_extra("pandas", "A DataFrame"):
            import pandas as pd
        rows = self.get_table(table)
        return pd.DataFrame(rows, columns=None if rows else list(self._schema["tables"][table]["columns"]))

    def validate(self) -> None:
        """Validate the bag with bdbag.

        A complete bag is checked byte by byte. If files were not downloaded, only its structure is checked.

        Raises:
            ChecksumMismatch: A file's bytes differ from those recorded.
            InvalidBag: Files are missing or unexpected.
        """
        from bdbag import bdbag_api, bdbagit

        for name in ("bagit", "bdbag"):
            if (library := logging.getLogger(name)).level == logging.NOTSET:
                library.setLevel(logging.ERROR)
        try:
            bag = bdbagit.BDBag(str(self._path))
            if bag.compare_fetch_with_fs():
                bdbag_api.validate_bag_structure(str(self._path), skip_remote=True)
            else:
                bag.validate()
        except bdbagit.BagValidationError as error:
            wrong = [detail for detail in error.details if isinstance(detail, bdbagit.ChecksumMismatch)]
            details = "; ".join(map(str, (wrong or error.details or [error])[:MAX_LISTED_FILES]))
            raise (ChecksumMismatch if wrong else InvalidBag)(f"{self._path}: {details}.") from error
        except bdbagit.BagError as error:
            raise InvalidBag(f"{self._path}: {error}.") from error

    def _member_rows(self, element: str, datasets: set[RID]) -> list[Row]:
        link = self._schema["elements"][element]
        linked = (row for row in self.iterate_table(link["table"]) if row[link["dataset"]] in datasets)
        rids = dict.fromkeys(row[link["member"]] for row in linked)
        rows = {row["RID"]: row for row in self.iterate_table(element) if row["RID"] in rids}
        return [rows[rid] for rid in rids if rid in rows]

    def _children_by_dataset(self) -> dict[RID, list[RID]]:
        link = self._schema["elements"][MLTable.dataset]
        children: dict[RID, list[RID]] = {}
        for row in self.iterate_table(link["table"]):
            children.setdefault(row[link["dataset"]], []).append(row[link["member"]])
        return children

    def _descendants(self) -> list[RID]:
        children, seen, level = self._children_by_dataset(), {self._rid: None}, [self._rid]
        while level:
            level = [child for rid in level for child in children.get(rid, ()) if child not in seen]
            seen.update(dict.fromkeys(level))
        return list(seen)[1:]

    def _read_rows(self, table: str) -> Iterator[Row]:
        tables = self._schema["tables"]
        if table not in tables:
            raise UnknownTable(f"The bag {self._path} has no table {table!r}; it has {', '.join(self.list_tables())}.")
        path = self._path / table_path(table)
        return read_table(path, tables[table]["columns"]) if path.exists() else iter(())

    def _asset_file_path(self, table: str, row: Row) -> Path:
        return self._path / asset_path(table, row["RID"], row["Filename"])

    def _add_file_path(self, table: str, row: Row) -> Row:
        file, name = self._asset_file_path(table, row), row["Filename"]
        return {**row, "Filename": str(file) if file.exists() else name, "Original_Filename": name}

    def _iterate_assets(self) -> Iterator[tuple[Row, Path]]:
        for table in self.list_tables():
            if self._schema["tables"][table]["asset"]:
                yield from ((row, self._asset_file_path(table, row)) for row in self._read_rows(table))


def iterate_assets(bag: DatasetBag) -> Iterator[tuple[Row, Path]]:
    """Yield the row of each asset as the catalog has it, and the path of its file, which may not exist yet."""
    return bag._iterate_assets()
