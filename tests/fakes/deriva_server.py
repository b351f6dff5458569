"""A fake Deriva server on loopback: ERMrest, Hatrac and logins in a thread, modelled on recordings of a real server."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fakes.ermrest import Ermrest
from fakes.faults import Fault, Faults, Harm
from fakes.hatrac import Hatrac
from fakes.refusals import Refused
from fakes.web import Answer, Request, User
from waits import HANG

__all__ = ["USERS", "DerivaServer", "serving"]

USERS = {"test1": User("test1", ("admin",)), "test2": User("test2")}


class DerivaServer:
    """State and address of the server.

    Args:
        folder: Folder of the objects' bytes.
        latency: Seconds before each response.
        first_catalog: Number of the first catalog.

    ``requests`` are the received requests, ``connections`` the client port of each connection, and ``slowness`` the
    seconds before a body is read.
    """

    def __init__(self, folder: Path, *, latency: float = 0.0, first_catalog: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ermrest = Ermrest(first_catalog)
        self.hatrac = Hatrac(folder)
        self.latency = latency
        self.slowness = 0.0
        self.faults = Faults()
        self.requests: list[Request] = []
        self.connections: list[int] = []
        self.sessions = dict(USERS)
        self.port, self.scheme = 0, "http"
        self._changed = threading.Condition()
        self._answering = 0

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Count a request as active while the block runs."""
        with self._changed:
            self._answering += 1
        try:
            yield
        finally:
            with self._changed:
                self._answering -= 1
                self._changed.notify_all()

    def wait_until_idle(self) -> None:
        """Wait until no request is active; a killed client may have left some."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self._answering, timeout=HANG)

    @property
    def hostname(self) -> str:
        """Address for clients."""
        return f"{self.scheme}://localhost:{self.port}"

    def credential(self, user: str = "test1") -> dict[str, str]:
        """Return a user's login."""
        return {"cookie": f"webauthn={user}"}

    def log_out(self, user: str) -> None:
        """End a user's session."""
        self.sessions.pop(user, None)

    def log_in(self, user: str) -> None:
        """Start a user's session again."""
        self.sessions[user] = USERS[user]

    def answer(self, request: Request) -> Answer:
        """Return the server's response, without faults."""
        if "transfer-encoding" in request.headers:
            return Answer.text(411, "<title>411 Length Required</title>", "text/html; charset=iso-8859-1")
        try:
            if request.path.startswith("/authn/session"):
                return self._session(request)
            if request.path.startswith("/ermrest/"):
                return self.ermrest.answer(request)
            if request.path.startswith("/hatrac"):
                return self.hatrac.answer(request)
            return Answer.text(404, "", "text/html")
        except Refused as error:
            return self._refusal(request, error)

    def _refusal(self, request: Request, error: Refused) -> Answer:
        if request.accept == "text/html":
            titles = {404: "Not Found", 409: "Conflict", 400: "Bad Request", 403: "Forbidden"}
            body = f"<html><body><h1>{titles.get(error.status, '')}</h1><p>{error.body.strip()}</p></body></html>\n"
            return Answer.text(error.status, body, "text/html", **error.headers)
        return Answer.text(error.status, error.body, "text/plain", **error.headers)

    def _session(self, request: Request) -> Answer:
        user = request.user
        if request.method == "DELETE":
            if user.name:
                self.log_out(user.name)
            return Answer.json(200, {"logout_url": "https://localhost/my/landing/page"})
        if user.name is None:
            return Answer.text(404, "No existing login session found.\n")
        client = {"id": user.name, "display_name": user.name, "identities": [user.name]}
        groups = [{"id": group, "display_name": group} for group in user.groups]
        times = {"since": "2026-11-22 19:52:00", "expires": "2026-11-23 07:52:00", "seconds_remaining": 43199}
        rest = {"vary_headers": ["cookie"], "tracking": None}
        return Answer.json(200, {"client": client, "attributes": [*groups, client], **times, **rest})

    def authenticate(self, headers: dict[str, str]) -> User:
        """Return the user of a request's headers."""
        cookie = SimpleCookie(headers.get("cookie", "")).get("webauthn")
        token = cookie.value if cookie else headers.get("authorization", "").removeprefix("Bearer ")
        return self.sessions.get(token, User())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: DerivaServer
    server: ThreadingHTTPServer

    def setup(self) -> None:
        super().setup()
        self.fake.connections.append(self.client_address[1])
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *args: Any) -> None:
        """Log nothing."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.close_connection = self.close_connection or "transfer-encoding" in headers
        if self.fake.slowness:
            time.sleep(self.fake.slowness)
        path, _, query = self.path.partition("?")
        request = Request(self.command, path, query, headers, user=self.fake.authenticate(headers))
        fault = self.fake.faults.next(request)
        body = self._body(int(headers.get("content-length") or 0), fault)
        request = replace(request, body=body)
        self.fake.requests.append(replace(request, body=body if len(body) < 2**16 else b""))
        if self.fake.latency:
            time.sleep(self.fake.latency)
        if fault is not None and fault.harm is Harm.reset:
            return self._reset()
        if fault is not None and fault.harm is Harm.call:
            fault.call()
        answer = fault.reply if fault is not None and fault.harm is Harm.answer else self.fake.answer(request)
        if fault is not None and fault.harm is Harm.lose_after:
            fault.call()
        if fault is not None and fault.harm in (Harm.lose, Harm.lose_after):
            return self._reset()
        return self._send(answer, fault)

    def _serve_counted(self) -> None:
        with self.fake.answering():
            self._serve()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve_counted

    def _body(self, length: int, fault: Fault | None) -> bytes:
        """Read the request's body, with the effect of a fault."""
        harm = fault.harm if fault else None
        if fault is None or harm is not Harm.sip:
            body = self.rfile.read(length)
            return bytes([body[0] ^ 1]) + body[1:] if body and harm is Harm.garble else body
        pieces = []
        for size in _sizes(length, fault.pieces):
            time.sleep(fault.pause)
            pieces.append(self.rfile.read(size))
        return b"".join(pieces)

    def _reset(self) -> None:
        """Break the connection, so that the client sees a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def _send(self, answer: Answer, fault: Fault | None = None) -> None:
        harm = fault.harm if fault else None
        self.send_response_only(answer.status)
        headers = dict(answer.headers)
        if answer.status not in (204, 304):
            headers.setdefault("Content-Length", str(len(answer.body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        left = fault.keep if fault and harm is Harm.truncate else None
        if fault and harm is Harm.drip:
            self._drip(b"".join(answer.pieces()) if answer.pieces else answer.body, fault)
            return
        for number, piece in enumerate(answer.pieces() if answer.pieces else [answer.body]):
            sent = bytes([piece[0] ^ 1]) + piece[1:] if harm is Harm.damage and number == 0 and piece else piece
            if left is not None:
                sent, left = sent[:left], left - len(sent)
            self.wfile.write(sent)
            if left is not None and left <= 0:
                self.close_connection = True
                return

    def _drip(self, body: bytes, fault: Fault) -> None:
        start = 0
        for size in _sizes(len(body), fault.pieces):
            time.sleep(fault.pause)
            self.wfile.write(body[start : start + size])
            start += size


def _sizes(length: int, pieces: int) -> list[int]:
    """Return the lengths of at most so many pieces of a body, none of them empty."""
    size = max(1, -(-length // pieces))
    return [min(size, length - start) for start in range(0, length, size)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that closed the connection."""


@contextlib.contextmanager
def serving(
    folder: Path, *, latency: float = 0.0, first_catalog: int = 1, tls: ssl.SSLContext | None = None
) -> Iterator[DerivaServer]:
    """Run a server while the block runs; with a TLS context over https."""
    fake = DerivaServer(folder, latency=latency, first_catalog=first_catalog)
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        fake.scheme = "https"
    fake.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
