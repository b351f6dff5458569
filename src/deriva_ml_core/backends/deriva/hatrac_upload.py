"""Upload of one file to Hatrac: in one request, or in chunks that can be resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from deriva_ml_core._concurrency.thread_pool import map_unordered
from deriva_ml_core._retry import CONCURRENT_OBJECT, UPLOAD_JOB, Attempts
from deriva_ml_core.backends.deriva.ermrest_client import parse_json
from deriva_ml_core.backends.deriva.hatrac_client import MAX_REQUEST_SIZE, ConcurrentRequest, HatracClient
from deriva_ml_core.backends.file_content import FileChanged, FileContent, FileSlice
from deriva_ml_core.backends.name_locks import NameLocks
from deriva_ml_core.backends.object_names import HatracObjectName
from deriva_ml_core.errors import StoreUnavailable

if TYPE_CHECKING:
    from pydantic import JsonValue
    from requests import Response

__all__ = ["HatracUpload"]

CHECK_FIRST_SIZE = 5 * 2**20
"""Bytes from which the object is looked up before it is sent, since sending a body that is rejected takes long."""

MAX_PARALLEL_CHUNKS = 2
"""Chunks that are sent in parallel; more help only on connections with high latency."""

MIN_HASH_RATE = 50e6
"""Bytes per second that a server is assumed to hash when it completes a job; 530e6 were measured."""

ProgressCallback = Callable[["JsonValue"], None]


@dataclass(frozen=True)
class HatracUpload:
    """Upload of one file.

    Args:
        client: The store.
        object_name: Name of the object.
        content: The file's digest and length.
        name_locks: Locks shared by all uploads of the store.
        save_progress: Function that saves the progress.
        resume: Saved progress of an interrupted upload.
    """

    client: HatracClient
    object_name: HatracObjectName
    content: FileContent
    name_locks: NameLocks
    save_progress: ProgressCallback
    resume: JsonValue = None

    def run(self) -> str:
        """Upload the file, and return the object's versioned URL.

        Raises:
            FileChanged: The file changed in the meantime.
            StoreUnavailable: The upload may succeed later.
        """
        chunk_size = min(self.client.options.chunk_size, MAX_REQUEST_SIZE)
        attempts = Attempts(CONCURRENT_OBJECT, self.client.server.sleep)
        while True:
            try:
                with self.name_locks.lock(self.object_name.namespace, self.object_name.path):
                    is_small = self.content.length <= chunk_size
                    url = self._upload_whole() if is_small else self._upload_chunks(chunk_size)
                self.name_locks.add_namespace(self.object_name.namespace)
                return url
            except ConcurrentRequest:
                if not attempts.wait():
                    raise

    # existing objects

    def find_existing(self) -> tuple[str | None, bool]:
        """Return the URL of the object if it has the same bytes, and whether any object has this name."""
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
                f"{self.client.server.host} returned the name of another object for {self.subject}. Check for a proxy "
                "between this machine and the server."
            )
        return url

    # in one request

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
        return StoreUnavailable(f"{self.subject} was damaged on its way to {self.client.server.host}. Try again.")

    # in chunks

    def _upload_chunks(self, chunk_size: int) -> str:
        url, _ = self.find_existing()
        if url is not None:
            return url
        job = _UploadJob.resume(self) or _UploadJob.create(self, chunk_size)
        url = job.finish() if job.send_all() else None
        if url is None:  # the job is lost or damaged: start again from the beginning
            if self.content.has_changed():
                raise FileChanged
            job = _UploadJob.create(self, chunk_size)
            url = job.finish() if job.send_all() else None
        if url is None:
            raise self._checksum_error()
        return url


@dataclass
class _UploadJob:
    """Job of a chunked upload.

    Args:
        upload: The upload.
        path: Path of the job.
        chunk_size: Bytes per chunk.
        sent_chunks: Number of leading chunks that the server has.
    """

    upload: HatracUpload
    path: str
    chunk_size: int
    sent_chunks: int = 0

    @classmethod
    def create(cls, upload: HatracUpload, chunk_size: int) -> _UploadJob:
        name, content = upload.object_name, upload.content
        parameters = {
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
            body=json.dumps(parameters).encode(),
        )
        job_id = response.text.strip().rpartition(";upload/")[2]
        if not job_id.isalnum():
            raise StoreUnavailable(
                f"{upload.client.server.host} did not return an upload job for {upload.subject}. Try again later."
            )
        job = cls(upload, f"{name.path};upload/{job_id}", chunk_size)
        job._save_progress()
        return job

    @classmethod
    def resume(cls, upload: HatracUpload) -> _UploadJob | None:
        """Return the job of an interrupted upload, if it still exists and is for the same bytes."""
        match upload.resume:
            case {"job": str(job_id), "chunk": int(chunk_size), "sent": int(sent_chunks), "md5": upload.content.md5}:
                job = cls(upload, f"{upload.object_name.path};upload/{job_id}", chunk_size, sent_chunks)
            case _:
                return None
        if not job_id.isalnum():
            return None
        response = upload.client.request("GET", job.path, upload.subject, allowed_statuses=(403, 404, 409))
        if response.status_code >= 400:
            return None
        job_parameters = parse_json(response, upload.subject)
        if not isinstance(job_parameters, dict):
            return None
        expected = {
            "chunk-length": chunk_size,
            "content-length": upload.content.length,
            "content-md5": upload.content.md5_header,
        }
        return job if {key: job_parameters.get(key) for key in expected} == expected else None

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
        """Send the missing chunks, a few in parallel; return False if the job is lost or damaged."""
        count = -(-self.upload.content.length // self.chunk_size)
        confirmed: set[int] = set()
        results = map_unordered(
            self._send_chunk, range(self.sent_chunks, count), MAX_PARALLEL_CHUNKS, name="deriva-ml-chunk"
        )
        with closing(results) as chunks:
            for number, is_accepted in chunks:
                if not is_accepted:
                    return False
                confirmed.add(number)
                while self.sent_chunks in confirmed:
                    self.sent_chunks += 1
                self._save_progress()
        return True

    def _send_chunk(self, number: int) -> bool:
        start = number * self.chunk_size
        length = min(self.chunk_size, self.upload.content.length - start)
        with self.upload.content.file.open("rb", buffering=0) as stream:
            body: Any = FileSlice(stream, start, length)
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
        """Have the server assemble the chunks; return the object's URL, or None if the job is lost or damaged."""
        upload = self.upload
        attempts = Attempts(UPLOAD_JOB, upload.client.server.sleep)
        repeat = True
        while repeat:
            response = self._request_completion()
            if response is not None and response.status_code < 400:
                return upload.versioned_url(response.text)
            # the job may be complete already: an earlier attempt's response may have been lost
            url, _ = upload.find_existing()
            if url is not None:
                return url
            if response is not None and response.status_code in (404, 409):
                self._cancel()
                return None
            repeat = attempts.wait()
        raise StoreUnavailable(
            f"{upload.client.server.host} has all chunks of {upload.subject} but does not assemble them. "
            "Try again later."
        )

    def _request_completion(self) -> Response | None:
        """Ask the server to assemble the chunks; None if it does not respond."""
        try:
            return self.upload.client.request(
                "POST",
                self.path,
                self.upload.subject,
                allowed_statuses=(404, 409, 500),
                processing_seconds=self.upload.content.length / MIN_HASH_RATE,
            )
        except StoreUnavailable:
            return None

    def _cancel(self) -> None:
        self.upload.client.request("DELETE", self.path, self.upload.subject, allowed_statuses=(404, 409, 500))
