"""One Deriva server: where it is, who asks, and one session for each request that is under way."""

from __future__ import annotations

import os
import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, ClassVar
from urllib.parse import urljoin, urlsplit

import requests
from deriva.core.deriva_binding import DerivaBinding
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError

__all__ = ["ResponseLost", "SendTimeoutAdapter", "Server", "backoff_delay", "retry_after"]


DEFAULT_TIMEOUT = (6.0, 120.0)
"""Seconds to connect to the catalog and to wait for its answer; 5,000 rows take it about 1.4 s."""

MAX_RETRY_AFTER = 60.0
"""Seconds that a server may ask us to wait before we ask again."""

MAX_REDIRECTS = 5
"""Redirects that a download follows."""

SESSION_CONFIG = {
    "timeout": DEFAULT_TIMEOUT,
    "retry_connect": 0,
    "retry_read": 0,
    "retry_backoff_factor": 0.0,
    "retry_status_forcelist": [],
    "bypass_cert_verify_host_list": [],
}
"""The client library's settings: it repeats nothing by itself, and verifies every certificate."""

RequestBody = bytes | IO[bytes] | None


class ResponseLost(Exception):
    """A request without an answer.

    Args:
        reason: What the connection said.
        unprocessed: Whether the server surely did nothing.
    """

    def __init__(self, reason: str, *, unprocessed: bool) -> None:
        super().__init__(reason)
        self.unprocessed = unprocessed


def _add_no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add no login: by itself requests would put one from ~/.netrc in the place of ours."""
    return request


class _ServerSession(DerivaBinding):  # type: ignore[misc]  # it has no types
    """The client library's session, with its login."""

    def __init__(self, scheme: str, host: str, credential: Mapping[str, str]) -> None:
        super().__init__(scheme, host, dict(credential), caching=False, session_config=SESSION_CONFIG)
        for prefix in ("http://", "https://"):
            self._session.mount(prefix, SendTimeoutAdapter())
        self._session.auth = _add_no_auth
        self.dcctx["cid"] = "deriva-ml-core"

    @property
    def session(self) -> requests.Session:
        session: requests.Session = self._session
        return session

    def client_context(self) -> str:
        encoded: str = self.dcctx.encoded()
        return encoded


class Server:
    """A server.

    Args:
        scheme: ``https``, or ``http`` for one on this machine.
        host: Its name, with the port where that is not the scheme's own.
        credential: What logs in: ``bearer-token``, or ``cookie``; empty for nobody.
        sleep: How to wait.
    """

    def __init__(
        self, scheme: str, host: str, credential: Mapping[str, str], sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.scheme, self.host, self.sleep = scheme, host, sleep
        self._credential = dict(credential)
        self._session_pool = _SessionPool(os.getpid())

    def __repr__(self) -> str:
        return f"Server({self.url!r})"

    @property
    def url(self) -> str:
        """The address that its paths follow."""
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
        """Send one request and return what was answered, whatever its status.

        Raises:
            Lost: There was no answer.
        """
        with _translate_connection_errors(), self._borrow_session() as binding:
            context = {"deriva-client-context": binding.client_context()}
            return binding.session.request(
                method,
                self.url + path,
                headers={**context, **(headers or {})},
                data=body,
                timeout=timeout,
                stream=stream,
                allow_redirects=False,
            )

    def download(self, path: str, *, headers: Mapping[str, str], timeout: tuple[float, float]) -> Response:
        """Begin to bring an object; where the server sends us to another one, that one learns no login.

        Raises:
            Lost: There was no answer.
        """
        response = self.request("GET", path, headers=headers, timeout=timeout, stream=True)
        for _ in range(MAX_REDIRECTS):
            target = urljoin(response.request.url or "", response.headers.get("Location", ""))
            if response.status_code not in (301, 302, 303, 307, 308) or not target:
                break
            response.close()
            here = urlsplit(target)
            if (here.scheme, here.netloc) == (self.scheme, self.host):
                response = self.request("GET", target[len(self.url) :], headers=headers, timeout=timeout, stream=True)
                continue
            if here.scheme != "https" and self.scheme == "https":
                raise ResponseLost(f"{self.host} sends to {here.netloc} without encryption", unprocessed=True)
            with _translate_connection_errors():
                response = requests.get(
                    target,
                    headers=dict(headers),
                    auth=_add_no_auth,
                    timeout=timeout,
                    stream=True,
                    allow_redirects=False,
                )
        return response

    def close(self) -> None:
        """Let go of the connections that nobody uses now; those in use are let go of after their answer."""
        self._session_pool = _SessionPool(os.getpid())

    @contextmanager
    def _borrow_session(self) -> Iterator[_ServerSession]:
        """A session for one request, which no other thread has meanwhile, with connections that stand if possible."""
        if self._session_pool.pid != os.getpid():  # a fork must not share its parent's sockets
            self._session_pool = _SessionPool(os.getpid())
        idle = self._session_pool
        try:
            binding = idle.sessions.pop()
        except IndexError:
            binding = _ServerSession(self.scheme, self.host, self._credential)
        try:
            yield binding
        finally:
            idle.sessions.append(binding)


@dataclass(frozen=True)
class _SessionPool:
    """The sessions that nobody uses just now; a deque takes and gives without a lock, which a fork could find held.

    Args:
        pid: Whose they are.
        sessions: The one used last at the end.
    """

    pid: int
    sessions: deque[_ServerSession] = field(default_factory=deque)


@contextmanager
def _translate_connection_errors() -> Iterator[None]:
    try:
        yield
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        undone = isinstance(error, requests.exceptions.ConnectTimeout) or _is_connect_failure(error)
        raise ResponseLost(_root_cause_message(error), unprocessed=undone) from error
    except (requests.exceptions.RequestException, OSError) as error:
        raise ResponseLost(_root_cause_message(error), unprocessed=False) from error


def _is_connect_failure(error: Exception) -> bool:
    reason: Any = error.args[0] if error.args else None
    return isinstance(getattr(reason, "reason", reason), NewConnectionError)


def _root_cause_message(error: BaseException) -> str:
    """What went wrong at the bottom, without the names and addresses of Python's objects."""
    inner: Any = error
    while True:
        deeper = getattr(inner, "reason", None) or next(
            (part for part in reversed(inner.args) if isinstance(part, BaseException)), None
        )
        if not isinstance(deeper, BaseException):
            break
        inner = deeper
    return re.sub(r"^\w+\(host=.*?\): ", "", str(inner).rpartition(">: ")[2]) or type(inner).__name__


def backoff_delay(attempt: int, *, initial: float = 0.05, maximum: float = 2.0) -> float:
    """Seconds to wait before a repeat: doubled each time, with jitter, so that those who collided part.

    Args:
        attempt: How many went before, from 0.
        initial: The mean wait before the first repeat.
        maximum: The most.
    """
    return float(min(maximum, initial * 2.0**attempt)) * random.uniform(0.5, 1.5)  # noqa: S311


def retry_after(response: Response) -> float:
    """The seconds that a server asks us to wait, 0 where it does not, and never more than a minute."""
    text = response.headers.get("Retry-After", "")
    try:
        return max(0.0, min(MAX_RETRY_AFTER, float(text)))
    except ValueError:
        return 0.0


BLOCK_SIZE = 2**18
"""Bytes of a body that are sent at once: each has the whole time for an answer."""


class SendTimeoutAdapter(HTTPAdapter):
    """Waits for a body to be taken as long as for an answer.

    In urllib3 the time to connect is also the time in which each block of a body must be taken, on a new connection.
    Nothing is repeated here: who asks knows what may be repeated.
    """

    send_timeout: float | None = None
    """Seconds in which each block must be taken."""

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

    def init_poolmanager(  # type: ignore[override]  # requests gives no more
        self, connections: int, maxsize: int, block: bool = False
    ) -> None:
        self.poolmanager = PoolManager(num_pools=connections, maxsize=maxsize, block=block, blocksize=BLOCK_SIZE)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _make_pool_class(HTTPConnectionPool, _SendTimeoutHTTPConnection, self),
            "https": _make_pool_class(HTTPSConnectionPool, _SendTimeoutHTTPSConnection, self),
        }


class _SendTimeoutHTTPConnection(HTTPConnection):
    """A connection that has its adapter's patience from the moment that it stands, and again when it is used again."""

    adapter: ClassVar[SendTimeoutAdapter]

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self.adapter.send_timeout)

    def putrequest(self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False) -> None:
        if self.sock is not None:  # one that is used again has been given the time to connect once more
            self.sock.settimeout(self.adapter.send_timeout)
        super().putrequest(method, url, skip_host, skip_accept_encoding)


class _SendTimeoutHTTPSConnection(_SendTimeoutHTTPConnection, HTTPSConnection):
    """The same, encrypted."""


def _make_pool_class(
    pool: type[HTTPConnectionPool], connection: type[_SendTimeoutHTTPConnection], adapter: SendTimeoutAdapter
) -> type[HTTPConnectionPool]:
    """A kind of pool whose connections have the patience of one adapter."""
    own = type(connection.__name__, (connection,), {"adapter": adapter})
    return type(pool.__name__, (pool,), {"ConnectionCls": own})
