"""Requests to one ERMrest catalog: repeated where that is safe, with failures translated to this package's errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deriva_ml_core._retry import ABORTED_TRANSACTION, BUSY_SERVER, LOST_RESPONSE, Attempts
from deriva_ml_core._text import sanitize_line
from deriva_ml_core.backend import Row
from deriva_ml_core.backends.deriva.http import ResponseLost, ResponseRefused, Server, retry_after
from deriva_ml_core.errors import (
    AccessRefused,
    CatalogUnavailable,
    ConfigurationError,
    DerivaMLException,
    DuplicateRow,
    LoginRequired,
    MalformedData,
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
    "is_aborted",
    "login_required_error",
    "parse_json",
    "parse_rows",
    "parse_value",
    "validate_response",
]


UNPROCESSED_STATUSES = (429, 503)
"""Statuses with which the server refuses a request before it processes it."""

RETRYABLE_STATUSES = (429, 500, 502, 503, 504)


class WriteOutcomeUnknown(CatalogUnavailable):
    """A write got no response, so it is unknown whether the server processed it."""


class ErmrestClient:
    """Client for one catalog on an ERMrest server.

    Args:
        server: The server.
        catalog_id: The catalog's number, with ``@<snapshot>`` for a past state.
    """

    def __init__(self, server: Server, catalog_id: str) -> None:
        self.server = server
        self.catalog_id = catalog_id

    @property
    def url(self) -> str:
        """The catalog's URL."""
        return f"{self.server.url}/ermrest/catalog/{self.catalog_id}"

    def get_json(self, path: str, subject: str) -> Any:
        """Return the JSON value at a path.

        Args:
            path: Path below the catalog's own path.
            subject: The table, named in errors.
        """
        return parse_json(self.request("GET", path, subject), subject)

    def get_rows(self, path: str, subject: str) -> list[Row]:
        """Return the rows at a path.

        Args:
            path: Path below the catalog's own path.
            subject: The table, named in errors.

        Raises:
            MalformedData: The response is not a list of rows.
        """
        return parse_rows(self.request("GET", path, subject), subject)

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
        """Send a request, and repeat it if the server is busy, or if the response is lost and a repeat is safe.

        Args:
            method: HTTP method.
            path: Path below the catalog's own path.
            subject: The table, named in errors.
            payload: Value to send as JSON, or a function that builds a new one for each attempt.
            headers: Additional headers.
            idempotent: Whether the request can safely be processed twice.
            allowed_statuses: Error statuses that the caller handles.

        Raises:
            WriteOutcomeUnknown: The response was lost, and a repeat is not safe.
            CatalogUnavailable: There was no response, or the server stayed busy.
        """
        body = None if payload is None or callable(payload) else encode_json(payload, subject)
        lost = Attempts(LOST_RESPONSE, self.server.sleep)
        busy = Attempts(BUSY_SERVER, self.server.sleep)
        aborted = Attempts(ABORTED_TRANSACTION, self.server.sleep, f"A request to {self.server.host} for {subject}")
        retryable_statuses = RETRYABLE_STATUSES if idempotent else UNPROCESSED_STATUSES
        while True:
            try:
                content = encode_json(payload(), subject) if callable(payload) else body
                response = self._send(method, path, content, headers)
            except ResponseLost as event:
                if not (idempotent or event.unprocessed):
                    raise WriteOutcomeUnknown(
                        f"No response from {self.server.host} after writing to {subject} ({event}); check whether the "
                        "rows exist before retrying."
                    ) from event
                if isinstance(event, ResponseRefused):
                    raise CatalogUnavailable(
                        f"The response of {self.server.host} for {subject} cannot be used ({event}). Report this to "
                        "the administrator of the server."
                    ) from event
                if not lost.wait():
                    raise CatalogUnavailable(
                        f"{self.server.host} cannot be reached ({event}). Check the network and the server's name, "
                        "and try again later."
                    ) from event
                continue
            if response.status_code < 400 or response.status_code in allowed_statuses:
                return response
            attempts = aborted if is_aborted(response) else busy
            if response.status_code not in retryable_statuses or not attempts.wait(
                retry_after(response), error_detail(response)
            ):
                raise error_from_response(response, self.server.host, subject)

    def request_once(
        self, method: str, path: str, subject: str, *, payload: Any, headers: Mapping[str, str] | None = None
    ) -> Response | None:
        """Send a request once.

        Returns:
            The response, also if a precondition failed (412) or the server is busy; None if it was lost.
        """
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


def is_aborted(response: Response) -> bool:
    """Whether the server aborted a transaction because of a concurrent one, so that it wrote nothing."""
    return response.status_code == 503 and b"Transaction aborted" in response.content


def parse_json(response: Response, subject: str) -> Any:
    """Return the JSON value of a response.

    Args:
        response: The response.
        subject: The table, named in errors.

    Raises:
        MalformedData: The response is not JSON, or is nested too deeply.
    """
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise _malformed_response(response, subject) from error


def parse_rows(response: Response, subject: str) -> list[Row]:
    """Return the rows of a response, or raise `MalformedData` if it is not a list of objects with RIDs."""
    rows = parse_json(response, subject)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "RID" in row for row in rows):
        raise _malformed_response(response, subject)
    return rows


def parse_value(response: Response, subject: str, name: str) -> Any:
    """Return a value of the response's object, or raise `MalformedData` if it has none of that name."""
    values = parse_json(response, subject)
    if not isinstance(values, dict) or name not in values:
        raise _malformed_response(response, subject)
    return values[name]


def _malformed_response(response: Response, subject: str) -> MalformedData:
    host = urlsplit(response.url).netloc
    return MalformedData(
        f"The response of {host} about {subject} has an unexpected form: {sanitize_line(response.text[:80])}. "
        "Check whether that host serves a Deriva catalog."
    )


def validate_response(response: Response) -> Response:
    """Return the response if it comes from a catalog, and not from a login page or a proxy, and is complete.

    Raises:
        ResponseLost: It is not a catalog's response, or it is truncated.
    """
    text = response.content.strip()
    # rows and models are never empty texts; responses about access control lists are not read
    is_text_expected = response.status_code == 200 and "/acl/" not in (response.request.url or "")
    if 300 <= response.status_code < 400:
        raise ResponseLost(f"it redirects to {_redirect_host(response.headers.get('Location', ''))}", unprocessed=False)
    is_complete = text.startswith((b"[", b"{")) and text.endswith((b"]", b"}"))
    if response.status_code < 300 and (text or is_text_expected) and not is_complete:
        raise ResponseLost("its response is not JSON", unprocessed=False)
    return response


def _redirect_host(location: str) -> str:
    try:
        return sanitize_line(urlsplit(location).netloc)[:MAX_DETAIL_LENGTH] or "itself"
    except ValueError:
        return "an invalid address"


def encode_json(payload: Any, subject: str) -> bytes:
    """Return a value as JSON, or raise `ConfigurationError` naming the subject."""
    try:
        return json.dumps(payload, allow_nan=False, default=_json_default).encode()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"A value for {subject} cannot be sent: {error}.") from error


def _json_default(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{value!r} is not JSON")


MAX_DETAIL_LENGTH = 300
"""Characters of a server's message that are shown; the message may contain whole rows."""

KEY_VIOLATION = re.compile(
    r"Key \((?P<columns>[^)]*)\)=\((?P<values>.*?)\) (?P<what>already exists|is not present|is still)", re.S
)


def error_detail(response: Response) -> str:
    """Return the server's reason for a refusal, in one short line."""
    if "html" in response.headers.get("Content-Type", ""):
        return "a page of HTML"
    text = response.text.partition("Detail: ")[2] or response.text
    return sanitize_line(text[: 2 * MAX_DETAIL_LENGTH])[:MAX_DETAIL_LENGTH]


def login_required_error(host: str, detail: str) -> LoginRequired:
    """Return the error for a user without a valid login."""
    return LoginRequired(
        f"{host} requires a login ({detail}). Log in with 'deriva-globus-auth-utils login --host {host}', or pass "
        "DerivaML(..., credential={'bearer-token': ...}). Staged files are kept; repeat the call after the login."
    )


def error_from_response(response: Response, host: str, subject: str) -> DerivaMLException:
    """Return the error for a response of ERMrest.

    Args:
        response: The response.
        host: The server's name.
        subject: The table or catalog of the request.
    """
    detail, status = error_detail(response), response.status_code
    if status == 401:
        return login_required_error(host, detail)
    if status == 403:
        return AccessRefused(
            f"{host} denies access{f' ({detail})' if detail else ''}. Ask an owner of the catalog for access, or log "
            "in as another user."
        )
    if status == 404:
        return UnknownAddress(
            f"{host} has nothing at {subject} ({detail}). Check the catalog's number, and whether it was deleted."
        )
    if status == 409:
        return _conflict_error(response.text, detail, subject)
    if status == 400:
        if "share the same unique key" in detail:
            return DuplicateRow(f"Two new rows for {subject} have the same key; use a different key for each.")
        return ConfigurationError(f"{host} rejects the values for {subject}: {detail}.")
    if status >= 500:
        return CatalogUnavailable(
            f"{host} cannot process the request for {subject} now ({status}: {detail}). Try again later."
        )
    return DerivaMLException(f"{host} answered {status} for {subject}: {detail}.")


def _conflict_error(text: str, detail: str, subject: str) -> DerivaMLException:
    key = KEY_VIOLATION.search(text)
    if key:
        columns, values = key["columns"].replace('"', ""), key["values"]
        if key["what"] == "already exists":
            return DuplicateRow(
                f"{subject} already has a row with {columns} = {values!r}. Use that row, or choose another value."
            )
        if key["what"] == "is not present":
            table = re.search(r'present in table "([^"]*)"', text)
            named = table[1] if table else "the other table"
            return UnknownRID(
                f"{subject}.{columns} = {values!r} refers to no row of {named}; add that first, or use an existing one."
            )
        other = re.search(r'referenced from table "([^"]*)"', text)
        return RowInUse(
            f"{subject} {values!r} cannot be deleted or change its key: {other[1] if other else 'another table'} "
            "refers to it. Change or delete the referring rows first."
        )
    if "violates not-null" in text:
        column = re.search(r'column "([^"]*)"', text)
        return ConfigurationError(
            f"A row of {subject} has no {column[1] if column else 'value'}, which may not be empty; add it."
        )
    if re.search(r"Table \S+ does not exist|Schema \S+ does not exist", detail):
        return UnknownTable(f"{subject}: {detail}")
    if "column" in detail and "does not exist" in detail:
        return UnknownColumn(f"{subject}: {detail}")
    if "revision" in detail or "22P02" in detail:
        return UnknownVersion(
            f"{subject} is not a snapshot of this catalog: {detail}. It may belong to another catalog."
        )
    if "already exists" in detail:
        return DuplicateRow(f"{subject}: {detail} Use the existing one, or choose another name.")
    return ConfigurationError(f"{subject}: the server rejects the request: {detail}.")
