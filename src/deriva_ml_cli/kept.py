"""The files that tell of an execution, read where they are: in its working folder here, or in the store."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from deriva_ml_core.assets.recorded import download_asset
from deriva_ml_core.execution.provenance import JOURNAL, local_story
from deriva_ml_core.journal.file import read_story
from deriva_ml_core.journal.story import Story

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.execution import RecordedExecution
    from deriva_ml_core.models import Asset

__all__ = ["LARGEST", "configuration_of", "file_name", "kept_file", "read_json", "story_of"]

LARGEST = 256 * 2**20
"""Bytes up to which a kept file is brought from the store only to be shown."""

METADATA = "Execution_Metadata"


def story_of(ml: DerivaML, rid: str, assets: Sequence[Asset]) -> Story:
    """What an execution's journal tells, here or as it was kept; an empty story where there is none."""
    if (story := local_story(ml.connection, rid)) is not None:
        return story
    with kept_file(ml, assets, JOURNAL) as file:
        return read_story(file) if file else Story()


def configuration_of(ml: DerivaML, execution: RecordedExecution, assets: Sequence[Asset]) -> Mapping[str, Any]:
    """What ``configuration.json`` of an execution says; empty where none was kept."""
    name = "configuration.json"
    with kept_file(ml, assets, name, here=execution.working_dir / "records" / name) as file:
        return read_json(file)


@contextmanager
def kept_file(
    ml: DerivaML, assets: Sequence[Asset], name: str, *, here: Path | None = None, starts: bool = False
) -> Iterator[Path | None]:
    """One of the files that describe an execution.

    Args:
        ml: The catalog.
        assets: The execution's assets.
        name: The file's name.
        here: Where it lies on this machine, which is newer than what was sent, where it is there.
        starts: Whether `name` is only how the name begins.

    Yields:
        The file; None where there is none, or one that is too large to be brought.
    """
    if here is not None and here.is_file():
        yield here
        return
    found = [
        asset
        for asset in assets
        if asset.table == METADATA and (asset.filename.startswith(name) if starts else asset.filename == name)
    ]
    if not found or found[-1].length > LARGEST:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        yield download_asset(ml.connection, found[-1], Path(folder))


def file_name(asset: Asset) -> str:
    """The name of an asset's file without folders; its record id where that would be no name of a file."""
    name = PurePosixPath(asset.filename).name
    return asset.rid if name in ("", ".", "..") else name


def read_json(file: Path | None) -> Mapping[str, Any]:
    """The object that a file holds; empty where it holds none, or there is no file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
