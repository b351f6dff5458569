"""Where an execution's files wait for their upload: new ones are written here, foreign ones are linked or copied in."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from pathlib import Path, PurePosixPath
from stat import S_ISREG

from pydantic import JsonValue

from deriva_ml_core._files.atomic import copy_atomic, remove_leftovers
from deriva_ml_core._files.os_errors import translate_os_errors
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import MLVocab
from deriva_ml_core.errors import FileConflict, InvalidFileName, MissingFiles, UnknownColumn
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import (
    FileStamp,
    FileState,
    Forgotten,
    MarkedImmutable,
    Staged,
    TypesAdded,
    TypesRemoved,
)
from deriva_ml_core.models import StagedAsset
from deriva_ml_core.schema import ASSET_COLUMNS, SYSTEM_COLUMNS, Table

__all__ = ["StagingArea", "base_key", "check_file_name", "files_open_for_writing", "is_open_file"]


MAX_NAME_BYTES = 255
"""Bytes that the usual file systems take in one name."""


def check_file_name(name: str) -> str:
    """Return the name of a new file, with ``/`` between sub-folders, unchanged in all its parts.

    Raises:
        InvalidFileName: It is empty, absolute, climbs out of its folder, or is longer than 255 bytes in one part.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.endswith("/") or "\0" in name:
        raise InvalidFileName(f"{name!r} is not the name of a file.")
    if parts[0] == "/":
        raise InvalidFileName(f"{name!r} is absolute and there is no such file: give a name, or the path of a file.")
    if ".." in parts:
        raise InvalidFileName(f"{name!r} climbs out of its folder: give a name without '..'.")
    if any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in parts):
        raise InvalidFileName(f"{name!r} is too long: {MAX_NAME_BYTES} bytes is what file systems take.")
    return "/".join(parts)


class StagingArea:
    """The staged files of one execution.

    Args:
        connection: Whose tables and terms the files are for.
        journal: Where each step is written.
        folder: Where the files wait: ``<folder>/<table>/<file name>``.
    """

    def __init__(self, connection: Connection, journal: Journal, folder: Path) -> None:
        self._connection = connection
        self._journal = journal
        self._folder = folder

    def stage(
        self,
        table: str,
        file_name: str | os.PathLike[str],
        *,
        asset_types: str | Iterable[str] | None = None,
        copy_file: bool = False,
        rename_file: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> tuple[StagedAsset, bool]:
        """Register a file, as ``Execution.asset_file_path`` documents.

        Returns:
            The staged file, and whether it was not staged before.
        """
        asset_table = self._connection.catalog.model.asset_table(table)
        types = self._validate_types(asset_types)
        values = _validate_metadata(asset_table, metadata or {})
        given = os.fspath(file_name)
        original = self._find_original(table, given)
        name = check_file_name(rename_file or (original.name if original else self._new_file_name(table, given)))
        staged = self._journal.state.find_latest_file(table, name)
        asset = StagedAsset(
            key=self._next_key(table, name, staged),
            table=table,
            filename=name,
            path=self._folder.joinpath(table, name),
            asset_types=types or (table,),
            metadata=values,
            original=original,
        )
        if staged is not None and self._is_open(staged):
            _check_no_conflict(staged, asset, types, values)
            return staged.asset, False
        if original and copy_file and staged is not None and _is_modified_since_upload(staged):
            raise FileConflict(
                f"{asset.path} was written to after its upload, and the copy of {original} would replace it: "
                "upload again first, or give rename_file= another name."
            )
        with translate_os_errors(f"{asset.filename!r} cannot be registered", self._folder):
            self._place_file(asset, copy=copy_file)
            self._record_staged(asset)
        return asset, True

    def stage_metadata_file(self, filename: str, path: Path, asset_type: str) -> StagedAsset:
        """Register one of the execution's own records, a file that lies outside the staging folder."""
        table = "Execution_Metadata"
        staged = self._journal.state.find_latest_file(table, filename, record=True)
        asset = StagedAsset(
            key=self._next_key(f"records:{table}", filename, staged),
            table=table,
            filename=filename,
            path=path,
            asset_types=(asset_type,),
            original=path,
            record=True,
        )
        self._journal.append(Staged(asset=asset))
        return asset

    def list_staged(self) -> list[StagedAsset]:
        """The user's files that are not yet uploaded, in the order of their registration."""
        return [file.asset for file in self._journal.state.pending_files() if not file.asset.record]

    def forget(self, path: str | os.PathLike[str]) -> list[StagedAsset]:
        """Drop a file, or those in a folder, from what is to be uploaded; what was written stays where it is.

        Args:
            path: What `stage` gave, or the original's path.

        Raises:
            InvalidFileName: No staged file has that path.
        """
        assets = [file.asset for file in self._find_files(path, self._journal.state.pending_files())]
        self._journal.append(*(Forgotten(key=asset.key) for asset in assets))
        for asset in assets:
            if asset.path.is_symlink():
                asset.path.unlink()
        return assets

    def mark_immutable(self, path: str | os.PathLike[str]) -> None:
        """Note that nobody will write to staged files in place again; see ``Execution.seal``."""
        sealed: list[MarkedImmutable] = []
        for file in self._find_files(path, self._journal.state.pending_files()):
            if (present := FileStamp.from_path(file.asset.path)) is None:
                raise MissingFiles(f"{file.asset.path} is not written yet: write it, then seal it.")
            sealed.append(MarkedImmutable(key=file.asset.key, file_time=present))
        self._journal.append(*sealed)

    def add_types(self, path: str | os.PathLike[str], asset_types: str | Iterable[str]) -> bool:
        """Give registered files further types; see ``Execution.add_asset_types``.

        Returns:
            Whether one of them is uploaded, so that the catalog is to be told.
        """
        types, story = self._validate_types(asset_types), self._journal.state
        files = self._find_files(path, story.files.values())
        new = [file for file in files if not set(types).issubset(file.asset.asset_types)]
        if new:
            self._journal.append(*(TypesAdded(key=file.asset.key, types=types) for file in new))
        unlinked = self._journal.state.unlinked_keys  # read now: an upload may have recorded the file meanwhile
        return any(file.rid is not None and file.asset.key in unlinked for file in files)

    def drop_types(self, path: str | os.PathLike[str], asset_types: str | Iterable[str]) -> None:
        """Take types from registered files that are not uploaded; see ``Execution.drop_asset_types``."""
        unwanted = {asset_types} if isinstance(asset_types, str) else set(asset_types)
        files = self._find_files(path, self._journal.state.pending_files())
        found = {file.asset.key: tuple(each for each in file.added_types if each in unwanted) for file in files}
        self._journal.append(*(TypesRemoved(key=key, types=types) for key, types in found.items() if types))

    def base_keys(self, paths: Iterable[str | os.PathLike[str]]) -> frozenset[str]:
        """The names in the journal, without their counts, of the registered files at these paths."""
        story = self._journal.state
        return frozenset(
            base_key(file.asset.key)
            for path in paths
            for file in self._find_files(path, story.files.values(), include_forgotten=True)
        )

    def _find_files(
        self, path: str | os.PathLike[str], candidates: Iterable[FileState], *, include_forgotten: bool = False
    ) -> list[FileState]:
        """The last registered file at a path, or those in the folder there."""
        wanted = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow the link to the original
        files = {  # the last of each name
            base_key(file.asset.key): file
            for file in tuple(candidates)  # other threads add to them meanwhile
            if not file.asset.record and (include_forgotten or not file.is_forgotten)
        }
        found = [file for file in files.values() if wanted in (file.asset.path, file.asset.original)]
        if not found:
            found = [file for file in files.values() if wanted in file.asset.path.parents]
        if not found:
            raise InvalidFileName(f"{path} is not staged; staged_assets() lists what is.")
        return found

    def restage_changed(self, only: Set[str] | None = None) -> list[StagedAsset]:
        """Stage again what was uploaded, stayed in its place and was written to since.

        Args:
            only: The names in the journal of the files to look at, as `keys` gives them; None for all.
        """
        changed = []
        for file in list(self._journal.state.files.values()):
            asset = file.asset
            if only is not None and base_key(asset.key) not in only:
                continue
            is_newest = self._journal.state.find_latest_file(asset.table, asset.filename) is file
            if not asset.record and is_newest and _is_modified_since_upload(file):
                again = asset.model_copy(update={"key": self._next_key(asset.table, asset.filename, file)})
                self._journal.append(Staged(asset=again))
                changed.append(again)
        return changed

    def remove_abandoned_copies(self) -> None:
        """Take away what processes began to copy that were killed."""
        remove_leftovers(self._folder)

    def remove_empty_folders(self) -> None:
        """Take away the folders in which nothing lies, and where nothing that was handed out is still to be written."""
        _remove_empty_folders(
            self._folder, keep={folder for waiting in self.list_staged() for folder in waiting.path.parents}
        )

    def _validate_types(self, asset_types: str | Iterable[str] | None) -> tuple[str, ...]:
        named = (asset_types,) if isinstance(asset_types, str) else tuple(asset_types or ())
        types = tuple(dict.fromkeys(named))
        self._connection.terms.require(MLVocab.asset_type, types)
        return types

    def _find_original(self, table: str, name: str) -> Path | None:
        """The user's own file that a path with a folder names; None for the name of a new file."""
        if "/" not in name:
            return None
        path = Path(os.path.abspath(name))  # noqa: PTH100 - the link itself is meant, not what it points to
        if path.is_relative_to(self._folder / table):
            return None
        if path.is_dir():
            raise InvalidFileName(f"{name!r} is a folder: register each of its files.")
        return path if path.exists() else None

    def _new_file_name(self, table: str, name: str) -> str:
        """The name of a new file; also where the user gives back the path that we handed out for it."""
        if "/" not in name:
            return name
        path, own = Path(name), self._folder / table
        return path.relative_to(own).as_posix() if path.is_relative_to(own) else name

    @staticmethod
    def _is_open(file: FileState) -> bool:
        return file.rid is None and not file.is_forgotten

    def _next_key(self, table: str, name: str, last: FileState | None) -> str:
        if last is None:
            return f"1:{table}/{name}"
        times, _, _ = last.asset.key.partition(":")
        return f"{int(times) + (not self._is_open(last))}:{table}/{name}"

    def _place_file(self, asset: StagedAsset, *, copy: bool) -> None:
        folder = asset.path.parent
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise FileConflict(
                f"A file is staged where {asset.filename!r} needs a folder: {error.filename}."
            ) from error
        if os.path.lexists(asset.path):
            self._clear_path(asset)
        if asset.original is None:
            return
        if copy:
            copy_atomic(asset.original, asset.path)
        elif asset.path.exists():
            raise FileConflict(f"{asset.path} is in the way of the link to {asset.original}: give rename_file=.")
        else:
            asset.path.symlink_to(asset.original)

    def _clear_path(self, asset: StagedAsset) -> None:
        """Take away an empty folder or a link in a file's place; what was written there stays."""
        if asset.path.is_dir() and not self._remove_empty_folder(asset):
            raise FileConflict(
                f"Files are staged below {asset.filename!r}: a file cannot have the name of their folder."
            )
        if asset.path.is_symlink():
            asset.path.unlink()

    def _remove_empty_folder(self, asset: StagedAsset) -> bool:
        """Whether the folder in a file's place is left over: nothing is staged below it, and nothing lies in it."""
        if any(asset.path in waiting.path.parents for waiting in self.list_staged()):
            return False
        _remove_empty_folders(asset.path)
        return not asset.path.exists()

    def _record_staged(self, asset: StagedAsset) -> None:
        self._journal.append(Staged(asset=asset))
        winner = self._journal.state.files[asset.key].asset
        if winner.original != asset.original:
            raise FileConflict(
                f"Another process has just staged {winner.original or winner.path} as {asset.filename!r}."
            )


def base_key(key: str) -> str:
    """What a file's keys have in common, however often it was staged."""
    return key.partition(":")[2]


def _is_modified_since_upload(file: FileState) -> bool:
    """Whether a file was uploaded, stayed in its place, and was written to there afterwards."""
    path = file.asset.path
    if file.rid is None or file.is_forgotten or file.stored_stamp is None or path.is_symlink():
        return False
    return FileStamp.from_path(path) not in (None, file.stored_stamp)


def _remove_empty_folders(top: Path, keep: Set[Path] = frozenset()) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        if Path(folder) not in keep:
            with suppress(OSError):  # something lies in it
                Path(folder).rmdir()


def _validate_metadata(table: Table, metadata: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    allowed = ("Description", *table.metadata_columns)
    if unknown := sorted(set(metadata) - set(allowed)):
        reserved = set(unknown).intersection((*ASSET_COLUMNS, *SYSTEM_COLUMNS))
        raise UnknownColumn(
            f"{table.name} takes no metadata {', '.join(map(repr, unknown))}"
            f"{' (filled by the upload)' if reserved else ''}; it takes {', '.join(allowed)}."
        )
    return dict(metadata)


def _check_no_conflict(
    file: FileState, requested: StagedAsset, types: tuple[str, ...], metadata: Mapping[str, JsonValue]
) -> None:
    """Raise `FileConflict` unless the file staged under a name is the one that is asked for again."""
    staged = file.asset
    declared = tuple(each for each in staged.asset_types if each not in file.added_types)
    name = f"{requested.table}/{requested.filename}"
    if requested.original is None and staged.original is not None:
        raise FileConflict(
            f"{name} is already staged from {staged.original}, which must not be written through: give another name."
        )
    if requested.original is not None and not _is_same_file(requested.original, staged):
        raise FileConflict(
            f"Another file, {staged.original or staged.path}, is already staged as {name}: "
            "give rename_file= another name, or forget() the first."
        )
    if (types and types not in (staged.asset_types, declared)) or (metadata and metadata != staged.metadata):
        raise FileConflict(
            f"{name} is already staged with types {', '.join(staged.asset_types)} and metadata "
            f"{dict(staged.metadata)}: forget() it first to stage it with others."
        )


def _is_same_file(original: Path, staged: StagedAsset) -> bool:
    import filecmp

    if original == staged.original:
        return True
    return staged.path.exists() and filecmp.cmp(original, staged.path, shallow=False)


FileIdentity = tuple[int, int]
"""A file's device and inode."""


def files_open_for_writing() -> frozenset[FileIdentity]:
    """The files that this process has open for writing; none where the system does not tell."""
    found = set()
    with suppress(OSError):
        for name in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, not paths
            with suppress(OSError):  # the one that listed them is closed again
                file = os.fstat(int(name))
                if S_ISREG(file.st_mode) and fcntl.fcntl(int(name), fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
                    found.add((file.st_dev, file.st_ino))
    return frozenset(found)


def is_open_file(path: Path, open_files: Set[FileIdentity]) -> bool:
    """Whether the file at a path is one of these."""
    try:
        file = path.stat()
    except OSError:
        return False
    return (file.st_dev, file.st_ino) in open_files
