"""Executions as recorded in catalog and journal: status, inputs, outputs and nested executions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deriva_ml_core._deprecation import deprecated_attributes
from deriva_ml_core._files.atomic import scratch_folder
from deriva_ml_core._files.json_lines import complete_lines
from deriva_ml_core._retry import RetryingStore
from deriva_ml_core.assets.lookup import list_execution_assets, make_file_cache
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets import list_input_datasets
from deriva_ml_core.definitions import RID, MLAsset, MLTable, Role, Status, status_from_row
from deriva_ml_core.descriptions import write_description
from deriva_ml_core.errors import DerivaMLException, ExecutionCycle
from deriva_ml_core.execution.console_text import CONSOLE_FILES, MAX_KEPT_BYTES, read_local_console
from deriva_ml_core.execution.exit_status import effective_status
from deriva_ml_core.execution.row_sync import has_parameters, list_metrics, list_parameters
from deriva_ml_core.execution.tags import add_tags, list_tags, remove_tags
from deriva_ml_core.journal.events import DownloadedJournal, read_downloaded_journal
from deriva_ml_core.journal.journal import load_state
from deriva_ml_core.journal.state import JOURNAL_FILENAME, ExecutionState
from deriva_ml_core.media.manifest import (
    MAX_MANIFEST_BYTES,
    MEDIA_FILE,
    MediaManifest,
    locate_media,
    parse_manifest,
)
from deriva_ml_core.models import (
    Asset,
    BestCorrection,
    DatasetSpec,
    ExecutionInfo,
    MediaFile,
    MetricSummary,
    MetricValue,
    StatusUpdate,
    UploadOptions,
)
from deriva_ml_core.parameter_values import MAX_FILE_BYTES, PARAMETER_FILES, read_parameter_file
from deriva_ml_core.paths import expand_home
from deriva_ml_core.row_values import convert_rows, convert_values, parse_row_time
from deriva_ml_core.schema import asset_execution_table_name

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]
    from pydantic import JsonValue

    from deriva_ml_core.training.metric_rows import MetricRow

log = logging.getLogger(__name__)

__all__ = [
    "nest_execution",
    "DEPRECATED_ATTRIBUTES",
    "JOURNAL_FILENAME",
    "RecordedExecution",
    "download_journal",
    "list_journal_copies",
    "load_local_state",
    "lookup_execution",
]


DEPRECATED_ATTRIBUTES = {
    "record": "info",
    "connection": ("the DerivaML object that returned the execution", attrgetter("_connection")),
}
"""The old names of attributes of `RecordedExecution`, for `deprecated_attributes`."""


class RecordedExecution:
    """A recorded execution. Its description and its tags can be changed; what was run cannot.

    Args:
        connection: Catalog and store of the execution.
        row: The execution's row of the table Execution.
    """

    def __init__(self, connection: Connection, row: dict[str, Any]) -> None:
        self._connection = connection
        self._row = row
        self._downloaded_state: ExecutionState | None = None
        """State of the downloaded journal. It is kept, since the row, which was read before, does not change either."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.execution_rid} {self.status} {self.description!r}>"

    def _repr_html_(self) -> str:
        from deriva_ml_core.execution.html_repr import render_html

        return render_html(self, self._load_state)

    if not TYPE_CHECKING:
        __getattr__ = deprecated_attributes(DEPRECATED_ATTRIBUTES)

    @property
    def execution_rid(self) -> RID:
        """RID of the execution."""
        return str(self._row["RID"])

    @property
    def workflow_rid(self) -> RID | None:
        """RID of the workflow that it ran."""
        return self._row.get("Workflow")

    @property
    def description(self) -> str:
        """Description of the run. Assigning it updates the catalog at once."""
        return self._row.get("Description") or ""

    @description.setter
    def description(self, text: str) -> None:
        def write() -> None:
            written = write_description(self._connection, MLTable.execution, self.execution_rid, text)
            self._row = {**self._row, "Description": written}

        self._annotate(write, "change the description", "note", str(text))

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags, sorted, as they are in the catalog now; none if the catalog has no table for tags."""
        return list_tags(self._connection, [self.execution_rid]).get(self.execution_rid, ())

    def add_tags(self, *tags: str) -> None:
        """Add tags, by which `DerivaML.find_executions` finds the run. Tags that it already has are ignored.

        Args:
            *tags: Texts of one line, without commas, of at most 100 characters. White space around a tag is dropped,
                and a secret is redacted. Upper and lower case differ.

        Raises:
            InvalidTag: A tag has another form, or is that of a baseline. None is added.
            ConfigurationError: The catalog has no table for tags; the message names who adds it.
            UnknownRID: The execution was deleted.
        """
        write = partial(add_tags, self._connection, self.execution_rid, tags)
        self._annotate(write, "add the tags", "tag", *map(str, tags))

    def remove_tags(self, *tags: str) -> None:
        """Remove tags. Tags that it does not have are ignored.

        Args:
            *tags: The tags, also those of a baseline.

        Raises:
            ConfigurationError: The catalog has no table for tags; the message names who adds it.
        """
        write = partial(remove_tags, self._connection, self.execution_rid, tags)
        self._annotate(write, "remove the tags", "tag", "--remove", *map(str, tags))

    def _annotate(self, write: Callable[[], None], action: str, command: str, *arguments: str) -> None:  # noqa: ARG002
        """Write a description or tags; a running execution logs a failure instead of raising it.

        Args:
            write: Function that writes them.
            action: What it does, for messages.
            command: Subcommand of ``deriva-ml`` that does the same.
            arguments: Arguments of the command, after the RID.
        """
        write()

    @property
    def user(self) -> str:
        """User who created it: the name on this machine, or the server's ID of the user."""
        return self._row.get("RCB") or ""

    @property
    def working_dir(self) -> Path:
        """Its working folder on this machine, whether or not the folder exists."""
        return self._connection.working_folder(self.execution_rid)

    @property
    def status(self) -> Status:
        """Its status; Aborted if its process died without reporting an end, even if the row says Running."""
        return self._current_status()[0]

    @property
    def status_detail(self) -> str:
        """The message of its status."""
        return self._current_status()[1]

    @property
    def duration(self) -> str | None:
        """Run time, such as ``0.0H 1.0min 2.3456sec``; None before its end."""
        return self._row.get("Duration")

    @property
    def created(self) -> datetime | None:
        """Time at which its row was inserted, in UTC.

        Raises:
            MalformedData: The row has another value.
        """
        return parse_row_time(MLTable.execution, self._row)

    @property
    def start_time(self) -> datetime | None:
        """Start of the run, in UTC; None before it starts, or if the journal is not available."""
        return self._load_state().start_time

    @property
    def stop_time(self) -> datetime | None:
        """End of the run, in UTC; None before it ends, or if the journal is not available."""
        return self._load_state().stop_time

    @cached_property
    def url(self) -> str:
        """Its citation, which identifies it outside this catalog."""
        return self._connection.catalog.cite(self.execution_rid)

    @property
    def info(self) -> ExecutionInfo:
        """The execution as one frozen value."""
        state = self._load_state()
        status, detail = self._current_status()
        return ExecutionInfo(
            rid=self.execution_rid,
            url=self.url,
            description=self.description,
            workflow_rid=self.workflow_rid,
            status=status,
            status_detail=detail,
            datasets=tuple(state.datasets.values()),
            assets=tuple(state.assets),
            working_dir=self.working_dir,
            created=self.created,
            start_time=state.start_time,
            stop_time=state.stop_time,
        )

    def list_statuses(self) -> list[StatusUpdate]:
        """List all its statuses in order, from the journal on this machine or from the copy in the catalog.

        Returns:
            The statuses; empty if there is no journal.
        """
        return list(self._load_state().statuses)

    def list_best_corrections(self) -> list[BestCorrection]:
        """List the corrections of its best checkpoint in order, from the journal here or from the copy in the catalog.

        Returns:
            The corrections; empty if there are none or there is no journal.
        """
        return list(self._load_state().best_corrections)

    def list_metrics(self) -> list[MetricSummary]:
        """List the last and the best value of each metric that it reported, as recorded in the catalog.

        Returns:
            The metrics; empty if the run reported none or if the catalog has no table for metrics.
        """
        return list_metrics(self._connection, [self.execution_rid]).get(self.execution_rid, [])

    @property
    def metrics(self) -> dict[str, MetricValue]:
        """Its metrics by name: last and best value, each with epoch and step.

        A metric of another stage than the fit has the stage in brackets, as in ``loss (test)``. Epochs and steps are
        read from the journal and ``metrics.jsonl``; they are None if these are not available.
        """
        from deriva_ml_core.execution.metric_history import locate_metrics

        return locate_metrics(self, self._summarize_metrics())

    def metric_rows(
        self,
        metrics: str | Iterable[str] | None = None,
        *,
        stage: str | None = None,
        by: str | None = None,
        max_points: int | None = None,
    ) -> list[MetricRow]:
        """Return every value of its metrics, from ``metrics.jsonl``, as one dictionary each.

        The file is read from the working folder on this machine, or else downloaded to the cache. While the run goes
        on, the rows are those so far.

        Args:
            metrics: Names of the metrics; None for all.
            stage: ``fit``, ``validate``, ``test`` or ``predict``; None for all.
            by: ``epoch`` or ``step``, the unit that a value describes; None for both.
            max_points: Maximum number of rows of each metric in each stage and fit, at least 4. Of a longer curve, the
                first and the last value and the extremes of equal intervals are returned. None for all values.

        Returns:
            Dictionaries with the keys ``stage``, ``fit`` (from 1), ``by``, ``epoch`` (from 1), ``step``, ``time`` (ISO
            8601 in UTC), ``metric`` and ``value``. An unknown epoch or step is None. The list is empty if the run
            reported no metrics.

        Raises:
            ConfigurationError: An argument has another value than these.
            StoreUnavailable, ChecksumMismatch: The file cannot be downloaded.
        """
        from deriva_ml_core.execution.metric_history import load_metric_rows

        return load_metric_rows(self, metrics, stage=stage, by=by, max_points=max_points)

    def metrics_dataframe(
        self,
        metrics: str | Iterable[str] | None = None,
        *,
        stage: str | None = None,
        by: str | None = None,
        max_points: int | None = None,
    ) -> pd.DataFrame:
        """Return the rows of `metric_rows` as a pandas DataFrame with one row for each value.

        ``frame.pivot_table(index="epoch", columns="metric", values="value")`` has one column for each metric.

        Args:
            metrics: Names of the metrics; None for all.
            stage: ``fit``, ``validate``, ``test`` or ``predict``; None for all.
            by: ``epoch`` or ``step``; None for both.
            max_points: Maximum number of rows of each metric in each stage and fit; None for all.

        Returns:
            The columns ``stage``, ``fit``, ``by``, ``epoch``, ``step``, ``time``, ``metric`` and ``value``. Times are
            in UTC. An unknown epoch, step or time is NA.

        Raises:
            MissingDependency: pandas is not installed: the extra is ``pandas``.
            DerivaMLException: As for `metric_rows`.
        """
        from deriva_ml_core.execution.metric_history import build_dataframe

        return build_dataframe(lambda: self.metric_rows(metrics, stage=stage, by=by, max_points=max_points))

    def _summarize_metrics(self) -> list[MetricSummary]:
        """Return its metrics in the catalog; from the journal if the catalog has no table for them."""
        return self.list_metrics() or list(self._load_state().metrics.values())

    @property
    def params(self) -> dict[str, JsonValue]:
        """Its parameters by name, such as ``lr`` or ``optimizer.lr``.

        The values are text, numbers, bools, None and lists. A value over 500 characters is cut in the catalog. If the
        catalog has no table for parameters, they are read from the journal, else from the run's files.
        """
        parameters = list_parameters(self._connection, [self.execution_rid]).get(self.execution_rid)
        parameters = parameters or dict(self._load_state().parameters)
        if parameters or has_parameters(self._connection.catalog.model):
            return parameters
        return _load_parameters(self._connection, self.execution_rid)

    def read_console(self) -> str | None:
        """Return what the run printed, so far if it is running on this machine; see ``DerivaML.create_execution``.

        Progress bars are as at their end, secrets are redacted, and of more than 10 MiB the middle is left out. If
        standard error went elsewhere than standard output, it follows after a line that says so.

        Returns:
            The text; None if the execution did not record it.
        """
        records = self.working_dir / "records"
        parts = [
            read_local_console(records, name) or _download_newest_text(self._connection, self.execution_rid, name)
            for name in CONSOLE_FILES
        ]
        if parts[1] is None:
            return parts[0]
        return f"{parts[0] or ''}Standard error:\n{parts[1]}"

    def list_assets(self, asset_role: Role | str | None = None) -> list[Asset]:
        """List the input and output assets.

        Args:
            asset_role: ``Input`` or ``Output``; None for both.
        """
        return list_execution_assets(
            self._connection, self.execution_rid, None if asset_role is None else Role(asset_role)
        )

    def list_media(self) -> list[MediaFile]:
        """List the images, figures and tables that the run logged, in order.

        Returns:
            The files with name, fit, epoch and step. A file in the working folder on this machine has a path, and an
            uploaded file has an asset.
        """
        return locate_media(*self._load_media())

    def _load_media(self) -> tuple[MediaManifest, list[Asset], Path | None]:
        """Return the list of logged media, the assets, and the folder of the list if that is on this machine."""
        path = self.working_dir / MEDIA_FILE
        try:
            content, folder = path.read_bytes(), self.working_dir
        except OSError:  # it is on another machine, or belongs to another user
            rows = _select_metadata(self._connection, self.execution_rid, (MEDIA_FILE,))
            rows = [row for row in rows if row["Length"] <= MAX_MANIFEST_BYTES]
            return (
                parse_manifest(_download_bytes(self._connection, rows[0]) if rows else b""),
                self.list_assets(Role.output) if rows else [],
                None,
            )
        return parse_manifest(content), self.list_assets(Role.output), folder

    def fetch_checkpoint(self, which: str = "best", into: str | Path | None = None) -> Path:
        """Download a checkpoint of the run, and check each file by length and MD5.

        Args:
            which: ``best`` or ``last``, or the name of a file or folder. The newest is taken if several match.
            into: Target folder; the path is ``<into>/<table>/<rid>/<name>``. None for the cache. A file that exists
                there with its recorded bytes is not downloaded again.

        Returns:
            The path of the file or, for a sharded checkpoint, of the folder.

        Raises:
            UnknownCheckpoint: The execution has uploaded no such checkpoint. The message names the existing ones.
            ChecksumMismatch: The bytes in the store differ from the recorded ones.
        """
        from deriva_ml_core.training.checkpoint_download import fetch_checkpoint

        folder = make_file_cache(self._connection) if into is None else expand_home(Path(into))
        return fetch_checkpoint(self, folder, which)

    def list_input_datasets(self) -> list[DatasetSpec]:
        """List the input datasets, each with the version that was used."""
        return list_input_datasets(self._connection, self.execution_rid)

    def list_output_datasets(self) -> list[DatasetSpec]:
        """List the dataset versions that it created."""
        rows = self._select(MLTable.dataset_version, {"Execution": self.execution_rid})
        return list(convert_rows(_spec_from_version_row, rows))

    def list_nested_executions(self, recurse: bool = False) -> list[RecordedExecution]:
        """List the executions nested in this one, in their sequence.

        Args:
            recurse: Whether to include deeper levels, level by level.
        """
        return self._list_related("Execution", "Nested_Execution", recurse)

    def list_parent_executions(self, recurse: bool = False) -> list[RecordedExecution]:
        """List the executions that this one is nested in.

        Args:
            recurse: Whether to include the parents of parents, level by level.
        """
        return self._list_related("Nested_Execution", "Execution", recurse)

    def _list_related(self, from_column: str, to_column: str, recurse: bool) -> list[RecordedExecution]:
        related: dict[RID, None] = {}
        level = [self.execution_rid]
        while level:
            links = self._select(MLTable.nested_execution, {from_column: level})
            links.sort(key=lambda link: (link["Sequence"] is None, link["Sequence"], link["RCT"], link["RID"]))
            level = [
                link[to_column]
                for link in links
                if link[to_column] not in related and link[to_column] != self.execution_rid
            ]
            related.update(dict.fromkeys(level))
            if not recurse:
                break
        rows = {row["RID"]: row for row in self._select(MLTable.execution, {"RID": list(related)})}
        return [RecordedExecution(self._connection, rows[rid]) for rid in related if rid in rows]

    def _select(self, table: str, where: dict[str, Any]) -> list[dict[str, Any]]:
        if any(value == [] for value in where.values()):
            return []
        return self._connection.catalog.select(table, where)

    def _load_state(self) -> ExecutionState:
        """Load the state from the journal on this machine, else from its copy in the catalog, which names no files."""
        if (state := load_local_state(self._connection, self.execution_rid)) is not None:
            return state
        if self._downloaded_state is None and (journal := download_journal(self._connection, self.execution_rid)):
            self._downloaded_state = journal.state
        return self._downloaded_state or ExecutionState()

    def _current_status(self) -> tuple[Status, str]:
        """Status and message of the row; of the local journal if the row's status is not terminal."""
        text, detail = self._row["Status"], self._row.get("Status_Detail") or ""
        status = status_from_row(text)
        if status is None:  # written by another program
            status, detail = Status.pending, ": ".join(filter(None, (f"Unknown status {text!r}", detail)))
        if status.is_terminal:
            return status, detail
        return effective_status(load_local_state(self._connection, self.execution_rid)) or (status, detail)


def _spec_from_version_row(row: dict[str, Any]) -> DatasetSpec:
    return convert_values(
        MLTable.dataset_version, row["RID"], lambda: DatasetSpec(rid=row["Dataset"], version=row["Version"])
    )


def lookup_execution(connection: Connection, rid: RID) -> RecordedExecution:
    """Return a recorded execution.

    Args:
        connection: The catalog.
        rid: The execution's RID.

    Raises:
        UnknownRID, WrongTable: The RID is not that of an execution.
    """
    return RecordedExecution(connection, connection.require_row(MLTable.execution, rid))


def load_local_state(connection: Connection, rid: RID) -> ExecutionState | None:
    """Load the state from the journal in the working folder.

    Returns:
        The state; None if this machine has no journal, or has one that cannot be read, which a warning names.
    """
    path = connection.working_folder(rid) / JOURNAL_FILENAME
    try:
        return load_state(path) if path.is_file() else None
    except (DerivaMLException, OSError) as error:
        log.warning("Failed to read %s; the row of execution %s is used instead: %s", path, rid, error)
        return None


def download_journal(connection: Connection, rid: RID) -> DownloadedJournal | None:
    """Download the newest copy of an execution's journal; return None if there is none."""
    return next((journal for _, journal in list_journal_copies(connection, rid)), None)


def list_journal_copies(connection: Connection, rid: RID) -> Iterator[tuple[RID, DownloadedJournal]]:
    """Yield the copies of an execution's journal in the catalog with the RIDs of their rows, newest first.

    An input, or another output of the same name, is no copy: the journal of an execution names it in its first event.
    """
    for row in _select_metadata(connection, rid, (JOURNAL_FILENAME,)):
        journal = read_downloaded_journal(complete_lines(_download_bytes(connection, row)), rid)
        if journal is not None:
            yield row["RID"], journal


def _select_metadata(connection: Connection, rid: RID, filenames: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of an execution's metadata files with one of these names, newest first."""
    catalog, table = connection.catalog, MLAsset.execution_metadata.value
    links = catalog.select(asset_execution_table_name(table), {"Execution": rid, "Asset_Role": Role.output})
    if not links:
        return []
    where = {"RID": [link[table] for link in links], "Filename": list(filenames)}
    # a row is updated when its file is replaced
    return catalog.select(table, where, order=("RMT", "RID"), descending=True)


def _download_bytes(connection: Connection, row: Mapping[str, Any]) -> bytes:
    with scratch_folder(connection.folder) as folder:
        path = folder / "file"
        RetryingStore(connection.store).get(
            row["URL"], path, length=row["Length"], md5=row["MD5"], options=UploadOptions()
        )
        return path.read_bytes()


def _download_newest_text(connection: Connection, rid: RID, filename: str) -> str | None:
    """Return the text of the newest metadata file of a name; None without one of this package."""
    rows = _select_metadata(connection, rid, (filename,))
    if not rows or rows[0]["Length"] > 2 * MAX_KEPT_BYTES:
        return None
    return _download_bytes(connection, rows[0]).decode("utf-8", "replace")


def _load_parameters(connection: Connection, rid: RID) -> dict[str, JsonValue]:
    """Return the parameters in the files of an execution; the newest file of a name counts."""
    newest = {row["Filename"]: row for row in reversed(_select_metadata(connection, rid, PARAMETER_FILES))}
    parameters: dict[str, JsonValue] = {}
    for filename in PARAMETER_FILES:
        row = newest.get(filename)
        if row is not None and row["Length"] <= MAX_FILE_BYTES:
            parameters = {**read_parameter_file(filename, _download_bytes(connection, row)), **parameters}
    return parameters


def nest_execution(
    connection: Connection, parent: RecordedExecution, child: RecordedExecution | RID, sequence: int | None
) -> None:
    """Nest an execution in another; see ``Execution.add_nested_execution``."""
    rid = child if isinstance(child, str) else child.execution_rid
    connection.require_row(MLTable.execution, rid)
    ancestors = parent.list_parent_executions(recurse=True)
    if rid in {parent.execution_rid, *(ancestor.execution_rid for ancestor in ancestors)}:
        raise ExecutionCycle(
            f"Execution {rid} cannot be nested in {parent.execution_rid}: they are the same, or {rid} contains it."
        )
    link = {"Execution": parent.execution_rid, "Nested_Execution": rid, "Sequence": sequence}
    connection.catalog.insert(MLTable.nested_execution, [link], skip_existing=True)
