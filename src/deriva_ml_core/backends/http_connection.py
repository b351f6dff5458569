"""Connections of urllib3 with limits: of the time to send each block, of the size of headers, and of a minimum rate."""

from __future__ import annotations

import http.client
import io
import math
import re
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from deriva_ml_core._text import format_size, sanitize_line

if TYPE_CHECKING:
    from urllib3.response import HTTPResponse

__all__ = [
    "BLOCK_SIZE",
    "BodyRefused",
    "SendTimeout",
    "SendTimeoutHTTPConnection",
    "SendTimeoutHTTPSConnection",
    "TransferTooSlow",
    "iter_body",
    "make_pool_class",
    "root_cause_message",
]


BLOCK_SIZE = 2**18
"""Bytes of a body in one block; the timeout applies to each block."""

MAX_HEADER_SIZE = 256 * 2**10
"""Bytes of the headers of a response, with interim responses; in a body, those of chunk sizes and trailers."""

MIN_RATE = 1024.0
"""Bytes per second below which a transfer fails."""

READ_SIZE = 2**20


class BodyRefused(Exception):
    """A body is too large or its compression is unknown; a repeat would return it again."""


class TransferTooSlow(TimeoutError):
    """A body arrives below `MIN_RATE`."""


def iter_body(raw: HTTPResponse, seconds: float) -> Iterator[bytes]:
    """Yield the bytes of a body as they arrive, still compressed.

    Args:
        raw: A response whose body is not read yet.
        seconds: Seconds of waiting after each of which the rate is checked. Time between the reads does not count.

    Raises:
        TransferTooSlow: Less than `MIN_RATE` arrived.
    """
    waited, count = 0.0, 0
    while True:
        start = time.monotonic()
        # read1 returns the bytes received so far, so that an interrupted block is not lost
        piece = raw.read1(READ_SIZE, decode_content=False)
        if not piece:
            return
        waited += time.monotonic() - start
        count += len(piece)
        if waited >= seconds:
            if count < MIN_RATE * waited:
                raise TransferTooSlow(_slow_message(count, waited))
            waited, count = 0.0, 0
        yield piece


def _slow_message(count: int, seconds: float) -> str:
    return f"it sent {count / seconds:.0f} bytes per second, less than {MIN_RATE:.0f}"


class SendTimeout(Protocol):
    """What the connections of one pool share."""

    send_timeout: float | None
    """Seconds within which the server must accept each block."""


class _LimitedReader(io.RawIOBase):
    """Reads a socket within limits of size and rate.

    ``http.client`` reads headers, interim responses, sizes of chunks and trailers as long as the server sends some.

    Args:
        source: The socket's file.
        seconds: Seconds after which the rate is checked; None for no check.
    """

    def __init__(self, source: io.RawIOBase, seconds: float | None) -> None:
        self._source, self._seconds = source, seconds
        self.start(MAX_HEADER_SIZE)

    def start(self, size: float) -> None:
        """Begin a call of the response, which reads at most so many bytes."""
        self._size_left, self._count, self._first_time = size, 0, 0.0

    def readinto(self, buffer: Any) -> int | None:
        count = self._source.readinto(buffer)
        if not count:
            return count
        now = time.monotonic()
        self._first_time = self._first_time or now  # the server may think before its first byte
        self._count += count
        self._size_left -= count
        if self._size_left < 0:
            raise BodyRefused(f"its headers are larger than {format_size(MAX_HEADER_SIZE)}")
        waited = now - self._first_time
        if self._seconds is not None and waited >= self._seconds and self._count < MIN_RATE * waited:
            # no TimeoutError, which urllib3 would replace
            raise OSError(_slow_message(self._count, waited))
        return count

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._source.fileno()

    def close(self) -> None:
        self._source.close()
        super().close()


class _LimitedResponse(http.client.HTTPResponse):
    """Response whose headers and trailers are limited; `iter_body` limits the body."""

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._limits = _LimitedReader(self.fp.detach(), sock.gettimeout())
        self.fp = io.BufferedReader(self._limits)

    def begin(self) -> None:
        self._limits.start(MAX_HEADER_SIZE)
        super().begin()

    def read(self, amt: int | None = None) -> bytes:
        self._limits.start(math.inf if amt is None else amt + MAX_HEADER_SIZE)
        return super().read(amt)

    def read1(self, n: int = -1) -> bytes:
        self._limits.start((n if n >= 0 else READ_SIZE) + MAX_HEADER_SIZE)
        return super().read1(n)


class SendTimeoutHTTPConnection(HTTPConnection):
    """Connection that uses its adapter's timeout once it is open, and each time it is reused."""

    adapter: ClassVar[SendTimeout]
    response_class = _LimitedResponse

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self.adapter.send_timeout)

    def putrequest(self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False) -> None:
        if self.sock is not None:  # urllib3 sets the connect timeout again on a reused connection
            self.sock.settimeout(self.adapter.send_timeout)
        super().putrequest(method, url, skip_host, skip_accept_encoding)


class SendTimeoutHTTPSConnection(SendTimeoutHTTPConnection, HTTPSConnection):
    """Encrypted variant."""


def make_pool_class(
    pool: type[HTTPConnectionPool], connection: type[SendTimeoutHTTPConnection], adapter: SendTimeout
) -> type[HTTPConnectionPool]:
    """Return a pool class whose connections use one adapter's timeout."""
    connection_class = type(connection.__name__, (connection,), {"adapter": adapter})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection_class})


def root_cause_message(error: BaseException) -> str:
    """Return the message of the innermost error, without names and addresses of Python objects."""
    inner: Any = error
    while True:
        cause = getattr(inner, "reason", None) or next(
            (part for part in reversed(inner.args) if isinstance(part, BaseException)), None
        )
        if not isinstance(cause, BaseException):
            break
        inner = cause
    return sanitize_line(re.sub(r"^\w+\(host=.*?\): ", "", str(inner).rpartition(">: ")[2])) or type(inner).__name__
