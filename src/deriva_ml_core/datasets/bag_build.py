"""Build the bag of a dataset's version: rows as tables, files by reference."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

from deriva_ml_core.backend import Catalog, ObjectStore, Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets import make_bag_process
from deriva_ml_core.datasets.bag_tables import TableFile, column_types
from deriva_ml_core.datasets.members import MemberLink, descendants, member_links, member_pages
from deriva_ml_core.datasets.versions import DatasetVersion, version_rows_at
from deriva_ml_core.definitions import RID, MLTable
from deriva_ml_core.errors import InvalidBag
from deriva_ml_core.schema import Table, asset_type_table_name

__all__ = ["SCHEMA_FILE", "asset_path", "build_bag", "safe_name", "table_path"]


SCHEMA_FORMAT = 1
"""The version of the format of ``data/schema.json``."""

_UNFOLLOWED_TABLES = frozenset({MLTable.dataset, MLTable.dataset_version, MLTable.execution, MLTable.workflow})


def build_bag(connection: Connection, version: DatasetVersion, folder: Path) -> Path:
    """Build the bag of a version without its files; ``fetch.txt`` lists them.

    Args:
        connection: The catalog and store.
        version: The version.
        folder: An empty folder to build in.

    Returns:
        The bag's folder.

    Raises:
        InvalidBag: bdbag could not create the bag.
    """
    bag, manifest = folder / f"Dataset_{version.dataset}", folder / "remote_files.json"
    bag.mkdir()
    then = connection.catalog.at(version.snapshot)
    datasets = [version.dataset, *descendants(then, version.dataset)]
    with _Payload(then, connection.store, bag, manifest) as payload:
        _add_datasets(payload, connection.catalog, version, datasets)
        for link in member_links(then.model).values():
            _add_members(payload, link, datasets)
        payload.add_references()
        described = {
            "RID": version.dataset,
            "Version": version.version,
            "Snapshot": version.snapshot,
            "Source": connection.catalog.cite(version.dataset, version.snapshot),
        }
        payload.write_schema(described)
    _run_make_bag(bag, manifest, folder / "bdbag.json", described["Source"])
    return bag


def _add_datasets(payload: _Payload, catalog: Catalog, version: DatasetVersion, datasets: Sequence[RID]) -> None:
    payload.add_rows(MLTable.dataset, payload.catalog.select(MLTable.dataset, {"RID": list(datasets)}))
    of_datasets = {"Dataset": list(datasets)}
    payload.add_rows(MLTable.dataset_dataset_type, payload.catalog.select(MLTable.dataset_dataset_type, of_datasets))
    payload.add_rows(MLTable.dataset_version, catalog.select(MLTable.dataset_version, {"RID": version.rid}))
    payload.add_rows(MLTable.dataset_version, version_rows_at(catalog, version.snapshot, datasets[1:]))


def _add_members(payload: _Payload, link: MemberLink, datasets: Sequence[RID]) -> None:
    catalog = payload.catalog
    for page in catalog.pages(link.table, {link.dataset_column: list(datasets)}):
        payload.add_rows(link.table, page)
    types = asset_type_table_name(link.element)
    typed = catalog.model.table(link.element).is_asset and types in catalog.model.tables
    for page in member_pages(catalog, link, datasets):
        payload.add_rows(link.element, page)
        if typed:
            payload.add_rows(types, catalog.select(types, {link.element: [row["RID"] for row in page]}))


class _Payload:
    """Writes a bag's ``data``: rows of a snapshot, and the manifest of their files."""

    def __init__(self, catalog: Catalog, store: ObjectStore, folder: Path, manifest: Path) -> None:
        self.catalog = catalog
        self._store = store
        self._folder = folder
        self._files: dict[str, TableFile] = {}
        self._manifest = manifest.open("x", encoding="utf-8")
        self._references: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

    def __enter__(self) -> _Payload:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._manifest.close()
        for file in self._files.values():
            file.close()

    def add_rows(self, name: str, rows: Iterable[Row]) -> None:
        """Add rows of a table, each once, and collect their references and files.

        A table that the catalog lacks has no rows, and no file.
        """
        if name not in self.catalog.model.tables:
            return
        table = self.catalog.model.table(name)
        new = self._table_file(table).add_rows(rows)
        for key in table.foreign_keys:
            if key.table not in _UNFOLLOWED_TABLES:
                self._references[key.table, key.to].update(row[key.column] for row in new if row[key.column])
        if table.is_asset:
            self._manifest.writelines(self._manifest_line(table.name, row) for row in new)

    def add_references(self) -> None:
        """Add the rows that rows refer to, such as terms of vocabularies, and what these refer to in turn."""
        added: set[tuple[str, str, str]] = set()
        while self._references:
            (table, column), values = self._references.popitem()
            values = {value for value in values if (table, column, value) not in added}
            added.update((table, column, value) for value in values)
            if values:
                self.add_rows(table, self.catalog.select(table, {column: sorted(values)}))

    def write_schema(self, dataset: dict[str, str]) -> None:
        """Write ``schema.json``: the tables with their column types, and the dataset and version of the bag."""
        model = self.catalog.model
        elements = {
            link.element: {"table": link.table, "dataset": link.dataset_column, "member": link.member_column}
            for link in member_links(model).values()
        }
        names = {*self._files, *elements, *(link["table"] for link in elements.values())}
        tables = {
            name: {"columns": column_types(model.table(name)), "asset": model.table(name).is_asset}
            for name in sorted(names)
        }
        text = json.dumps(
            {"format": SCHEMA_FORMAT, "dataset": dataset, "elements": elements, "tables": tables}, indent=1
        )
        (self._folder / SCHEMA_FILE.name).write_text(text, encoding="utf-8")

    def _table_file(self, table: Table) -> TableFile:
        if table.name not in self._files:
            path = self._folder / table_path(table.name).name
            self._files[table.name] = TableFile(path, column_types(table))
        return self._files[table.name]

    def _manifest_line(self, table: str, row: Row) -> str:
        path = asset_path(table, row["RID"], row["Filename"]).relative_to("data")
        entry: dict[str, Any] = {
            "url": self._store.source(row["URL"]),
            "length": row["Length"],
            "filename": str(path),
            "md5": row["MD5"],
        }
        return json.dumps(entry) + "\n"


def _run_make_bag(bag: Path, manifest: Path, configuration: Path, source: str) -> None:
    import subprocess  # not needed to read a bag

    metadata = {"External-Identifier": source, "Bagging-Software": "deriva-ml-core"}
    settings = {"bagit_spec_version": "1.0", "bag_algorithms": ["md5"], "bag_metadata": metadata}
    configuration.write_text(json.dumps({"bag_config": settings}), encoding="utf-8")
    remote = str(manifest) if manifest.stat().st_size else ""
    process = subprocess.run(  # noqa: S603
        [sys.executable, "-P", make_bag_process.__file__, bag, remote, configuration],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise InvalidBag(f"bdbag could not create the bag {bag}: {process.stderr.strip().splitlines()[-1:]}.")


SCHEMA_FILE = PurePosixPath("data/schema.json")
"""The bag's tables with the types of their columns, and its dataset and version."""

MAX_NAME_BYTES = 255
"""Maximum bytes of a file name on Linux and macOS."""

# each of these ends a line when a bag's manifests are read, and so do %0A and %0D
_UNSAFE_CHARACTERS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\\]|%(?=0[aAdD])")


def table_path(table: str) -> PurePosixPath:
    """Return the CSV file of a table, relative to the bag's folder."""
    return PurePosixPath("data", f"{safe_name(table.replace('/', '_'))}.csv")


def asset_path(table: str, rid: str, filename: str | None) -> PurePosixPath:
    """Return an asset's file, relative to the bag's folder; each asset has its own folder.

    Args:
        table: The asset table.
        rid: The asset's RID.
        filename: The name in the catalog, with sub-folders; None for the RID.
    """
    return PurePosixPath("data/asset", safe_name(table.replace("/", "_")), rid, safe_name(filename or rid))


def safe_name(filename: str) -> PurePosixPath:
    """Return the name with characters that a bag cannot hold replaced, and without ``..`` and absolute paths."""
    parts = [_safe_part(part) for part in filename.split("/") if part.strip() not in ("", ".", "..")]
    return PurePosixPath(*(parts or ["_"]))


def _safe_part(part: str) -> str:
    name = _UNSAFE_CHARACTERS.sub("_", part)
    name = "_" * (len(name) - len(name.lstrip())) + name.strip() + "_" * (len(name) - len(name.rstrip()))
    return name if len(name.encode()) <= MAX_NAME_BYTES else _shorten_name(name)


def _shorten_name(name: str) -> str:
    suffix = PurePosixPath(name).suffix.encode()[-20:]
    stem = name.encode()[: MAX_NAME_BYTES - len(suffix)]
    return stem.decode(errors="ignore") + suffix.decode(errors="ignore")
