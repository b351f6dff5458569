"""What may go wrong on the way to the fake server, on command."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from fakes.web import Answer, Request

__all__ = ["Fault", "Faults", "Harm"]


class Harm(StrEnum):
    """What is done to a request."""

    answer = "answer"
    """Another answer is given, and nothing is done."""
    reset = "reset"
    """The connection breaks before anything is done."""
    lose = "lose"
    """All is done, and the answer is lost."""
    truncate = "truncate"
    """The body of the answer ends early."""
    damage = "damage"
    """The first byte of the answer's body is another."""
    drip = "drip"
    """The answer's body comes in pieces, with a pause before each."""
    sip = "sip"
    """The request's body is taken in pieces, with a pause before each."""
    garble = "garble"
    """The first byte of the request's body is another when it arrives."""
    lose_after = "lose after"
    """All is done, something else happens, and the answer is lost."""
    call = "call"
    """Something else happens first."""


@dataclass
class Fault:
    """One thing that goes wrong.

    Args:
        harm: What.
        method: Of which requests: a regular expression.
        path: Of which requests: a regular expression that is searched in the path as sent.
        times: How often.
        skip: How many such requests are left alone first.
        reply: The answer of `Harm.answer`.
        keep: How many bytes `Harm.truncate` lets through.
        pieces: How many pieces `Harm.drip` and `Harm.sip` make of a body.
        pause: Seconds before each piece.
        call: What else happens.
    """

    harm: Harm
    method: str = ".*"
    path: str = ""
    times: int = 1
    skip: int = 0
    reply: Answer = field(default_factory=lambda: unavailable())
    keep: int = 0
    pieces: int = 12
    pause: float = 0.25
    call: Callable[[], None] = lambda: None


def unavailable(retry_after: float | None = None) -> Answer:
    """The answer to one of several writers at once."""
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    return Answer.text(
        503, "The service is temporarily unavailable. Detail: Transaction aborted.\n", "text/plain", **headers
    )


class Faults:
    """Those that are still to come."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        self._waiting.append(fault)
        return fault

    def clear(self) -> None:
        self._waiting.clear()

    def next(self, request: Request) -> Fault | None:
        with self._lock:
            for fault in self._waiting:
                if fault.times < 1 or not re.fullmatch(fault.method, request.method):
                    continue
                if not re.search(fault.path, request.path):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None
