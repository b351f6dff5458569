"""The record that is kept with an execution's copy: where it came from, and which row there is whose copy."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deriva_ml_core.assets.retry import RetryingStore
from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, RID_PATTERN
from deriva_ml_core.models import UploadOptions
from deriva_ml_core.pushing.origin import creation_time, global_row_id

__all__ = ["SourceRecord", "is_source_record_name", "read_source_record", "build_source_record", "source_record_name"]

FILE_NAME_PREFIX = "copied_from_"
MAX_RECORD_BYTES = 2**28
"""Bytes of a record that is read: a row's copy takes under 100."""


@dataclass(frozen=True)
class SourceRecord:
    """What a record says.

    Args:
        rid: The record id of the execution where it was copied from; empty where the record does not say.
        copies: The record ids of copies, by what names each row among all rows of all catalogs.
    """

    rid: RID = ""
    copies: Mapping[str, RID] = field(default_factory=dict)


def source_record_name(row: Mapping[str, Any]) -> str:
    """The file name of an execution's record, by which its copy is found again."""
    return f"{FILE_NAME_PREFIX}{hashlib.sha256(global_row_id(row).encode()).hexdigest()[:32]}.json"


def is_source_record_name(filename: str | None) -> bool:
    """Whether a file name is that of such a record."""
    return re.fullmatch(rf"{FILE_NAME_PREFIX}[0-9a-f]{{32}}\.json", filename or "") is not None


def build_source_record(catalog: Catalog, row: Row, copies: Mapping[str, RID]) -> bytes:
    """A record's bytes.

    Args:
        catalog: Where the execution is.
        row: Its row there.
        copies: The record ids of copies, by what names each row among all rows of all catalogs.
    """
    source = {
        "citation": catalog.cite(row["RID"]),
        "catalog": catalog.name,
        "host": platform.node(),
        "rid": row["RID"],
        "made": creation_time(row),
    }
    return json.dumps({"source": source, "copies": dict(copies)}, indent=1, sort_keys=True).encode()


def read_source_record(connection: Connection, row: Row) -> SourceRecord:
    """Read a record, which anybody may have written: it tells record ids and nothing else.

    Args:
        connection: Where it is kept.
        row: Its row there.
    """
    if row["Length"] > MAX_RECORD_BYTES:
        return SourceRecord()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "record"
        RetryingStore(connection.store).get(
            row["URL"], file, length=row["Length"], md5=row["MD5"], options=UploadOptions()
        )
        try:
            told = json.loads(file.read_bytes())
            copies = {str(name): str(rid) for name, rid in told["copies"].items() if _is_rid(rid)}
            rid = told["source"]["rid"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return SourceRecord()
    return SourceRecord(rid if _is_rid(rid) else "", copies)


def _is_rid(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch(RID_PATTERN, text) is not None
