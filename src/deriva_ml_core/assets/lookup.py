"""Assets in the catalog: look up by RID, list by execution, download and verify."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from deriva_ml_core._files.atomic import sync_path, temporary_folder
from deriva_ml_core._files.os_errors import translate_os_errors
from deriva_ml_core._files.partial_download import has_bytes
from deriva_ml_core._files.permissions import create_folder
from deriva_ml_core._progress import progress_reporter
from deriva_ml_core._retry import RetryingStore
from deriva_ml_core.backend import Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLVocab, Role
from deriva_ml_core.errors import DerivaMLException, FileConflict, InvalidFileName, UnknownRID, WrongTable
from deriva_ml_core.models import Asset, UploadOptions, UploadProgress
from deriva_ml_core.row_values import convert_rows, convert_values, malformed_value
from deriva_ml_core.schema import asset_execution_table_name, asset_type_table_name

__all__ = [
    "asset_target",
    "cache_asset",
    "download_asset",
    "download_assets",
    "list_execution_assets",
    "link_inputs",
    "lookup_asset",
    "lookup_assets",
    "make_file_cache",
    "save_asset",
    "verify_asset",
]


FILE_CACHE = Path("cache", "files")
"""Folder of downloaded files in the catalog's folder; ``deriva-ml cleanup --downloads`` removes it."""

MAX_NAME_BYTES = 255
"""Maximum bytes of one file name on common file systems."""


def lookup_asset(connection: Connection, rid: RID) -> Asset:
    """Look up an asset by its RID, in any asset table.

    Raises:
        UnknownRID: The RID names no row.
        WrongTable: The row's table is not an asset table.
    """
    return lookup_assets(connection, [rid])[0]


def lookup_assets(connection: Connection, rids: Sequence[RID]) -> list[Asset]:
    """Look up assets by their RIDs, in that order, with a few requests per table."""
    tables = connection.catalog.locate(list(rids))
    assets: dict[RID, Asset] = {}
    for table in dict.fromkeys(tables.values()):
        if not connection.catalog.model.table(table).is_asset:
            wrong = next(rid for rid in rids if tables.get(rid) == table)
            raise WrongTable(f"{wrong} is a row of {table}, which is not an asset table. Use the RID of an asset.")
        of_table = [rid for rid in rids if tables.get(rid) == table]
        types = list_asset_types(connection, table, of_table)
        for row in connection.catalog.select(table, {"RID": of_table}):
            assets[row["RID"]] = asset_from_row(connection, table, row, types.get(row["RID"], ()))
    for rid in rids:
        if rid not in assets:
            raise UnknownRID(f"{rid} names no row of {connection.catalog.name}. Use the RID of an asset.")
    return [assets[rid] for rid in rids]


def link_inputs(connection: Connection, assets: Iterable[Asset], execution: RID) -> None:
    """Record assets as inputs of an execution; an asset that is already its output stays its output."""
    links: dict[str, list[Row]] = {}
    for asset in assets:
        row = {asset.table: asset.rid, "Execution": execution, "Asset_Role": Role.input}
        links.setdefault(asset.table, []).append(row)
    for table, rows in links.items():
        connection.catalog.insert(asset_execution_table_name(table), rows, skip_existing=True)


def download_asset(connection: Connection, asset: Asset, folder: Path, options: UploadOptions | None = None) -> Path:
    """Download an asset into a folder, and check its length and MD5.

    Args:
        connection: The catalog and store.
        asset: The asset.
        folder: The file becomes ``<folder>/<table>/<rid>/<file name>``. A file name that is absolute or contains
            ``..`` loses its folders.
        options: How transfers are retried.

    Returns:
        The file. An existing file is not downloaded again if it has the recorded bytes, and replaced otherwise.

    Raises:
        InvalidFileName: The catalog's names of table and row lead out of the folder.
        CatalogReadOnly, DiskFull, FileUnavailable: The folder cannot be written.
    """
    target = asset_target(asset, folder)
    with translate_os_errors(f"Cannot download {asset.table} {asset.rid} to {target}", folder):
        if not has_bytes(target, length=asset.length, md5=asset.md5):
            with _download_progress([asset]) as finish:
                _get_object(connection, asset, target, options)
                finish(asset)
    return target


def asset_target(asset: Asset, folder: Path) -> Path:
    """Return the path of an asset's file below a folder, as for `download_asset`.

    Raises:
        InvalidFileName: The catalog's names of table and row lead out of the folder.
    """
    if any(PurePosixPath(part).parts != (part,) or part == ".." for part in (asset.table, asset.rid)):
        raise InvalidFileName(
            f"{asset.rid!r} of {asset.table!r} cannot name a folder. Report this to the catalog's owner."
        )
    return folder / asset.table / asset.rid / _safe_file_name(asset)


def download_assets(connection: Connection, assets: Sequence[Asset], target: Callable[[Asset], Path]) -> None:
    """Download assets one after another, with one progress bar; files with the recorded bytes stay.

    Args:
        connection: The catalog and store.
        assets: The assets.
        target: Function that returns the path of an asset's file.

    Raises:
        ChecksumMismatch: The bytes in the store differ from the recorded ones.
        CatalogReadOnly, DiskFull, FileUnavailable: A folder cannot be written.
    """
    with _download_progress(assets) as finish:
        for asset in assets:
            path = target(asset)
            with translate_os_errors(f"Cannot download {asset.table} {asset.rid} to {path}", path.parent):
                if not has_bytes(path, length=asset.length, md5=asset.md5):
                    _get_object(connection, asset, path)
            finish(asset)


def _get_object(connection: Connection, asset: Asset, path: Path, options: UploadOptions | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    RetryingStore(connection.store).get(
        asset.url, path, length=asset.length, md5=asset.md5, options=options or UploadOptions()
    )


@contextmanager
def _download_progress(assets: Sequence[Asset]) -> Iterator[Callable[[Asset], None]]:
    """Show a progress bar for a download, and yield a function to call after each asset."""
    size, done = sum(asset.length for asset in assets), [0, 0]
    with progress_reporter(None, "Downloading") as report:

        def show() -> None:
            if report is not None:
                files_done, bytes_done = done
                report(UploadProgress(files_done=files_done, files=len(assets), bytes_done=bytes_done, bytes=size))

        def finish(asset: Asset) -> None:
            done[0] += 1
            done[1] += asset.length
            show()

        show()
        yield finish


def cache_asset(connection: Connection, asset: Asset) -> Path:
    """Return a local copy of an asset in the cache, which has the recorded length and MD5; see `download_asset`."""
    return download_asset(connection, asset, make_file_cache(connection))


def make_file_cache(connection: Connection) -> Path:
    """Return the cache folder of files, created if need be.

    Raises:
        CatalogReadOnly, DiskFull, FileUnavailable: The folder cannot be created.
    """
    folder = connection.folder / FILE_CACHE
    with translate_os_errors(f"Cannot create {folder}", folder):
        create_folder(folder, connection.folder)
    return folder


def save_asset(connection: Connection, asset: Asset, folder: Path, *, overwrite: bool = False) -> Path:
    """Download an asset into a folder under its own name; see ``DerivaML.download_asset``.

    The file appears in the folder when it is complete.
    """
    target = folder / _safe_file_name(asset).name
    if target.exists() and not overwrite:
        raise FileConflict(f"{target} already exists. Choose another folder, or replace the file with overwrite=True.")
    with translate_os_errors(f"Cannot download {asset.table} {asset.rid} to {target}", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder) as temporary:
            path = download_asset(connection, asset, temporary)
            sync_path(path)
            path.replace(target)
        sync_path(folder)
    return target


def _safe_file_name(asset: Asset) -> PurePosixPath:
    """Return an asset's file name, reduced to its last part if it leads out of the folder; else its RID."""
    name = PurePosixPath(asset.filename)
    if name.is_absolute() or ".." in name.parts:
        name = PurePosixPath(name.name)
    is_too_long = any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in name.parts)
    is_unusable = name.name in ("", "..") or "\0" in asset.filename or is_too_long
    return PurePosixPath(asset.rid) if is_unusable else name


def verify_asset(connection: Connection, asset: Asset) -> None:
    """Read an asset's bytes in the store, and raise `ChecksumMismatch` if they differ from those recorded."""
    connection.store.verify(asset.url, length=asset.length, md5=asset.md5)


def list_execution_assets(connection: Connection, rid: RID, role: Role | None) -> list[Asset]:
    """Return the assets of an execution, ordered by table and row, with two or three requests per table.

    A malformed row is left out, and a warning names it.
    """
    return [
        asset
        for table in _execution_asset_tables(connection)
        for asset in _list_table_assets(connection, table, rid, role)
    ]


def _execution_asset_tables(connection: Connection) -> list[str]:
    model = connection.catalog.model
    return sorted(
        table.name
        for table in model.tables.values()
        if table.is_asset and asset_execution_table_name(table.name) in model.tables
    )


def _list_table_assets(connection: Connection, table: str, execution: RID, role: Role | None) -> Iterator[Asset]:
    where = {"Execution": execution} | ({"Asset_Role": role} if role else {})
    roles = {
        link[table]: link["Asset_Role"] for link in connection.catalog.select(asset_execution_table_name(table), where)
    }
    if roles:
        rows = connection.catalog.select(table, {"RID": list(roles)})
        types = list_asset_types(connection, table, list(roles))
        yield from convert_rows(
            lambda row: asset_from_row(connection, table, row, types.get(row["RID"], ()), roles[row["RID"]]), rows
        )


def list_asset_types(connection: Connection, table: str, rids: Sequence[RID]) -> dict[RID, tuple[str, ...]]:
    """Return the asset types of each of these assets."""
    types: dict[RID, tuple[str, ...]] = {}
    for link in connection.catalog.select(asset_type_table_name(table), {table: list(rids)}):
        types[link[table]] = (*types.get(link[table], ()), link[MLVocab.asset_type])
    return types


def asset_from_row(
    connection: Connection, table: str, row: dict[str, Any], types: tuple[str, ...], role: str | None = None
) -> Asset:
    """Convert a row of an asset table to an `Asset`.

    Raises:
        MalformedData: A value has an unexpected form.
    """
    columns = ("Description", *connection.catalog.model.asset_table(table).metadata_columns)
    for column in ("URL", "MD5"):
        if "\0" in str(row[column]):  # no store has such an object, and no file system such a name
            raise malformed_value(table, row["RID"], column, row[column])
    values = {
        "rid": row["RID"],
        "table": table,
        "filename": row["Filename"] or "",
        "url": row["URL"],
        "length": row["Length"],
        "md5": row["MD5"],
        "asset_types": types,
        "metadata": {column: row[column] for column in columns if row.get(column) is not None},
        "role": role,
    }
    asset = convert_values(table, row["RID"], lambda: Asset.model_validate(values))
    asset._copies.paths = tuple(_local_copies(connection, asset))
    return asset


def _local_copies(connection: Connection, asset: Asset) -> Iterator[Path]:
    """Yield where an asset's bytes may be on this machine: in the store, and in the cache."""
    with suppress(DerivaMLException, ValueError):
        source = urlsplit(connection.store.source(asset.url))
        if source.scheme == "file":
            yield Path(unquote(source.path))
    yield connection.folder / FILE_CACHE / asset.table / asset.rid / _safe_file_name(asset)
