"""The form of a request: its method, what it is about, and each thing that it asks for, without names and values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from urllib.parse import parse_qsl

from fakes.replay import NOT_SERVED, read
from fakes.web import Request

__all__ = ["Form", "unrecorded"]

OPERATORS = ("=any(", "::null::", "::desc::", "@sort(", "@after(", "&", ";", "=")
"""What a path to rows may hold; the longer first."""

HEADERS = ("if-match", "if-none-match", "range")

Form = tuple[str, str, str]
"""Method, what it is about, and one thing that it asks for; that is empty for the request as such."""


def _forms_of(method: str, path: str, query: str, headers: Mapping[str, str]) -> set[Form]:
    """Each form that a request has.

    Args:
        method: ``GET`` and so on.
        path: The path as it is sent.
        query: What follows ``?``.
        headers: By lower-case name.
    """
    about, rest = _about(path)
    asked = ["", "snapshot"] if re.match(r"/ermrest/catalog/[^/]+@", path) else [""]
    operators = set()
    for operator in OPERATORS:
        if operator in rest:
            operators.add(("", "", operator))  # the grammar of paths is one, whatever is done with the rows
            rest = rest.replace(operator, "")
    asked += [f"?{name}" for name, _ in parse_qsl(query, keep_blank_values=True)]
    asked += [f"{name}:" for name in HEADERS if name in headers]
    return {(method, about, one) for one in asked} | operators


def _about(path: str) -> tuple[str, str]:
    """What a path leads to, and the part of it that asks for rows."""
    if path.startswith("/hatrac"):
        name, _, sub = path.partition(";")
        version = ":" if re.search(r":[A-Z2-7]{26}$", name) else ""
        return f"/hatrac{version};" + re.sub(r"/\d+$", "/n", re.sub(r"/[A-Z2-7]{26}", "/JOB", sub)), ""
    _, _, after = path.partition("/ermrest/catalog/")
    if not after:
        return path, ""
    _, _, rest = after.partition("/")
    kind, _, rest = rest.partition("/")
    if kind in ("entity", "attribute", "attributegroup", "aggregate"):
        return kind, rest.partition("/")[2] if "/" in rest else rest.partition("@")[1] + rest.partition("@")[2]
    return kind, ""


@cache
def _recorded() -> frozenset[Form]:
    """The forms of all recorded requests that the fake answers as a real server did."""
    found: set[Form] = set()
    for recording, left_out in NOT_SERVED.items():
        for exchange in read(recording):
            if exchange["seq"] not in left_out:
                path, _, query = exchange["path"].partition("?")
                headers = {name.lower(): value for name, value in exchange["request_headers"].items()}
                found |= _forms_of(exchange["method"], path, query, headers)
    return frozenset(found)


def unrecorded(requests: Iterable[Request]) -> set[Form]:
    """The forms of requests of ours of which no recording says how a real server answers."""
    ours = (request for request in requests if "deriva-client-context" in request.headers)
    found = (_forms_of(request.method, request.path, request.query, request.headers) for request in ours)
    return {form for forms in found for form in forms} - _recorded()
