"""Single requests to Hatrac, and what its refusals mean."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import getpid
from typing import IO, TYPE_CHECKING

from deriva_ml_core.backends.remote.mistakes import login_required
from deriva_ml_core.backends.remote.server import Lost, Server, wait_asked_for
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

__all__ = ["Hatrac", "Places", "Raced"]

LARGEST_REQUEST = 100 * 2**20
"""Bytes of one request's body; a server takes at most 128 MiB."""


class Raced(StoreUnavailable):
    """A request that met another to the same name; it may be repeated at once."""


class Places:
    """What is just being put: each name by one at a time, and the first object in a new namespace alone."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        self._process = getpid()
        self._changed = threading.Condition()
        self._busy: set[str] = set()

    @contextmanager
    def entering(self, namespace: str, path: str) -> Iterator[None]:
        """Wait for those who put the same name, or the first into the same namespace, and hold others off."""
        if getpid() != self._process:  # a fork may have found the lock held
            self._begin()
        with self._changed:
            while {path, *self._new(namespace)} & self._busy:
                self._changed.wait()
            taken = {path, *self._new(namespace)}
            self._busy |= taken
        try:
            yield
        finally:
            with self._changed:
                self._busy -= taken
                self._changed.notify_all()

    def _new(self, namespace: str) -> set[str]:
        return {namespace} - self._known

    def know(self, namespace: str) -> None:
        """Take note that a namespace is there."""
        self._known.add(namespace)


@dataclass(frozen=True)
class Hatrac:
    """A server's objects.

    Args:
        server: The server.
        options: How long to wait.
    """

    server: Server
    options: UploadOptions

    def send(
        self,
        method: str,
        path: str,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | IO[bytes] | None = None,
        expected: tuple[int, ...] = (),
        work: float = 0.0,
    ) -> Response:
        """Send one request, once.

        Args:
            method: ``PUT`` and so on.
            path: The object, with what follows it.
            what: What to call it in a message.
            headers: Further headers.
            body: The bytes.
            expected: Statuses of failure that the caller understands.
            work: Seconds that the server needs before it can answer.

        Raises:
            StoreUnavailable: It may succeed later; the time that the server asked for has been waited.
            LoginRequired, AccessRefused: The user may not do that.
        """
        connect, answer = self.options.timeout
        try:
            response = self.server.request(method, path, headers=headers, body=body, timeout=(connect, answer + work))
        except Lost as event:
            raise StoreUnavailable(
                f"{self.server.host} did not answer for {what} ({event}). Try again later."
            ) from event
        if response.status_code < 400 or response.status_code in expected:
            return response
        raise self.refusal(response, what)

    def refusal(self, response: Response, what: str) -> DerivaMLException:
        """The error for an answer of Hatrac, whose own words may show paths of the server and are not repeated."""
        status, host = response.status_code, self.server.host
        if status == 401:
            return login_required(host, "its object store wants a login")
        if status == 403:
            return AccessRefused(
                f"The object store of {host} refuses this user {what}. Ask its owner for the right to create and read "
                "there; a right to write to the catalog does not include it."
            )
        if (found := _by_words(response, what, host)) is not None:
            return found
        if status in (429, 500, 502, 503, 504):
            if self.options.max_retries:
                self.server.sleep(wait_asked_for(response))
            return StoreUnavailable(f"The object store of {host} cannot take {what} now ({status}). Try again later.")
        return FileConflict(f"The object store of {host} refuses {what} ({status}); another thing has its name.")


def _by_words(response: Response, what: str, host: str) -> DerivaMLException | None:
    """What a refusal means whose status alone does not tell."""
    status, said = response.status_code, response.text
    if status in (404, 410):
        return UnknownAddress(f"{host} has no {what}. Look whether its URL is right, and whether it was deleted.")
    if (status == 500 and "duplicate key" in said) or (status == 409 and "in use" in said):
        return Raced(f"{what} on {host} is just being made by another. Try again.")
    if status == 500 and "File name too long" in said:
        return InvalidFileName(f"{what} has a name that is too long for {host}; rename the file.")
    if status == 409 and "not available" in said:
        return FileConflict(
            f"{what} was deleted on {host}, which never gives a name twice. Register the file under another name."
        )
    if status == 400:
        return ConfigurationError(f"{host} cannot read the request for {what}; rename the file.")
    if status == 413:
        return ConfigurationError(f"{host} does not take as many bytes at once as {what} has: lower chunk_size.")
    return None
