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
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import requests
from deriva.core.deriva_binding import DerivaBinding
from urllib3.exceptions import NewConnectionError

from deriva_ml_core.backends.remote.transport import PatientAdapter

if TYPE_CHECKING:
    from requests import Response

__all__ = ["Lost", "Server", "backoff", "wait_asked_for"]

TIMEOUT = (6.0, 120.0)
"""Seconds to connect to the catalog and to wait for its answer; 5,000 rows take it about 1.4 s."""

LONGEST_WAIT = 60.0
"""Seconds that a server may ask us to wait before we ask again."""

HOPS = 5
"""Redirects that a download follows."""

SESSION = {
    "timeout": TIMEOUT,
    "retry_connect": 0,
    "retry_read": 0,
    "retry_backoff_factor": 0.0,
    "retry_status_forcelist": [],
    "bypass_cert_verify_host_list": [],
}
"""The client library's settings: it repeats nothing by itself, and verifies every certificate."""

Body = bytes | IO[bytes] | None


class Lost(Exception):
    """A request without an answer.

    Args:
        why: What the connection said.
        undone: Whether the server surely did nothing.
    """

    def __init__(self, why: str, *, undone: bool) -> None:
        super().__init__(why)
        self.undone = undone


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add no login: by itself requests would put one from ~/.netrc in the place of ours."""
    return request


class _Binding(DerivaBinding):  # type: ignore[misc]  # it has no types
    """The client library's session, with its login."""

    def __init__(self, scheme: str, host: str, credential: Mapping[str, str]) -> None:
        super().__init__(scheme, host, dict(credential), caching=False, session_config=SESSION)
        for prefix in ("http://", "https://"):
            self._session.mount(prefix, PatientAdapter())
        self._session.auth = _as_it_is
        self.dcctx["cid"] = "deriva-ml-core"

    @property
    def session(self) -> requests.Session:
        session: requests.Session = self._session
        return session

    def context(self) -> str:
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
        self._idle = _Idle(os.getpid())

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
        body: Body = None,
        timeout: tuple[float, float] = TIMEOUT,
        stream: bool = False,
    ) -> Response:
        """Send one request and return what was answered, whatever its status.

        Raises:
            Lost: There was no answer.
        """
        with _loss(), self._binding() as binding:
            context = {"deriva-client-context": binding.context()}
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
        for _ in range(HOPS):
            target = urljoin(response.request.url or "", response.headers.get("Location", ""))
            if response.status_code not in (301, 302, 303, 307, 308) or not target:
                break
            response.close()
            here = urlsplit(target)
            if (here.scheme, here.netloc) == (self.scheme, self.host):
                response = self.request("GET", target[len(self.url) :], headers=headers, timeout=timeout, stream=True)
                continue
            if here.scheme != "https" and self.scheme == "https":
                raise Lost(f"{self.host} sends to {here.netloc} without encryption", undone=True)
            with _loss():
                response = requests.get(
                    target, headers=dict(headers), auth=_as_it_is, timeout=timeout, stream=True, allow_redirects=False
                )
        return response

    def close(self) -> None:
        """Let go of the connections that nobody uses now; those in use are let go of after their answer."""
        self._idle = _Idle(os.getpid())

    @contextmanager
    def _binding(self) -> Iterator[_Binding]:
        """A session for one request, which no other thread has meanwhile, with connections that stand if possible."""
        if self._idle.process != os.getpid():  # a fork must not share its parent's sockets
            self._idle = _Idle(os.getpid())
        idle = self._idle
        try:
            binding = idle.bindings.pop()
        except IndexError:
            binding = _Binding(self.scheme, self.host, self._credential)
        try:
            yield binding
        finally:
            idle.bindings.append(binding)


@dataclass(frozen=True)
class _Idle:
    """The sessions that nobody uses just now; a deque takes and gives without a lock, which a fork could find held.

    Args:
        process: Whose they are.
        bindings: The one used last at the end.
    """

    process: int
    bindings: deque[_Binding] = field(default_factory=deque)


@contextmanager
def _loss() -> Iterator[None]:
    try:
        yield
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        undone = isinstance(error, requests.exceptions.ConnectTimeout) or _never_connected(error)
        raise Lost(_plain(error), undone=undone) from error
    except (requests.exceptions.RequestException, OSError) as error:
        raise Lost(_plain(error), undone=False) from error


def _never_connected(error: Exception) -> bool:
    reason: Any = error.args[0] if error.args else None
    return isinstance(getattr(reason, "reason", reason), NewConnectionError)


def _plain(error: BaseException) -> str:
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


def backoff(attempt: int, *, first: float = 0.05, longest: float = 2.0) -> float:
    """Seconds to wait before a repeat: doubled each time, with jitter, so that those who collided part.

    Args:
        attempt: How many went before, from 0.
        first: The mean wait before the first repeat.
        longest: The most.
    """
    return float(min(longest, first * 2.0**attempt)) * random.uniform(0.5, 1.5)  # noqa: S311


def wait_asked_for(response: Response) -> float:
    """The seconds that a server asks us to wait, 0 where it does not, and never more than a minute."""
    text = response.headers.get("Retry-After", "")
    try:
        return max(0.0, min(LONGEST_WAIT, float(text)))
    except ValueError:
        return 0.0
