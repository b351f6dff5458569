"""An execution's outputs on their way: which files go, in which turn, what is kept beside them, what is left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from pathlib import Path

from deriva_ml_core._progress import progress_reporter
from deriva_ml_core.assets.asset_rows import link_asset_types
from deriva_ml_core.assets.staging import StagingArea, base_key, files_open_for_writing, is_open_file
from deriva_ml_core.assets.upload import MISSING_FILE_REASON, Upload
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID
from deriva_ml_core.errors import MissingFiles, UploadFailed
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import JOURNAL_FILENAME, FileStamp, TypesLinked
from deriva_ml_core.models import StagedAsset, UnsentAsset, UploadOptions, UploadProgress, UploadReport

__all__ = ["Outputs"]

log = logging.getLogger(__name__)


class Outputs:
    """What an execution sends to its catalog and store, one sender at a time.

    Args:
        connection: Where to send it.
        journal: What is known of it.
        staging: Where the files wait.
        execution: Whose outputs they are.
    """

    def __init__(self, connection: Connection, journal: Journal, staging: StagingArea, execution: RID) -> None:
        self._connection = connection
        self._journal = journal
        self._staging = staging
        self._execution = execution

    def upload(
        self,
        options: UploadOptions,
        *,
        clean: bool,
        progress_callback: Callable[[UploadProgress], None] | None,
        only: Iterable[Path] | None = None,
    ) -> UploadReport:
        """Send what is staged; afterwards, if the run has ended and something was sent, a copy of the journal.

        Args:
            options: How to send.
            clean: Whether an ended run's files are moved away, not copied.
            progress_callback: Whom to tell of the progress.
            only: The paths of the files to send, or of folders of them; None for all.

        Returns:
            What was sent of the user's files, and what was not. A registered file that a running execution has not yet
            written is neither.
        """
        from filelock import FileLock

        with FileLock(f"{self._journal.path}.lock"), progress_reporter(progress_callback) as heard:
            ended = self._journal.state.status.is_terminal
            wanted = None if only is None else self._staging.base_keys(only)
            self._staging.restage_changed(wanted)
            report = self._upload(options, move=ended and clean, progress_callback=heard, only=wanted)
            if not self._journal.state.status.is_terminal:
                unsent = tuple(each for each in report.unsent if each.reason != MISSING_FILE_REASON)
                return report.model_copy(update={"unsent": unsent})
            left = self._finalize(clean=clean)
            return report.model_copy(update={"unsent": (*report.unsent, *left)})

    def finalize(self, *, clean: bool) -> None:
        """Round off, at the run's end, what was sent while it ran; an upload that is under way does it itself later.

        Args:
            clean: Whether the files that were sent are taken away.
        """
        from filelock import FileLock, Timeout

        with suppress(Timeout), FileLock(f"{self._journal.path}.lock", blocking=False):
            for left in self._finalize(clean=clean):
                log.warning("The journal of execution %s is not kept yet: %s", self._execution, left.reason)

    def link_types(self) -> None:
        """Bring the types that were added to files to the catalog, of those files that are there by now."""
        story = self._journal.state
        files = [file for key in list(story.unlinked_keys) if (file := story.files[key]).rid is not None]
        if files:
            link_asset_types(self._connection, files)
            self._journal.append(TypesLinked(types={file.asset.key: file.added_types for file in files}))

    def _finalize(self, *, clean: bool) -> tuple[UnsentAsset, ...]:
        """Keep a copy of the journal, if it has news of files, and tidy up; returns what could not be kept."""
        left: tuple[UnsentAsset, ...] = ()
        if self._journal.state.is_journal_copy_outdated:
            left = self.upload_metadata_files(
                [self._staging.stage_metadata_file(JOURNAL_FILENAME, self._journal.path, "Execution_Metadata")]
            )
        self._staging.remove_abandoned_copies()
        if clean:
            self._remove_uploaded_files()
        return left

    def upload_metadata_files(self, files: list[StagedAsset]) -> tuple[UnsentAsset, ...]:
        """Send the execution's own records; returns those that could not be sent."""
        story = self._journal.state
        upload = Upload(self._connection, self._journal, self._execution, UploadOptions(), move_files=False)
        return upload.run([story.files[record.key] for record in files]).unsent

    def warn_not_uploaded(self) -> None:
        """Say how to send what is staged, where a run ended by an error."""
        if staged := self._staging.list_staged():
            log.warning(
                "Execution %s ended with %d files staged and not uploaded. To send them: "
                "DerivaML(%r).restore_execution(%r).upload_execution_outputs()",
                self._execution,
                len(staged),
                self._connection.address.hostname or "",
                self._execution,
            )

    def raise_for_unsent(self, report: UploadReport, *, require_all: bool) -> None:
        """Raise for what was not sent; what was never written is only warned about unless all must be there.

        Raises:
            UploadFailed: Something could not be sent.
            MissingFiles: Something that must be there was never written.
        """
        missing = [each for each in report.unsent if each.reason == MISSING_FILE_REASON]
        failed = [each for each in report.unsent if each.reason != MISSING_FILE_REASON]
        if failed:
            raise UploadFailed(
                f"{len(failed)} files of execution {self._execution} were not uploaded and stay staged: "
                f"{_format_unsent(failed)}. Call upload_execution_outputs() again, or forget(path) what is not to "
                f"be sent."
            )
        if missing:
            text = (
                f"{len(missing)} files of execution {self._execution} were registered and are not there: "
                f"{_format_unsent(missing)}. Write them and upload again, or forget(path) them."
            )
            if require_all:
                raise MissingFiles(text)
            log.warning(text)

    def _upload(
        self,
        options: UploadOptions,
        *,
        move: bool,
        progress_callback: Callable[[UploadProgress], None] | None,
        only: Set[str] | None,
    ) -> UploadReport:
        story = self._journal.state
        upload = Upload(
            self._connection,
            self._journal,
            self._execution,
            options,
            move_files=move,
            progress_callback=progress_callback,
        )
        report = upload.run(file for file in story.pending_files() if only is None or base_key(file.asset.key) in only)
        self.link_types()
        records = {file.rid for file in list(story.files.values()) if file.asset.record}
        sent = {
            table: kept
            for table, assets in report.sent.items()
            if (kept := tuple(asset for asset in assets if asset.rid not in records))
        }
        return report.model_copy(update={"sent": sent})

    def _remove_uploaded_files(self) -> None:
        """Take away links and copies of what is safely stored, and the folders that this leaves empty."""
        held, story = files_open_for_writing(), self._journal.state
        waiting = {file.asset.path for file in story.pending_files()}
        for file in list(story.files.values()):
            path = file.asset.path
            if file.rid is None or file.asset.record or path in waiting:
                continue
            is_stored = file.stored_stamp is not None and FileStamp.from_path(path) == file.stored_stamp
            if path.is_symlink() or (is_stored and not is_open_file(path, held)):
                with suppress(FileNotFoundError):
                    path.unlink()
        self._staging.remove_empty_folders()


def _format_unsent(unsent: list[UnsentAsset]) -> str:
    shown_first = [f"{each.asset.path} ({each.reason})" for each in unsent[:10]]
    return "; ".join(shown_first) + ("; …" if len(unsent) > len(shown_first) else "")
