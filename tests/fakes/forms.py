"""The form of a request: method, resource kind and used features, without names and values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from urllib.parse import parse_qsl

from fakes.replay import NOT_SERVED, read
from fakes.web import Request

__all__ = ["Form", "unrecorded"]

OPERATORS = ("=any(", "::null::", "::desc::", "@sort(", "@after(", "&", ";", "=")
"""Operators in a path to rows, longer ones first."""

HEADERS = ("if-match", "if-none-match", "range")

Form = tuple[str, str, str]
"""Method, resource kind, and one feature that the request uses; the feature is empty for the request as such."""


def _forms_of(method: str, path: str, query: str, headers: Mapping[str, str]) -> set[Form]:
    """Return the forms of a request.

    Args:
        method: HTTP method.
        path: The encoded path.
        query: The query string.
        headers: Headers by lower-case name.
    """
    kind, rest = _resource_kind(path)
    features = ["", "snapshot"] if re.match(r"/ermrest/catalog/[^/]+@", path) else [""]
    operators = set()
    for operator in OPERATORS:
        if operator in rest:
            operators.add(("", "", operator))  # the grammar of paths does not depend on the method
            rest = rest.replace(operator, "")
    features += [f"?{name}" for name, _ in parse_qsl(query, keep_blank_values=True)]
    features += [f"{name}:" for name in HEADERS if name in headers]
    return {(method, kind, feature) for feature in features} | operators


def _resource_kind(path: str) -> tuple[str, str]:
    """Return what kind of resource a path leads to, and the part of it that selects rows."""
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
    """Return the forms of all recorded requests that the fake server supports."""
    forms: set[Form] = set()
    for recording, left_out in NOT_SERVED.items():
        for exchange in read(recording):
            if exchange["seq"] not in left_out:
                path, _, query = exchange["path"].partition("?")
                headers = {name.lower(): value for name, value in exchange["request_headers"].items()}
                forms |= _forms_of(exchange["method"], path, query, headers)
    return frozenset(forms)


def unrecorded(requests: Iterable[Request]) -> set[Form]:
    """Return the forms of our client's requests that no recording covers."""
    client_requests = (request for request in requests if "deriva-client-context" in request.headers)
    forms = (_forms_of(request.method, request.path, request.query, request.headers) for request in client_requests)
    return {form for forms in forms for form in forms} - _recorded()
