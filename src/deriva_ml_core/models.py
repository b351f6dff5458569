"""Frozen values that are passed between packages, to plugins and to users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import md5
from inspect import Signature
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    PrivateAttr,
    SecretStr,
)

from deriva_ml_core._deprecation import deprecated_names
from deriva_ml_core._text import escape_surrogates, format_size, parse_path, path_to_json
from deriva_ml_core._views import Cell, Grid, Picture, Presentable, View, image_html
from deriva_ml_core.definitions import RID, Status, check_rid

__all__ = [
    "Address",
    "Asset",
    "AssetSpec",
    "BestCorrection",
    "DatasetSpec",
    "ExecutionInfo",
    "MediaFile",
    "MetricSummary",
    "MetricValue",
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

JsonPath = Annotated[
    Path,
    BeforeValidator(lambda value: parse_path(value) if isinstance(value, str) else value),
    PlainSerializer(path_to_json, return_type=str, when_used="json"),
]
"""Path that JSON returns with the same bytes, also if they are not UTF-8."""

TextPath = Annotated[
    Path, PlainSerializer(lambda path: escape_surrogates(str(path)), return_type=str, when_used="json")
]
"""Path that is shown in JSON, with escapes for bytes that are not UTF-8."""


class LazySignature:
    """Descriptor that builds a model's signature on first access, since `FrozenModel` defers it."""

    def __get__(self, value: object, owner: type[BaseModel]) -> Signature:
        owner.model_rebuild()  # sets __signature__ on the class itself, which hides this descriptor
        return owner.__signature__


class FrozenModel(BaseModel):
    """Base class of frozen values. Unknown fields are an error; the validator is built on first use."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, ser_json_inf_nan="constants")
    __signature__ = LazySignature()
    _renamed_fields: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """New names of fields by their old ones, which pickles of earlier versions have."""

    def __setstate__(self, state: dict[Any, Any]) -> None:
        new = self._renamed_fields
        if new.keys() & state["__dict__"].keys():
            values = {new.get(name, name): value for name, value in state["__dict__"].items()}
            fields_set = {new.get(name, name) for name in state["__pydantic_fields_set__"]}
            state = {**state, "__dict__": values, "__pydantic_fields_set__": fields_set}
        missing = type(self).model_fields.keys() - state["__dict__"].keys()  # fields that a later version added
        if missing:
            fields = type(self).model_fields
            defaults = {name: fields[name].get_default(call_default_factory=True) for name in missing}
            state = {**state, "__dict__": {**state["__dict__"], **defaults}}
        super().__setstate__(state)


class Address(FrozenModel):
    """Address of a catalog, with an optional credential.

    Args:
        hostname: A server's host name, ``https://…``, ``postgresql://<user>@<host>/<database>``, ``file:<folder>``, or
            None for the default embedded catalog.
        catalog_id: Number of the catalog on the server. None for an embedded catalog.
        working_dir: Parent folder of the executions' working folders. None for the backend's default.
        credential: Login for the server. It is excluded from ``repr``, serialization and pickles.
        store: Address of the object store: of a new catalog's, or of the one that an existing catalog is expected to
            have. None for the catalog's own.
    """

    hostname: str | None = None
    catalog_id: str | None = None
    working_dir: TextPath | None = None
    credential: Mapping[str, SecretStr] | None = Field(default=None, repr=False, exclude=True)
    store: str | None = None

    @property
    def is_embedded(self) -> bool:
        """Whether this is the address of an embedded catalog on this machine."""
        return self.hostname is None or self.hostname == "" or self.hostname.startswith("file:")

    @property
    def is_on_server(self) -> bool:
        """Whether this is the address of a catalog on a Deriva server, whose project has a schema of its own."""
        from deriva_ml_core.paths import is_postgres_address

        return not self.is_embedded and not is_postgres_address(self.hostname)

    @property
    def printable_hostname(self) -> str:
        """The host name without a login or other secrets; empty for the default embedded catalog."""
        from deriva_ml_core.redaction import redact_address  # many patterns to compile

        return redact_address(self.hostname or "")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        from deriva_ml_core.redaction import redact_address  # many patterns to compile

        for name, value in super().__repr_args__():
            if name != "store" or value is not None:
                yield name, redact_address(value) if name in ("hostname", "store") and value else value

    def __reduce__(self) -> tuple[Any, ...]:
        return Address.model_validate, (self.model_dump(),)


class SourceCode(FrozenModel):
    """Location and version of the source code that runs.

    Args:
        url: A blob URL with the commit, a container image, a package URL, or a ``file:`` URI. Empty for an interactive
            session, and for a program without a file.
        checksum: Git blob hash of the file (40 hex digits), or the image's digest. Empty if there is none.
        version: Version of the project, or None.
        path: Absolute path of the file, or None.
        repository: Root of the git work tree that HEAD and the uncommitted changes are taken from, or None.
        dirty: Whether the file differs from its last commit, or is untracked.
        kind: How the source was detected: ``explicit``, ``environment``, ``container``, ``notebook``, ``script``,
            ``distribution`` (an installed program), ``zipapp``, ``command`` (``python -c``), ``stdin``,
            ``interactive``, or a name that a plugin defines.
    """

    url: str = ""
    checksum: str = ""
    version: str | None = None
    path: TextPath | None = None
    repository: TextPath | None = None
    dirty: bool = False
    kind: str = "explicit"


class DatasetSpec(FrozenModel):
    """An input dataset of an execution.

    Args:
        rid: RID of the dataset.
        version: Version such as ``1.2.0``. None for the release that is current when the execution is created. A
            development version of another client, such as ``1.2.0.post1.dev3``, has the members that the dataset has
            when it is read, so the execution is not reproducible.
        materialize: Whether a download includes the files, not only their rows.
    """

    rid: CheckedRID
    version: str | None = Field(default=None, pattern=r"^\d+\.\d+\.\d+((\.post\d+)?\.dev\d+)?$")
    materialize: bool = True


class AssetSpec(FrozenModel):
    """An input asset of an execution.

    Args:
        rid: RID of the asset, in any asset table.
    """

    rid: CheckedRID


class Progress(FrozenModel):
    """Progress of a training run.

    Args:
        epoch: Number of the epoch that has just ended, from 1.
        epochs: Total number of epochs, or None if unknown.
        step: Number of optimizer steps so far, or None if unknown.
        metrics: Values of the epoch by metric name.
        modes: ``min`` or ``max`` by metric name: whether smaller or larger values are better. Only needed where the
            name does not imply it. A metric with an unknown name and no mode has no best value.
        bests: Best value of each metric and its epoch since the previous status, for epochs that sent no status.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
        seconds: Duration of the epoch or stage in seconds. None within an epoch.
        left: Estimated seconds until the last epoch ends. None if unknown, or if no epoch is left.
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
    """Latest and best value of a metric of an execution.

    Args:
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
        name: Name of the metric.
        last: Newest value. None if it is NaN or infinite.
        best: Best finite value. None if there is none.
        best_at: Epoch of the best value, from 1. None if epochs were not counted.
        larger_is_better: Whether larger values are better. None if that is unknown, or if the metric has no best
            value, such as a learning rate; then `best` is None too.
    """

    stage: str
    name: str
    last: float | None
    best: float | None
    best_at: int | None
    larger_is_better: bool | None

    @property
    def label(self) -> str:
        """The name, with the stage in brackets if that is not the fit."""
        return self.name if self.stage == "fit" else f"{self.name} ({self.stage})"


class MetricValue(MetricSummary):
    """Latest and best value of a metric of an execution, with their epochs and steps.

    Args:
        last_at: Epoch of the latest value, from 1. None if it is unknown.
        last_step: Optimizer steps at the latest value. None if they are unknown.
        best_step: Optimizer steps at the best value. None if they are unknown.
    """

    last_at: int | None = None
    last_step: int | None = None
    best_step: int | None = None


class StatusUpdate(FrozenModel):
    """One status update of an execution.

    Args:
        status: The new status.
        message: Text for people.
        time: Time of the update, in UTC.
        previous: The status before. None for the first update.
        error: Type and message of the exception that ended the run, or None.
        progress: Progress as numbers, if a training reports it.
        corrected_by: The user who corrected the status of the ended run, for the reason in the message; else None.
    """

    status: Status
    message: str = ""
    time: AwareDatetime
    previous: Status | None = None
    error: str | None = None
    progress: Progress | None = None
    corrected_by: str | None = None


class BestCorrection(FrozenModel):
    """A correction of the best checkpoint of an execution that has ended.

    Args:
        checkpoint: Name of the best checkpoint, a file or a folder.
        assets: RIDs of its files.
        previous: Name of the checkpoint that was the best before; None if there was none.
        previous_assets: RIDs of that one's files.
        reason: Why the record was wrong.
        corrected_by: The user who corrected it.
        time: Time of the correction, in UTC.
    """

    checkpoint: str
    assets: tuple[RID, ...]
    previous: str | None = None
    previous_assets: tuple[RID, ...] = ()
    reason: str
    corrected_by: str
    time: AwareDatetime


class StagedAsset(FrozenModel):
    """A file that an execution has registered for upload.

    Args:
        key: Identifier in the execution's journal: how often the name was staged, the table, and the name.
        table: The asset table.
        filename: The file name that the row will have, with sub-folders separated by ``/``. Bytes of the file's name
            that are not UTF-8 are escaped by backslashes.
        path: Path of the bytes. The file may not exist yet.
        asset_types: Terms of the vocabulary Asset_Type.
        metadata: Values of the table's metadata columns.
        original: The user's file if `path` is a link to it. It is copied, never moved.
        record: Whether the file is a record of the execution itself, such as its configuration. Plugins are not
            notified of records.
    """

    key: str
    table: str
    filename: str
    path: JsonPath
    asset_types: tuple[str, ...]
    metadata: Mapping[str, JsonValue] = Field(default_factory=dict)
    original: JsonPath | None = None
    record: bool = False


class StoredObject(FrozenModel):
    """An object in an object store.

    Args:
        url: Versioned URL, which never changes.
        md5: MD5 of the bytes, 32 hex digits.
        length: Number of bytes.
    """

    url: str
    md5: str
    length: int


class Asset(Presentable, FrozenModel):
    """A stored file with a row in the catalog.

    Args:
        rid: RID of the row.
        table: The asset table.
        filename: The file's name.
        url: URL of the object in the store.
        length: Number of bytes.
        md5: MD5 of the bytes, 32 hex digits.
        asset_types: Terms of the vocabulary Asset_Type.
        metadata: Values of the table's metadata columns.
        role: ``Input`` or ``Output`` if the asset was listed for an execution, else None.
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
    _copies: _LocalCopies = PrivateAttr(default_factory=lambda: _LocalCopies())

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state.get("__pydantic_private__") is None:  # an earlier version pickled it
            state = {**state, "__pydantic_private__": {"_copies": _LocalCopies()}}
        super().__setstate__(state)

    def _view(self) -> View:
        fields: list[tuple[str, Cell]] = [
            ("table", self.table),
            ("types", ", ".join(self.asset_types)),
            ("size", format_size(self.length)),
            ("MD5", self.md5),
            ("role", self.role),
            *((name, str(value)) for name, value in self.metadata.items()),
        ]
        image = image_html(self._read_thumbnail(), self.filename, max_width="240px")
        return View(
            f"{self.filename} ({self.rid})",
            [Grid([field for field in fields if field[1]]), *([Picture(image)] if image else [])],
        )

    def _read_thumbnail(self) -> bytes:
        """Return the bytes of a small file that is on this machine; empty if it is not."""
        if self.length <= MAX_THUMBNAIL_BYTES:
            for path in self._copies.paths:
                content = _read_file(path, self.length)
                if md5(content, usedforsecurity=False).hexdigest() == self.md5:
                    return content
        return b""


MAX_THUMBNAIL_BYTES = 256 * 2**10
"""Maximum size of an image that notebooks show, in bytes: the notebook file stores its outputs."""


def _read_file(path: Path, length: int) -> bytes:
    try:
        return path.read_bytes() if path.stat().st_size == length else b""
    except OSError:
        return b""


class _LocalCopies:
    """Paths at which the bytes of an asset may be on this machine. They are no part of its value.

    Args:
        paths: The paths.
    """

    def __init__(self, paths: tuple[Path, ...] = ()) -> None:
        self.paths = paths

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LocalCopies)

    def __hash__(self) -> int:
        return 0

    def __reduce__(self) -> tuple[type[_LocalCopies], tuple[()]]:
        return _LocalCopies, ()


MediaKind = Literal["image", "figure", "table"]


class MediaFile(FrozenModel):
    """A logged image, figure or table of an execution.

    Args:
        kind: ``image``, ``figure`` or ``table``.
        name: The name that it was logged under.
        fit: Number of the fit in its execution, from 1; None outside of a fit.
        epoch: Number of the epoch, from 1; None if unknown.
        step: Optimizer steps so far; None if unknown.
        time: When it was logged, in UTC.
        filename: Name of the file in its asset table; the suffix is ``.png``, ``.svg`` or ``.csv``.
        length: Number of bytes.
        md5: MD5 of the bytes, 32 hex digits.
        path: The file in the working folder; None if it is not there, as after its upload.
        asset: The stored file; None before its upload.
    """

    kind: MediaKind
    name: str
    fit: int | None = None
    epoch: int | None = None
    step: int | None = None
    time: AwareDatetime
    filename: str
    length: int
    md5: str
    path: Path | None = None
    asset: Asset | None = None


class UploadOptions(FrozenModel):
    """Settings of an upload.

    Args:
        timeout: Seconds to wait for a connection, and for the response to each chunk. Default ``(6, 600)``.
        chunk_size: Bytes per chunk. Default 25 MiB.
        max_retries: Maximum number of retries of a failed transfer. Default 3.
        retry_delay: Seconds before the first retry. Each further retry waits twice as long, with jitter. Default 5.
        upload_workers: Number of files to send in parallel. None for the number that the store prefers.
    """

    timeout: tuple[float, float] = (6, 600)
    chunk_size: int = Field(default=25 * 2**20, gt=0)
    max_retries: int = Field(default=3, ge=0)
    retry_delay: float = Field(default=5.0, ge=0)
    upload_workers: int | None = Field(default=None, ge=1)


class UploadProgress(FrozenModel):
    """Progress of an upload, reported before the first file and after each file.

    Args:
        files_done: Number of files that are finished.
        files: Total number of files.
        bytes_done: Number of bytes that are finished.
        bytes: Total number of bytes.
        filename: Name of the file that has just finished. Empty before the first.
    """

    files_done: int
    files: int
    bytes_done: int
    bytes: int
    filename: str = ""


class UnsentAsset(FrozenModel):
    """A staged file that was not uploaded.

    Args:
        asset: The file.
        reason: Why it was not uploaded.
    """

    asset: StagedAsset
    reason: str


class UploadReport(FrozenModel):
    """Result of one upload.

    Args:
        sent: Files that this upload stored and recorded, by asset table.
        unsent: Files that are still staged.
    """

    sent: Mapping[str, tuple[Asset, ...]]
    unsent: tuple[UnsentAsset, ...] = ()


class ExecutionInfo(FrozenModel):
    """Values of an execution at one point in time, for plugins.

    Args:
        rid: RID of the execution.
        url: Citation URL, which identifies the execution outside the catalog.
        description: Description of the run.
        workflow_rid: RID of the workflow.
        status: Current status.
        status_detail: Message of the current status.
        datasets: Input datasets with their versions.
        assets: RIDs of the input assets.
        working_dir: Working folder. None if it is not on this machine.
        created: Time when the row was created, in UTC.
        start_time: Start of the run, in UTC.
        stop_time: End of the run, in UTC.
    """

    rid: RID
    url: str
    description: str = ""
    workflow_rid: RID | None = None
    status: Status
    status_detail: str = ""
    datasets: tuple[DatasetSpec, ...] = ()
    assets: tuple[RID, ...] = ()
    working_dir: TextPath | None = None
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
