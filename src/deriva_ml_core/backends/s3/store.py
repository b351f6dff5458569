"""Object store in a bucket of S3, or of a service with the same protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from deriva_ml_core._files.partial_download import check_received, download_object
from deriva_ml_core.backend import ObjectStore, StoreCheck
from deriva_ml_core.backends.file_content import FileChanged, FileContent
from deriva_ml_core.backends.name_locks import NameLocks
from deriva_ml_core.backends.object_names import FOLDER_OBJECT_VERSION, S3ObjectName, check_filename, parse_s3_url
from deriva_ml_core.backends.s3.part_digests import PartDigests, choose_part_size
from deriva_ml_core.backends.s3.s3_address import S3Address
from deriva_ml_core.backends.s3.s3_check import check_s3_store
from deriva_ml_core.backends.s3.s3_client import S3Client, ServiceRefusal
from deriva_ml_core.backends.s3.s3_objects import S3Objects
from deriva_ml_core.backends.s3.s3_upload import S3Upload
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.errors import ConfigurationError, FileConflict
from deriva_ml_core.models import StoredObject, UploadOptions

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["IncompleteUpload", "S3Store"]

PREFERRED_CONCURRENCY = 4
"""Files that are sent in parallel, as on a server: the time of a small file is that of one round trip."""

MAX_READ_ATTEMPTS = 3
"""How often a file that changes while it is sent is read. No retry settings: each attempt uploads different bytes."""

MAX_PRESIGNED_SECONDS = 7 * 86400
"""Longest time that a service lets a presigned URL be used."""

MAX_CACHED_DIGESTS = 16
"""Files whose digests are remembered, so that a repeated transfer does not read the file again."""


def _ignore_note(state: JsonValue) -> None:
    """Do not save the progress."""


@dataclass(frozen=True, slots=True)
class IncompleteUpload:
    """Upload in parts that was neither completed nor aborted. Its parts take space, and no object shows them.

    Args:
        key: Key of the object.
        upload_id: The service's id of the upload.
        started: When the upload was started.
    """

    key: str
    upload_id: str
    started: datetime


class S3Store:
    """Objects ``<prefix>/hatrac/<table>/<md5>.<filename>`` in a bucket.

    Files are only read, whatever the transfer mode. A small file is sent in one request, a larger one in parts, three
    in parallel. No object is overwritten. The same bytes under the same name are sent once.

    Args:
        address: The bucket, or its text, as `S3Address.parse` accepts it.

    Attributes:
        address: The bucket.
        objects: Its objects, by key.
    """

    def __init__(self, address: S3Address | str) -> None:
        self.address = S3Address.parse(address) if isinstance(address, str) else address
        self._client = S3Client(self.address)
        self.objects = S3Objects(self._client)
        self._name_locks = NameLocks()
        self._digests: dict[tuple[str, tuple[int, ...], int], PartDigests] = {}

    def __repr__(self) -> str:
        return f"S3Store({str(self.address)!r})"

    @property
    def preferred_concurrency(self) -> int:
        return PREFERRED_CONCURRENCY

    def put(
        self,
        table: str,
        filename: str,
        file: Path,
        *,
        handover: TransferMode,  # noqa: ARG002
        options: UploadOptions,
        resume: JsonValue | None = None,
        note: Callable[[JsonValue], None] = _ignore_note,
    ) -> StoredObject:
        """Store a file's bytes, resuming after the parts that the service has.

        Raises:
            FileNotFoundError: The file does not exist.
            InvalidFileName: The name leaves its folder, or the path is not a regular file.
            FileConflict: The file keeps changing, or an object of that name has other bytes.
            StoreUnavailable: The call may succeed later.
            LoginRequired, AccessRefused: The user has no access.
            DiskFull: The bucket has reached its quota.
        """
        check_filename(filename)
        last = resume

        def save_progress(progress: JsonValue) -> None:
            nonlocal last
            last = progress
            note(progress)

        for _ in range(MAX_READ_ATTEMPTS):
            try:
                digests = self._read_digests(file, options, last)
                name = S3ObjectName(table, digests.content.md5, filename)
                with self._name_locks.lock(None, name.path):
                    S3Upload(self.objects, name, digests, options, save_progress, last).run()
            except FileChanged:
                continue
            content = digests.content
            return StoredObject(url=name.url(FOLDER_OBJECT_VERSION), md5=content.md5, length=content.length)
        raise FileConflict(f"{file} changes each time that it is sent: wait until it is complete, and upload again.")

    def sync(self) -> None:
        """Do nothing: the service responds after it has stored an object."""

    def get(self, url: str, target: Path, *, length: int, md5: str, options: UploadOptions) -> None:
        """Download an object, resuming an interrupted download; `target` appears once it is complete and verified."""
        key = self._key(url)
        download_object(
            url,
            target,
            length=length,
            md5=md5,
            iter_bytes=lambda start: self.objects.iter_bytes(key, start, options.timeout),
        )

    def verify(self, url: str, *, length: int, md5: str) -> None:
        """Read an object, and raise `ChecksumMismatch` if its length or MD5 differs.

        An object that is longer than expected is read for at most one block more.
        """
        received = self.objects.compute_md5(self._key(url), length, UploadOptions().timeout)
        check_received(url, received, length=length, md5=md5)

    def source(self, url: str) -> str:
        """Return the full URL: ``https://<endpoint>/<bucket>/<key>``."""
        key = quote(self._key(url), safe="/~")
        return f"{self._client.endpoint_url()}/{self.address.bucket}/{key}"

    def presign(self, url: str, seconds: int = 3600) -> str:
        """Return a URL with which a browser can read an object for some time, without a login.

        Args:
            url: URL of the object.
            seconds: How long the URL can be used, at most seven days. Default 1 hour.

        Raises:
            ConfigurationError: The time is not between 1 second and 7 days.
            LoginRequired: There are no credentials to sign the URL.
        """
        if not 0 < seconds <= MAX_PRESIGNED_SECONDS:
            raise ConfigurationError(f"A URL can be used for 1 to {MAX_PRESIGNED_SECONDS} seconds, not {seconds}.")
        return self._client.presign(self._key(url), seconds, {})

    def find_incomplete_uploads(self, older_than: timedelta = timedelta(days=7)) -> Iterator[IncompleteUpload]:
        """Yield the uploads under this store's prefix that were neither completed nor aborted.

        An upload that another machine still sends looks the same, and differs only by its age.

        Args:
            older_than: Age from which an upload counts as abandoned. Default 7 days.
        """
        newest = datetime.now(UTC) - older_than
        markers: dict[str, str] = {}
        while True:
            parameters = {"Prefix": self.address.key("/hatrac/"), **markers}
            try:
                response = self._client.request(
                    "list_multipart_uploads",
                    "the incomplete uploads",
                    UploadOptions().timeout,
                    parameters,
                    allowed=("NoSuchUpload",),
                )
            except ServiceRefusal:  # rclone's answer if there are none
                return
            for upload in response.get("Uploads", ()):
                if upload["Initiated"] <= newest:
                    yield IncompleteUpload(str(upload["Key"]), str(upload["UploadId"]), upload["Initiated"])
            following = {
                "KeyMarker": str(response.get("NextKeyMarker") or ""),
                "UploadIdMarker": str(response.get("NextUploadIdMarker") or ""),
            }
            if not response.get("IsTruncated") or not following["KeyMarker"] or following == markers:
                return
            markers = following

    def abort_upload(self, upload: IncompleteUpload) -> None:
        """Delete the parts of an incomplete upload. One that was completed or aborted meanwhile is no error.

        Args:
            upload: The upload.
        """
        if not upload.key.startswith(self.address.key("/hatrac/")):
            raise ConfigurationError(f"The upload of {upload.key} is not one of {self.address}.")
        parameters = {"Key": upload.key, "UploadId": upload.upload_id}
        allowed = ("NoSuchUpload", "NotFound")
        with suppress(ServiceRefusal):
            self._client.request(
                "abort_multipart_upload", upload.key, UploadOptions().timeout, parameters, allowed=allowed
            )

    def check(self) -> list[StoreCheck]:
        """Check that the store can be written and read, and how its bucket is configured."""
        return check_s3_store(self.objects, self.find_incomplete_uploads)

    def check_writable(self) -> None:
        """Write an object for tests, unless it exists.

        Raises:
            UnknownAddress: The bucket does not exist.
            LoginRequired, AccessRefused: The user has no access.
            StoreUnavailable: The service cannot be reached.
        """
        self.objects.honours_conditions(UploadOptions().timeout)

    def complete_address(self) -> S3Address:
        """Return the address with the endpoint and the region that the user's configuration has for it."""
        return self._client.complete_address()

    def close(self) -> None:
        self._client.close()

    def _key(self, url: str) -> str:
        return self.address.key(parse_s3_url(url))

    def _read_digests(self, file: Path, options: UploadOptions, resume: JsonValue) -> PartDigests:
        """Read a file, or return the digests of an earlier attempt if the file has not changed since."""
        status = FileContent.stat(file)
        name = (str(file), status.stamp, choose_part_size(status.length, options.chunk_size, resume))
        if (known := self._digests.pop(name, None)) is None:
            known = PartDigests.read(file, name[2])
        self._digests[name] = known
        while len(self._digests) > MAX_CACHED_DIGESTS:
            self._digests.pop(next(iter(self._digests), name), None)
        return known


if TYPE_CHECKING:
    _: type[ObjectStore] = S3Store
