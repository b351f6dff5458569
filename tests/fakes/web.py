"""Requests and responses, as the parts of the fake server see them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

__all__ = ["Answer", "Request", "User"]


@dataclass(frozen=True)
class User:
    """A user with a name and groups; anonymous without a name."""

    name: str | None = None
    groups: tuple[str, ...] = ()

    @property
    def roles(self) -> frozenset[str]:
        return frozenset({"*", *self.groups, *([self.name] if self.name else [])})


@dataclass(frozen=True)
class Request:
    """A request.

    Args:
        method: HTTP method.
        path: The encoded path.
        query: The query string.
        headers: Headers by lower-case name.
        body: The whole body.
        user: The authenticated user.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    user: User = User()

    @property
    def parameters(self) -> dict[str, str]:
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def accept(self) -> str:
        return self.headers.get("accept", "*/*")

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """A response. The body is bytes, or a function that yields it in pieces."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Callable[[], Iterable[bytes]] | None = None

    @classmethod
    def text(cls, status: int, text: str, type_: str = "text/plain", **headers: str) -> Answer:
        return cls(status, text.encode(), {"Content-Type": type_, **headers})

    @classmethod
    def json(cls, status: int, value: Any) -> Answer:
        return cls.text(status, json.dumps(value, ensure_ascii=False) + "\n", "application/json")
