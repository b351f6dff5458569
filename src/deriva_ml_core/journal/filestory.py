"""What became of one registered file, as far as a journal tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

from deriva_ml_core.definitions import RID
from deriva_ml_core.models import StagedAsset, StoredObject

__all__ = ["FileStory", "FileTime"]


class FileTime(BaseModel):
    """Size in bytes and modification time in nanoseconds of a file: whether it has changed since."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileTime | None:
        """Those of a file, None where there is none."""
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(size=found.st_size, mtime_ns=found.st_mtime_ns)


@dataclass
class FileStory:
    """What became of one registered file so far."""

    asset: StagedAsset
    note: JsonValue | None = None
    stored: StoredObject | None = None
    file_time: FileTime | None = None
    rid: RID | None = None
    forgotten: bool = False
    sealed: FileTime | None = None
    """What it looked like when it was said that nobody writes to it in place any more."""
    added_types: tuple[str, ...] = ()
    """Those of its types that came after its registration."""
