"""Single requests to Hatrac, and what its refusals mean."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import getpid
from typing import IO, TYPE_CHECKING

from deriva_ml_core.backends.deriva.ermrest_client import login_required_error
from deriva_ml_core.backends.deriva.http import ResponseLost, Server, retry_after
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

__all__ = ["HatracClient", "NameLocks", "ConcurrentRequest"]

MAX_REQUEST_SIZE = 100 * 2**20
"""Bytes of one request's body; a server takes at most 128 MiB."""


class ConcurrentRequest(StoreUnavailable):
    """A request that met another to the same name; it may be repeated at once."""


class NameLocks:
    """What is just being put: each name by one at a time, and the first object in a new namespace alone."""

    def __init__(self) -> None:
        self._existing_namespaces: set[str] = set()
        self._reset()

    def _reset(self) -> None:
        self._pid = getpid()
        self._condition = threading.Condition()
        self._locked_names: set[str] = set()

    @contextmanager
    def lock(self, namespace: str, path: str) -> Iterator[None]:
        """Wait for those who put the same name, or the first into the same namespace, and hold others off."""
        if getpid() != self._pid:  # a fork may have found the lock held
            self._reset()
        with self._condition:
            while {path, *self._unknown_namespaces(namespace)} & self._locked_names:
                self._condition.wait()
            taken = {path, *self._unknown_namespaces(namespace)}
            self._locked_names |= taken
        try:
            yield
        finally:
            with self._condition:
                self._locked_names -= taken
                self._condition.notify_all()

    def _unknown_namespaces(self, namespace: str) -> set[str]:
        return {namespace} - self._existing_namespaces

    def add_namespace(self, namespace: str) -> None:
        """Take note that a namespace is there."""
        self._existing_namespaces.add(namespace)


@dataclass(frozen=True)
class HatracClient:
    """A server's objects.

    Args:
        server: The server.
        options: How long to wait.
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
        """Send one request, once.

        Args:
            method: ``PUT`` and so on.
            path: The object, with what follows it.
            subject: What to call it in a message.
            headers: Further headers.
            body: The bytes.
            allowed_statuses: Statuses of failure that the caller understands.
            processing_seconds: Seconds that the server needs before it can answer.

        Raises:
            StoreUnavailable: It may succeed later; the time that the server asked for has been waited.
            LoginRequired, AccessRefused: The user may not do that.
        """
        connect, answer = self.options.timeout
        try:
            response = self.server.request(
                method, path, headers=headers, body=body, timeout=(connect, answer + processing_seconds)
            )
        except ResponseLost as event:
            raise StoreUnavailable(
                f"{self.server.host} did not answer for {subject} ({event}). Try again later."
            ) from event
        if response.status_code < 400 or response.status_code in allowed_statuses:
            return response
        raise self.error_from_response(response, subject)

    def error_from_response(self, response: Response, subject: str) -> DerivaMLException:
        """The error for an answer of Hatrac, whose own words may show paths of the server and are not repeated."""
        status, host = response.status_code, self.server.host
        if status == 401:
            return login_required_error(host, "its object store wants a login")
        if status == 403:
            return AccessRefused(
                f"The object store of {host} refuses this user {subject}. Ask its owner for the right to create "
                f"and read "
                "there; a right to write to the catalog does not include it."
            )
        if (found := _error_from_text(response, subject, host)) is not None:
            return found
        if status in (429, 500, 502, 503, 504):
            if self.options.max_retries:
                self.server.sleep(retry_after(response))
            return StoreUnavailable(
                f"The object store of {host} cannot take {subject} now ({status}). Try again later."
            )
        return FileConflict(f"The object store of {host} refuses {subject} ({status}); another thing has its name.")


def _error_from_text(response: Response, subject: str, host: str) -> DerivaMLException | None:
    """What a refusal means whose status alone does not tell."""
    status, said = response.status_code, response.text
    if status in (404, 410):
        return UnknownAddress(f"{host} has no {subject}. Look whether its URL is right, and whether it was deleted.")
    if (status == 500 and "duplicate key" in said) or (status == 409 and "in use" in said):
        return ConcurrentRequest(f"{subject} on {host} is just being made by another. Try again.")
    if status == 500 and "File name too long" in said:
        return InvalidFileName(f"{subject} has a name that is too long for {host}; rename the file.")
    if status == 409 and "not available" in said:
        return FileConflict(
            f"{subject} was deleted on {host}, which never gives a name twice. Register the file under another name."
        )
    if status == 400:
        return ConfigurationError(f"{host} cannot read the request for {subject}; rename the file.")
    if status == 413:
        return ConfigurationError(f"{host} does not take as many bytes at once as {subject} has: lower chunk_size.")
    return None
