"""How one file's bytes get into Hatrac: at once, or in chunks that go on where they stopped."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote

from deriva_ml_core._concurrency.thread_pool import map_unordered
from deriva_ml_core.backends.deriva.hatrac_client import MAX_REQUEST_SIZE, ConcurrentRequest, HatracClient, NameLocks
from deriva_ml_core.backends.deriva.http import backoff_delay
from deriva_ml_core.backends.object_names import HatracObjectName
from deriva_ml_core.errors import InvalidFileName, StoreUnavailable

if TYPE_CHECKING:
    from pydantic import JsonValue
    from requests import Response

__all__ = ["FileChanged", "FileContent", "FileSlice", "HatracUpload"]


READ_SIZE = 2**20


class FileChanged(Exception):
    """A file whose bytes are others than those that were promised."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file's bytes as they were when they were read.

    Args:
        file: The file.
        md5: Their MD5, 32 hex digits.
        length: Their number.
        stamp: The file's inode, size and modification time in nanoseconds: where these are the same, so are the bytes.
    """

    file: Path
    md5: str
    length: int
    stamp: tuple[int, ...]

    @classmethod
    def read(cls, file: Path, resume: JsonValue = None) -> FileContent:
        """Read a file; one that is as it was when it was last noted is not read again.

        Raises:
            FileNotFoundError: There is no such file.
            InvalidFileName: It is a folder or the like.
        """
        stamp = _read_stamp(file)
        match resume:
            case {"md5": str(known), "stamp": list(noted)} if noted == list(stamp):
                return cls(file, known, stamp[1], stamp)
        md5 = hashlib.md5(usedforsecurity=False)
        length = 0
        with file.open("rb", buffering=0) as opened:
            while piece := opened.read(READ_SIZE):
                md5.update(piece)
                length += len(piece)
        return cls(file, md5.hexdigest(), length, stamp)

    @property
    def md5_header(self) -> str:
        """The MD5 as Hatrac's headers have it."""
        return base64.b64encode(bytes.fromhex(self.md5)).decode()

    def has_changed(self) -> bool:
        """Whether the file has been written since."""
        return _read_stamp(self.file) != self.stamp

    def is_identical_to(self, md5_header: str | None, length: str | None) -> bool:
        """Whether an object with these headers has the same bytes."""
        return md5_header == self.md5_header and length == str(self.length)


def _read_stamp(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, "There is no such file", str(file)) from error
    if not file.is_file():
        raise InvalidFileName(f"{file} is not a file: only files can be stored.")
    return (found.st_ino, found.st_size, found.st_mtime_ns)


class FileSlice:
    """Part of a file as a body: read block by block while it is sent.

    Args:
        file: The file, open for this slice alone.
        start: Where it begins.
        length: How many bytes it has.
    """

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        file.seek(start)
        self._read: Callable[[int], bytes] = file.read
        self._length = self._remaining = length

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1) -> bytes:
        """The next bytes; never fewer in all than were promised.

        Raises:
            Changed: The file has become shorter.
        """
        wanted = self._remaining if size < 0 else min(size, self._remaining)
        piece = self._read(wanted)
        if len(piece) < wanted:
            raise FileChanged
        self._remaining -= len(piece)
        return piece


CHECK_FIRST_SIZE = 5 * 2**20
"""Bytes from which we ask for an object before we send it: a refused body costs its sending."""

MAX_RACE_ATTEMPTS = 10
"""How often a request is repeated that met another to the same name."""

MAX_FINISH_ATTEMPTS = 6
"""How often a job is finished whose answer was lost, or which the server was still busy with."""

MAX_PARALLEL_CHUNKS = 2
"""Chunks on their way at once: more helped only over a long line."""

MIN_HASH_RATE = 50e6
"""Bytes a second that a server surely hashes when it finishes a job; 530e6 were measured."""

ProgressCallback = Callable[["JsonValue"], None]


@dataclass(frozen=True)
class HatracUpload:
    """One file on its way.

    Args:
        client: The store.
        object_name: What the object is called.
        content: The bytes.
        name_locks: What else is just being put.
        save_progress: Where to write down how far it is.
        resume: How far it was.
    """

    client: HatracClient
    object_name: HatracObjectName
    content: FileContent
    name_locks: NameLocks
    save_progress: ProgressCallback
    resume: JsonValue = None

    def run(self) -> str:
        """Send, and return the versioned URL.

        Raises:
            Changed: The file was written meanwhile.
            StoreUnavailable: It may succeed later.
        """
        chunk = min(self.client.options.chunk_size, MAX_REQUEST_SIZE)
        for attempt in range(MAX_RACE_ATTEMPTS):
            try:
                with self.name_locks.lock(self.object_name.namespace, self.object_name.path):
                    url = self._upload_whole() if self.content.length <= chunk else self._upload_chunks(chunk)
                self.name_locks.add_namespace(self.object_name.namespace)
                return url
            except ConcurrentRequest:
                if attempt == MAX_RACE_ATTEMPTS - 1:
                    raise
                self.client.server.sleep(backoff_delay(attempt))
        raise AssertionError("unreachable")

    # what is there

    def find_existing(self) -> tuple[str | None, bool]:
        """The URL of an object with these very bytes, where there is one; and whether there is any under this name."""
        response = self.client.request("HEAD", self.object_name.path, self.subject, allowed_statuses=(404, 409))
        if response.status_code >= 400:
            return None, False
        headers = response.headers
        if not self.content.is_identical_to(headers.get("Content-MD5"), headers.get("Content-Length")):
            return None, True
        return self.versioned_url(headers.get("Content-Location", "")), True

    @property
    def subject(self) -> str:
        return unquote(self.object_name.path)

    def versioned_url(self, location: str) -> str:
        url = self.object_name.versioned_url(location)
        if url is None:
            raise StoreUnavailable(
                f"{self.client.server.host} answered with the name of another object for {self.subject}. Look at what "
                "stands between this machine and the server."
            )
        return url

    # at once

    def _upload_whole(self) -> str:
        headers = {
            "Content-MD5": self.content.md5_header,
            "Content-Type": self.object_name.media_type,
            "Content-Disposition": self.object_name.content_disposition,
        }
        if self.content.length < CHECK_FIRST_SIZE:
            response = self._put_whole({**headers, "If-None-Match": "*"})
            if response.status_code != 412:
                return self.versioned_url(response.text)
        url, _ = self.find_existing()
        return url or self.versioned_url(self._put_whole(headers).text)

    def _put_whole(self, headers: dict[str, str]) -> Response:
        with self.content.file.open("rb", buffering=0) as opened:
            body: Any = FileSlice(opened, 0, self.content.length) if self.content.length else b""
            response = self.client.request(
                "PUT",
                f"{self.object_name.path}?parents=true",
                self.subject,
                headers=headers,
                body=body,
                allowed_statuses=(400, 412),
            )
        if response.status_code == 400:
            raise (
                self._checksum_error()
                if "MD5" in response.text
                else self.client.error_from_response(response, self.subject)
            )
        return response

    def _checksum_error(self) -> Exception:
        if self.content.has_changed():
            return FileChanged()
        return StoreUnavailable(
            f"The bytes of {self.subject} did not come to {self.client.server.host} as they were sent. Try again."
        )

    # in chunks

    def _upload_chunks(self, chunk_size: int) -> str:
        url, _ = self.find_existing()
        if url is not None:
            return url
        job = _UploadJob.resume(self) or _UploadJob.create(self, chunk_size)
        url = job.finish() if job.send_all() else None
        if url is None:  # it is gone or spoilt: once more, from the beginning
            if self.content.has_changed():
                raise FileChanged
            job = _UploadJob.create(self, chunk_size)
            url = job.finish() if job.send_all() else None
        if url is None:
            raise self._checksum_error()
        return url


@dataclass
class _UploadJob:
    """A chunked upload.

    Args:
        upload: Of what.
        path: Its own path.
        chunk_size: Bytes a chunk.
        sent_chunks: How many chunks, from the first, are there.
    """

    upload: HatracUpload
    path: str
    chunk_size: int
    sent_chunks: int = 0

    @classmethod
    def create(cls, upload: HatracUpload, chunk_size: int) -> _UploadJob:
        name, content = upload.object_name, upload.content
        given = {
            "chunk-length": chunk_size,
            "content-length": content.length,
            "content-md5": content.md5_header,
            "content-type": name.media_type,
            "content-disposition": name.content_disposition,
        }
        response = upload.client.request(
            "POST",
            f"{name.path};upload?parents=true",
            upload.subject,
            headers={"Content-Type": "application/json"},
            body=json.dumps(given).encode(),
        )
        identity = response.text.strip().rpartition(";upload/")[2]
        if not identity.isalnum():
            raise StoreUnavailable(f"{upload.client.server.host} named no job for {upload.subject}. Try again later.")
        job = cls(upload, f"{name.path};upload/{identity}", chunk_size)
        job._save_progress()
        return job

    @classmethod
    def resume(cls, upload: HatracUpload) -> _UploadJob | None:
        """The job of an upload that was interrupted, if it is there still and of the same bytes."""
        match upload.resume:
            case {"job": str(identity), "chunk": int(chunk), "sent": int(done), "md5": upload.content.md5}:
                job = cls(upload, f"{upload.object_name.path};upload/{identity}", chunk, done)
            case _:
                return None
        if not identity.isalnum():
            return None
        response = upload.client.request("GET", job.path, upload.subject, allowed_statuses=(403, 404, 409))
        if response.status_code >= 400:
            return None
        found = response.json()
        wanted = {
            "chunk-length": chunk,
            "content-length": upload.content.length,
            "content-md5": upload.content.md5_header,
        }
        return job if {key: found.get(key) for key in wanted} == wanted else None

    def _save_progress(self) -> None:
        content = self.upload.content
        self.upload.save_progress(
            {
                "job": self.path.rpartition("/")[2],
                "chunk": self.chunk_size,
                "sent": self.sent_chunks,
                "md5": content.md5,
                "stamp": list(content.stamp),
            }
        )

    def send_all(self) -> bool:
        """Send the chunks that are not there, a few at once; False where the job is gone or spoilt."""
        count = -(-self.upload.content.length // self.chunk_size)
        confirmed: set[int] = set()
        sending = map_unordered(
            self._send_chunk, range(self.sent_chunks, count), MAX_PARALLEL_CHUNKS, name="deriva-ml-chunk"
        )
        with closing(sending) as chunks:
            for number, good in chunks:
                if not good:
                    return False
                confirmed.add(number)
                while self.sent_chunks in confirmed:
                    self.sent_chunks += 1
                self._save_progress()
        return True

    def _send_chunk(self, number: int) -> bool:
        start = number * self.chunk_size
        length = min(self.chunk_size, self.upload.content.length - start)
        with self.upload.content.file.open("rb", buffering=0) as opened:
            body: Any = FileSlice(opened, start, length)
            response = self.upload.client.request(
                "PUT",
                f"{self.path}/{number}",
                f"chunk {number} of {self.upload.subject}",
                headers={"Content-Type": "application/octet-stream"},
                body=body,
                allowed_statuses=(404, 409),
            )
        return response.status_code < 400

    def finish(self) -> str | None:
        """Have the object made of the chunks; None where the job is gone, or its bytes are not those."""
        sending = self.upload
        for attempt in range(MAX_FINISH_ATTEMPTS):
            lost = False
            try:
                response = sending.client.request(
                    "POST",
                    self.path,
                    sending.subject,
                    allowed_statuses=(404, 409, 500),
                    processing_seconds=sending.content.length / MIN_HASH_RATE,
                )
            except StoreUnavailable:
                lost = True
            if not lost and response.status_code < 400:
                return sending.versioned_url(response.text)
            # done already, or the answer was lost: the object itself tells
            url, _ = sending.find_existing()
            if url is not None:
                return url
            if not lost and response.status_code in (404, 409):
                self._cancel()
                return None
            sending.client.server.sleep(backoff_delay(attempt, initial=0.2))
        raise StoreUnavailable(
            f"{sending.client.server.host} has all chunks of {sending.subject} and does not put them together. "
            "Try again later."
        )

    def _cancel(self) -> None:
        self.upload.client.request("DELETE", self.path, self.upload.subject, allowed_statuses=(404, 409, 500))
