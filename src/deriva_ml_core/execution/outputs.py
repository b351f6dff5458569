"""Uploads the outputs of an execution: staged files, added types, metadata files and a copy of the journal."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from functools import partial
from pathlib import Path

from deriva_ml_core._files.locks import locked_folder
from deriva_ml_core._progress import progress_reporter
from deriva_ml_core.assets.asset_rows import link_asset_types, unlink_asset_types
from deriva_ml_core.assets.staging import StagingArea, base_key, files_open_for_writing, is_open_file
from deriva_ml_core.assets.upload import MISSING_FILE_REASON, Upload
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLAsset
from deriva_ml_core.errors import DerivaMLException, MissingFiles, UploadFailed
from deriva_ml_core.execution.console_text import keep_console, list_raw_files
from deriva_ml_core.execution.run_lock import UPLOAD_LOCK_NAME
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import JOURNAL_FILENAME, FileStamp, TypesLinked
from deriva_ml_core.models import StagedAsset, UnsentAsset, UploadOptions, UploadProgress, UploadReport

__all__ = ["Outputs"]

log = logging.getLogger(__name__)


class Outputs:
    """The outputs of one execution; a lock file allows one upload at a time.

    Args:
        connection: Target catalog and store.
        journal: The execution's journal.
        staging: The execution's staged files.
        execution: RID of the execution.
    """

    def __init__(self, connection: Connection, journal: Journal, staging: StagingArea, execution: RID) -> None:
        self._connection = connection
        self._journal = journal
        self._staging = staging
        self._execution = execution
        self._records = journal.path.parent / "records"
        self._reminder: Callable[[], None] | None = None
        """Called when the interpreter exits; None if files need no upload."""

    def upload(
        self,
        options: UploadOptions,
        *,
        clean: bool,
        progress_callback: Callable[[UploadProgress], None] | None,
        only: Iterable[Path] | None = None,
    ) -> UploadReport:
        """Upload staged files, then a copy of the journal if the run has ended, and it is not uploaded yet.

        Args:
            options: Timeouts, chunk size, retries and number of workers.
            clean: Whether to move the files of an ended run instead of copying them.
            progress_callback: Called with the progress.
            only: Paths of files, or of folders of them, to upload; None for all.

        Returns:
            Which of the user's files were uploaded and which were not. A registered file that a running execution has
            not written yet is in neither list.
        """
        lock = locked_folder(self._journal.path.with_name(UPLOAD_LOCK_NAME), f"upload execution {self._execution}")
        with lock, progress_reporter(progress_callback) as callback:
            ended = self._journal.state.status.is_terminal
            self._stage_console()
            keys = None if only is None else self._staging.base_keys(only)
            self._staging.restage_changed(keys)
            report = self._upload(options, move=ended and clean, progress_callback=callback, only=keys)
            if not self._journal.state.status.is_terminal:
                unsent = tuple(asset for asset in report.unsent if asset.reason != MISSING_FILE_REASON)
                return report.model_copy(update={"unsent": unsent})
            has_failed = any(asset.reason != MISSING_FILE_REASON for asset in report.unsent) and not report.sent
            unsent_files = self._finalize(clean=clean, upload_journal=not has_failed)
            self._cancel_reminder()
            return report.model_copy(update={"unsent": (*report.unsent, *unsent_files)})

    def finalize(self, *, clean: bool) -> None:
        """Upload the journal and clean up at the end of a run; an upload in progress does this itself when it ends.

        Args:
            clean: Whether to remove uploaded files.
        """
        marker = self._journal.path.with_name(UPLOAD_LOCK_NAME)
        with locked_folder(marker, f"upload execution {self._execution}", blocking=False) as is_held:
            for unsent in self._finalize(clean=clean) if is_held else ():
                log.warning("The journal of execution %s is not uploaded yet: %s", self._execution, unsent.reason)

    def stage_console(self) -> None:
        """Stage the console output of a run that has ended, unless an upload is in progress, which stages it itself."""
        marker = self._journal.path.with_name(UPLOAD_LOCK_NAME)
        if list_raw_files(self._records):
            with locked_folder(marker, f"upload execution {self._execution}", blocking=False) as is_held:
                if is_held:
                    self._stage_console()

    def _stage_console(self) -> None:
        """Stage the console output of a run that has ended; a failure is logged, as it prevents no upload."""
        if not self._journal.state.status.is_terminal:
            return
        try:
            keep_console(self._records, self._stage_record)
        except (DerivaMLException, OSError) as error:
            log.warning("The console output of execution %s is not kept yet: %s", self._execution, error)

    def _stage_record(self, path: Path) -> None:
        """Stage one of the execution's own records, unless it is staged and not uploaded yet."""
        table = MLAsset.execution_metadata.value
        staged = self._journal.state.find_latest_file(table, path.name, record=True)
        if staged is None or staged.rid is not None:
            self._staging.stage_metadata_file(path.name, path, table)

    def link_types(self) -> None:
        """Link added types in the catalog and unlink removed ones, for the files that are already uploaded."""
        state = self._journal.state
        files = [file for key in list(state.unlinked_keys) if (file := state.files[key]).rid is not None]
        if files:
            added = {file.asset.key: file.added_types for file in files}
            removed = {file.asset.key: file.removed_types for file in files if file.removed_types}
            link_asset_types(self._connection, files)
            unlink_asset_types(self._connection, self._execution, files)
            self._journal.append(TypesLinked(types=added, removed=removed))

    def _finalize(self, *, clean: bool, upload_journal: bool = True) -> tuple[UnsentAsset, ...]:
        """Upload the journal if its copy is outdated and clean up; return what could not be uploaded."""
        unsent: tuple[UnsentAsset, ...] = ()
        if upload_journal and self._journal.state.is_journal_copy_outdated:
            unsent = self.upload_metadata_files(
                [self._staging.stage_metadata_file(JOURNAL_FILENAME, self._journal.path, "Execution_Metadata")]
            )
        self._staging.remove_abandoned_copies()
        if clean:
            self._remove_uploaded_files()
        return unsent

    def upload_metadata_files(self, files: list[StagedAsset]) -> tuple[UnsentAsset, ...]:
        """Upload the execution's own metadata files; return those that failed."""
        state = self._journal.state
        upload = Upload(self._connection, self._journal, self._execution, UploadOptions(), move_files=False)
        return upload.run([state.files[file.key] for file in files]).unsent

    def remind_at_exit(self) -> None:
        """Warn when the interpreter exits, unless the staged files of a completed run are uploaded until then.

        A program usually uploads right after its run.
        """
        if self._reminder is None and self._staging.list_staged():
            self._reminder = partial(self._warn_at_exit, os.getpid())
            atexit.register(self._reminder)

    def _warn_at_exit(self, pid: int) -> None:
        if pid == os.getpid():  # not in a forked child
            with suppress(DerivaMLException):  # a working folder that was deleted
                self.warn_not_uploaded()

    def _cancel_reminder(self) -> None:
        if self._reminder is not None and not self._staging.list_staged():
            atexit.unregister(self._reminder)
            self._reminder = None

    def upload_records(self) -> None:
        """Upload the metadata files that are still pending; log how to upload those that fail."""
        from filelock import FileLock

        try:
            with FileLock(f"{self._journal.path}.lock"):
                self._stage_console()
                pending = [file.asset for file in self._journal.state.pending_files() if file.is_pending_record]
                unsent = self.upload_metadata_files(pending)
        except Exception as error:  # noqa: BLE001 - a background task must not end a training
            self._warn_records_pending(error)
        else:
            if unsent:
                self._warn_records_pending(unsent[0].reason)

    def warn_records_pending(self) -> None:
        """Log how to upload the metadata files, if the background has not uploaded them yet."""
        if any(file.is_pending_record for file in self._journal.state.pending_files()):
            self._warn_records_pending("their upload is not complete")

    def _warn_records_pending(self, reason: object) -> None:
        log.warning(
            "Records of execution %s, such as its configuration, are not uploaded yet: %s. To upload them: %s",
            self._execution,
            str(reason).rstrip("."),
            self._upload_hint(),
        )

    def _upload_hint(self) -> str:
        """Return a call and a command that upload everything of this execution."""
        call = f"{self._connection.call}.restore_execution({self._execution!r}).upload_execution_outputs()"
        command = f" or `{self._connection.command('upload', self._execution)}`"
        # the command has no option for another working folder
        return call if self._connection.address.working_dir else call + command

    def warn_not_uploaded(self) -> None:
        """Log how to upload the files that a run left staged."""
        if staged := self._staging.list_staged():
            log.warning(
                "Execution %s ended with %d staged files that are not uploaded. To upload them: %s",
                self._execution,
                len(staged),
                self._upload_hint(),
            )

    def raise_for_unsent(self, report: UploadReport, *, require_all: bool) -> None:
        """Raise for files that were not uploaded; files never written only log a warning unless all are required.

        Raises:
            UploadFailed: A file could not be uploaded.
            MissingFiles: A required file was never written.
        """
        missing = [asset for asset in report.unsent if asset.reason == MISSING_FILE_REASON]
        failed = [asset for asset in report.unsent if asset.reason != MISSING_FILE_REASON]
        if failed:
            raise UploadFailed(
                f"{len(failed)} files of execution {self._execution} were not uploaded and stay staged: "
                f"{_format_unsent(failed)}. Call upload_execution_outputs() again, or unregister them with "
                f"forget(path)."
            )
        if missing:
            message = (
                f"{len(missing)} registered files of execution {self._execution} do not exist: "
                f"{_format_unsent(missing)}. Write them and upload again, or unregister them with forget(path)."
            )
            if require_all:
                raise MissingFiles(message)
            log.warning(message)

    def _upload(
        self,
        options: UploadOptions,
        *,
        move: bool,
        progress_callback: Callable[[UploadProgress], None] | None,
        only: Set[str] | None,
    ) -> UploadReport:
        state = self._journal.state
        upload = Upload(
            self._connection,
            self._journal,
            self._execution,
            options,
            move_files=move,
            progress_callback=progress_callback,
        )
        report = upload.run(file for file in state.pending_files() if only is None or base_key(file.asset.key) in only)
        self.link_types()
        metadata_rids = {file.rid for file in list(state.files.values()) if file.asset.record}
        sent = {
            table: user_assets
            for table, assets in report.sent.items()
            if (user_assets := tuple(asset for asset in assets if asset.rid not in metadata_rids))
        }
        return report.model_copy(update={"sent": sent})

    def _remove_uploaded_files(self) -> None:
        """Remove links to and copies of stored files, except kept ones, and the folders that this leaves empty."""
        open_files, state = files_open_for_writing(), self._journal.state
        pending_paths = {file.asset.path for file in state.pending_files()}
        for file in list(state.files.values()):
            path = file.asset.path
            if file.rid is None or file.asset.record or path in pending_paths:
                continue
            if file.is_kept and not path.is_symlink():
                continue
            is_stored = file.stored_stamp is not None and FileStamp.from_path(path) == file.stored_stamp
            if path.is_symlink() or (is_stored and not is_open_file(path, open_files)):
                with suppress(FileNotFoundError):
                    path.unlink()
        self._staging.remove_empty_folders()


def _format_unsent(unsent: list[UnsentAsset]) -> str:
    first_lines = [f"{failure.asset.path} ({failure.reason})" for failure in unsent[:10]]
    return "; ".join(first_lines) + ("; …" if len(unsent) > len(first_lines) else "")
