"""What became of one registered file, as far as a journal tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

from deriva_ml_core.definitions import RID
from deriva_ml_core.models import StagedAsset, StoredObject

__all__ = ["FileState", "FileStamp"]


class FileStamp(BaseModel):
    """Size in bytes and modification time in nanoseconds of a file: whether it has changed since."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    size: int
    mtime_ns: int

    @classmethod
    def from_path(cls, path: Path) -> FileStamp | None:
        """Those of a file, None where there is none."""
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(size=found.st_size, mtime_ns=found.st_mtime_ns)


@dataclass
class FileState:
    """What became of one registered file so far."""

    asset: StagedAsset
    transfer_note: JsonValue | None = None
    stored: StoredObject | None = None
    stored_stamp: FileStamp | None = None
    rid: RID | None = None
    is_forgotten: bool = False
    immutable_stamp: FileStamp | None = None
    """What it looked like when it was said that nobody writes to it in place any more."""
    added_types: tuple[str, ...] = ()
    """Those of its types that came after its registration."""
