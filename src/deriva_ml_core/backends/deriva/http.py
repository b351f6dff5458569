"""HTTP connection to a Deriva server: its address, the login, a pool of sessions, and limits of its responses."""

from __future__ import annotations

import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

import requests
from deriva.core.deriva_binding import DerivaBinding
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.exceptions import HTTPError, NewConnectionError

from deriva_ml_core._text import format_size, sanitize_line
from deriva_ml_core.backends.http_connection import (
    BLOCK_SIZE,
    BodyRefused,
    SendTimeoutHTTPConnection,
    SendTimeoutHTTPSConnection,
    iter_body,
    make_pool_class,
    root_cause_message,
)
from deriva_ml_core.errors import ConfigurationError

__all__ = [
    "ResponseLost",
    "ResponseRefused",
    "SendTimeoutAdapter",
    "Server",
    "retry_after",
]


DEFAULT_TIMEOUT = (6.0, 120.0)
"""Seconds to connect to the catalog and to wait for its response, which takes about 1.4 s for 5,000 rows."""

MAX_RETRY_AFTER = 60.0
"""Longest pause in seconds that a server's Retry-After header can request."""

MAX_REDIRECTS = 5
"""Most redirects that a download follows."""

SESSION_CONFIG = {
    "timeout": DEFAULT_TIMEOUT,
    "retry_connect": 0,
    "retry_read": 0,
    "retry_backoff_factor": 0.0,
    "retry_status_forcelist": [],
    "bypass_cert_verify_host_list": [],
}
"""Settings of the deriva client library: no retries of its own, and every certificate is verified."""

RequestBody = bytes | IO[bytes] | None


class ResponseLost(Exception):
    """A request got no response.

    Args:
        reason: The error of the connection.
        unprocessed: Whether the server certainly did not process the request.
    """

    def __init__(self, reason: str, *, unprocessed: bool) -> None:
        super().__init__(reason)
        self.unprocessed = unprocessed


class ResponseRefused(ResponseLost):
    """A response is not used, and a repeat would return it again.

    Args:
        reason: What is wrong with it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason, unprocessed=False)


def _add_no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Return the request unchanged; without this, requests would replace our login by one from ~/.netrc."""
    return request


def _no_redirect_target(_: Response) -> None:
    """Return None; requests would read a redirect's whole body and parse its target, even if it does not follow it."""


class _PlainSession(requests.Session):
    """Session without a login, for other servers."""

    def __init__(self) -> None:
        super().__init__()
        self.auth = _add_no_auth
        for prefix in ("http://", "https://"):
            self.mount(prefix, SendTimeoutAdapter())

    def get_redirect_target(self, resp: Response) -> None:
        return _no_redirect_target(resp)


class _ServerSession(DerivaBinding):  # type: ignore[misc]  # it has no types
    """Session of the deriva client library, with its login."""

    def __init__(self, scheme: str, host: str, credential: Mapping[str, str]) -> None:
        super().__init__(scheme, host, dict(credential), caching=False, session_config=SESSION_CONFIG)
        for prefix in ("http://", "https://"):
            self._session.mount(prefix, SendTimeoutAdapter())
        self._session.auth = _add_no_auth
        self._session.get_redirect_target = _no_redirect_target
        self.dcctx["cid"] = "deriva-ml-core"

    @property
    def session(self) -> requests.Session:
        session: requests.Session = self._session
        return session

    def client_context(self) -> str:
        encoded: str = self.dcctx.encoded()
        return encoded


class Server:
    """Client for a Deriva server. Threads and forked processes can share it.

    Args:
        scheme: ``https``, or ``http`` for a server on this machine.
        host: Host name, with the port unless it is the scheme's default.
        credential: The login as ``bearer-token`` or ``cookie``; empty for anonymous access.
        sleep: Function that waits a number of seconds between repeats.
        reload_credential: Function that returns the login that the user has stored now. After a refusal for lack of a
            login, a request is repeated once if that is another one than before. None if the program gave the login.
    """

    def __init__(
        self,
        scheme: str,
        host: str,
        credential: Mapping[str, str],
        sleep: Callable[[float], None] = time.sleep,
        reload_credential: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        self.scheme, self.host, self.sleep = scheme, host, sleep
        self._credential = dict(credential)
        self._reload_credential = reload_credential
        self._session_pool = _SessionPool(os.getpid())

    def __repr__(self) -> str:
        return f"Server({self.url!r})"

    @property
    def url(self) -> str:
        """Scheme and host, without a trailing slash."""
        return f"{self.scheme}://{self.host}"

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: RequestBody = None,
        timeout: tuple[float, float] = DEFAULT_TIMEOUT,
        stream: bool = False,
    ) -> Response:
        """Send one request, and return the response whatever its status.

        Args:
            method: HTTP method.
            path: Path on the server.
            headers: Additional headers.
            body: Bytes or open file to send.
            timeout: Seconds to connect, and to wait for the response or for each block of the body.
            stream: Whether the caller reads the response's body. Otherwise it is read within the limits of
                `_read_document`.

        Raises:
            ResponseLost: There is no response, or it arrives too slowly.
            ResponseRefused: The response is too large.
        """
        used = self._credential
        response = self._send(method, path, headers, body, timeout, stream=stream)
        if response.status_code == 401 and self._has_new_credential(used):
            response.close()
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
            response = self._send(method, path, headers, body, timeout, stream=stream)
        return response

    def _has_new_credential(self, used: Mapping[str, str]) -> bool:
        """Whether the user has logged in again since a login was used; later requests use the new one."""
        if self._credential is not used:  # another thread has reloaded it
            return True
        if self._reload_credential is None:
            return False
        try:
            credential = dict(self._reload_credential())
        except (ConfigurationError, OSError, ValueError):  # it is just being written, or has another form
            return False
        if credential == used:
            return False
        self._credential = credential
        self._session_pool = _SessionPool(os.getpid())
        return True

    def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None,
        body: RequestBody,
        timeout: tuple[float, float],
        *,
        stream: bool,
    ) -> Response:
        with _translate_connection_errors(), self._borrow_session() as binding:
            context = {"deriva-client-context": binding.client_context()}
            response = binding.session.request(
                method,
                self.url + path,
                headers={"Accept-Encoding": "gzip", **context, **(headers or {})},
                data=body,
                timeout=timeout,
                stream=True,
                allow_redirects=False,
            )
            if not stream:
                _read_document(response, timeout[1])
            return response

    def download(self, path: str, *, headers: Mapping[str, str], timeout: tuple[float, float]) -> Response:
        """Open the download of an object. Other hosts that the server redirects to do not receive the login.

        The text of an error is read already.

        Raises:
            ResponseLost: There is no response.
            ResponseRefused: There are too many redirects, or one leads to an unencrypted connection or to no address.
        """
        response = self.request("GET", path, headers=headers, timeout=timeout, stream=True)
        for _ in range(MAX_REDIRECTS):
            if not _is_redirect(response):
                break
            response.close()
            target = _redirect_target(response)
            if target.startswith(f"{self.url}/"):
                response = self.request("GET", target[len(self.url) :], headers=headers, timeout=timeout, stream=True)
            else:
                response = _get_without_login(target, headers, timeout)
        if _is_redirect(response):
            response.close()
            raise ResponseRefused(f"it redirects more than {MAX_REDIRECTS} times")
        if response.status_code >= 400:
            with _translate_connection_errors():
                _read_document(response, timeout[1])
        return response

    def close(self) -> None:
        """Close idle connections; those in use are closed after their response."""
        self._session_pool = _SessionPool(os.getpid())

    @contextmanager
    def _borrow_session(self) -> Iterator[_ServerSession]:
        """Yield a session that no other thread uses, with open connections if there are any."""
        if self._session_pool.pid != os.getpid():  # a forked process must not use its parent's sockets
            self._session_pool = _SessionPool(os.getpid())
        pool = self._session_pool
        try:
            session = pool.sessions.pop()
        except IndexError:
            session = _ServerSession(self.scheme, self.host, self._credential)
        try:
            yield session
        finally:
            pool.sessions.append(session)


@dataclass(frozen=True)
class _SessionPool:
    """Idle sessions. A deque needs no lock, which a forked process could inherit locked.

    Args:
        pid: The process that opened them.
        sessions: The sessions, the last used one at the end.
    """

    pid: int
    sessions: deque[_ServerSession] = field(default_factory=deque)


def _is_redirect(response: Response) -> bool:
    return response.status_code in (301, 302, 303, 307, 308) and "Location" in response.headers


def _redirect_target(response: Response) -> str:
    """Return the URL that a response redirects to.

    Raises:
        ResponseRefused: It is not a URL of http or https, or would end the encryption.
    """
    source = response.request.url or ""
    try:
        target = urljoin(source, response.headers["Location"])
        location = urlsplit(target)
        is_valid = location.scheme in ("http", "https") and bool(location.hostname) and location.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ResponseRefused("it redirects to an invalid address")
    if location.scheme == "http" and source.startswith("https:"):
        raise ResponseRefused(f"it redirects to {sanitize_line(location.netloc)} without encryption")
    return target


def _get_without_login(url: str, headers: Mapping[str, str], timeout: tuple[float, float]) -> Response:
    with _translate_connection_errors():
        # the session stays open with the response
        return _PlainSession().get(url, headers=dict(headers), timeout=timeout, stream=True, allow_redirects=False)


@contextmanager
def _translate_connection_errors() -> Iterator[None]:
    try:
        yield
    except BodyRefused as error:
        raise ResponseRefused(str(error)) from error
    except zlib.error as error:
        raise ResponseLost(f"it is not completely compressed ({error})", unprocessed=False) from error
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        unprocessed = isinstance(error, requests.exceptions.ConnectTimeout) or _is_connect_failure(error)
        raise ResponseLost(root_cause_message(error), unprocessed=unprocessed) from error
    except (requests.exceptions.RequestException, HTTPError, OSError) as error:
        raise ResponseLost(root_cause_message(error), unprocessed=False) from error


def _is_connect_failure(error: Exception) -> bool:
    reason: Any = error.args[0] if error.args else None
    return isinstance(getattr(reason, "reason", reason), NewConnectionError)


def retry_after(response: Response) -> float:
    """Return the seconds of the Retry-After header, at most `MAX_RETRY_AFTER`; 0 without one."""
    text = response.headers.get("Retry-After", "")
    try:
        return max(0.0, min(MAX_RETRY_AFTER, float(text)))
    except ValueError:
        return 0.0


MAX_DOCUMENT_SIZE = 128 * 2**20
"""Bytes of a decompressed document: 5,000 rows, the largest page, with 26 KiB each."""

GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
"""Format of compressed data for zlib: gzip or zlib, by their headers."""


def _read_document(response: Response, seconds: float) -> None:
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
        pieces = iter_body(response.raw, seconds)
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


class SendTimeoutAdapter(HTTPAdapter):
    """Adapter that applies the response timeout to sending a body.

    On a new connection, urllib3 would apply the connect timeout to each block of the body. The adapter repeats
    nothing, since only the caller knows which requests are safe to repeat.
    """

    send_timeout: float | None = None
    """Seconds within which the server must accept each block."""

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Response:
        self.send_timeout = timeout[1] if isinstance(timeout, tuple) else timeout
        response: Response = super().send(request, stream, timeout, verify, cert, proxies)
        return response

    def init_poolmanager(  # type: ignore[override]  # requests passes no other arguments
        self, connections: int, maxsize: int, block: bool = False
    ) -> None:
        self.poolmanager = PoolManager(num_pools=connections, maxsize=maxsize, block=block, blocksize=BLOCK_SIZE)
        self.poolmanager.pool_classes_by_scheme = {
            "http": make_pool_class(HTTPConnectionPool, SendTimeoutHTTPConnection, self),
            "https": make_pool_class(HTTPSConnectionPool, SendTimeoutHTTPSConnection, self),
        }
