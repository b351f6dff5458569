"""Bounds of a server's response: its size, its decompressed size, its rate, and where it redirects to."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.backends.deriva.http import ResponseLost, ResponseRefused, Server
from deriva_ml_core.backends.deriva.store import DerivaStore
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.errors import CatalogUnavailable, ChecksumMismatch, DerivaMLException, StoreUnavailable
from deriva_ml_core.models import StoredObject, UploadOptions
from fakes.deriva_server import DerivaServer
from fakes.faults import Fault, Harm
from fakes.web import Answer

MIB = 2**20
BYTES = bytes(range(256)) * 40
ENDLESS = {"Content-Type": "application/json", "Content-Length": str(10**12)}


class Endless:
    """A body that never ends, and the number of bytes that were sent."""

    def __init__(self, piece: bytes = b"[" + b" " * (MIB - 1), pause: float = 0.0) -> None:
        self.piece, self.pause, self.sent = piece, pause, 0

    def __call__(self) -> Iterator[bytes]:
        while True:
            time.sleep(self.pause)
            self.sent += len(self.piece)
            yield self.piece


def gzip_bomb(size: int) -> bytes:
    """Compress so many zeros."""
    compressor = zlib.compressobj(level=1, wbits=31)
    return b"".join(compressor.compress(bytes(MIB)) for _ in range(size // MIB)) + compressor.flush()


@pytest.fixture
def stored(store: DerivaStore, fake: DerivaServer, tmp_path: Path) -> StoredObject:
    (tmp_path / "model.pt").write_bytes(BYTES)
    options = UploadOptions()
    stored = store.put("Model", "model.pt", tmp_path / "model.pt", handover=TransferMode.copy, options=options)
    fake.requests.clear()
    return stored


def test_endless_document(catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """A document without an end is read up to 128 MiB, once."""
    body = Endless()
    fake.faults.add(Fault(Harm.answer, "GET", times=9, reply=Answer(200, b"", ENDLESS, body)))
    with pytest.raises(CatalogUnavailable, match=r"larger than 134\.2 MB"):
        catalog.select("Execution")
    assert 128 * MIB < body.sent < 256 * MIB
    assert len(fake.requests) == 1


def test_gzip_bomb(catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """A compressed document is decompressed up to 128 MiB."""
    bomb = gzip_bomb(200 * MIB)
    assert len(bomb) < 2 * MIB
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    fake.faults.add(Fault(Harm.answer, "GET", times=9, reply=Answer(200, bomb, headers)))
    with pytest.raises(CatalogUnavailable, match=r"larger than 134\.2 MB"):
        catalog.select("Execution")
    assert len(fake.requests) == 1


def gzip_in_parts(text: bytes) -> bytes:
    return gzip.compress(text[:1]) + gzip.compress(text[1:])


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, gzip_in_parts])
def test_compressed_document(connect, fake: DerivaServer, compress) -> None:
    """A compressed document is decompressed, also one of several parts."""
    fake.faults.add(Fault(Harm.answer, "GET", reply=Answer(200, compress(b"[1, 2]"), {"Content-Encoding": "gzip"})))
    assert connect().request("GET", "/authn/session").json() == [1, 2]


@pytest.mark.parametrize("body", [b"no gzip at all", gzip.compress(b"[1, 2]")[:-9]], ids=["text", "cut off"])
def test_damaged_compression(connect, fake: DerivaServer, body: bytes) -> None:
    """A document whose compression is damaged or truncated counts as lost."""
    fake.faults.add(Fault(Harm.answer, "GET", reply=Answer(200, body, {"Content-Encoding": "gzip"})))
    with pytest.raises(ResponseLost, match="compress"):
        connect().request("GET", "/authn/session")


def test_dripping_document(connect, fake: DerivaServer) -> None:
    """A document that arrives more slowly than 1 KiB a second fails after the read timeout."""
    body = Endless(b" ", pause=0.05)
    fake.faults.add(Fault(Harm.answer, "GET", times=9, reply=Answer(200, b"", ENDLESS, body)))
    with pytest.raises(ResponseLost, match="bytes per second"):
        connect().request("GET", "/authn/session", timeout=(5, 0.5))
    assert body.sent < 500


def test_dripping_download(store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path) -> None:
    """A download that arrives more slowly than 1 KiB a second fails after the read timeout, and can be resumed."""
    body = Endless(b" ", pause=0.05)
    fake.faults.add(Fault(Harm.answer, "GET", reply=Answer(200, b"", ENDLESS, body)))
    options = UploadOptions(timeout=(5, 0.5), max_retries=0)
    with pytest.raises(StoreUnavailable, match="interrupted"):
        store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=options)
    assert body.sent < 500
    store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=UploadOptions())
    assert (tmp_path / "copy").read_bytes() == BYTES


def test_endless_object(store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path) -> None:
    """An object without an end is read for its recorded length and at most one block more, by get and verify."""
    for act in (
        lambda: store.verify(stored.url, length=stored.length, md5=stored.md5),
        lambda: store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=UploadOptions()),
    ):
        body = Endless()
        fake.faults.add(Fault(Harm.answer, "GET", times=9, reply=Answer(200, b"", ENDLESS, body)))
        with pytest.raises(ChecksumMismatch, match="damaged"):
            act()
        fake.faults.clear()
        assert body.sent < 128 * MIB
    assert [path.name for path in tmp_path.glob(".*.part")] == []


@pytest.mark.parametrize("status", [403, 500])
def test_endless_error(
    store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path, status: int
) -> None:
    """The text of an error is bounded, also for a download."""
    body = Endless()
    fake.faults.add(Fault(Harm.answer, "GET", times=9, reply=Answer(status, b"", ENDLESS, body)))
    with pytest.raises(StoreUnavailable, match="larger than"):
        store.get(
            stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=UploadOptions(max_retries=0)
        )
    assert body.sent < 256 * MIB


@pytest.mark.parametrize(
    "location", ["http://[::1", "https://x:port/", "file:///etc/passwd", "ftp://example.org/x", "//[v"]
)
def test_invalid_redirect(
    store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path, location: str
) -> None:
    """A redirect to an address that cannot be read, or with another scheme, is not followed."""
    fake.faults.add(Fault(Harm.answer, "GET", reply=Answer(302, b"", {"Location": location, "Content-Length": "0"})))
    options = UploadOptions(max_retries=0)
    with pytest.raises(StoreUnavailable, match="redirect"):
        store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=options)
    assert len(fake.requests) == 1


def test_invalid_redirect_of_catalog(catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """A catalog's redirect to an address that cannot be read is reported as one."""
    reply = Answer(302, b"", {"Location": "http://[::1", "Content-Length": "0"})
    fake.faults.add(Fault(Harm.answer, "GET", times=9, reply=reply))
    with pytest.raises(CatalogUnavailable, match="redirects"):
        catalog.select("Execution")


def test_redirect_with_endless_body(
    catalog: DerivaCatalog, store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path
) -> None:
    """The body of a redirect is not read, or up to 128 MiB."""
    body, options = Endless(), UploadOptions(max_retries=0)
    reply = Answer(302, b"", {**ENDLESS, "Location": "/hatrac/again"}, body)
    fake.faults.add(Fault(Harm.answer, "GET", times=99, reply=reply))
    with pytest.raises(StoreUnavailable, match="redirect"):
        store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=options)
    assert body.sent < 256 * MIB
    body.sent = 0
    with pytest.raises(CatalogUnavailable, match="larger than"):
        catalog.select("Execution")
    assert body.sent < 256 * MIB


def test_endless_redirects(store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path) -> None:
    """At most 5 redirects are followed."""
    reply = Answer(302, b"", {"Location": "/hatrac/again", "Content-Length": "0"})
    fake.faults.add(Fault(Harm.answer, "GET", times=99, reply=reply))
    options = UploadOptions(max_retries=0)
    with pytest.raises(StoreUnavailable, match="redirect"):
        store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=options)
    assert len(fake.requests) == 6


CODES = "\x1b[31mred\x9b2J\u202e\r\x00"


@pytest.mark.parametrize(
    "reply",
    [
        Answer.text(400, f"400 Bad Request: {CODES}"),
        Answer.text(403, f"403 Forbidden Detail: {CODES}"),
        Answer.text(404, CODES),
        Answer.text(409, f'Key ("{CODES}")=({CODES}) is not present in table "{CODES}"'),
        Answer.text(409, f'violates not-null constraint: column "{CODES}"'),
        Answer.text(409, f"Detail: column {CODES} does not exist"),
        Answer.text(501, CODES),
        Answer(302, b"", {"Location": "http://\x1b[31m.example.org/"}),
        Answer(200, b"[]", {"Content-Encoding": "\x1b[31m"}),
        Answer(200, b"[1, 2", {"Content-Type": "application/json"}),
        Answer.text(200, f"[{CODES}]", "application/json"),
        Answer.text(200, "[" * 100_000 + "]" * 100_000, "application/json"),
    ],
)
def test_errors_without_escape_codes(catalog: DerivaCatalog, fake: DerivaServer, reply: Answer) -> None:
    """No error has a control character of a server's text, and text that is not JSON is an error of this package."""
    fake.faults.add(Fault(Harm.answer, "GET", times=99, reply=reply))
    with pytest.raises(DerivaMLException) as raised:
        catalog.select("Execution")
    assert not {"\x1b", "\x9b", "\u202e", "\r", "\x00"} & set(str(raised.value))


def test_connection_is_reused(connect, fake: DerivaServer) -> None:
    """Documents are read over one connection."""
    server: Server = connect()
    for _ in range(3):
        assert server.request("GET", "/authn/session").status_code == 200
        assert server.request("HEAD", "/hatrac/nothing").status_code == 404
    assert len(fake.connections) == 1


class RawServer:
    """A server that sends the same bytes to every client, then a piece again and again until the client leaves.

    Args:
        start: What it sends first.
        piece: What it repeats.
        pause: Seconds before each piece.
    """

    def __init__(self, start: bytes, piece: bytes, pause: float) -> None:
        self.start, self.piece, self.pause = start, piece, pause
        self.sent = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.host = f"localhost:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                with suppress(OSError), client:
                    client.recv(65536)
                    client.sendall(self.start)
                    while True:
                        time.sleep(self.pause)
                        client.sendall(self.piece)
                        self.sent += len(self.piece)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def raw_server() -> Iterator[Callable[..., RawServer]]:
    servers: list[RawServer] = []

    def start(*arguments: Any) -> RawServer:
        servers.append(RawServer(*arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


OK, CHUNKED = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"H"),
        (OK, b"x"),
        (OK + b"X: ", b"x"),
        (CHUNKED, b"0"),
        (CHUNKED + b"2;", b"x"),
        (CHUNKED + b"0\r\n", b"x"),
    ],
    ids=["status", "name", "value", "size of a chunk", "extension", "trailer"],
)
def test_dripping_headers(raw_server: Callable[..., RawServer], start: bytes, piece: bytes) -> None:
    """Whatever arrives more slowly than 1 KiB a second outside of a body fails after the read timeout."""
    server = raw_server(start, piece, 0.02)
    with pytest.raises(ResponseLost, match="bytes per second"):
        Server("http", server.host, {}).request("GET", "/", timeout=(5, 0.5))
    assert server.sent < 1000


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK, b"X: " + b"x" * 30_000 + b"\r\n"),
        (CHUNKED + b"0\r\n", b"X: x\r\n"),
    ],
    ids=["100", "headers", "trailers"],
)
def test_endless_headers(raw_server: Callable[..., RawServer], start: bytes, piece: bytes) -> None:
    """Headers, interim responses and trailers without an end are read up to 256 KiB, or 1 MiB after a body."""
    server = raw_server(start, piece, 0.0)
    with pytest.raises(ResponseRefused, match="headers are larger than"):
        Server("http", server.host, {}).request("GET", "/", timeout=(5, 60))
    assert server.sent < 16 * MIB


def test_limits_of_another_host(raw_server: Callable[..., RawServer], fake: DerivaServer, connect) -> None:
    """The limits of headers hold for the host too that a download is redirected to."""
    server = raw_server(OK, b"X: " + b"x" * 30_000 + b"\r\n", 0.0)
    answer = Answer(302, b"", {"Location": f"http://{server.host}/x", "Content-Length": "0"})
    fake.faults.add(Fault(Harm.answer, "GET", reply=answer))
    with pytest.raises(ResponseRefused, match="headers are larger than"):
        connect().download("/hatrac/x", headers={}, timeout=(5, 60))
