"""Questions to one catalog, asked again where that is safe, and answered with rows or with an error of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deriva_ml_core.backends.deriva.http import ResponseLost, Server, backoff_delay, retry_after
from deriva_ml_core.errors import (
    AccessRefused,
    CatalogUnavailable,
    ConfigurationError,
    DerivaMLException,
    DuplicateRow,
    LoginRequired,
    RowInUse,
    UnknownAddress,
    UnknownColumn,
    UnknownRID,
    UnknownTable,
    UnknownVersion,
)

if TYPE_CHECKING:
    from requests import Response

__all__ = [
    "ErmrestClient",
    "WriteOutcomeUnknown",
    "encode_json",
    "error_detail",
    "error_from_response",
    "login_required_error",
    "validate_response",
]


MAX_BUSY_ATTEMPTS = 12
"""How often what others' writes aborted is asked: with 4 writers half of the calls are."""

MAX_LOST_ATTEMPTS = 3
"""How often an answer that was lost is asked for."""

RETRYABLE_STATUSES = (429, 500, 502, 503, 504)


class WriteOutcomeUnknown(CatalogUnavailable):
    """A write whose answer was lost, so that nobody knows whether it was done."""


class ErmrestClient:
    """One catalog on one server.

    Args:
        server: The server.
        catalog_id: The catalog's number, with ``@<snapshot>`` for a state of the past.
    """

    def __init__(self, server: Server, catalog_id: str) -> None:
        self.server = server
        self.catalog_id = catalog_id

    @property
    def url(self) -> str:
        """The catalog's address."""
        return f"{self.server.url}/ermrest/catalog/{self.catalog_id}"

    def get_json(self, path: str, subject: str) -> Any:
        """What is at a path, as JSON.

        Args:
            path: What follows the catalog's own path.
            subject: The table, to be named in errors.
        """
        return self.request("GET", path, subject).json()

    def request(
        self,
        method: str,
        path: str,
        subject: str,
        *,
        payload: Any = None,
        headers: Mapping[str, str] | None = None,
        idempotent: bool = True,
        allowed_statuses: Iterable[int] = (),
    ) -> Response:
        """Ask, and ask again where the server was busy, or where the answer was lost and that is safe.

        Args:
            method: ``GET`` and so on.
            path: What follows the catalog's own path.
            subject: The table, to be named in errors.
            payload: What to send as JSON, or what makes it anew each time that it is sent.
            headers: Further headers.
            idempotent: Whether it may be done twice.
            allowed_statuses: Statuses of failure that the caller understands.

        Raises:
            Unanswered: The answer was lost, and asking again is not safe.
            CatalogUnavailable: There was no answer, or the server stayed busy.
        """
        body = None if payload is None or callable(payload) else encode_json(payload, subject)
        lost = busy = 0
        while True:
            try:
                anew = encode_json(payload(), subject) if callable(payload) else body
                response = self._send(method, path, anew, headers)
            except ResponseLost as event:
                lost += 1
                if not (idempotent or event.unprocessed):
                    raise WriteOutcomeUnknown(
                        f"{self.server.host} took what was written to {subject}, and its answer was lost "
                        f"({event}): look "
                        "whether it is there before you write it again."
                    ) from event
                if lost >= MAX_LOST_ATTEMPTS:
                    raise CatalogUnavailable(
                        f"{self.server.host} cannot be reached now ({event}). Look at the network and the server's "
                        "name; the same call may succeed later."
                    ) from event
                self.server.sleep(backoff_delay(lost, initial=0.1))
                continue
            if response.status_code < 400 or response.status_code in allowed_statuses:
                return response
            busy += 1
            again = response.status_code in (429, 503) or (idempotent and response.status_code in RETRYABLE_STATUSES)
            if not again or busy >= MAX_BUSY_ATTEMPTS:
                raise error_from_response(response, self.server.host, subject)
            self.server.sleep(max(backoff_delay(busy), retry_after(response)))

    def request_once(
        self, method: str, path: str, subject: str, *, payload: Any, headers: Mapping[str, str] | None = None
    ) -> Response | None:
        """Ask once; None where the answer was lost, and an answer also where the state or others stood against it."""
        try:
            response = self._send(method, path, encode_json(payload, subject), headers)
        except ResponseLost:
            return None
        if response.status_code < 400 or response.status_code in (412, *RETRYABLE_STATUSES):
            return response
        raise error_from_response(response, self.server.host, subject)

    def _send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None) -> Response:
        kind = {} if body is None else {"Content-Type": "application/json"}
        full = f"/ermrest/catalog/{self.catalog_id}{path}"
        return validate_response(self.server.request(method, full, headers={**(headers or {}), **kind}, body=body))


def validate_response(response: Response) -> Response:
    """Return what the catalog answered; the page of a login or a proxy, or a text that breaks off, is none.

    Raises:
        Lost: It is no answer of a catalog.
    """
    text = response.content.strip()
    # rows and models are never answered with nothing; what rights are answered with, nobody reads
    full = response.status_code == 200 and "/acl/" not in (response.request.url or "")
    if 300 <= response.status_code < 400:
        raise ResponseLost(
            f"it sends us to {urlsplit(response.headers.get('Location', '')).netloc or 'itself'}", unprocessed=False
        )
    whole = text.startswith((b"[", b"{")) and text.endswith((b"]", b"}"))
    if response.status_code < 300 and (text or full) and not whole:
        raise ResponseLost("what it answers is not JSON", unprocessed=False)
    return response


def encode_json(payload: Any, subject: str) -> bytes:
    """A value as JSON, or the error that says for what it cannot be sent."""
    try:
        return json.dumps(payload, allow_nan=False, default=_json_default).encode()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"A value given for {subject} cannot be sent: {error}.") from error


def _json_default(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{value!r} is not JSON")


MAX_DETAIL_LENGTH = 300
"""Characters of a server's text that are shown: it may hold whole rows."""

KEY_VIOLATION = re.compile(
    r"Key \((?P<columns>[^)]*)\)=\((?P<values>.*?)\) (?P<what>already exists|is not present|is still)", re.S
)


def error_detail(response: Response) -> str:
    """What the server says of its refusal, in one short line."""
    if "html" in response.headers.get("Content-Type", ""):
        return "a page of HTML"
    text = response.text.partition("Detail: ")[2] or response.text
    return " ".join(text.split())[:MAX_DETAIL_LENGTH]


def login_required_error(host: str, detail: str) -> LoginRequired:
    """The error of someone whom the server does not know."""
    return LoginRequired(
        f"{host} does not know who asks ({detail}). Log in with 'deriva-globus-auth-utils login --host {host}', "
        f"or give "
        "DerivaML(..., credential={'bearer-token': ...}); what was staged is kept, and the same call goes on."
    )


def error_from_response(response: Response, host: str, subject: str) -> DerivaMLException:
    """The error for an answer of ERMrest.

    Args:
        response: The answer.
        host: The server's name.
        subject: The table, or the catalog, that was asked.
    """
    said, status = error_detail(response), response.status_code
    if status == 401:
        return login_required_error(host, said)
    if status == 403:
        return AccessRefused(
            f"{host} refuses {said or 'this'} to this user. Ask an owner of the catalog for that right, or log in as "
            "another user."
        )
    if status == 404:
        return UnknownAddress(
            f"{host} has nothing at {subject} ({said}). Look whether the catalog's number is right and still there."
        )
    if status == 409:
        return _conflict_error(response.text, said, subject)
    if status == 400:
        if "share the same unique key" in said:
            return DuplicateRow(f"Two rows given for {subject} have the same key; give each its own.")
        return ConfigurationError(f"{host} cannot read what was given for {subject}: {said}.")
    if status >= 500:
        return CatalogUnavailable(f"{host} does not answer for {subject} now ({status}: {said}). Try again later.")
    return DerivaMLException(f"{host} answered {status} for {subject}: {said}.")


def _conflict_error(text: str, detail: str, subject: str) -> DerivaMLException:
    key = KEY_VIOLATION.search(text)
    if key:
        columns, values = key["columns"].replace('"', ""), key["values"]
        if key["what"] == "already exists":
            return DuplicateRow(
                f"{subject} has a row with {columns} = {values!r} already. Use that one, or give another value."
            )
        if key["what"] == "is not present":
            table = re.search(r'present in table "([^"]*)"', text)
            named = table[1] if table else "the other table"
            return UnknownRID(
                f"{subject}.{columns} = {values!r} names no row of {named}; add that first, or give one that is there."
            )
        other = re.search(r'referenced from table "([^"]*)"', text)
        return RowInUse(
            f"{subject} {values!r} cannot be deleted or change its key, since {other[1] if other else 'another table'} "
            "refers to it; change or delete that first."
        )
    if "violates not-null" in text:
        column = re.search(r'column "([^"]*)"', text)
        return ConfigurationError(
            f"A row gives no {column[1] if column else 'value'} for {subject}, where it may not be empty; add it."
        )
    if re.search(r"Table \S+ does not exist|Schema \S+ does not exist", detail):
        return UnknownTable(f"{subject}: {detail}")
    if "column" in detail and "does not exist" in detail:
        return UnknownColumn(f"{subject}: {detail}")
    if "revision" in detail or "22P02" in detail:
        return UnknownVersion(
            f"{subject} is no state of this catalog: {detail}. Look whether it is of another catalog."
        )
    if "already exists" in detail:
        return DuplicateRow(f"{subject}: {detail} Use what is there, or choose another name.")
    return ConfigurationError(f"{subject}: the server refuses this: {detail}.")
