"""The remote store: objects in Hatrac."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from deriva_ml_core._deprecation import deprecated_attributes
from deriva_ml_core._files.partial_download import open_partial_file
from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.backends.deriva.hatrac_client import HatracClient, NameLocks
from deriva_ml_core.backends.deriva.hatrac_upload import FileChanged, FileContent, HatracUpload
from deriva_ml_core.backends.deriva.http import ResponseLost, Server
from deriva_ml_core.backends.object_names import HatracObjectName, check_filename, parse_object_path
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.errors import ChecksumMismatch, DiskFull, FileConflict, StoreUnavailable
from deriva_ml_core.models import StoredObject, UploadOptions

if TYPE_CHECKING:
    from pydantic import JsonValue
    from requests import Response

__all__ = ["DerivaStore"]

READ_SIZE = 2**20
PREFERRED_CONCURRENCY = 4
"""Files that are sent at once: 100 of 1 KiB took 1.4 s one by one where an answer takes 10 ms, 0.5 s so, 0.4 s by 8."""

MAX_READ_ATTEMPTS = 3
"""How often a file is read that changes while it is sent."""

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)


def _ignore_note(state: JsonValue) -> None:
    """Forget it."""


class DerivaStore:
    """Objects under ``/hatrac/<table>/<md5>.<filename>`` on a Deriva server.

    Files are only read, however they are handed over. Small ones go in one request, larger ones in chunks, two at a
    time; equal bytes under an equal name are sent once. What the server answers names nothing on this machine.

    Args:
        server: The server.
        root: The namespace that new objects' names begin with.
    """

    def __init__(self, server: Server, root: str = "/hatrac") -> None:
        self._server = server
        self._root = root
        self._name_locks = NameLocks()

    @property
    def preferred_concurrency(self) -> int:
        return PREFERRED_CONCURRENCY

    if not TYPE_CHECKING:
        __getattr__ = deprecated_attributes({"at_once": "preferred_concurrency"})

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
        """Store a file's bytes, going on from the last confirmed chunk.

        Raises:
            FileNotFoundError: There is no such file.
            InvalidFileName: The name climbs out or is no Unicode, or the path is a folder.
            FileConflict: The file does not stop changing, or the server never gives that name again.
            StoreUnavailable: It may succeed later.
            LoginRequired, AccessRefused: The user may not.
        """
        check_filename(filename)
        hatrac = HatracClient(self._server, options)
        for _ in range(MAX_READ_ATTEMPTS):
            content = FileContent.read(file, resume)
            name = HatracObjectName(table, content.md5, filename, self._root)
            try:
                url = HatracUpload(hatrac, name, content, self._name_locks, note, resume).run()
            except FileChanged:
                resume = None
                continue
            return StoredObject(url=url, md5=content.md5, length=content.length)
        raise FileConflict(
            f"{file} is written again each time that it is sent: wait until it is whole, and upload again."
        )

    def sync(self) -> None:
        """Nothing: the server answers when it has an object."""

    def get(self, url: str, target: Path, *, length: int, md5: str, options: UploadOptions) -> None:
        """Bring an object, going on where an interrupted call stopped; it is at `target` when it is whole and right."""
        path = parse_object_path(url, self._server.url)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_partial_file(target.parent, md5) as (part, name):
                for begin_again in (False, True):
                    if begin_again:
                        part.truncate(0)
                    found = self._resume_download(path, part, length, options)
                    if found == (md5, length):
                        name.replace(target)
                        return
                name.unlink()
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise DiskFull(
                    f"The object {url} cannot be brought to {target}: it has {length} bytes, and that disk is full. "
                    "Free some space, and the same call goes on."
                ) from error
            raise StoreUnavailable(f"The object {url} cannot be brought to {target} now: {error}.") from error
        raise _checksum_mismatch(url, found, length, md5)

    def verify(self, url: str, *, length: int, md5: str) -> None:
        """Read an object as the server has it, and raise `ChecksumMismatch` if its bytes are not those."""
        digest, count = hashlib.md5(usedforsecurity=False), 0
        for piece in self._iter_bytes(parse_object_path(url, self._server.url), 0, UploadOptions()):
            digest.update(piece)
            count += len(piece)
        if (digest.hexdigest(), count) != (md5, length):
            raise _checksum_mismatch(url, (digest.hexdigest(), count), length, md5)

    def source(self, url: str) -> str:
        """The full URL: ``https://<host>/hatrac/…``."""
        return self._server.url + parse_object_path(url, self._server.url)

    def close(self) -> None:
        self._server.close()

    def _resume_download(self, path: str, part: FileIO, length: int, options: UploadOptions) -> tuple[str, int]:
        """Bring what a partial file lacks, and return the MD5 and length of all; never more than one piece too much."""
        digest, count = hashlib.md5(usedforsecurity=False), 0
        part.seek(0)
        while piece := part.read(READ_SIZE):
            digest.update(piece)
            count += len(piece)
        if count < length or not count:
            for piece in self._iter_bytes(path, count, options):
                digest.update(piece)
                count += len(piece)
                left = memoryview(piece)
                while left:
                    left = left[part.write(left) :]
                if count > length:
                    break
        return digest.hexdigest(), count

    def _iter_bytes(self, path: str, start: int, options: UploadOptions) -> Iterator[bytes]:
        """An object's bytes from one on; none where the server does not go on from there."""
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        try:
            with self._server.download(path, headers=headers, timeout=options.timeout) as response:
                self._check_response(response, path, start, options)
                if start and response.status_code != 206:
                    return
                # read1 gives what has come: a piece that breaks off is not lost
                while piece := response.raw.read1(READ_SIZE, decode_content=False):
                    yield piece
        except (ResponseLost, RequestException, HTTPError) as error:
            raise StoreUnavailable(
                f"{self._server.host} stopped while it sent {path} ({type(error).__name__}). The same call goes on."
            ) from error

    def _check_response(self, response: Response, path: str, start: int, options: UploadOptions) -> None:
        status = response.status_code
        if status in (404, 409, 410):
            raise ChecksumMismatch(f"The object {path} is lost: {self._server.host} has no content for it any more.")
        if status >= 400 and not (start and status == 416):
            raise HatracClient(self._server, options).error_from_response(response, path)


def _checksum_mismatch(url: str, received: tuple[str, int], length: int, md5: str) -> ChecksumMismatch:
    return ChecksumMismatch(
        f"The object {url} is damaged: {received[1]} bytes with MD5 {received[0]} came, not {length} with {md5}. "
        "Try again, and if it stays so upload the file again."
    )


if TYPE_CHECKING:
    _: type[ObjectStore] = DerivaStore
