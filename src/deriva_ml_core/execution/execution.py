"""The live execution: status, inputs, staged files and their upload."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from pydantic import JsonValue

from deriva_ml_core._concurrency.background_worker import run_in_background
from deriva_ml_core._deprecation import deprecated_attributes
from deriva_ml_core.connection import Connection, open_connection
from deriva_ml_core.datasets import Dataset, create_dataset
from deriva_ml_core.definitions import DRY_RUN_RID, RID, MLVocab, Status
from deriva_ml_core.errors import DerivaMLException, InvalidTransition, NotInDryRun, RankZeroRequired
from deriva_ml_core.execution.configuration import ExecutionConfiguration
from deriva_ml_core.execution.console import Console
from deriva_ml_core.execution.exit_status import ExitCallbacks, SigtermHandler, final_status
from deriva_ml_core.execution.recorded import DEPRECATED_ATTRIBUTES, RecordedExecution, nest_execution
from deriva_ml_core.execution.run_lines import RunLines
from deriva_ml_core.execution.run_lock import lock_for_resume
from deriva_ml_core.execution.runtime import _ExecutionBase
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.journal.state import Event, ProcessAttached, Resumed, Started, Stopped
from deriva_ml_core.media.logger import LoggedMedia, MediaLogger
from deriva_ml_core.media.recorder import DEFAULT_MAX_MEDIA, MediaRecorder
from deriva_ml_core.models import (
    Address,
    Asset,
    DatasetSpec,
    Progress,
    StagedAsset,
    UploadOptions,
    UploadProgress,
)
from deriva_ml_core.parameter_values import flatten_parameters, to_json_value

if TYPE_CHECKING:
    from concurrent.futures import Future

    from deriva_ml_core.datasets import DatasetBag

__all__ = ["Execution"]

log = logging.getLogger(__name__)


class Execution(_ExecutionBase, MediaLogger):
    """One run, created by ``DerivaML.create_execution`` or opened again by ``DerivaML.restore_execution``.

    Use it as a context manager: the status is Running inside the ``with`` block and terminal after it. An execution can
    be pickled and survives fork and spawn: the other process opens it again by its RID. A copy in the same process is
    the same object.

    Args:
        connection: Catalog and store of the execution.
        row: The execution's row of the table Execution.
        folder: The working folder.
        configuration: The configuration it was created with; None for a restored execution.
        restored: Whether it was restored. Missing files of a restored execution are not an error.
        resumed: Whether the ``with`` block may be entered although the execution has ended.
        rank: Rank of this process. Ranks above 0 write nothing; rank 0 records the run.
        creator_pid: Id of the process that created the object; by default the current process.
        console: Whether to record what the run prints while the ``with`` block runs.
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
        console: bool = False,
    ) -> None:
        super().__init__(connection, row, folder, rank=rank, creator_pid=creator_pid)
        self._has_console = console
        self._console: Console | None = None
        """The console output of the run that this process has entered; None if it is not recorded."""
        self._is_restored = restored
        self._is_resumed = resumed
        self._sigterm_handler = SigtermHandler()
        self._exit_callbacks = ExitCallbacks(self.execution_rid)
        self._media: MediaRecorder | None = None
        """Recorder of logged images, figures and tables; None if there are none."""
        self._entered_pid: int | None = None
        """Id of the process that entered the ``with`` block; a forked child does not end the run."""
        self._clean_on_exit: bool | None = None
        """Whether uploaded files are removed when the run ends; None if nothing was uploaded during the run."""
        self._uploads_after_exit = False
        """Whether the caller uploads right after the ``with`` block and reports itself what was not uploaded."""
        self._lines = RunLines(connection, self.execution_rid)
        self._workflow_name = ""
        """Name of the workflow for the line about the begin; empty if this process does not know it."""
        self.configuration = configuration

    def __copy__(self) -> Self:
        return self  # one run has one object in a process

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[..., Execution], tuple[Address, dict[str, Any], Path, dict[str, Any]]]:
        arguments = {
            "rank": self._rank,
            "creator_pid": self._creator_pid,
            "restored": self._is_restored,
            "resumed": self._is_resumed,
            "console": self._has_console,
        }
        return _unpickle_execution, (self._connection.address, self._row, self._folder, arguments)

    if not TYPE_CHECKING:
        __getattr__ = deprecated_attributes(
            {
                **DEPRECATED_ATTRIBUTES,
                "seal": "mark_immutable",
                "at_end": "add_exit_callback",
                "follower": ("not execution.is_rank_zero", lambda execution: not execution.is_rank_zero),
            }
        )

    # Status

    @property
    def dry_run(self) -> bool:
        """Whether this is a dry run, which writes nothing to catalog and store."""
        return self.execution_rid == DRY_RUN_RID

    def __enter__(self) -> Self:
        """Start the run.

        Raises:
            InvalidTransition: The execution has already ended.
            ExecutionRunning: The execution is to be resumed, and another process already runs it.
        """
        is_resumed = self._is_resumed
        try:
            if self._is_resumed:
                self._is_resumed = False
                with lock_for_resume(self._runtime.journal, self.execution_rid):
                    self._record_start(Resumed())
                    self._runtime.status_tracker.set(Status.running, "", resumed=True)
            elif self.status.is_terminal:
                raise InvalidTransition(
                    f"Execution {self.execution_rid} has ended ({self.status}). Create a new execution, or continue "
                    "this one with resume_execution(rid). Registering and uploading files needs no 'with'."
                )
            else:
                self._record_start()
                self.update_status(Status.running)
            if self.is_rank_zero:
                self._lines.begin(self._workflow_name, resumed=is_resumed)
            if self._has_console:
                self._begin_console()
        except BaseException as error:
            # a signal, or a failure while the start is recorded: Python calls __exit__ only after __enter__
            if self._entered_pid == os.getpid():
                self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _record_start(self, *events: Event) -> None:
        """Write the start of the run to the journal; from here on this process records its end."""
        self._entered_pid = os.getpid()
        self._sigterm_handler.install(replace_default=self.is_rank_zero)
        self._runtime.status_tracker.append(
            ProcessAttached(lease=ProcessIdentity.current()), *events, Started(monotonic=monotonic())
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._entered_pid != os.getpid():
            self._sigterm_handler.uninstall()
            return
        self._entered_pid = None
        self._sigterm_handler.defer()
        interrupt = self._exit_callbacks.run(error)
        console, self._console = self._console, None
        if console is not None:
            console.end(error)
        try:
            self._record_end(error or interrupt, has_console=console is not None)
        except Exception:
            log.warning("Failed to record the end of execution %s.", self.execution_rid, exc_info=True)
        finally:
            self._print_end()
            self._sigterm_handler.uninstall()
        if interrupt is not None:
            raise interrupt

    def _begin_console(self) -> None:
        """Record what the run prints from now on; other ranks add to the files of rank 0."""
        if self._console is not None or self.dry_run:
            return
        self._console = Console(self._folder / "records")
        (self._console.begin if self.is_rank_zero else self._console.join)()

    def _print_end(self) -> None:
        """Print the line about the end of the run, if this process printed the one about its begin."""
        with suppress(Exception):  # a journal that cannot be read
            self._lines.end(self._runtime.status_tracker.load_state())

    @contextmanager
    def _upload_before_last_line(self) -> Iterator[None]:
        """Print the line about the end of the run, if it ends in the block, after the block, which uploads."""
        try:
            with self._lines.deferred():
                yield
        finally:
            if self._lines.is_due:
                self._print_end()

    @property
    def _exit_elapsed(self) -> float:
        """Seconds since the exit callbacks started; callbacks that wait share one timeout."""
        return self._exit_callbacks.elapsed

    def _warn_not_uploaded(self) -> None:
        """Log how to upload the staged files, if there are any."""
        if self.is_rank_zero:
            self._runtime.outputs.warn_not_uploaded()

    def add_exit_callback(self, callback: Callable[[BaseException | None], object]) -> None:
        """Call a function when the ``with`` block is left, before the end of the run is recorded.

        Callbacks run in reverse order of registration, however the block is left. Exceptions they raise are logged.

        Args:
            callback: Function of the exception that leaves the block; None if the block ran to its end.
        """
        self._exit_callbacks.callbacks.append(callback)

    def update_status(
        self, status: Status, message: str = "", *, progress: Progress | None = None, wait: bool = True
    ) -> None:
        """Set the status of the run.

        If the catalog cannot be reached, a warning is logged and the row is written later.

        Args:
            status: The new status.
            message: What the run is doing, as text.
            progress: The same as numbers, for plugins and the metrics table.
            wait: Whether to write the catalog row before returning. If false, a background thread writes it; of several
                waiting updates only the last is written.

        Raises:
            InvalidTransition: The run has ended, or the status would go back to Created.
        """
        self._runtime.status_tracker.set(Status(status), message, progress=progress, wait=wait)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters of the run, such as hyperparameters. Callbacks, runners and configurations record theirs.

        Of a name that is recorded twice, the first value counts. Another value is only kept in the journal, and a
        warning names it. A failure to write is logged, as it must not end a training.

        Args:
            params: Values by name: text, numbers, bools, None, lists, or mappings, which are flattened: ``lr`` in
                ``optimizer`` becomes ``optimizer.lr``. Other types are recorded by their ``repr``. Secrets are
                redacted. In the catalog a value has at most 500 characters, and a run at most 1,000 parameters.
        """
        from deriva_ml_core.redaction import redact

        values = redact(to_json_value(params))
        self._record_parameters(flatten_parameters(values) if isinstance(values, dict) else {})

    def _record_parameters(self, parameters: Mapping[str, JsonValue]) -> None:
        """Record flattened, redacted parameters: in the journal now, and in the catalog with the next row write."""
        self._runtime.status_tracker.record_parameters(parameters)

    def _annotate(self, write: Callable[[], None], action: str, command: str, *arguments: str) -> None:
        if not self.is_rank_zero or self.dry_run:
            return
        try:
            write()
        except DerivaMLException as error:
            if self._entered_pid != os.getpid():
                raise
            log.warning(
                "Failed to %s of execution %s: %s Later, use `%s`.",
                action,
                self.execution_rid,
                error,
                self._connection.command(command, self.execution_rid, *arguments),
            )

    def _record_end(self, error: BaseException | None, *, has_console: bool) -> None:
        from deriva_ml_core.execution.exit_status import report_failure, resolve_final_status

        self._runtime.status_tracker.append(Stopped(monotonic=monotonic()))
        status, reason = final_status(error, terminated=self._sigterm_handler.terminated)
        if self.is_rank_zero:
            status, reason = resolve_final_status(self._runtime.journal, status, reason)
        elif status is Status.failed:
            report_failure(self._folder, self.rank, reason)
        if self.status.is_terminal:
            self._runtime.background.row_sync.write_in_background(is_final=True)
        else:
            self._runtime.status_tracker.set(
                status, reason, error=reason if status is not Status.completed else "", wait=False
            )
        if not self._uploads_after_exit and self.is_rank_zero and not self.dry_run:
            if error is None:
                self._runtime.outputs.remind_at_exit()
            else:
                self._warn_not_uploaded()
        if has_console and self.is_rank_zero:
            self._runtime.background.submit(self._runtime.outputs.upload_records)
        if self._clean_on_exit is not None:
            self._runtime.background.submit(partial(self._runtime.outputs.finalize, clean=self._clean_on_exit))
        if self._runtime.status_tracker.flush():  # the row may be written already
            self._runtime.background.submit(self._runtime.journal.sync)
        self._runtime.background.drain()
        if self.is_rank_zero and not self.dry_run:
            self._runtime.outputs.warn_records_pending()
        self._runtime.journal.close()

    # Inputs

    @property
    def datasets(self) -> list[DatasetBag]:
        """The input datasets as bags, downloaded on first access."""
        return self._runtime.inputs.download_all_bags()

    @property
    def asset_paths(self) -> dict[str, list[Path]]:
        """The input assets as local files by asset table, downloaded on first access."""
        return self._runtime.inputs.download_all_files(self.working_dir / "inputs")

    def download_dataset_bag(self, dataset: DatasetSpec | RID) -> DatasetBag:
        """Download a dataset and record it as an input.

        Args:
            dataset: The dataset. Without a version: the version recorded when the execution was created if the dataset
                was declared then, else the current version.

        Returns:
            The bag. A version that was downloaded before comes from the cache.

        Raises:
            UnknownRID, WrongTable, UnknownVersion: There is no such dataset or version.
            ChecksumMismatch: A file in the store differs from its recorded checksum; the message names it.
        """
        return self._runtime.inputs.download_bag(dataset)

    def download_asset(self, asset: Asset | RID, dest_dir: str | os.PathLike[str] | None = None) -> Path:
        """Download an asset, verify its length and MD5, and record it as an input.

        Args:
            asset: The asset or its RID.
            dest_dir: Target folder; ``inputs`` in the working folder by default.

        Returns:
            The file, ``<dest_dir>/<table>/<rid>/<file name>``. An existing file is replaced if its bytes differ.

        Raises:
            UnknownRID, WrongTable: There is no such asset.
            ChecksumMismatch: The bytes in the store differ from the recorded checksum.
        """
        return self._runtime.inputs.download_file(asset, dest_dir or self.working_dir / "inputs")

    def record_input(self, asset: Asset | RID) -> None:
        """Record an asset as an input without downloading it.

        Args:
            asset: The asset or its RID.

        Raises:
            UnknownRID, WrongTable: There is no such asset.
        """
        self._runtime.inputs.record_asset(asset)

    # Outputs

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

        A bare name, or a path that does not exist, is a new file: write it to the returned path. A path with a folder
        that exists is an existing file: it is linked, or copied now, and never written or moved.

        Args:
            asset_name: The asset table.
            file_name: The name of a new file (sub-folders are kept) or the path of an existing file.
            asset_types: Terms of the vocabulary Asset_Type; the table's name by default.
            copy_file: Whether to copy an existing file now instead of at upload.
            rename_file: The name to upload the file under.
            **metadata: Values of the asset table's own columns.

        Returns:
            The staged path. Registering the same new name again returns the same path.

        Raises:
            UnknownTable, UnknownTerm, UnknownColumn: The table, a type or a metadata column is unknown; the message
                names the known ones.
            InvalidFileName: The name leaves the staging folder, is absolute and does not exist, or names a folder,
                fifo, socket or device.
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

    def _log_media(self, media: LoggedMedia, limit: int = DEFAULT_MAX_MEDIA) -> None:
        if not self.is_rank_zero:
            return
        if self._media is None:
            self._media = MediaRecorder(self.execution_rid, self.working_dir, self.asset_file_path)
            self.add_exit_callback(lambda _: self._end_media())
        self._media.add(media, limit)

    def _drain_media(self, timeout: float | None = None) -> None:
        """Wait until logged images, figures and tables are written, by default at most ``exit_timeout``."""
        if self._media is not None:
            self._media.drain(self._connection.exit_timeout if timeout is None else timeout)

    def _end_media(self) -> None:
        """Complete the files of logged images, figures and tables when the ``with`` block is left."""
        if self._media is not None:
            self._media.drain(self._connection.exit_timeout - self._exit_elapsed)
            self._media.report_omitted()

    def _check_asset_table(self, asset_name: str, asset_types: Iterable[str] = ()) -> None:
        """Check a table and types as `asset_file_path` does, for example before a long training.

        Args:
            asset_name: The asset table.
            asset_types: Terms of the vocabulary Asset_Type.

        Raises:
            UnknownTable, UnknownTerm: The table or a type is unknown; the message names the known ones.
        """
        self._connection.catalog.model.asset_table(asset_name)
        self._connection.terms.require(MLVocab.asset_type, asset_types)

    def staged_assets(self) -> list[StagedAsset]:
        """Return the registered files that are not uploaded yet.

        Returns:
            The staged files with their paths, tables and asset types.
        """
        return self._runtime.staging.list_staged()

    def _find_staged(self, path: Path) -> list[StagedAsset]:
        """Return the staged files at an absolute path or with that original, or in the folder at that path."""
        return self._runtime.staging.find_staged(path)

    def forget(self, path: str | os.PathLike[str]) -> None:
        """Unregister a file: it is not uploaded and not reported as missing. The file itself stays where it is.

        Args:
            path: The path that ``asset_file_path`` returned, or the original path; a folder means all staged files in
                it.

        Raises:
            InvalidFileName: No staged file has that path.
        """
        self._runtime.staging.forget(path)

    def mark_immutable(self, path: str | os.PathLike[str]) -> None:
        """Declare that a staged file is never modified in place again, only replaced by a renamed new file.

        The store can then hard-link the file instead of copying it, during the run and after it. The file stays in
        place and can be read and deleted. A file that is changed before its upload is copied after all.

        Args:
            path: The path that ``asset_file_path`` returned; a folder means all staged files in it.

        Raises:
            InvalidFileName: No staged file has that path.
            MissingFiles: The file is not written yet.
        """
        self._runtime.staging.mark_immutable(path)

    def keep_in_place(self, path: str | os.PathLike[str]) -> None:
        """Keep a staged file in its place after its upload, since a program may still read it there.

        Without this call, an upload after the end of the run moves the file into the store of an embedded catalog, or
        removes it. ``deriva-ml cleanup`` removes kept files with the working folder.

        Args:
            path: The path that ``asset_file_path`` returned; a folder means all staged files in it.

        Raises:
            InvalidFileName: No staged file has that path.
        """
        self._runtime.staging.keep_in_place(path)

    def add_asset_types(self, path: str | os.PathLike[str], asset_types: str | Iterable[str]) -> None:
        """Add types to a registered file, before or after its upload. Types that it already has are ignored.

        Args:
            path: The path that ``asset_file_path`` returned, or the original path; a folder means all registered files
                in it.
            asset_types: Terms of the vocabulary Asset_Type.

        Raises:
            UnknownTerm: A type is unknown; the message names the known ones.
            InvalidFileName: No registered file has that path.
            CatalogUnavailable: The file is uploaded and the catalog cannot be reached; the next upload adds the types.
        """
        if self._runtime.staging.add_types(path, asset_types) and self.is_rank_zero and not self.dry_run:
            self._runtime.outputs.link_types()

    def _move_asset_type(self, asset_type: str, paths: Iterable[Path]) -> bool:
        """Add a type to registered files, and remove it from all others to which it was added.

        This writes to the journal only. `_link_asset_types` writes to the catalog, as does the next upload.

        Args:
            asset_type: Term of the vocabulary Asset_Type.
            paths: Paths that ``asset_file_path`` returned, or original paths.

        Returns:
            Whether the catalog needs changes, since some of the files are uploaded.

        Raises:
            UnknownTerm: The type is unknown.
            InvalidFileName: No registered file has one of the paths.
        """
        return self._runtime.staging.move_type(asset_type, paths) and self.is_rank_zero and not self.dry_run

    def _is_registered(self, path: Path) -> bool:
        """Whether a file, or files in a folder, were registered and not forgotten, uploaded or not."""
        return self._runtime.staging.is_registered(path)

    def _link_asset_types(self) -> None:
        """Write the types that were added to and removed from uploaded files to the catalog."""
        self._runtime.outputs.link_types()

    def drop_asset_types(self, path: str | os.PathLike[str], asset_types: str | Iterable[str]) -> None:
        """Remove types that ``add_asset_types`` added to a registered file, while it is not uploaded yet.

        Args:
            path: The path that ``asset_file_path`` returned, or the original path; a folder means all staged files in
                it.
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
        """Upload the staged files. It can be called any number of times, inside the ``with`` block and after it.

        After the end of the run, new files are moved into the store of an embedded catalog. During the run they are
        copied and stay in place until its end.

        Args:
            clean_folder: Whether to remove uploaded files from the staging folder once the run has ended; None uses the
                setting of the ``DerivaML`` object, which is to remove them.
            progress_callback: Called before the first file and after each file; by default a progress bar on a
                terminal.
            timeout: Seconds to connect, and seconds to wait for the response to each chunk.
            chunk_size: Bytes per chunk; 25 MiB by default.
            max_retries: Maximum number of retries of a failed transfer.
            retry_delay: Seconds before the first retry; the delay doubles with each retry, with jitter.
            wait: Whether to return when the upload is done; otherwise it runs in the background.
            only: Paths of registered files, or of folders of them, to upload; None for all.
            upload_workers: Number of files uploaded at once; by default 4 to a server and 1 to the store of an embedded
                catalog, where more are not faster.

        Returns:
            The newly uploaded assets by asset table; with ``wait=False`` a future of them.

        Raises:
            InvalidFileName: A path of `only` was never registered.
            UploadFailed: Files could not be uploaded; they stay staged.
            MissingFiles: The run completed, all other files were uploaded, and registered files were never written.
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
            log.info("Dry run: %d staged files are not uploaded.", len(self.staged_assets()))
            return {}
        clean = self._connection.clean_execution_dir if clean is None else clean
        self._drain_media()
        if self._media is not None and self.status.is_terminal:
            self._media.report_omitted()
        self._runtime.status_tracker.append()
        if not self.status.is_terminal:
            self._clean_on_exit = clean
        report = self._runtime.outputs.upload(options, clean=clean, progress_callback=progress_callback, only=only)
        if report.sent or report.unsent:
            self._notify("outputs_uploaded", "report", report)
        if self.status.is_terminal:
            self._runtime.background.row_sync.write()
            self._runtime.background.drain()
            self._runtime.journal.close()
        require_all = self.status is Status.completed and not self._is_restored
        self._runtime.outputs.raise_for_unsent(report, require_all=require_all)
        return {table: list(assets) for table, assets in report.sent.items()}

    def create_dataset(self, description: str = "", dataset_types: str | Iterable[str] = ()) -> Dataset:
        """Create a dataset; this execution is the producer of each version made through the returned object.

        Args:
            description: Description of the dataset.
            dataset_types: Terms of the vocabulary Dataset_Type.

        Returns:
            The new dataset.

        Raises:
            NotInDryRun: A dry run cannot create datasets.
            RankZeroRequired: Only rank 0 can create datasets.
        """
        if not self.is_rank_zero:
            raise RankZeroRequired(
                "Only rank 0 can create datasets, and this process has a higher rank: "
                "check `if execution.is_rank_zero:` first."
            )
        self._reject_dry_run("create a dataset")
        return create_dataset(
            self._connection, description=description, dataset_types=dataset_types, execution=self.execution_rid
        )

    # Nested executions

    def add_nested_execution(self, child: RecordedExecution | RID, sequence: int | None = None) -> None:
        """Nest another execution in this one. Nesting it again changes nothing.

        Args:
            child: The execution or its RID.
            sequence: Position among the nested executions, from 0; None for no position.

        Raises:
            ExecutionCycle: This execution is nested in the child, or is the child.
        """
        if not self.is_rank_zero:
            return
        self._reject_dry_run("nest executions")
        nest_execution(self._connection, self, child, sequence)

    def _reject_dry_run(self, action: str) -> None:
        if self.dry_run:
            raise NotInDryRun(f"A dry run cannot {action}, since it writes nothing: leave out dry_run=True.")


def _unpickle_execution(address: Address, row: dict[str, Any], folder: Path, arguments: dict[str, Any]) -> Execution:
    return Execution(open_connection(address), row, folder, **arguments)


def _reopened(address: Address, row: dict[str, Any], folder: Path, arguments: dict[str, Any]) -> Execution:
    """Unpickle an execution that version 0.1 pickled."""
    renamed = {"made_by": "creator_pid", "again": "resumed"}
    return _unpickle_execution(address, row, folder, {renamed.get(name, name): arguments[name] for name in arguments})
