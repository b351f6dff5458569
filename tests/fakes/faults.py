"""Faults that a test can inject into the connection to the fake server."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from fakes.web import Answer, Request
from waits import HANG

__all__ = ["Fault", "Faults", "Harm", "call_between_chunks"]


class Harm(StrEnum):
    """Effect of a fault."""

    answer = "answer"
    """Another response is sent, and the request is not processed."""
    reset = "reset"
    """The connection breaks before the request is processed."""
    lose = "lose"
    """The request is processed, and the response is lost."""
    truncate = "truncate"
    """The body of the response ends early."""
    damage = "damage"
    """The first byte of the response's body is changed."""
    drip = "drip"
    """The response's body is sent in pieces, with a pause before each."""
    sip = "sip"
    """The request's body is read in pieces, with a pause before each."""
    garble = "garble"
    """The first byte of the request's body is changed."""
    lose_after = "lose after"
    """The request is processed, a function is called, and the response is lost."""
    call = "call"
    """A function is called before the request is processed."""


@dataclass
class Fault:
    """A fault that affects matching requests.

    Args:
        harm: The effect.
        method: Regular expression that matches the method.
        path: Regular expression that is searched in the encoded path.
        times: Number of requests that it affects.
        skip: Number of matching requests to leave alone first.
        reply: Response of `Harm.answer`.
        keep: Number of bytes that `Harm.truncate` sends.
        pieces: Number of pieces of a body for `Harm.drip` and `Harm.sip`.
        pause: Seconds before each piece.
        call: Function of `Harm.call` and `Harm.lose_after`.
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
    """Return the response to an aborted transaction."""
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    return Answer.text(
        503, "The service is temporarily unavailable. Detail: Transaction aborted.\n", "text/plain", **headers
    )


class Faults:
    """The faults that are not used up."""

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


def call_between_chunks(faults: Faults, number: int, call: Callable[[], None], path: str = "") -> None:
    """Call a function when a chunk and the next one have been sent, before either is processed.

    A client sends two chunks at a time, so it then has the responses to all earlier ones.

    Args:
        faults: The faults of the server.
        number: The number of the chunk.
        call: The function.
        path: Regular expression of the object's path.
    """
    called = threading.Event()

    def call_and_release() -> None:
        call()
        called.set()

    def wait() -> None:
        assert called.wait(HANG), "the client sends one chunk at a time"

    faults.add(Fault(Harm.call, "PUT", rf"{path};upload/\w+/{number}$", call=wait))
    faults.add(Fault(Harm.call, "PUT", rf"{path};upload/\w+/{number + 1}$", call=call_and_release))
