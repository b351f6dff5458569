"""What a server's refusal means: which error, about what, and what to do next."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

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

__all__ = ["error_detail", "login_required_error", "error_from_response"]

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
        f"{host} does not know who asks ({detail}). Log in with 'deriva-globus-auth-utils login --host {host}', or give "
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
