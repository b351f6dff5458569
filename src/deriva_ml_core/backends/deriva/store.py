"""Object store on a Deriva server: objects in Hatrac."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from deriva_ml_core._deprecation import deprecated_attributes
from deriva_ml_core._files.partial_download import check_received, compute_received, download_object
from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.backends.deriva.hatrac_client import HatracClient
from deriva_ml_core.backends.deriva.hatrac_upload import HatracUpload
from deriva_ml_core.backends.deriva.http import ResponseLost, ResponseRefused, Server
from deriva_ml_core.backends.file_content import FileChanged, FileContent
from deriva_ml_core.backends.http_connection import TransferTooSlow, iter_body
from deriva_ml_core.backends.name_locks import NameLocks
from deriva_ml_core.backends.object_names import HatracObjectName, check_filename, parse_object_path
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.errors import ChecksumMismatch, FileConflict, StoreUnavailable
from deriva_ml_core.models import StoredObject, UploadOptions

if TYPE_CHECKING:
    from pydantic import JsonValue
    from requests import Response

__all__ = ["DerivaStore"]

PREFERRED_CONCURRENCY = 4
"""Files that are sent in parallel: with a latency of 10 ms, 100 files of 1 KiB took 1.4 s one by one, 0.5 s by 4, and
0.4 s by 8."""

MAX_READ_ATTEMPTS = 3
"""How often a file that changes while it is sent is read. No retry settings: each attempt uploads different bytes."""


def _ignore_note(state: JsonValue) -> None:
    """Do not save the progress."""


class DerivaStore:
    """Objects under ``/hatrac/<table>/<md5>.<filename>`` on a Deriva server.

    Files are only read, whatever the transfer mode. A small file is sent in one request, a larger one in chunks, two
    in parallel. The same bytes under the same name are sent once. No path on this machine is derived from a response.

    Args:
        server: The server.
        root: Namespace of new objects.
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
        """Store a file's bytes, resuming after the last confirmed chunk.

        Raises:
            FileNotFoundError: The file does not exist.
            InvalidFileName: The name leaves its folder or is not Unicode, or the path is not a regular file.
            FileConflict: The file keeps changing, or an object of that name was deleted and the name is not reusable.
            StoreUnavailable: The call may succeed later.
            LoginRequired, AccessRefused: The user has no access.
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
        raise FileConflict(f"{file} changes each time that it is sent: wait until it is complete, and upload again.")

    def sync(self) -> None:
        """Do nothing: the server responds after it has stored an object."""

    def get(self, url: str, target: Path, *, length: int, md5: str, options: UploadOptions) -> None:
        """Download an object, resuming an interrupted download; `target` appears once it is complete and verified."""
        path = parse_object_path(url, self._server.url)
        download_object(
            url, target, length=length, md5=md5, iter_bytes=lambda start: self._iter_bytes(path, start, options)
        )

    def verify(self, url: str, *, length: int, md5: str) -> None:
        """Read an object on the server, and raise `ChecksumMismatch` if its length or MD5 differs.

        An object that is longer than expected is read for at most one block more.
        """
        pieces = self._iter_bytes(parse_object_path(url, self._server.url), 0, UploadOptions())
        check_received(url, compute_received(pieces, length), length=length, md5=md5)

    def source(self, url: str) -> str:
        """Return the full URL: ``https://<host>/hatrac/…``."""
        return self._server.url + parse_object_path(url, self._server.url)

    def close(self) -> None:
        self._server.close()

    def _iter_bytes(self, path: str, start: int, options: UploadOptions) -> Iterator[bytes]:
        """Yield an object's bytes from an offset; none if the server does not support the range."""
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        try:
            with self._server.download(path, headers=headers, timeout=options.timeout) as response:
                self._check_response(response, path, start, options)
                if start and response.status_code != 206:
                    return
                yield from iter_body(response.raw, options.timeout[1])
        except ResponseRefused as error:
            raise StoreUnavailable(
                f"The response of {self._server.host} for {path} cannot be used ({error}). Report this to the "
                "administrator of the server."
            ) from error
        except (ResponseLost, TransferTooSlow, RequestException, HTTPError) as error:
            reason = str(error) if isinstance(error, (ResponseLost, TransferTooSlow)) else type(error).__name__
            raise StoreUnavailable(
                f"The download of {path} from {self._server.host} was interrupted ({reason}). Repeat the call to "
                "resume it."
            ) from error

    def _check_response(self, response: Response, path: str, start: int, options: UploadOptions) -> None:
        status = response.status_code
        if status in (404, 409, 410):
            raise ChecksumMismatch(f"The object {path} is lost: {self._server.host} no longer has its content.")
        if status >= 400 and not (start and status == 416):
            raise HatracClient(self._server, options).error_from_response(response, path)


if TYPE_CHECKING:
    _: type[ObjectStore] = DerivaStore
