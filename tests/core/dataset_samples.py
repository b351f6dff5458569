"""Rows and files for the tests of datasets and bags."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deriva_ml_core.connection import Connection, open_connection
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.models import Address, UploadOptions
from deriva_ml_core.schema import Column, Table


def open_embedded(folder: Path) -> Connection:
    """Open the embedded catalog in a folder."""
    return open_connection(Address(hostname=f"file:{folder}"))


def insert_subjects(connection: Connection, names: Sequence[str]) -> list[str]:
    """Insert rows into a plain table Subject, which is created on first use, and return the RIDs."""
    columns = (Column("Name"), Column("Age", "int4"), Column("Weight", "float8"), Column("Ill", "boolean"))
    connection.catalog.create_tables([Table("Subject", columns, schema="domain")])
    connection.catalog.refresh()
    rids = connection.catalog.reserve(len(names))
    connection.catalog.insert("Subject", [{"RID": r, "Name": name} for r, name in zip(rids, names, strict=True)])
    return rids


def insert_images(
    connection: Connection, files: Mapping[str, bytes], asset_types: Iterable[str] = ("Image",)
) -> list[str]:
    """Upload images with these names and bytes, and return the RIDs."""
    catalog, store = connection.catalog, connection.store
    rids = catalog.reserve(len(files))
    rows, types = [], []
    original = connection.folder / "original"
    for rid, (name, content) in zip(rids, files.items(), strict=True):
        original.write_bytes(content)
        stored = store.put("Image", name, original, handover=TransferMode.copy, options=UploadOptions())
        rows.append({"RID": rid, "URL": stored.url, "Filename": name, "Length": stored.length, "MD5": stored.md5})
        types += [{"Image": rid, "Asset_Type": type_} for type_ in asset_types]
    store.sync()
    catalog.insert("Image", rows)
    catalog.insert("Image_Asset_Type", types)
    return rids


def insert_image_rows(connection: Connection, count: int) -> list[str]:
    """Insert rows of images without stored bytes, and return the RIDs."""
    rids = connection.catalog.reserve(count)
    rows: list[dict[str, Any]] = []
    for rid in rids:
        md5 = hashlib.md5(rid.encode()).hexdigest()
        rows.append({"RID": rid, "URL": f"/hatrac/Image/{md5}.{rid}.png:1", "Filename": f"{rid}.png", "Length": 1})
        rows[-1]["MD5"] = md5
    connection.catalog.insert("Image", rows)
    return rids
