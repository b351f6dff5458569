"""The list of a run's media, ``media.jsonl``: one line for each file, and one for what was left out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deriva_ml_core._files.json_lines import complete_lines, parse_object
from deriva_ml_core.definitions import MLAsset
from deriva_ml_core.models import Asset, MediaFile

__all__ = [
    "MEDIA_FILE",
    "MEDIA_FOLDER",
    "MEDIA_TABLE",
    "MAX_MANIFEST_BYTES",
    "MediaManifest",
    "locate_media",
    "parse_manifest",
]

MEDIA_FILE = "media.jsonl"
"""Name of the file. Each line is a JSON object with kind, name, fit, epoch, step, time, filename, length and md5, or
with ``omitted``: the number of values that were left out, by reason."""

MEDIA_TABLE = MLAsset.execution_asset.value
"""The asset table of the files."""

MEDIA_FOLDER = "media"
"""Folder of the files in the names of the assets."""

MAX_MANIFEST_BYTES = 16 * 2**20
"""Bytes of the list that are read; one that our software wrote has about 300 for each file."""

MAX_INTEGER = 2**53
"""Integers of this size or more are ignored: they are not epochs, steps or bytes."""

_FILENAME = re.compile(rf"{MEDIA_FOLDER}/[0-9]{{1,9}}-[A-Za-z0-9._-]{{1,80}}\.(?:png|svg|csv)")
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class MediaManifest:
    """What ``media.jsonl`` lists.

    Args:
        files: The files, in the order in which they were logged, without paths and assets.
        omitted: The number of logged values without a file, by reason.
    """

    files: tuple[MediaFile, ...] = ()
    omitted: Mapping[str, int] | None = None

    @property
    def omitted_count(self) -> int:
        """The number of logged values without a file."""
        return sum((self.omitted or {}).values())


def parse_manifest(content: bytes) -> MediaManifest:
    """Return what a list contains; lines that are torn or have another form are left out.

    The list may come from a catalog, so it is data: a name of a file with another form than ours is ignored.
    """
    files: list[MediaFile] = []
    omitted: dict[str, int] = {}
    for line in complete_lines(content[:MAX_MANIFEST_BYTES]):
        if (record := parse_object(line)) is None:
            continue
        if isinstance(counts := record.get("omitted"), dict):
            for reason, count in counts.items():
                omitted[reason] = omitted.get(reason, 0) + (_get_int({"count": count}, "count") or 0)
        elif (file := _parse_file(record)) is not None:
            files.append(file)
    return MediaManifest(tuple(files), omitted)


def locate_media(manifest: MediaManifest, assets: Sequence[Asset], folder: Path | None) -> list[MediaFile]:
    """Return the files with their assets, and their paths on this machine.

    Args:
        manifest: The list of the files.
        assets: The output assets of the execution; an asset is one of the files if its name and its MD5 agree.
        folder: The working folder; None if the list was downloaded.
    """
    known = {(asset.filename, asset.md5): asset for asset in assets if asset.table == MEDIA_TABLE}
    located = []
    for file in manifest.files:
        path = None if folder is None else folder / "outputs" / MEDIA_TABLE / file.filename
        is_here = path is not None and path.is_file()
        update = {"asset": known.get((file.filename, file.md5)), "path": path if is_here else None}
        located.append(file.model_copy(update=update))
    return located


def _parse_file(record: Mapping[str, Any]) -> MediaFile | None:
    kind, name, filename, md5 = (record.get(key) for key in ("kind", "name", "filename", "md5"))
    length, logged_at = _get_int(record, "length"), _parse_time(record.get("time"))
    if kind not in ("image", "figure", "table") or not isinstance(name, str) or length is None or logged_at is None:
        return None
    if not isinstance(filename, str) or not _FILENAME.fullmatch(filename):
        return None
    if not isinstance(md5, str) or not _MD5.fullmatch(md5):
        return None
    numbers = {key: _get_int(record, key) for key in ("fit", "epoch", "step")}
    return MediaFile(kind=kind, name=name, filename=filename, length=length, md5=md5, time=logged_at, **numbers)


def _get_int(record: Mapping[str, Any], name: str) -> int | None:
    value = record.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if abs(value) < MAX_INTEGER else None


def _parse_time(value: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return None if time is None else time.replace(tzinfo=UTC) if time.tzinfo is None else time
