"""The frozen values that cross rooms."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from inspect import Signature
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, SecretStr

from deriva_ml_core._deprecation import deprecated_names
from deriva_ml_core.definitions import RID, Status, check_rid

__all__ = [
    "Address",
    "Asset",
    "AssetSpec",
    "DatasetSpec",
    "ExecutionInfo",
    "MetricSummary",
    "Progress",
    "SourceCode",
    "StagedAsset",
    "StatusUpdate",
    "StoredObject",
    "UnsentAsset",
    "UploadOptions",
    "UploadProgress",
    "UploadReport",
    "FrozenModel",
]

CheckedRID = Annotated[RID, BeforeValidator(check_rid)]


class LazySignature:
    """The signature of a class whose validator is built late: built when somebody asks, as hydra-zen's builds does."""

    def __get__(self, value: object, owner: type[BaseModel]) -> Signature:
        owner.model_rebuild()  # gives the class a signature of its own, which is found before this one
        return owner.__signature__


class FrozenModel(BaseModel):
    """A frozen value that refuses unknown fields; its validator is built when it is first used."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, ser_json_inf_nan="constants")
    __signature__ = LazySignature()


class Address(FrozenModel):
    """Where a catalog is, and how to be let in.

    Args:
        hostname: A server's host name, ``https://…``, ``file:<folder>``, or None for the default embedded catalog.
        catalog_id: The catalog's number on that server; None for an embedded catalog.
        working_dir: The folder for executions' working folders; None for the backend's own place.
        credential: What logs in; it is in no representation and in no pickle.
    """

    hostname: str | None = None
    catalog_id: str | None = None
    working_dir: Path | None = None
    credential: Mapping[str, SecretStr] | None = Field(default=None, repr=False, exclude=True)

    @property
    def is_embedded(self) -> bool:
        """Whether it names an embedded catalog, on this machine."""
        return self.hostname is None or self.hostname == "" or self.hostname.startswith("file:")

    def __reduce__(self) -> tuple[Any, ...]:
        return Address.model_validate, (self.model_dump(),)


class SourceCode(FrozenModel):
    """Where the code is that runs.

    Args:
        url: A blob URL with the commit, an image's name, or a ``file:`` URI; empty for an interactive session.
        checksum: Git's blob hash of the file (40 hex digits), or an image's digest; empty where there is none.
        version: The project's version, None where it has none.
        path: The file itself, absolute, where there is one.
        repository: The root of the git work tree where HEAD and the uncommitted changes are taken.
        dirty: Whether the file differs from its last commit, or is untracked.
        kind: Who found it: ``explicit``, ``environment``, ``container``, ``notebook``, ``script``, ``interactive``,
            or a plugin's own word.
    """

    url: str = ""
    checksum: str = ""
    version: str | None = None
    path: Path | None = None
    repository: Path | None = None
    dirty: bool = False
    kind: str = "explicit"


class DatasetSpec(FrozenModel):
    """One dataset that goes into an execution.

    Args:
        rid: The dataset's record id.
        version: A semantic version such as ``1.2.0``; None for the version that is current when the execution is made.
        materialize: Whether a download brings the files too, not only their rows.
    """

    rid: CheckedRID
    version: str | None = Field(default=None, pattern=r"^\d+\.\d+\.\d+$")
    materialize: bool = True


class AssetSpec(FrozenModel):
    """One asset that goes into an execution.

    Args:
        rid: The asset's record id, of whichever asset table.
    """

    rid: CheckedRID


class Progress(FrozenModel):
    """How far a training is.

    Args:
        epoch: The epoch that has just ended, from 1.
        epochs: How many there will be; None where nobody knows.
        step: Optimizer steps so far, from 1; None where nobody counts.
        metrics: The values of that epoch by name.
        modes: Whether the smaller or the larger values of a metric are better, ``min`` or ``max`` by its name, where
            that does not tell: of accuracies and other scores more is better, of all else less.
        bests: The best value of each metric and its epoch, since the status before, where epochs between had none.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
        seconds: How long the epoch, or the stage, took; None within an epoch.
        left: Seconds until the last epoch ends; None where nobody knows, or none is left.
    """

    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    metrics: Mapping[str, float] = Field(default_factory=dict)
    modes: Mapping[str, Literal["min", "max"]] | None = None
    bests: Mapping[str, tuple[float, int | None]] | None = None
    stage: str = "fit"
    seconds: float | None = None
    left: float | None = None


class MetricSummary(FrozenModel):
    """Where a metric of an execution stands.

    Args:
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
        name: The metric.
        last: Its newest value; None where that is NaN or infinite.
        best: Its best finite value; None where it has had none.
        best_at: The epoch of that, from 1; None where nobody counted.
        larger_is_better: Whether larger values are better.
    """

    stage: str
    name: str
    last: float | None
    best: float | None
    best_at: int | None
    larger_is_better: bool


class StatusUpdate(FrozenModel):
    """One status of an execution.

    Args:
        status: The state.
        message: What is happening, in words.
        time: When, in UTC.
        previous: The state before; None for the first.
        error: The exception's type and message where the run failed.
        progress: The same as numbers, where a training reports.
    """

    status: Status
    message: str = ""
    time: datetime
    previous: Status | None = None
    error: str | None = None
    progress: Progress | None = None


class StagedAsset(FrozenModel):
    """A file that an execution registered.

    Args:
        key: Its name in the execution's journal: how often the name was staged, the table, and the name.
        table: The asset table.
        filename: The name that its row will carry, sub-folders included, with ``/`` between them.
        path: Where the bytes are, or will be.
        asset_types: Terms of the vocabulary Asset_Type.
        metadata: Values of the asset table's own columns.
        original: The user's own file, where `path` is a link to it; it is copied, never moved.
        record: Whether it is the execution's own record (its configuration, say), of which no news is told.
    """

    key: str
    table: str
    filename: str
    path: Path
    asset_types: tuple[str, ...]
    metadata: Mapping[str, JsonValue] = Field(default_factory=dict)
    original: Path | None = None
    record: bool = False


class StoredObject(FrozenModel):
    """Bytes that a store holds.

    Args:
        url: The versioned URL that names them for ever.
        md5: Their MD5, 32 hex digits.
        length: Their number.
    """

    url: str
    md5: str
    length: int


class Asset(FrozenModel):
    """A file with a row in the catalog.

    Args:
        rid: The row's id.
        table: The asset table.
        filename: The file's name.
        url: Where the store holds the bytes.
        length: Their number.
        md5: Their MD5, 32 hex digits.
        asset_types: Terms of the vocabulary Asset_Type.
        metadata: Values of the asset table's own columns.
        role: What it was to the execution that was asked, where one was.
    """

    rid: RID
    table: str
    filename: str
    url: str
    length: int
    md5: str
    asset_types: tuple[str, ...] = ()
    metadata: Mapping[str, JsonValue] = Field(default_factory=dict)
    role: str | None = None


class UploadOptions(FrozenModel):
    """How to send.

    Args:
        timeout: Seconds to connect, and seconds to wait for an answer to each chunk.
        chunk_size: Bytes a chunk; the default is 25 MiB.
        max_retries: How often a failed transfer is tried again.
        retry_delay: Seconds before the first repeat; each further one waits twice as long, with jitter.
        upload_workers: Files in flight at once; None for as many as the store takes with profit.
    """

    timeout: tuple[float, float] = (6, 600)
    chunk_size: int = Field(default=25 * 2**20, gt=0)
    max_retries: int = Field(default=3, ge=0)
    retry_delay: float = Field(default=5.0, ge=0)
    upload_workers: int | None = Field(default=None, ge=1)


class UploadProgress(FrozenModel):
    """How far an upload is: told before the first file and after each."""

    files_done: int
    files: int
    bytes_done: int
    bytes: int
    filename: str = ""


class UnsentAsset(FrozenModel):
    """A staged file that was not sent, and why."""

    asset: StagedAsset
    reason: str


class UploadReport(FrozenModel):
    """What one upload did.

    Args:
        sent: What was newly stored and recorded, by asset table.
        unsent: What is still staged.
    """

    sent: Mapping[str, tuple[Asset, ...]]
    unsent: tuple[UnsentAsset, ...] = ()


class ExecutionInfo(FrozenModel):
    """An execution as plugins and readers see it: values only.

    Args:
        rid: The execution's record id.
        url: Its citation, which names it outside this catalog.
        description: What it was for.
        workflow_rid: The workflow that it ran.
        status: The state when the record was taken.
        status_detail: The words beside it.
        datasets: The input datasets with their versions.
        assets: The record ids of the input assets.
        working_dir: The folder it works in; None where it is not on this machine.
        created: When its row was made, in UTC.
        start_time: When it began to run, in UTC.
        stop_time: When it ended, in UTC.
    """

    rid: RID
    url: str
    description: str = ""
    workflow_rid: RID | None = None
    status: Status
    status_detail: str = ""
    datasets: tuple[DatasetSpec, ...] = ()
    assets: tuple[RID, ...] = ()
    working_dir: Path | None = None
    created: datetime | None = None
    start_time: datetime | None = None
    stop_time: datetime | None = None


__getattr__ = deprecated_names(
    __name__,
    {
        "ExecutionRecord": "ExecutionInfo",
        "Value": "FrozenModel",
    },
)
