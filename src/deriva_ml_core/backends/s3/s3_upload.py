"""Upload of one file to an S3 service: in one request, or in parts that can be resumed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deriva_ml_core._concurrency.thread_pool import map_unordered
from deriva_ml_core._retry import CONCURRENT_OBJECT, Attempts, call_with_retries, transfer_settings
from deriva_ml_core.backends.file_content import FileChanged, FileSlice
from deriva_ml_core.backends.object_names import S3ObjectName
from deriva_ml_core.backends.s3.part_digests import PartDigests, encode_md5
from deriva_ml_core.backends.s3.s3_client import ServiceRefusal
from deriva_ml_core.backends.s3.s3_objects import S3Objects
from deriva_ml_core.errors import FileConflict, StoreUnavailable

if TYPE_CHECKING:
    from pydantic import JsonValue

    from deriva_ml_core.models import UploadOptions

__all__ = ["S3Upload"]

CHECK_FIRST_SIZE = 5 * 2**20
"""Bytes from which the object is looked up before it is sent, since sending a body that is refused takes long."""

MAX_PARALLEL_PARTS = 3
"""Parts of one file that are sent in parallel; with 4 files, these are 12 connections."""

MAX_ROUNDS = 3
"""How often parts that the service has lost are sent again, before the upload fails."""

MD5_PATTERN = re.compile(r"[0-9a-f]{32}")
UPLOAD_ID_PATTERN = re.compile(r"[\x21-\x7e]{1,2048}")

CONFLICT_CODES = ("PreconditionFailed", "ConditionalRequestConflict", "OperationAborted")
NO_PARAMETERS: Mapping[str, object] = MappingProxyType({})

UNLISTABLE_CODES = ("InvalidRequest", "InvalidArgument", "AccessDenied")
"""Refusals to list parts: the id has another form than those of the service, or the user lacks that right."""

BAD_DIGEST_CODES = ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch")


class _UploadLost(Exception):
    """The service no longer knows the multipart upload."""


class _PartsLost(Exception):
    """The service does not have all parts."""


@dataclass(frozen=True)
class S3Upload:
    """Upload of one file.

    Args:
        objects: The objects of the store.
        name: Name of the object.
        digests: Digests of the file.
        options: Timeouts, and how often a part is repeated.
        save_progress: Function that saves the progress.
        resume: Saved progress of an interrupted upload.
    """

    objects: S3Objects
    name: S3ObjectName
    digests: PartDigests
    options: UploadOptions
    save_progress: Callable[[JsonValue], None]
    resume: JsonValue = None

    def run(self) -> None:
        """Upload the file, unless the store has its bytes under this name. No object is overwritten.

        Raises:
            FileChanged: The file changed in the meantime.
            FileConflict: An object of that name has other bytes.
            StoreUnavailable: The upload may succeed later.
        """
        self._abort_stale_upload()
        if not self.digests.parts:
            self._upload_whole()
            return
        if self.has_object():
            if (left := self._resumed_upload()) is not None:
                left.abort()  # it was completed by another one
            return
        upload = self._resumed_upload() or self._create_upload()
        try:
            upload.run()
        except _UploadLost:  # it was completed before its response was lost, or aborted: start again
            if not self.has_object():
                self._run_new_upload()

    # in one request

    def _upload_whole(self) -> None:
        is_conditional = self.objects.honours_conditions(self.options.timeout)
        if (not is_conditional or self.digests.content.length >= CHECK_FIRST_SIZE) and self.has_object():
            return
        attempts = Attempts(CONCURRENT_OBJECT, self.objects.client.sleep)
        while True:
            try:
                response = self._put_whole(is_conditional=is_conditional)
                break
            except ServiceRefusal as refusal:
                if refusal.code in BAD_DIGEST_CODES:
                    raise self.digest_error() from refusal
                if self.has_object():
                    return
                if not attempts.wait():  # another client creates the object
                    raise StoreUnavailable(f"{self.subject} is being created by another client. Try again.") from None
        is_expected = self.objects.is_expected_etag(response, self.digests.etags, self.options.timeout)
        if not is_conditional or not is_expected:
            self.check_stored(trust_etags=is_expected)

    def _put_whole(self, *, is_conditional: bool) -> dict[str, Any]:
        content = self.digests.content
        with content.file.open("rb", buffering=0) as opened:
            parameters = {
                "Key": self.key,
                "Body": FileSlice(opened, 0, content.length) if content.length else b"",
                "ContentMD5": content.md5_header,
                **self._description,
                **({"IfNoneMatch": "*"} if is_conditional else {}),
            }
            return self.objects.client.request(
                "put_object",
                self.subject,
                self.options.timeout,
                parameters,
                allowed=(*BAD_DIGEST_CODES, *CONFLICT_CODES),
                pause=self.options.max_retries > 0,
            )

    # in parts

    def _run_new_upload(self) -> None:
        upload = self._create_upload()
        try:
            upload.run()
        except _UploadLost:
            raise StoreUnavailable(f"{self.objects.client.service} aborted the upload of {self.subject}.") from None

    def _create_upload(self) -> _Multipart:
        response = self.objects.client.request(
            "create_multipart_upload",
            self.subject,
            self.options.timeout,
            {"Key": self.key, **self._description},
            pause=self.options.max_retries > 0,
        )
        upload = _Multipart(self, self.key, str(response.get("UploadId", "")))
        upload.save_progress()
        return upload

    def _resumed_upload(self) -> _Multipart | None:
        """Return the upload that was interrupted, if it is one of the same bytes in the same parts."""
        match self.resume:
            case {"upload": str(upload_id), "part_size": self.digests.part_size, "md5": self.digests.content.md5}:
                return _Multipart(self, self.key, upload_id) if UPLOAD_ID_PATTERN.fullmatch(upload_id) else None
        return None

    def _abort_stale_upload(self) -> None:
        """Abort an interrupted upload of bytes that the file no longer has, or with other parts."""
        match self.resume:
            case {"upload": str(upload_id), "part_size": int(part_size), "md5": str(md5)} if (
                (part_size, md5) != (self.digests.part_size, self.digests.content.md5)
                and UPLOAD_ID_PATTERN.fullmatch(upload_id)
                and MD5_PATTERN.fullmatch(md5)
            ):
                key = self.objects.client.address.key(replace(self.name, md5=md5).path)
                _Multipart(self, key, upload_id).abort()

    @property
    def key(self) -> str:
        return self.objects.client.address.key(self.name.path)

    @property
    def subject(self) -> str:
        return self.name.path

    @cached_property
    def _description(self) -> dict[str, Any]:
        return {
            "ContentType": self.name.media_type,
            "ContentDisposition": self.name.content_disposition,
            "Metadata": {"md5": self.digests.content.md5},
        }

    def has_object(self) -> bool:
        """Whether the store has the bytes under this name.

        Raises:
            FileConflict: An object of that name has other bytes.
        """
        content = self.digests.content
        is_same = self.objects.has_bytes(
            self.key, content.md5, content.length, self.digests.etags, self.options.timeout
        )
        if is_same is False:
            raise FileConflict(
                f"{content.file} cannot be stored: the object {self.key} in {self.objects.client.service} has its name "
                "and other bytes, so it is damaged. Delete that object, and upload again."
            )
        return bool(is_same)

    def check_stored(self, *, trust_etags: bool) -> None:
        """Check the object after it was written without a condition, or with an unexpected entity tag.

        Args:
            trust_etags: Whether the expected entity tag proves the bytes; otherwise they are read.
        """
        content, etags = self.digests.content, self.digests.etags if trust_etags else frozenset[str]()
        timeout = self.options.timeout
        is_same = self.objects.has_bytes(self.key, content.md5, content.length, etags, timeout, trust_metadata=False)
        if is_same is None:
            raise StoreUnavailable(
                f"The object {self.key} in {self.objects.client.service} cannot be read after it was stored. Check the "
                "rights to read objects, and upload again."
            )
        if not is_same:
            raise FileConflict(
                f"{content.file} was damaged on its way: the object {self.key} in {self.objects.client.service} has "
                "other bytes. Delete that object, and upload again."
            )

    def digest_error(self) -> Exception:
        """Return the error for bytes that the service received with another digest."""
        if self.digests.content.has_changed():
            return FileChanged()
        return StoreUnavailable(f"{self.subject} was damaged on its way to {self.objects.client.service}. Try again.")


@dataclass
class _Multipart:
    """A multipart upload.

    Args:
        upload: The upload of the file.
        key: Key of the object.
        upload_id: The service's id of the multipart upload. It comes from the service or from the journal, and is only
            ever sent together with the key of this file.
        etags: Entity tags of the parts that the service has, by number.
    """

    upload: S3Upload
    key: str
    upload_id: str
    etags: dict[int, str] = field(default_factory=dict)

    def run(self) -> None:
        """Send the missing parts, and complete the object.

        Raises:
            _UploadLost: The service does not know the upload.
            FileChanged: The file changed. The upload is aborted.
        """
        try:
            for _ in range(MAX_ROUNDS):
                self.etags = self._list_parts() if self.upload.resume is not None or self.etags else {}
                self._send_missing_parts()
                try:
                    self._complete()
                except _PartsLost:
                    continue
                return
        except (FileChanged, FileConflict):
            self.abort()
            raise
        self.abort()
        raise StoreUnavailable(
            f"{self.upload.objects.client.service} loses parts of {self.upload.subject}. Try again later."
        )

    def save_progress(self) -> None:
        """Save what another process needs to continue. The service itself lists the parts that it has."""
        digests = self.upload.digests
        self.upload.save_progress(
            {
                "upload": self.upload_id,
                "part_size": digests.part_size,
                "md5": digests.content.md5,
                "sent": len(self.etags),
            }
        )

    def abort(self) -> None:
        """Delete the parts. An upload that the service no longer knows is no error."""
        with suppress(_UploadLost):
            self._request("abort_multipart_upload", self.upload.subject)

    def _request(
        self,
        operation: str,
        subject: str,
        parameters: Mapping[str, object] = NO_PARAMETERS,
        allowed: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        options = self.upload.options
        try:
            return self.upload.objects.client.request(
                operation,
                subject,
                options.timeout,
                {"Key": self.key, "UploadId": self.upload_id, **parameters},
                allowed=("NoSuchUpload", "NotFound", *allowed),
                pause=options.max_retries > 0,
            )
        except ServiceRefusal as refusal:
            if refusal.code in ("NoSuchUpload", "NotFound"):
                raise _UploadLost from refusal
            raise

    def _list_parts(self) -> dict[int, str]:
        """Return the entity tags of the parts that the service has, with the bytes of this file."""
        digests, etags = self.upload.digests, {}
        for part in self._iter_listed_parts():
            number, etag = int(part["PartNumber"]), str(part["ETag"])
            if not 1 <= number <= len(digests.parts) or int(part["Size"]) != digests.part_range(number)[1]:
                continue
            expected = frozenset((digests.parts[number - 1].hex(),))
            if self.upload.objects.is_expected_etag(part, expected, self.upload.options.timeout):
                etags[number] = etag
        return etags

    def _iter_listed_parts(self) -> Iterator[dict[str, Any]]:
        marker = 0
        while True:
            parameters = {"PartNumberMarker": marker}
            try:
                response = self._request("list_parts", self.upload.subject, parameters, UNLISTABLE_CODES)
            except ServiceRefusal as refusal:
                raise _UploadLost from refusal
            yield from response.get("Parts", ())
            next_marker = int(response.get("NextPartNumberMarker") or 0)
            if not response.get("IsTruncated") or next_marker <= marker:
                return
            marker = next_marker

    def _send_missing_parts(self) -> None:
        missing = [number for number in range(1, len(self.upload.digests.parts) + 1) if number not in self.etags]
        results = map_unordered(self._send_part_with_retries, missing, MAX_PARALLEL_PARTS, name="deriva-ml-part")
        with closing(results) as parts:
            for number, etag in parts:
                self.etags[number] = etag
                self.save_progress()

    def _send_part_with_retries(self, number: int) -> str:
        upload = self.upload
        return call_with_retries(
            lambda: self._send_part(number),
            (StoreUnavailable,),
            transfer_settings(upload.options),
            f"Part {number} of {upload.subject}",
            upload.objects.client.sleep,
        )

    def _send_part(self, number: int) -> str:
        upload = self.upload
        start, length = upload.digests.part_range(number)
        digest = upload.digests.parts[number - 1]
        with upload.digests.content.file.open("rb", buffering=0) as opened:
            parameters = {
                "PartNumber": number,
                "Body": FileSlice(opened, start, length),
                "ContentMD5": encode_md5(digest),
            }
            try:
                response = self._request(
                    "upload_part", f"part {number} of {upload.subject}", parameters, BAD_DIGEST_CODES
                )
            except ServiceRefusal as refusal:
                raise upload.digest_error() from refusal
        if not upload.objects.is_expected_etag(response, frozenset((digest.hex(),)), upload.options.timeout):
            raise upload.digest_error()
        return str(response["ETag"])

    def _complete(self) -> None:
        """Have the service join the parts, unless an object of that name exists meanwhile."""
        upload = self.upload
        is_conditional = upload.objects.honours_conditions(upload.options.timeout)
        if not is_conditional and upload.has_object():
            self.abort()
            return
        if upload.digests.content.has_changed():
            raise FileChanged
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(self.etags.items())]
        parameters = {"MultipartUpload": {"Parts": parts}, **({"IfNoneMatch": "*"} if is_conditional else {})}
        allowed = ("InvalidPart", "InvalidPartOrder", *CONFLICT_CODES)
        try:
            response = self._request("complete_multipart_upload", upload.subject, parameters, allowed)
        except ServiceRefusal as refusal:
            if refusal.code in ("InvalidPart", "InvalidPartOrder"):
                raise _PartsLost from refusal
            if upload.has_object():  # another client stored the same bytes
                self.abort()
                return
            raise StoreUnavailable(f"{upload.subject} is being created by another client. Try again.") from refusal
        is_expected = upload.objects.is_expected_etag(response, upload.digests.etags, upload.options.timeout)
        if not is_conditional or not is_expected:
            upload.check_stored(trust_etags=is_expected)
