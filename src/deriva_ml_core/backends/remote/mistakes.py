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

__all__ = ["detail", "login_required", "refusal"]

SHOWN = 300
"""Characters of a server's text that are shown: it may hold whole rows."""

KEY = re.compile(
    r"Key \((?P<columns>[^)]*)\)=\((?P<values>.*?)\) (?P<what>already exists|is not present|is still)", re.S
)


def detail(response: Response) -> str:
    """What the server says of its refusal, in one short line."""
    if "html" in response.headers.get("Content-Type", ""):
        return "a page of HTML"
    text = response.text.partition("Detail: ")[2] or response.text
    return " ".join(text.split())[:SHOWN]


def login_required(host: str, said: str) -> LoginRequired:
    """The error of someone whom the server does not know."""
    return LoginRequired(
        f"{host} does not know who asks ({said}). Log in with 'deriva-globus-auth-utils login --host {host}', or give "
        "DerivaML(..., credential={'bearer-token': ...}); what was staged is kept, and the same call goes on."
    )


def refusal(response: Response, host: str, where: str) -> DerivaMLException:
    """The error for an answer of ERMrest.

    Args:
        response: The answer.
        host: The server's name.
        where: The table, or the catalog, that was asked.
    """
    said, status = detail(response), response.status_code
    if status == 401:
        return login_required(host, said)
    if status == 403:
        return AccessRefused(
            f"{host} refuses {said or 'this'} to this user. Ask an owner of the catalog for that right, or log in as "
            "another user."
        )
    if status == 404:
        return UnknownAddress(
            f"{host} has nothing at {where} ({said}). Look whether the catalog's number is right and still there."
        )
    if status == 409:
        return _conflict(response.text, said, where)
    if status == 400:
        if "share the same unique key" in said:
            return DuplicateRow(f"Two rows given for {where} have the same key; give each its own.")
        return ConfigurationError(f"{host} cannot read what was given for {where}: {said}.")
    if status >= 500:
        return CatalogUnavailable(f"{host} does not answer for {where} now ({status}: {said}). Try again later.")
    return DerivaMLException(f"{host} answered {status} for {where}: {said}.")


def _conflict(text: str, said: str, where: str) -> DerivaMLException:
    key = KEY.search(text)
    if key:
        columns, values = key["columns"].replace('"', ""), key["values"]
        if key["what"] == "already exists":
            return DuplicateRow(
                f"{where} has a row with {columns} = {values!r} already. Use that one, or give another value."
            )
        if key["what"] == "is not present":
            table = re.search(r'present in table "([^"]*)"', text)
            named = table[1] if table else "the other table"
            return UnknownRID(
                f"{where}.{columns} = {values!r} names no row of {named}; add that first, or give one that is there."
            )
        other = re.search(r'referenced from table "([^"]*)"', text)
        return RowInUse(
            f"{where} {values!r} cannot be deleted or change its key, since {other[1] if other else 'another table'} "
            "refers to it; change or delete that first."
        )
    if "violates not-null" in text:
        column = re.search(r'column "([^"]*)"', text)
        return ConfigurationError(
            f"A row gives no {column[1] if column else 'value'} for {where}, where it may not be empty; add it."
        )
    if re.search(r"Table \S+ does not exist|Schema \S+ does not exist", said):
        return UnknownTable(f"{where}: {said}")
    if "column" in said and "does not exist" in said:
        return UnknownColumn(f"{where}: {said}")
    if "revision" in said or "22P02" in said:
        return UnknownVersion(f"{where} is no state of this catalog: {said}. Look whether it is of another catalog.")
    if "already exists" in said:
        return DuplicateRow(f"{where}: {said} Use what is there, or choose another name.")
    return ConfigurationError(f"{where}: the server refuses this: {said}.")
