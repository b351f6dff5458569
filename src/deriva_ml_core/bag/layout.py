"""Where things lie in a dataset's bag, under names that every file system and the bag's own lists can carry."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

__all__ = ["SCHEMA_FILE", "asset_path", "safe_name", "table_path"]

SCHEMA_FILE = PurePosixPath("data/schema.json")
"""What tables the bag has, with the types of their columns, and which dataset and version it is."""

MAX_NAME_BYTES = 255
"""Bytes of a file name that Linux and macOS take."""

# a bag's lists are read line by line at every one of these, and %0A and %0D in them mean line ends
_UNSAFE_CHARACTERS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\\]|%(?=0[aAdD])")


def table_path(table: str) -> PurePosixPath:
    """The CSV file of a table, seen from the bag's folder."""
    return PurePosixPath("data", f"{safe_name(table.replace('/', '_'))}.csv")


def asset_path(table: str, rid: str, filename: str | None) -> PurePosixPath:
    """An asset's file, seen from the bag's folder; each asset has a folder of its own.

    Args:
        table: The asset table.
        rid: The asset's record id.
        filename: Its name in the catalog, with sub-folders; where it has none its record id is taken.
    """
    return PurePosixPath("data/asset", safe_name(table.replace("/", "_")), rid, safe_name(filename or rid))


def safe_name(filename: str) -> PurePosixPath:
    """The same name with what a bag cannot carry replaced, and never leading out of its folder."""
    parts = [_safe_part(part) for part in filename.split("/") if part.strip() not in ("", ".", "..")]
    return PurePosixPath(*(parts or ["_"]))


def _safe_part(part: str) -> str:
    fit = _UNSAFE_CHARACTERS.sub("_", part)
    fit = "_" * (len(fit) - len(fit.lstrip())) + fit.strip() + "_" * (len(fit) - len(fit.rstrip()))
    return fit if len(fit.encode()) <= MAX_NAME_BYTES else _shorten_name(fit)


def _shorten_name(name: str) -> str:
    suffix = PurePosixPath(name).suffix.encode()[-20:]
    stem = name.encode()[: MAX_NAME_BYTES - len(suffix)]
    return stem.decode(errors="ignore") + suffix.decode(errors="ignore")
