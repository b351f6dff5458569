"""Single requests to Hatrac, with failures translated to this package's errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from deriva_ml_core.backends.deriva.ermrest_client import login_required_error
from deriva_ml_core.backends.deriva.http import ResponseLost, ResponseRefused, Server, retry_after
from deriva_ml_core.errors import (
    AccessRefused,
    ConfigurationError,
    DerivaMLException,
    FileConflict,
    InvalidFileName,
    StoreUnavailable,
    UnknownAddress,
)

if TYPE_CHECKING:
    from requests import Response

    from deriva_ml_core.models import UploadOptions

__all__ = ["ConcurrentRequest", "HatracClient"]

MAX_REQUEST_SIZE = 100 * 2**20
"""Bytes of one request's body; a server accepts at most 128 MiB."""


class ConcurrentRequest(StoreUnavailable):
    """A request collided with another one for the same name; it can be repeated immediately."""


@dataclass(frozen=True)
class HatracClient:
    """Client for the objects of a Hatrac server.

    Args:
        server: The server.
        options: Timeouts and limits.
    """

    server: Server
    options: UploadOptions

    def request(
        self,
        method: str,
        path: str,
        subject: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | IO[bytes] | None = None,
        allowed_statuses: tuple[int, ...] = (),
        processing_seconds: float = 0.0,
    ) -> Response:
        """Send one request, without repeats.

        Args:
            method: HTTP method.
            path: Path of the object, with parameters.
            subject: The object's name in error messages.
            headers: Additional headers.
            body: Bytes or open file to send.
            allowed_statuses: Error statuses that the caller handles.
            processing_seconds: Seconds that the server needs before it can respond.

        Raises:
            StoreUnavailable: The same request may succeed now; the pause that the server asked for is over.
            LoginRequired, AccessRefused: The user has no access.
        """
        connect, answer = self.options.timeout
        try:
            response = self.server.request(
                method, path, headers=headers, body=body, timeout=(connect, answer + processing_seconds)
            )
        except ResponseRefused as event:
            raise StoreUnavailable(
                f"The response of {self.server.host} for {subject} cannot be used ({event}). Report this to the "
                "administrator of the server."
            ) from event
        except ResponseLost as event:
            raise StoreUnavailable(
                f"No response from {self.server.host} for {subject} ({event}). Try again later."
            ) from event
        if response.status_code < 400 or response.status_code in allowed_statuses:
            return response
        raise self.error_from_response(response, subject)

    def error_from_response(self, response: Response, subject: str) -> DerivaMLException:
        """Return the error for a response of Hatrac, without its text, which can contain paths on the server."""
        status, host = response.status_code, self.server.host
        if status == 401:
            return login_required_error(host, "for its object store")
        if status == 403:
            return AccessRefused(
                f"The object store of {host} denies access to {subject}. Ask its owner for permission to create and "
                "read objects there; write access to the catalog does not include it."
            )
        if (error := _error_from_text(response, subject, host)) is not None:
            return error
        if status in (429, 500, 502, 503, 504):
            if self.options.max_retries:
                self.server.sleep(retry_after(response))
            return StoreUnavailable(
                f"The object store of {host} cannot process {subject} now ({status}). Try again later."
            )
        return FileConflict(f"The object store of {host} rejects {subject} ({status}): its name is in use.")


def _error_from_text(response: Response, subject: str, host: str) -> DerivaMLException | None:
    """Return the error for a status whose meaning depends on the response's text, or that is specific to Hatrac."""
    status, text = response.status_code, response.text
    if status in (404, 410):
        return UnknownAddress(f"{host} has no {subject}. Check its URL, and whether it was deleted.")
    if (status == 500 and "duplicate key" in text) or (status == 409 and "in use" in text):
        return ConcurrentRequest(f"{subject} on {host} is being created by another client. Try again.")
    if status == 500 and "File name too long" in text:
        return InvalidFileName(f"The name of {subject} is too long for {host}; rename the file.")
    if status == 409 and "not available" in text:
        return FileConflict(
            f"{subject} was deleted on {host}, which never reuses a name. Register the file under another name."
        )
    if status == 400:
        return ConfigurationError(f"{host} rejects the name of {subject}; rename the file.")
    if status == 413:
        return ConfigurationError(f"{subject} is too large for one request to {host}: reduce chunk_size.")
    return None
