"""Access to the page: a token, a cookie, and checks of every request, as middleware for any ASGI application.

Other users of the machine, and web pages that rebind a host name, reach a loopback address too. So each request needs a
cookie, which only the token buys, and must name this server in Host and Origin.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deriva_ml_ui.login_page import render_login_page

__all__ = ["LOGIN_PATH", "AccessGuard", "AccessKeys", "content_security_policy"]

LOGIN_PATH = "/login"
MAX_FORM_BYTES = 4096
SAFE_METHODS = ("GET", "HEAD")

POLICY_VIOLATION = 1008
"""Code with which a WebSocket is closed."""

COMMON_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # with no-referrer, browsers send the Origin of a form as null
    "Referrer-Policy": "same-origin",
}


@dataclass(frozen=True)
class AccessKeys:
    """The secrets of one server process.

    Args:
        port: The port that the server listens on.
        token: The token that a person enters once in each browser.
        session: The value of the cookie that the token buys.
    """

    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def cookie_name(self) -> str:
        """The name of the cookie. Browsers share cookies between the ports of a host, so it has the port."""
        return f"deriva_ml_ui_{self.port}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The values of Host that name this server."""
        return (f"127.0.0.1:{self.port}", f"localhost:{self.port}")


def content_security_policy(host: str, nonce: str) -> str:
    """Return the policy of the application's own pages.

    ``'unsafe-eval'`` for scripts: NiceGUI's components are Vue templates that the browser compiles, and it evaluates
    the server's own messages. ``'unsafe-inline'`` for styles only: Vue and ECharts position elements by style
    attributes, for which there is no nonce. Inline scripts need the nonce of their response. ``data:`` for images:
    icons in style sheets.

    Args:
        host: The host and port of the request, for the WebSocket.
        nonce: The nonce of the response's inline scripts.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' 'nonce-{nonce}' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self'",
            f"connect-src 'self' ws://{host}",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


class AccessGuard:
    """ASGI middleware that refuses requests without the cookie, and adds the headers that protect the page.

    Args:
        app: The application.
        keys: The secrets and the port.
    """

    def __init__(self, app: ASGIApp, keys: AccessKeys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        reason = self._find_refusal(scope, headers)
        if scope["type"] == "websocket":
            if reason is None and self._has_session(headers):
                await self._app(_without_forwarded_headers(scope), receive, send)
            else:
                await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        nonce = secrets.token_urlsafe(16)
        protected = _HeaderWriter(send, content_security_policy(headers.get("host", ""), nonce), nonce)
        if reason is not None:
            await PlainTextResponse(f"{reason}\n", 403)(scope, receive, protected.send)
        elif scope["path"] == LOGIN_PATH and scope["method"] == "POST":
            response = self._exchange_token(await _read_form(receive))
            await response(scope, receive, protected.send)
        elif self._has_session(headers) and scope["path"] == LOGIN_PATH:
            await RedirectResponse("/", 303)(scope, receive, protected.send)
        elif self._has_session(headers):
            await self._app(_without_forwarded_headers(scope), receive, protected.send)
        else:
            await self._ask_for_token(scope, headers)(scope, receive, protected.send)

    def _find_refusal(self, scope: Scope, headers: Headers) -> str | None:
        """Return why a request is refused whatever its cookie is; None if it is not."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or hosts[0] not in self._keys.hosts:
            return "This server is reached by its own address only; it is printed where deriva-ml ui was started."
        needs_origin = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if (origins or needs_origin) and origins != [f"http://{hosts[0]}"]:
            return "This request comes from another page."
        # a page on another port of this machine counts as the same site, and its requests have the cookie
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "navigate")
        if site not in ("none", "same-origin") and mode != "navigate":
            return "Another page asks for a part of this one."
        return None

    def _has_session(self, headers: Headers) -> bool:
        cookie = cookie_parser(headers.get("cookie", "")).get(self._keys.cookie_name, "")
        return hmac.compare_digest(cookie.encode(), self._keys.session.encode())

    def _exchange_token(self, form: Mapping[str, str] | None) -> Response:
        if form is None or not hmac.compare_digest(form.get("token", "").strip().encode(), self._keys.token.encode()):
            next_path = "/" if form is None else form.get("next", "/")
            return HTMLResponse(render_login_page(_own_path(next_path), is_wrong=True), 403)
        response = RedirectResponse(_own_path(form.get("next", "/")), 303)
        response.set_cookie(self._keys.cookie_name, self._keys.session, path="/", httponly=True, samesite="strict")
        return response

    def _ask_for_token(self, scope: Scope, headers: Headers) -> Response:
        """Return the form for the token at its own address, and a redirect to it from the others."""
        if scope["method"] != "GET" or headers.get("sec-fetch-mode", "navigate") != "navigate":
            return PlainTextResponse("Enter the token on the page first.\n", 403)
        query = scope.get("query_string", b"").decode("latin-1")
        if scope["path"] != LOGIN_PATH:
            wanted = quote(scope["path"]) + (f"?{query}" if query else "")
            return RedirectResponse(f"{LOGIN_PATH}?{urlencode({'next': wanted})}", 303)
        wanted = _own_path(parse_qs(query).get("next", ["/"])[0])
        # a link on another site carries no cookie, although this browser may have it
        is_from_elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        return HTMLResponse(render_login_page(wanted, may_have_cookie=is_from_elsewhere))


def _own_path(path: str) -> str:
    """Return a path on this server; the first page in place of one that leads elsewhere."""
    is_own = path.startswith("/") and not path.startswith(("//", "/\\", LOGIN_PATH))
    return path if is_own and path.isascii() and path.isprintable() else "/"


async def _read_form(receive: Receive) -> dict[str, str] | None:
    """Read a form's fields; None if it is too long."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_FORM_BYTES or message["type"] == "http.disconnect":
            return None
        if not message.get("more_body"):
            return {name: values[0] for name, values in parse_qs(body.decode("latin-1")).items()}


def _without_forwarded_headers(scope: Scope) -> Scope:
    """Return the scope without the headers of a proxy, which NiceGUI would put into the page."""
    headers = [(name, value) for name, value in scope["headers"] if not name.startswith((b"x-forwarded", b"forwarded"))]
    return {**scope, "headers": headers}


class _HeaderWriter:
    """Adds the protecting headers to a response, and the nonce to the inline scripts of a page."""

    def __init__(self, send: Send, policy: str, nonce: str) -> None:
        self._send = send
        self._policy = policy
        self._nonce = nonce
        self._start: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            for name, value in COMMON_HEADERS.items():
                headers[name] = value
            if "content-security-policy" not in headers:
                headers["Content-Security-Policy"] = self._policy
                if headers.get("content-type", "").startswith("text/html"):
                    headers["Cache-Control"] = "no-store"
                    self._start = message
                    return
        elif self._start is not None and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            await self._send_page(self._start)
            self._start = None
            return
        await self._send(message)

    async def _send_page(self, start: Message) -> None:
        # catalog text has no "<" in this page: NiceGUI escapes it, and Jinja the title
        attribute = f' nonce="{self._nonce}"'.encode()
        body = self._body.replace(b"<script", b"<script" + attribute)
        MutableHeaders(raw=start["headers"])["Content-Length"] = str(len(body))
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})
