"""Questions to one catalog, asked again where that is safe, and answered with rows or with an error of ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deriva_ml_core.backends.remote.mistakes import refusal
from deriva_ml_core.backends.remote.server import Lost, Server, backoff, wait_asked_for
from deriva_ml_core.errors import CatalogUnavailable, ConfigurationError

if TYPE_CHECKING:
    from requests import Response

__all__ = ["Asking", "Unanswered", "encoded", "legible"]

BUSY_TRIES = 12
"""How often what others' writes aborted is asked: with 4 writers half of the calls are."""

LOST_TRIES = 3
"""How often an answer that was lost is asked for."""

BUSY = (429, 500, 502, 503, 504)


class Unanswered(CatalogUnavailable):
    """A write whose answer was lost, so that nobody knows whether it was done."""


class Asking:
    """One catalog on one server.

    Args:
        server: The server.
        catalog: The catalog's number, with ``@<snapshot>`` for a state of the past.
    """

    def __init__(self, server: Server, catalog: str) -> None:
        self.server = server
        self.catalog = catalog

    @property
    def name(self) -> str:
        """The catalog's address."""
        return f"{self.server.url}/ermrest/catalog/{self.catalog}"

    def read(self, path: str, where: str) -> Any:
        """What is at a path, as JSON.

        Args:
            path: What follows the catalog's own path.
            where: The table, to be named in errors.
        """
        return self.send("GET", path, where).json()

    def send(
        self,
        method: str,
        path: str,
        where: str,
        *,
        given: Any = None,
        headers: Mapping[str, str] | None = None,
        repeat: bool = True,
        expected: Iterable[int] = (),
    ) -> Response:
        """Ask, and ask again where the server was busy, or where the answer was lost and that is safe.

        Args:
            method: ``GET`` and so on.
            path: What follows the catalog's own path.
            where: The table, to be named in errors.
            given: What to send as JSON, or what makes it anew each time that it is sent.
            headers: Further headers.
            repeat: Whether it may be done twice.
            expected: Statuses of failure that the caller understands.

        Raises:
            Unanswered: The answer was lost, and asking again is not safe.
            CatalogUnavailable: There was no answer, or the server stayed busy.
        """
        body = None if given is None or callable(given) else encoded(given, where)
        lost = busy = 0
        while True:
            try:
                anew = encoded(given(), where) if callable(given) else body
                response = self._ask(method, path, anew, headers)
            except Lost as event:
                lost += 1
                if not (repeat or event.undone):
                    raise Unanswered(
                        f"{self.server.host} took what was written to {where}, and its answer was lost ({event}): look "
                        "whether it is there before you write it again."
                    ) from event
                if lost >= LOST_TRIES:
                    raise CatalogUnavailable(
                        f"{self.server.host} cannot be reached now ({event}). Look at the network and the server's "
                        "name; the same call may succeed later."
                    ) from event
                self.server.sleep(backoff(lost, first=0.1))
                continue
            if response.status_code < 400 or response.status_code in expected:
                return response
            busy += 1
            again = response.status_code in (429, 503) or (repeat and response.status_code in BUSY)
            if not again or busy >= BUSY_TRIES:
                raise refusal(response, self.server.host, where)
            self.server.sleep(max(backoff(busy), wait_asked_for(response)))

    def once(
        self, method: str, path: str, where: str, *, given: Any, headers: Mapping[str, str] | None = None
    ) -> Response | None:
        """Ask once; None where the answer was lost, and an answer also where the state or others stood against it."""
        try:
            response = self._ask(method, path, encoded(given, where), headers)
        except Lost:
            return None
        if response.status_code < 400 or response.status_code in (412, *BUSY):
            return response
        raise refusal(response, self.server.host, where)

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None) -> Response:
        kind = {} if body is None else {"Content-Type": "application/json"}
        full = f"/ermrest/catalog/{self.catalog}{path}"
        return legible(self.server.request(method, full, headers={**(headers or {}), **kind}, body=body))


def legible(response: Response) -> Response:
    """Return what the catalog answered; the page of a login or a proxy, or a text that breaks off, is none.

    Raises:
        Lost: It is no answer of a catalog.
    """
    text = response.content.strip()
    # rows and models are never answered with nothing; what rights are answered with, nobody reads
    full = response.status_code == 200 and "/acl/" not in (response.request.url or "")
    if 300 <= response.status_code < 400:
        raise Lost(f"it sends us to {urlsplit(response.headers.get('Location', '')).netloc or 'itself'}", undone=False)
    whole = text.startswith((b"[", b"{")) and text.endswith((b"]", b"}"))
    if response.status_code < 300 and (text or full) and not whole:
        raise Lost("what it answers is not JSON", undone=False)
    return response


def encoded(given: Any, where: str) -> bytes:
    """A value as JSON, or the error that says for what it cannot be sent."""
    try:
        return json.dumps(given, allow_nan=False, default=_plain).encode()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"A value given for {where} cannot be sent: {error}.") from error


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{value!r} is not JSON")
