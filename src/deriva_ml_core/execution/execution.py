"""One run, live: its states, its inputs, its files, and their upload."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from pydantic import JsonValue

from deriva_ml_core._concurrency.background_worker import run_in_background
from deriva_ml_core.connection import Connection, open_connection
from deriva_ml_core.datasets import Dataset, create_dataset
from deriva_ml_core.definitions import DRY_RUN_RID, RID, MLVocab, Status
from deriva_ml_core.errors import InvalidTransition, NotInDryRun, RankZeroRequired
from deriva_ml_core.execution.configuration import ExecutionConfiguration
from deriva_ml_core.execution.exit_status import ExitCallbacks, SigtermHandler, final_status
from deriva_ml_core.execution.nested import nest_execution
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.execution.run_lock import lock_for_resume
from deriva_ml_core.execution.runtime import _ExecutionBase
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.journal.state import ProcessAttached, Resumed, Started, Stopped
from deriva_ml_core.models import (
    Address,
    Asset,
    DatasetSpec,
    Progress,
    StagedAsset,
    UploadOptions,
    UploadProgress,
)

if TYPE_CHECKING:
    from concurrent.futures import Future

    from deriva_ml_core.datasets import DatasetBag

__all__ = ["Execution"]

log = logging.getLogger(__name__)


class Execution(_ExecutionBase):
    """One run; made by ``DerivaML.create_execution`` and found again by ``DerivaML.restore_execution``.

    As a context manager it is running inside the ``with`` and ended after it. It can be pickled, and survives fork and
    spawn: another process opens it again by its record id.

    Args:
        connection: Where it is recorded.
        row: Its row of the table Execution.
        folder: The folder that it works in.
        configuration: What it was created with; None where it was restored.
        restored: Whether it was found again, so that files which are missing are no error.
        resumed: Whether its ``with`` may be entered though it has ended.
        rank: The rank of this process, which above zero leaves all writing to that of rank zero.
        creator_pid: The number of the process that made it; by default this one.
    """

    def __init__(
        self,
        connection: Connection,
        row: dict[str, Any],
        folder: Path,
        *,
        configuration: ExecutionConfiguration | None = None,
        restored: bool = False,
        resumed: bool = False,
        rank: int = 0,
        creator_pid: int | None = None,
    ) -> None:
        super().__init__(connection, row, folder, rank=rank, creator_pid=creator_pid)
        self._is_restored = restored
        self._is_resumed = resumed
        self._sigterm_handler = SigtermHandler()
        self._exit_callbacks = ExitCallbacks(self.execution_rid)
        self._clean_on_exit: bool | None = None
        """None where nothing was; else whether the end of the run takes away what was sent."""
        self._uploads_after_exit = False
        """Whether who ends it sends at once what is staged then, and says himself what is not."""
        self.configuration = configuration

    def __reduce__(self) -> tuple[Callable[..., Execution], tuple[Address, dict[str, Any], Path, dict[str, Any]]]:
        made = {
            "rank": self._rank,
            "creator_pid": self._creator_pid,
            "restored": self._is_restored,
            "resumed": self._is_resumed,
        }
        return _unpickle_execution, (self._connection.address, self._row, self._folder, made)

    # How it goes

    @property
    def dry_run(self) -> bool:
        """Whether it writes nothing to catalog and store."""
        return self.execution_rid == DRY_RUN_RID

    def __enter__(self) -> Self:
        """Begin to run.

        Raises:
            InvalidTransition: It has ended already.
            ExecutionRunning: It was to go on, and another process was faster.
        """
        if self._is_resumed:
            self._is_resumed = False
            with lock_for_resume(self._runtime.journal, self.execution_rid):
                self._runtime.status_tracker.append(
                    ProcessAttached(lease=ProcessIdentity.current()), Resumed(), Started()
                )
                self._sigterm_handler.install(replace_default=self.is_rank_zero)
                self._runtime.status_tracker.set(Status.running, "", resumed=True)
        elif self.status.is_terminal:
            raise InvalidTransition(
                f"Execution {self.execution_rid} has ended as {self.status}: create a new one to run again, or go on "
                "with this one by resume_execution(rid); files can still be registered and uploaded without 'with'."
            )
        else:
            self._runtime.status_tracker.append(ProcessAttached(lease=ProcessIdentity.current()), Started())
            self._sigterm_handler.install(replace_default=self.is_rank_zero)
            self.update_status(Status.running)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sigterm_handler.defer()
        impatience = self._exit_callbacks.run(error)
        try:
            self._record_end(error or impatience)
        except Exception:
            log.warning("The end of execution %s could not be recorded.", self.execution_rid, exc_info=True)
        finally:
            self._sigterm_handler.uninstall()
        if impatience is not None:
            raise impatience

    @property
    def _exit_elapsed(self) -> float:
        """How long its ``with`` is being left: those who wait for something there share one bound."""
        return self._exit_callbacks.elapsed

    def _warn_not_uploaded(self) -> None:
        """Say how to send what is staged, if anything is."""
        if self.is_rank_zero:
            self._runtime.outputs.warn_not_uploaded()

    def _add_exit_callback(self, callback: Callable[[BaseException | None], object]) -> None:
        """Have something done when the ``with`` is left, in whichever way, before the end is recorded; the last first.

        Args:
            callback: Told what the ``with`` is left by, None where it ran to its end; what it raises is logged.
        """
        self._exit_callbacks.callbacks.append(callback)

    def update_status(
        self, status: Status, message: str = "", *, progress: Progress | None = None, wait: bool = True
    ) -> None:
        """Say how the run goes. A catalog that cannot be reached is warned about, and told later.

        Args:
            status: The state.
            message: What is happening, in words.
            progress: The same as numbers, for plugins.
            wait: Whether the catalog's row is written before this returns. Otherwise it is written beside the run, as
                soon as the catalog takes it; of several that wait for it, only the last.

        Raises:
            InvalidTransition: The run has ended, or the state would go back to Created.
        """
        self._runtime.status_tracker.set(Status(status), message, progress=progress, wait=wait)

    def _record_end(self, error: BaseException | None) -> None:
        from deriva_ml_core.execution.exit_status import report_failure, resolve_final_status

        self._runtime.status_tracker.append(Stopped())
        status, reason = final_status(error, terminated=self._sigterm_handler.terminated)
        if self.is_rank_zero:
            status, reason = resolve_final_status(self._runtime.journal, status, reason)
        elif status is Status.failed:
            report_failure(self._folder, self.rank, reason)
        if self.status.is_terminal:
            self._runtime.background.row_sync.write_in_background()
        else:
            self._runtime.status_tracker.set(
                status, reason, error=reason if status is not Status.completed else "", wait=False
            )
        if error is not None and not self._uploads_after_exit:
            self._warn_not_uploaded()
        if self._clean_on_exit is not None:
            self._runtime.background.submit(partial(self._runtime.outputs.finalize, clean=self._clean_on_exit))
        self._runtime.background.drain()

    # What goes in

    @property
    def datasets(self) -> list[DatasetBag]:
        """The datasets that went in, as bags: downloaded when first asked for."""
        return self._runtime.inputs.download_all_bags()

    @property
    def asset_paths(self) -> dict[str, list[Path]]:
        """The assets that went in, as local files by table: downloaded when first asked for."""
        return self._runtime.inputs.download_all_files(self.working_dir / "inputs")

    def download_dataset_bag(self, dataset: DatasetSpec | RID) -> DatasetBag:
        """Bring a dataset here, and record that it went in.

        Args:
            dataset: Which one. Without a version: the one recorded when this execution was created, where it was
                declared then, else the current one.

        Returns:
            The bag; a version that was brought before comes from the cache.

        Raises:
            UnknownRID, WrongTable, UnknownVersion: There is no such dataset or version.
            ChecksumMismatch: A file in the store is not what was recorded; it is named.
        """
        return self._runtime.inputs.download_bag(dataset)

    def download_asset(self, asset: Asset | RID, dest_dir: str | os.PathLike[str] | None = None) -> Path:
        """Bring an asset here, checked by length and MD5, and record that it went in.

        Args:
            asset: Which one.
            dest_dir: Where to; the working folder's ``inputs`` by default.

        Returns:
            The file, ``<dest_dir>/<table>/<rid>/<file name>``.

        Raises:
            UnknownRID, WrongTable: There is no such asset.
            ChecksumMismatch: The bytes in the store are not those that were recorded.
        """
        return self._runtime.inputs.download_file(asset, dest_dir or self.working_dir / "inputs")

    def record_input(self, asset: Asset | RID) -> None:
        """Record that an asset went in, without bringing it here.

        Args:
            asset: Which one.

        Raises:
            UnknownRID, WrongTable: There is no such asset.
        """
        self._runtime.inputs.record_asset(asset)

    # What comes out

    def asset_file_path(
        self,
        asset_name: str,
        file_name: str | os.PathLike[str],
        asset_types: str | Iterable[str] | None = None,
        copy_file: bool = False,
        rename_file: str | None = None,
        **metadata: JsonValue,
    ) -> Path:
        """Register a file for upload.

        A bare name, or a path that does not exist, is a new file: write it to the path that is returned. A path with a
        folder that names an existing file is that file: it is linked to, or copied now, and never written or moved.

        Args:
            asset_name: The asset table.
            file_name: The name of a new file, whose sub-folders are kept, or the path of an existing one.
            asset_types: Terms of the vocabulary Asset_Type; the table's name by default.
            copy_file: Whether an existing file is copied now, instead of at the upload.
            rename_file: The name to upload it by.
            **metadata: Values of the asset table's own columns.

        Returns:
            Where the file is staged. The same new name again gives the same path.

        Raises:
            UnknownTable, UnknownTerm, UnknownColumn: Of table, types or metadata; the known ones are named.
            InvalidFileName: The name climbs out, is absolute and not there, or names a folder.
            FileConflict: Another file is staged under that name.
        """
        with self._lock:
            asset, is_new = self._runtime.staging.stage(
                asset_name,
                file_name,
                asset_types=asset_types,
                copy_file=copy_file,
                rename_file=rename_file,
                metadata=metadata,
            )
        if is_new:
            self._notify("asset_registered", "asset", asset)
        return asset.path

    def _check_asset_table(self, asset_name: str, asset_types: Iterable[str] = ()) -> None:
        """Raise now what `asset_file_path` would raise of a table and of types: before a long training, say.

        Args:
            asset_name: The asset table.
            asset_types: Terms of the vocabulary Asset_Type.

        Raises:
            UnknownTable, UnknownTerm: The known ones are named.
        """
        self._connection.catalog.model.asset_table(asset_name)
        self._connection.terms.require(MLVocab.asset_type, asset_types)

    def staged_assets(self) -> list[StagedAsset]:
        """The registered files that are not yet uploaded, to be looked at before they are."""
        return self._runtime.staging.list_staged()

    def forget(self, path: str | os.PathLike[str]) -> None:
        """Drop a registered file: it is neither uploaded nor missed; what was written stays where it is.

        Args:
            path: What ``asset_file_path`` returned, or the original's path; of a folder, all staged files in it.

        Raises:
            InvalidFileName: No staged file has that path.
        """
        self._runtime.staging.forget(path)

    def mark_immutable(self, path: str | os.PathLike[str]) -> None:
        """Say that nobody will write to a staged file in place again: who changes it writes a new file and renames.

        Then the store may keep these very bytes, uncopied, while the run runs and after it; the file stays in its place
        and can be read, and deleted, as before. One that is changed all the same before its upload is copied.

        Args:
            path: What ``asset_file_path`` returned; of a folder, all staged files in it.

        Raises:
            InvalidFileName: No staged file has that path.
            MissingFiles: It is not written yet.
        """
        self._runtime.staging.mark_immutable(path)

    def add_asset_types(self, path: str | os.PathLike[str], asset_types: str | Iterable[str]) -> None:
        """Give a registered file further types, whether or not it is uploaded by now; doing so again changes nothing.

        Args:
            path: What ``asset_file_path`` returned, or the original's path; of a folder, all registered files in it.
            asset_types: Terms of the vocabulary Asset_Type.

        Raises:
            UnknownTerm: The known ones are named.
            InvalidFileName: No registered file has that path.
            CatalogUnavailable: It is uploaded, and the catalog cannot be reached; the next upload makes it good.
        """
        if self._runtime.staging.add_types(path, asset_types) and self.is_rank_zero and not self.dry_run:
            self._runtime.outputs.link_types()

    def drop_asset_types(self, path: str | os.PathLike[str], asset_types: str | Iterable[str]) -> None:
        """Take types from a registered file that is not uploaded yet: those that ``add_asset_types`` gave it.

        Args:
            path: What ``asset_file_path`` returned, or the original's path; of a folder, all staged files in it.
            asset_types: Terms of the vocabulary Asset_Type.

        Raises:
            InvalidFileName: No staged file has that path.
        """
        self._runtime.staging.drop_types(path, asset_types)

    @overload
    def upload_execution_outputs(
        self,
        clean_folder: bool | None = ...,
        progress_callback: Callable[[UploadProgress], None] | None = ...,
        timeout: tuple[float, float] = ...,
        chunk_size: int = ...,
        max_retries: int = ...,
        retry_delay: float = ...,
        wait: Literal[True] = ...,
        only: Iterable[str | os.PathLike[str]] | None = ...,
        upload_workers: int | None = ...,
    ) -> dict[str, list[Asset]]: ...

    @overload
    def upload_execution_outputs(
        self,
        clean_folder: bool | None = ...,
        progress_callback: Callable[[UploadProgress], None] | None = ...,
        timeout: tuple[float, float] = ...,
        chunk_size: int = ...,
        max_retries: int = ...,
        retry_delay: float = ...,
        *,
        wait: Literal[False],
        only: Iterable[str | os.PathLike[str]] | None = ...,
        upload_workers: int | None = ...,
    ) -> Future[dict[str, list[Asset]]]: ...

    def upload_execution_outputs(
        self,
        clean_folder: bool | None = None,
        progress_callback: Callable[[UploadProgress], None] | None = None,
        timeout: tuple[float, float] = (6, 600),
        chunk_size: int = 25 * 2**20,
        max_retries: int = 3,
        retry_delay: float = 5.0,
        wait: bool = True,
        only: Iterable[str | os.PathLike[str]] | None = None,
        upload_workers: int | None = None,
    ) -> dict[str, list[Asset]] | Future[dict[str, list[Asset]]]:
        """Send what is staged and not yet sent; safe to call any number of times, in the ``with``, after it, and later.

        After the end of the run, files that ``asset_file_path`` handed out are moved into an embedded catalog's store,
        not copied; while it runs they are copied, and stay until its end.

        Args:
            clean_folder: Whether the staging folder is emptied of what was sent, once the run has ended; None for the
                ``DerivaML``'s own setting, which is to do so.
            progress_callback: Told before the first file and after each; by default a bar on a terminal.
            timeout: Seconds to connect, and seconds to wait for the answer to each chunk.
            chunk_size: Bytes a chunk; 25 MiB by default.
            max_retries: How often a failed transfer is tried again.
            retry_delay: Seconds before the first repeat; each further one waits twice as long, with jitter.
            wait: Whether to return when all is done; otherwise it is done in the background.
            only: The paths of the registered files to send, or of folders of them; None for all.
            upload_workers: How many files are on their way at once; by default four to a server, and one at a time to
                an embedded catalog's store, which is no slower.

        Returns:
            What was newly sent, by asset table; with ``wait=False`` a future of that.

        Raises:
            InvalidFileName: One of `only` was never registered.
            UploadFailed: Files could not be sent; they stay staged.
            MissingFiles: The run completed, all else was sent, and registered files were never written.
        """
        options = UploadOptions(
            timeout=timeout,
            chunk_size=chunk_size,
            max_retries=max_retries,
            retry_delay=retry_delay,
            upload_workers=upload_workers,
        )
        paths = None if only is None else [Path(path) for path in only]
        send = partial(self._upload, clean_folder, progress_callback, options, paths)
        return send() if wait else run_in_background("deriva-ml-upload", send)

    def _upload(
        self,
        clean: bool | None,
        progress_callback: Callable[[UploadProgress], None] | None,
        options: UploadOptions,
        only: list[Path] | None,
    ) -> dict[str, list[Asset]]:
        if not self.is_rank_zero:
            return {}
        if self.dry_run:
            log.info("This is a dry run: %d staged files are not uploaded.", len(self.staged_assets()))
            return {}
        clean = self._connection.clean_execution_dir if clean is None else clean
        self._runtime.status_tracker.append()
        if not self.status.is_terminal:
            self._clean_on_exit = clean
        report = self._runtime.outputs.upload(options, clean=clean, progress_callback=progress_callback, only=only)
        if report.sent or report.unsent:
            self._notify("outputs_uploaded", "report", report)
        if self.status.is_terminal:
            self._runtime.background.row_sync.write()
            self._runtime.background.drain()
        must_be_whole = self.status is Status.completed and not self._is_restored
        self._runtime.outputs.raise_for_unsent(report, require_all=must_be_whole)
        return {table: list(assets) for table, assets in report.sent.items()}

    def create_dataset(self, description: str = "", dataset_types: str | Iterable[str] = ()) -> Dataset:
        """Make a dataset of which this execution is the producer, as of each version made through what is returned.

        Args:
            description: What it holds.
            dataset_types: Terms of the vocabulary Dataset_Type.

        Raises:
            NotInDryRun: A dry run makes no datasets.
            RankZeroRequired: A process of a rank above zero makes none either.
        """
        if not self.is_rank_zero:
            raise RankZeroRequired(
                "The process of rank zero makes datasets; this one follows it: ask `if execution.is_rank_zero:` first."
            )
        self._reject_dry_run("make a dataset")
        return create_dataset(
            self._connection, description=description, dataset_types=dataset_types, execution=self.execution_rid
        )

    # What belongs to it

    def add_nested_execution(self, child: RecordedExecution | RID, sequence: int | None = None) -> None:
        """Nest another execution in this one; doing so again changes nothing.

        Args:
            child: Which one.
            sequence: Its place among the others, from 0; None for none.

        Raises:
            ExecutionCycle: This one is nested in the child already, or is the child.
        """
        if not self.is_rank_zero:
            return
        self._reject_dry_run("nest executions")
        nest_execution(self._connection, self, child, sequence)

    def _reject_dry_run(self, action: str) -> None:
        if self.dry_run:
            raise NotInDryRun(f"A dry run writes nothing, so it cannot {action}: leave out dry_run=True.")


def _unpickle_execution(address: Address, row: dict[str, Any], folder: Path, arguments: dict[str, Any]) -> Execution:
    return Execution(open_connection(address), row, folder, **arguments)


def _reopened(address: Address, row: dict[str, Any], folder: Path, arguments: dict[str, Any]) -> Execution:
    """Unpickle an execution that version 0.1 pickled."""
    renamed = {"made_by": "creator_pid", "again": "resumed"}
    return _unpickle_execution(address, row, folder, {renamed.get(name, name): arguments[name] for name in arguments})
