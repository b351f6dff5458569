"""Read a response's body within limits: its size, its decompressed size, and its rate."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deriva_ml_core._text import format_size

if TYPE_CHECKING:
    from requests import Response

__all__ = ["BodyRefused", "TransferTooSlow", "iter_body", "read_document"]

MAX_DOCUMENT_SIZE = 128 * 2**20
"""Bytes of a decompressed document: 5,000 rows, the largest page, with 26 KiB each."""

MIN_RATE = 1024.0
"""Bytes per second below which a transfer fails."""

READ_SIZE = 2**20
GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
"""Format of compressed data for zlib: gzip or zlib, by their headers."""


class BodyRefused(Exception):
    """A body is too large or its compression is unknown; a repeat would return it again."""


class TransferTooSlow(TimeoutError):
    """A body arrives below `MIN_RATE`."""


def iter_body(response: Response, seconds: float) -> Iterator[bytes]:
    """Yield the bytes of a body as they arrive, still compressed.

    Args:
        response: A response whose body is not read yet.
        seconds: Seconds of waiting after each of which the rate is checked. Time between the reads does not count.

    Raises:
        TransferTooSlow: Less than `MIN_RATE` arrived.
    """
    waited, count = 0.0, 0
    while True:
        start = time.monotonic()
        # read1 returns the bytes received so far, so that an interrupted block is not lost
        piece = response.raw.read1(READ_SIZE, decode_content=False)
        if not piece:
            return
        waited += time.monotonic() - start
        count += len(piece)
        if waited >= seconds:
            if count < MIN_RATE * waited:
                raise TransferTooSlow(f"it sent {count / waited:.0f} bytes per second, less than {MIN_RATE:.0f}")
            waited, count = 0.0, 0
        yield piece


def read_document(response: Response, seconds: float) -> None:
    """Read and decompress a whole body, which the response then has as its content.

    Args:
        response: A response whose body is not read yet. It is closed if this fails.
        seconds: As for `iter_body`.

    Raises:
        BodyRefused: The body has more than `MAX_DOCUMENT_SIZE` bytes, or its compression is unknown.
        TransferTooSlow: As for `iter_body`.
        zlib.error: The compression is damaged or truncated.
    """
    try:
        pieces = iter_body(response, seconds)
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding in ("gzip", "x-gzip", "deflate"):
            content = _decompress(pieces)
        elif encoding in ("", "identity"):
            content = bytearray()
            for piece in pieces:
                content += piece
                _check_size(content)
        else:
            raise BodyRefused(f"its compression {encoding[:20]!r} is unknown")
    except BaseException:
        response.close()
        raise
    response._content = bytes(content)
    response._content_consumed = True  # else requests would read the body again


def _decompress(pieces: Iterator[bytes]) -> bytearray:
    content, decoder, is_complete = bytearray(), zlib.decompressobj(GZIP_OR_ZLIB), True
    for piece in pieces:
        rest = piece
        while rest:
            content += decoder.decompress(rest, MAX_DOCUMENT_SIZE + 1 - len(content))
            _check_size(content)
            is_complete = decoder.eof
            if is_complete:  # the next part, if any, starts here
                rest, decoder = decoder.unused_data, zlib.decompressobj(GZIP_OR_ZLIB)
            else:
                rest = decoder.unconsumed_tail
    if not is_complete:
        raise zlib.error("the compressed data is truncated")
    return content


def _check_size(content: bytearray) -> None:
    if len(content) > MAX_DOCUMENT_SIZE:
        raise BodyRefused(f"it is larger than {format_size(MAX_DOCUMENT_SIZE)}")
