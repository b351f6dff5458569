"""Staging: register files for upload. New files are written here; existing ones are linked or copied."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from pathlib import Path, PurePosixPath
from stat import S_ISFIFO, S_ISREG, S_ISSOCK

from pydantic import JsonValue

from deriva_ml_core._files.atomic import copy_atomic, remove_leftovers
from deriva_ml_core._files.os_errors import translate_os_errors
from deriva_ml_core._text import escape_surrogates
from deriva_ml_core.assets.lookup import MAX_NAME_BYTES
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import MLVocab
from deriva_ml_core.errors import FileConflict, InvalidFileName, MissingFiles, UnknownColumn
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import (
    ExecutionState,
    FileStamp,
    FileState,
    Forgotten,
    KeptInPlace,
    MarkedImmutable,
    Staged,
    TypesAdded,
    TypesRemoved,
)
from deriva_ml_core.models import StagedAsset
from deriva_ml_core.paths import leads_nowhere, to_absolute_path
from deriva_ml_core.schema import ASSET_COLUMNS, SYSTEM_COLUMNS, Table

__all__ = ["StagingArea", "base_key", "check_file_name", "files_open_for_writing", "is_open_file"]


def check_file_name(name: str) -> str:
    """Check the name of a new file, and return it with single ``/`` between sub-folders.

    Raises:
        InvalidFileName: The name is empty, absolute, contains ``..``, has a part longer than 255 bytes, or has a
            surrogate that stands for no byte.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.endswith("/") or "\0" in name:
        raise InvalidFileName(f"{name!r} is not a file name.")
    if parts[0] == "/":
        raise InvalidFileName(
            f"{name!r} does not exist. Use the path of an existing file, or a relative name for a new one."
        )
    if ".." in parts:
        raise InvalidFileName(f"{name!r} leads out of its folder. Use a name without '..'.")
    try:
        is_too_long = any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in parts)
    except UnicodeEncodeError as error:
        raise InvalidFileName(f"{name!r} cannot name a file: it has half a character. Use another name.") from error
    if is_too_long:
        raise InvalidFileName(f"{name!r} is too long: file systems allow {MAX_NAME_BYTES} bytes per part.")
    return "/".join(parts)


class StagingArea:
    """The staged files of one execution.

    Args:
        connection: The catalog with the asset tables and types.
        journal: The journal to record each step in.
        folder: The staging folder; files are in ``<folder>/<table>/<file name>``.
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
        """Register a file; see ``Execution.asset_file_path``.

        Returns:
            The staged file, and whether it is new.
        """
        asset_table = self._connection.catalog.model.asset_table(table)
        types = self._validate_types(asset_types)
        values = _validate_metadata(asset_table, metadata or {})
        path = os.fspath(file_name)
        original = self._find_original(table, path)
        name = check_file_name(rename_file or (original.name if original else self._new_file_name(table, path)))
        filename = escape_surrogates(name)
        staged = self._journal.state.find_latest_file(table, filename)
        asset = StagedAsset(
            key=self._next_key(table, filename, staged),
            table=table,
            filename=filename,
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
                f"{asset.path} changed after its upload, and the copy of {original} would replace it. "
                "Upload again first, or pass another name as rename_file=."
            )
        with translate_os_errors(f"Cannot register {asset.filename!r}", self._folder):
            self._place_file(asset, copy=copy_file)
            self._record_staged(asset)
        return asset, True

    def stage_metadata_file(self, filename: str, path: Path, asset_type: str) -> StagedAsset:
        """Register one of the execution's own records, a file outside the staging folder."""
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
        """Return the user's files that are not yet uploaded, in the order of registration."""
        return [file.asset for file in self._journal.state.pending_files() if not file.asset.record]

    def forget(self, path: str | os.PathLike[str]) -> list[StagedAsset]:
        """Unregister a file, or the files in a folder; the files themselves stay.

        Args:
            path: The path that `stage` returned, or the original's path.

        Raises:
            InvalidFileName: No staged file has that path.
        """
        assets = [file.asset for file in self._find_files(path, pending_only=True)]
        self._journal.append(*(Forgotten(key=asset.key) for asset in assets))
        for asset in assets:
            if asset.path.is_symlink():
                asset.path.unlink()
        return assets

    def mark_immutable(self, path: str | os.PathLike[str]) -> None:
        """Record that staged files are final; see ``Execution.mark_immutable``."""
        events: list[MarkedImmutable] = []
        for file in self._find_files(path, pending_only=True):
            if (present := FileStamp.from_path(file.asset.path)) is None:
                raise MissingFiles(f"{file.asset.path} does not exist yet. Write it before marking it immutable.")
            events.append(MarkedImmutable(key=file.asset.key, file_time=present))
        self._journal.append(*events)

    def keep_in_place(self, path: str | os.PathLike[str]) -> None:
        """Record that staged files stay in their place after the upload; see ``Execution.keep_in_place``."""
        files = [file for file in self._find_files(path, pending_only=True) if not file.is_kept]
        self._journal.append(*(KeptInPlace(key=file.asset.key) for file in files))

    def add_types(self, path: str | os.PathLike[str], asset_types: str | Iterable[str]) -> bool:
        """Add types to registered files; see ``Execution.add_asset_types``.

        Returns:
            Whether one of the files is uploaded, so that the catalog needs new links.
        """
        types = self._validate_types(asset_types)
        files = self._find_files(path)
        new = [file for file in files if not set(types).issubset(file.asset.asset_types)]
        if new:
            self._journal.append(*(TypesAdded(key=file.asset.key, types=types) for file in new))
        unlinked = self._journal.state.unlinked_keys  # read now: an upload may have recorded the file meanwhile
        return any(file.rid is not None and file.asset.key in unlinked for file in files)

    def is_registered(self, path: Path) -> bool:
        """Whether a file, or files in a folder, were registered and not forgotten."""
        return bool(self._find_checkpoint_files(path))

    def move_type(self, asset_type: str, paths: Iterable[Path]) -> bool:
        """Remove a type that was added to files, and add it to others; see ``Execution._move_asset_type``.

        Returns:
            Whether the catalog needs changes.
        """
        self._validate_types(asset_type)
        wanted: dict[str, FileState] = {}
        for path in paths:
            if not (files := self._find_checkpoint_files(path)):
                raise _not_staged_error(path)
            wanted |= {file.asset.key: file for file in files}
        typed = tuple(self._journal.state.keys_by_added_type.get(asset_type, ()))
        added = [key for key, file in wanted.items() if asset_type not in file.asset.asset_types]
        self._journal.append(
            *(TypesAdded(key=key, types=(asset_type,)) for key in added),
            *(TypesRemoved(key=key, types=(asset_type,)) for key in typed if key not in wanted),
        )
        state = self._journal.state  # read now: an upload may have recorded a file meanwhile
        return any(state.files[key].rid is not None for key in tuple(state.unlinked_keys))

    def drop_types(self, path: str | os.PathLike[str], asset_types: str | Iterable[str]) -> None:
        """Remove types from registered files that are not uploaded; see ``Execution.drop_asset_types``."""
        dropped = {asset_types} if isinstance(asset_types, str) else set(asset_types)
        files = self._find_files(path, pending_only=True)
        removed = {file.asset.key: tuple(each for each in file.added_types if each in dropped) for file in files}
        self._journal.append(*(TypesRemoved(key=key, types=types) for key, types in removed.items() if types))

    def find_staged(self, path: Path) -> list[StagedAsset]:
        """Return the staged files at a path or with that original; else those in the folder at that path."""
        if found := self._find_at_path(os.fspath(path), pending_only=True):
            return [file.asset for file in found]
        staged = (file.asset for file in self._iter_candidates(pending_only=True))
        return [asset for asset in staged if path in (*asset.path.parents, *(asset.original or asset.path).parents)]

    def base_keys(self, paths: Iterable[str | os.PathLike[str]]) -> frozenset[str]:
        """Return the journal keys, without their counters, of the registered files at these paths."""
        keys: set[str] = set()
        folders: dict[Path, bool] = {}
        for path in paths:
            target = self._absolute_path(path)
            found = self._find_at_path(os.fspath(target), include_forgotten=True)
            keys.update(base_key(file.asset.key) for file in found)
            if not found:
                folders[target] = False
        for file in self._iter_candidates(include_forgotten=True) if folders else ():
            for parent in folders.keys() & {*file.asset.path.parents}:
                folders[parent] = True
                keys.add(base_key(file.asset.key))
        if missing := [path for path, has_files in folders.items() if not has_files]:
            raise _not_staged_error(missing[0])
        return frozenset(keys)

    def _find_files(self, path: str | os.PathLike[str], *, pending_only: bool = False) -> list[FileState]:
        """Return the newest registered file at a path, or the files in the folder at that path."""
        target = self._absolute_path(path)
        found = self._find_at_path(os.fspath(target), pending_only=pending_only) or self._find_in_folder(
            target, pending_only=pending_only
        )
        if not found:
            raise _not_staged_error(path)
        return found

    def _find_at_path(
        self, target: str, *, pending_only: bool = False, include_forgotten: bool = False
    ) -> list[FileState]:
        """Return the files at a path or with that original, of each name the newest."""
        state = self._journal.state
        found: dict[str, FileState] = {}
        for key in tuple(state.keys_by_path.get(target, ())):
            same_place = reversed(tuple(state.keys_by_path[os.fspath(state.files[key].asset.path)]))
            versions = (state.files[each] for each in same_place if base_key(each) == base_key(key))
            wanted = (
                file
                for file in versions
                if _is_candidate(file, state, pending_only=pending_only, include_forgotten=include_forgotten)
            )
            newest = next(wanted, None)
            if newest is not None and target in map(
                os.fspath, filter(None, (newest.asset.path, newest.asset.original))
            ):
                found[base_key(key)] = newest
        return list(found.values())

    def _find_checkpoint_files(self, path: Path) -> list[FileState]:
        """Return the registered files at a path, or in the folder at that path, there or with an original there."""
        target = self._absolute_path(path)
        return self._find_at_path(os.fspath(target)) or [
            file
            for file in self._iter_candidates()
            if target in (*file.asset.path.parents, *(file.asset.original or file.asset.path).parents)
        ]

    def _find_in_folder(self, folder: Path, *, pending_only: bool) -> list[FileState]:
        candidates = self._iter_candidates(pending_only=pending_only)
        return [file for file in candidates if folder in file.asset.path.parents]

    def _iter_candidates(self, *, pending_only: bool = False, include_forgotten: bool = False) -> Iterable[FileState]:
        """Return the registered files, of each name the newest."""
        state = self._journal.state
        files: dict[str, FileState] = {}
        for file in tuple(state.files.values()):  # other threads may add files meanwhile
            if _is_candidate(file, state, pending_only=pending_only, include_forgotten=include_forgotten):
                files[base_key(file.asset.key)] = file
        return files.values()

    def restage_changed(self, only: Set[str] | None = None) -> list[StagedAsset]:
        """Stage uploaded files again that changed in place since.

        Args:
            only: The files to check, as `base_keys` returns them; None for all.
        """
        changed = []
        state = self._journal.state
        for (table, filename, is_record), key in list(state.latest_keys.items()):
            file = state.files[key]
            if is_record or (only is not None and base_key(key) not in only) or not _is_modified_since_upload(file):
                continue
            again = file.asset.model_copy(update={"key": self._next_key(table, filename, file)})
            self._journal.append(Staged(asset=again), *([KeptInPlace(key=again.key)] if file.is_kept else []))
            changed.append(again)
        return changed

    def remove_abandoned_copies(self) -> None:
        """Delete partial copies of killed processes."""
        remove_leftovers(self._folder)

    def remove_empty_folders(self) -> None:
        """Delete empty folders, except those in which a registered file is still to be written."""
        _remove_empty_folders(
            self._folder, keep={folder for asset in self.list_staged() for folder in asset.path.parents}
        )

    def _validate_types(self, asset_types: str | Iterable[str] | None) -> tuple[str, ...]:
        names = (asset_types,) if isinstance(asset_types, str) else tuple(asset_types or ())
        types = tuple(dict.fromkeys(names))
        self._connection.terms.require(MLVocab.asset_type, types)
        return types

    def _find_original(self, table: str, name: str) -> Path | None:
        """Return the existing file that a path with a folder names; None for the name of a new file."""
        if "/" not in name or leads_nowhere(name):
            return None
        path = Path(os.path.abspath(name))  # noqa: PTH100 - the link itself is meant, not what it points to
        if os.path.lexists(path):
            path = self._respell(path)
        if path.is_relative_to(self._folder / table):
            return None
        if path.is_dir():
            raise InvalidFileName(f"{name!r} is a folder. Register each of its files.")
        if not path.exists():
            return None
        if not path.is_file():  # reading it may wait, or never end
            raise InvalidFileName(
                f"{name!r} is {_describe_special_file(path.stat().st_mode)}. Write its content to a file, and register "
                "that."
            )
        return path

    def _new_file_name(self, table: str, name: str) -> str:
        """Return the name of a new file, also from the path that `stage` returned for it."""
        if "/" not in name:
            return name
        path, own = Path(name), self._folder / table
        if path.is_absolute():
            path = self._respell(path)
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
                f"{asset.filename!r} needs a folder where a file is staged: {error.filename}. Use another name."
            ) from error
        if os.path.lexists(asset.path):
            self._clear_path(asset)
        if asset.original is None:
            return
        if copy:
            copy_atomic(asset.original, asset.path)
        elif asset.path.exists():
            raise FileConflict(
                f"{asset.path} exists and cannot become a link to {asset.original}. Pass another name as rename_file=."
            )
        else:
            asset.path.symlink_to(self._link_target(asset))

    def repair_links(self) -> None:
        """Let links to files of the working folder lead to their present place.

        Earlier versions made absolute links, which lead to the former place after the working folder was moved.
        """
        for file in list(self._journal.state.files.values()):
            path = file.asset.path
            if file.asset.record or not path.is_symlink():
                continue
            target = self._link_target(file.asset)
            if not target.is_absolute() and path.readlink() != target:
                path.unlink()
                path.symlink_to(target)

    def _link_target(self, asset: StagedAsset) -> Path:
        """Return where the link to an original leads: a relative path if the original is in the working folder."""
        assert asset.original is not None
        if not asset.original.is_relative_to(self._folder.parent):
            return asset.original
        return Path(os.path.relpath(asset.original, asset.path.parent))

    def _absolute_path(self, path: str | os.PathLike[str]) -> Path:
        # resolve() would follow the link to the original
        return self._respell(Path(os.path.normpath(to_absolute_path(path))))

    def _respell(self, path: Path) -> Path:
        """Return a path in the working folder as it is spelled here, also if it goes through a link to the folder."""
        own = self._folder.parent
        if path.is_relative_to(own):
            return path
        folder = Path(os.path.realpath(path.parent))
        resolved = Path(os.path.realpath(own))
        return own / folder.relative_to(resolved) / path.name if folder.is_relative_to(resolved) else path

    def _clear_path(self, asset: StagedAsset) -> None:
        """Delete an empty folder or a link at a file's path; a written file stays."""
        if asset.path.is_dir() and not self._remove_empty_folder(asset):
            raise FileConflict(
                f"{asset.filename!r} is a folder with staged files, so no file can have that name. Use another name."
            )
        if asset.path.is_symlink():
            asset.path.unlink()

    def _remove_empty_folder(self, asset: StagedAsset) -> bool:
        """Delete the folder at a file's path if it is empty and nothing is staged in it; returns whether it did."""
        if any(asset.path in staged.path.parents for staged in self.list_staged()):
            return False
        _remove_empty_folders(asset.path)
        return not asset.path.exists()

    def _record_staged(self, asset: StagedAsset) -> None:
        self._journal.append(Staged(asset=asset))
        winner = self._journal.state.files[asset.key].asset
        if winner.original != asset.original:
            raise FileConflict(
                f"Another process staged {winner.original or winner.path} as {asset.filename!r} at the same time. "
                "Use another name."
            )


def _describe_special_file(mode: int) -> str:
    return "a fifo" if S_ISFIFO(mode) else "a socket" if S_ISSOCK(mode) else "a device"


def _not_staged_error(path: str | os.PathLike[str]) -> InvalidFileName:
    return InvalidFileName(f"{path} is not staged. staged_assets() lists the staged files.")


def _is_candidate(file: FileState, state: ExecutionState, *, pending_only: bool, include_forgotten: bool) -> bool:
    """Whether a file is one of the user's that a path may name."""
    if file.asset.record or (file.is_forgotten and not include_forgotten):
        return False
    return not pending_only or file.asset.key in state.pending_keys


def base_key(key: str) -> str:
    """Return a journal key without its counter, the same each time that a file is staged."""
    return key.partition(":")[2]


def _is_modified_since_upload(file: FileState) -> bool:
    """Whether a file was uploaded, stayed in place, and changed there afterwards."""
    path = file.asset.path
    if file.rid is None or file.is_forgotten or file.stored_stamp is None or path.is_symlink():
        return False
    return FileStamp.from_path(path) not in (None, file.stored_stamp)


def _remove_empty_folders(top: Path, keep: Set[Path] = frozenset()) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        if Path(folder) not in keep:
            with suppress(OSError):  # not empty
                Path(folder).rmdir()


def _validate_metadata(table: Table, metadata: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the values of a file's metadata columns, with secrets redacted."""
    allowed = ("Description", *table.metadata_columns)
    if unknown := sorted(set(metadata) - set(allowed)):
        reserved = set(unknown).intersection((*ASSET_COLUMNS, *SYSTEM_COLUMNS))
        raise UnknownColumn(
            f"{table.name} has no metadata column {', '.join(map(repr, unknown))}"
            f"{' (the upload fills it)' if reserved else ''}; it has {', '.join(allowed)}."
        )
    from deriva_ml_core.redaction import redact  # many patterns to compile

    redacted = redact(dict(metadata))
    return redacted if isinstance(redacted, dict) else {}


def _check_no_conflict(
    file: FileState, requested: StagedAsset, types: tuple[str, ...], metadata: Mapping[str, JsonValue]
) -> None:
    """Raise `FileConflict` unless the file staged under a name is the requested one."""
    staged = file.asset
    declared = tuple(each for each in staged.asset_types if each not in file.added_types)
    name = f"{requested.table}/{requested.filename}"
    depth = len(requested.filename.split("/"))
    if requested.path.parts[-depth:] != staged.path.parts[-depth:]:  # two names with one escaped form
        raise FileConflict(
            f"{requested.path} and the staged file {staged.path} would both be {name} in the catalog. Use another name."
        )
    if requested.original is None and staged.original is not None:
        raise FileConflict(f"{name} is already staged as a link to {staged.original}. Use another name for a new file.")
    if requested.original is not None and not _is_same_file(requested.original, staged):
        raise FileConflict(
            f"{staged.original or staged.path} is already staged as {name}. "
            "Pass another name as rename_file=, or forget() the first file."
        )
    if (types and types not in (staged.asset_types, declared)) or (metadata and metadata != staged.metadata):
        raise FileConflict(
            f"{name} is already staged with types {', '.join(staged.asset_types)} and metadata "
            f"{dict(staged.metadata)}. To change them, forget() it first."
        )


def _is_same_file(original: Path, staged: StagedAsset) -> bool:
    import filecmp

    if original == staged.original:
        return True
    return staged.path.exists() and filecmp.cmp(original, staged.path, shallow=False)


FileIdentity = tuple[int, int]
"""A file's device and inode."""


def files_open_for_writing() -> frozenset[FileIdentity]:
    """Return the files that this process has open for writing; empty if the system does not list them."""
    files = set()
    with suppress(OSError):
        for name in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, not paths
            with suppress(OSError):  # listdir's own descriptor is closed again
                file = os.fstat(int(name))
                if S_ISREG(file.st_mode) and fcntl.fcntl(int(name), fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
                    files.add((file.st_dev, file.st_ino))
    return frozenset(files)


def is_open_file(path: Path, open_files: Set[FileIdentity]) -> bool:
    """Whether the file at a path is one of those."""
    try:
        file = path.stat()
    except OSError:
        return False
    return (file.st_dev, file.st_ino) in open_files
