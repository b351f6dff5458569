"""Proxy in front of an S3 service that counts requests and injects faults."""

from __future__ import annotations

import hashlib
import http.client
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["Request", "S3Proxy", "cut_response", "lose_part", "lose_response", "refuse", "running_proxy", "wrong_etag"]

ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>Injected by the tests</Message></Error>"


@dataclass(frozen=True)
class Request:
    """A request that the proxy has received.

    Args:
        method: Its method.
        path: Its path.
        query: Its parameters.
        headers: Its headers, by lower-case name.
        length: Bytes of its body.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    length: int

    @property
    def operation(self) -> str:
        """Name of S3's operation."""
        has = self.query.__contains__
        match self.method:
            case "PUT":
                return "UploadPart" if has("partNumber") else "PutObject"
            case "POST":
                return "CreateMultipartUpload" if has("uploads") else "CompleteMultipartUpload"
            case "GET":
                if has("uploads"):
                    return "ListMultipartUploads"
                return "ListParts" if has("uploadId") else "GetObject"
            case "DELETE":
                return "AbortMultipartUpload" if has("uploadId") else "DeleteObject"
        return "HeadObject"

    @property
    def part(self) -> int:
        return int(self.query.get("partNumber", "0"))


@dataclass
class Answer:
    """What the client receives.

    Args:
        status: Status of the response.
        headers: Its headers.
        body: Its body.
        sent: Bytes of the body that are sent before the connection is cut; None for all.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    sent: int | None = None


@dataclass(frozen=True)
class Exchange:
    """A request with its body.

    Args:
        body: The body.
        forward: Sends the request to the service, and returns its response.
    """

    body: bytes
    forward: Callable[[], Answer]


Fault = Callable[[Exchange], Answer | None]
"""What happens to a request, instead of forwarding it. None cuts the connection without a response."""


def refuse(status: int, code: str, *, retry_after: float | None = None) -> Fault:
    """Return a fault: the service refuses the request."""
    headers = [("Content-Type", "application/xml")]
    headers += [("Retry-After", str(retry_after))] if retry_after is not None else []
    return lambda _: Answer(status, headers, ERROR.format(code=code).encode())


def lose_response(exchange: Exchange) -> None:
    """Cut the connection after the service has processed the request."""
    exchange.forward()


def lose_part(exchange: Exchange) -> Answer:
    """Confirm a part that the service never receives."""
    return Answer(200, [("ETag", f'"{hashlib.md5(exchange.body).hexdigest()}"')], b"")


def cut_response(count: int) -> Fault:
    """Return a fault: the connection ends after so many bytes of the body."""

    def fault(exchange: Exchange) -> Answer:
        answer = exchange.forward()
        answer.sent = count
        return answer

    return fault


def wrong_etag(exchange: Exchange) -> Answer:
    """Replace the entity tag of the response."""
    answer = exchange.forward()
    wrong = "0123456789abcdef0123456789abcdef"
    answer.headers = [(name, f'"{wrong}"' if name.lower() == "etag" else value) for name, value in answer.headers]
    answer.body = re.sub(rb"(<ETag>(?:&#34;|&quot;|\")?)[0-9a-f]{32}", rb"\g<1>" + wrong.encode(), answer.body)
    return answer


@dataclass
class S3Proxy:
    """A running proxy.

    Args:
        port: Its port on loopback.
        target: Port of the service.
    """

    port: int
    target: int
    requests: list[Request] = field(default_factory=list)
    faults: list[tuple[Callable[[Request], bool], Fault]] = field(default_factory=list)
    on_request: Callable[[Request], None] = lambda request: None
    pause_before_body: float = 0.0
    """Seconds in which the proxy does not read a body that the client sends."""
    bytes_per_tick: int = 0
    """Bytes of an object that are sent each 10 milliseconds; 0 for all at once."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add_fault(self, operation: str, fault: Fault, *, times: int = 1, part: int = 0) -> None:
        """Let a fault happen to the next requests of an operation.

        Args:
            operation: Name of S3's operation.
            fault: The fault.
            times: To how many requests.
            part: Number of the part; 0 for any.
        """
        match = lambda request: request.operation == operation and part in (0, request.part)  # noqa: E731
        self.faults += [(match, fault)] * times

    def operations(self) -> list[str]:
        """Return the operations of all requests, in order."""
        return [request.operation for request in self.requests]

    def take_fault(self, request: Request) -> Fault | None:
        with self.lock:
            self.requests.append(request)
            for number, (match, fault) in enumerate(self.faults):
                if match(request):
                    del self.faults[number]
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: S3Proxy

    def handle_request(self) -> None:
        time.sleep(self.proxy.pause_before_body)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, parts.path, query, headers, len(body))
        fault = self.proxy.take_fault(request)
        self.proxy.on_request(request)

        exchange = Exchange(body, lambda: self._forward(body))
        answer = fault(exchange) if fault is not None else exchange.forward()
        if answer is None:
            self.close_connection = True
            return
        self._send(answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request

    def _forward(self, body: bytes) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.target)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "connection":
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        skipped = {"transfer-encoding", "connection", "keep-alive"}
        has_length = any(name.lower() == "content-length" for name, _ in answer.headers)
        for name, value in answer.headers:
            if name.lower() not in skipped:
                self.send_header(name, value)
        if not has_length and self.command != "HEAD":
            self.send_header("Content-Length", str(len(answer.body)))
        if answer.sent is not None:
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        body, step = answer.body[: answer.sent], self.proxy.bytes_per_tick if self.command == "GET" else 0
        for start in range(0, len(body), step) if step else ():
            self.wfile.write(body[start : start + step])
            time.sleep(0.01)
        if not step:
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: Any) -> None:
        """Print nothing: a client that goes away is part of the tests."""


@contextmanager
def running_proxy(target: int) -> Iterator[S3Proxy]:
    """Run a proxy in front of a service while the block runs.

    Args:
        target: Port of the service.
    """
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    proxy = handler.proxy = S3Proxy(server.server_address[1], target)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
