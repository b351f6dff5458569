"""Rows and files that the tests of datasets and bags stand on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deriva_ml_core.connection import Connection, open_connection
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.models import Address, UploadOptions
from deriva_ml_core.schema import Column, Table


def opened(folder: Path) -> Connection:
    """The embedded catalog in a folder."""
    return open_connection(Address(hostname=f"file:{folder}"))


def subjects(connection: Connection, names: Sequence[str]) -> list[str]:
    """Rows of a plain domain table, made on first use, which is no element table yet."""
    columns = (Column("Name"), Column("Age", "int4"), Column("Weight", "float8"), Column("Ill", "boolean"))
    connection.catalog.create_tables([Table("Subject", columns, schema="domain")])
    connection.catalog.refresh()
    rids = connection.catalog.reserve(len(names))
    connection.catalog.insert("Subject", [{"RID": r, "Name": name} for r, name in zip(rids, names, strict=True)])
    return rids


def images(connection: Connection, files: Mapping[str, bytes], asset_types: Iterable[str] = ("Image",)) -> list[str]:
    """Image assets with these names and bytes."""
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


def bare_images(connection: Connection, count: int) -> list[str]:
    """Rows of images whose bytes nobody stored."""
    rids = connection.catalog.reserve(count)
    rows: list[dict[str, Any]] = []
    for rid in rids:
        md5 = hashlib.md5(rid.encode()).hexdigest()
        rows.append({"RID": rid, "URL": f"/hatrac/Image/{md5}.{rid}.png:1", "Filename": f"{rid}.png", "Length": 1})
        rows[-1]["MD5"] = md5
    connection.catalog.insert("Image", rows)
    return rids
