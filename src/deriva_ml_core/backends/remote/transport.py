"""How requests travel: connections whose timeouts mean what they say, also while a body is sent."""

from __future__ import annotations

from typing import Any, ClassVar

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

__all__ = ["SendTimeoutAdapter"]

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
