"""HTTP session for botocore with limits: of the time to send each block, and of the size and rate of responses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from botocore.awsrequest import AWSResponse
from botocore.httpsession import URLLib3Session
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

from deriva_ml_core._text import format_size
from deriva_ml_core.backends.http_connection import (
    BLOCK_SIZE,
    BodyRefused,
    SendTimeoutHTTPConnection,
    SendTimeoutHTTPSConnection,
    iter_body,
    make_pool_class,
)

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from urllib3.response import HTTPResponse

__all__ = ["LimitedSession"]

MAX_DOCUMENT_SIZE = 64 * 2**20
"""Bytes of a response that is no object: a page of 1,000 parts or uploads has less than 2 MiB."""

MAX_CONNECTIONS = 64
"""Connections that are kept open: those of 16 files with 4 parts each."""


class LimitedSession(URLLib3Session):  # type: ignore[misc]  # botocore has no types
    """Session of one client of botocore.

    On a new connection, urllib3 would apply the connect timeout to each block of a body, and botocore would read
    responses of any size at any rate.

    Args:
        timeout: Seconds to connect, and seconds within which the server must accept a block or send a response.
        verify: Path of the certificates to trust. True for those of botocore.
        proxies: URL of the proxy by scheme.
    """

    def __init__(self, timeout: tuple[float, float], verify: str | bool, proxies: dict[str, str]) -> None:
        self.send_timeout: float | None = timeout[1]
        super().__init__(verify=verify, proxies=proxies, timeout=timeout, max_pool_connections=MAX_CONNECTIONS)
        self._manager.connection_pool_kw["blocksize"] = BLOCK_SIZE
        self._pool_classes_by_scheme.update(
            http=make_pool_class(HTTPConnectionPool, SendTimeoutHTTPConnection, self),
            https=make_pool_class(HTTPSConnectionPool, SendTimeoutHTTPSConnection, self),
        )

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        """Send a request, and return its response. Only the body of an object is left to be read.

        Raises:
            BodyRefused: The response is no object, and too large.
            TransferTooSlow: The response arrives too slowly.
        """
        is_stream, request.stream_output = request.stream_output, True  # else the whole body is read without limits
        response = super().send(request)
        body = _LimitedBody(response.raw, self.send_timeout or 0.0)
        if not is_stream or response.status_code >= 300:
            body = body.read_document()
        return AWSResponse(response.url, response.status_code, response.headers, body)


class _LimitedBody:
    """Body of a response that is read within limits.

    Args:
        raw: The response.
        seconds: Seconds of waiting after each of which the rate is checked.
    """

    def __init__(self, raw: HTTPResponse, seconds: float) -> None:
        self._raw = raw
        self._pieces: Iterator[bytes] = iter_body(raw, seconds)

    def read(self, amount: int | None = None) -> bytes:
        """Return the bytes that have arrived, or all bytes if no amount is given."""
        return b"".join(self._pieces) if amount is None else next(self._pieces, b"")

    def stream(self) -> Iterator[bytes]:
        """Yield the bytes as they arrive."""
        yield from self._pieces

    def close(self) -> None:
        """Close the connection, unless the body was read completely."""
        self._raw.close()

    def read_document(self) -> _LimitedBody:
        """Read everything, and return the body with it."""
        content = bytearray()
        try:
            for piece in self._pieces:
                content += piece
                if len(content) > MAX_DOCUMENT_SIZE:
                    raise BodyRefused(f"it is larger than {format_size(MAX_DOCUMENT_SIZE)}")
        except BaseException:
            self.close()
            raise
        self._pieces = iter((bytes(content),))
        return self
