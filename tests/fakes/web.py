"""Requests and answers, as the fake's parts see them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

__all__ = ["Answer", "Request", "User"]


@dataclass(frozen=True)
class User:
    """Who asks: a name and the groups it is in; nobody without a name."""

    name: str | None = None
    groups: tuple[str, ...] = ()

    @property
    def roles(self) -> frozenset[str]:
        return frozenset({"*", *self.groups, *([self.name] if self.name else [])})


@dataclass(frozen=True)
class Request:
    """One request.

    Args:
        method: ``GET`` and so on.
        path: The path as it was sent, still quoted.
        query: What follows ``?``.
        headers: By lower-case name.
        body: All of it.
        user: Who asks.
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
    """One answer; the body is bytes, or what makes them piece by piece."""

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
