"""The page answers only its own address, and only a browser that has exchanged the token."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import psutil
import pytest
from page_server import PageServer

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
SOCKET_PATH = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"


def test_listens_on_loopback_only(server: PageServer) -> None:
    """The server listens on 127.0.0.1 and on no other address."""
    sockets = psutil.Process(server.process.pid).net_connections("inet")
    listening = {each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


@pytest.mark.parametrize("path", ["/", "/runs/1-A", "/nothing", "/?where=lr+%3E+0.1"])
def test_page_without_cookie(server: PageServer, path: str) -> None:
    """Without the cookie, each page leads to the form for the token."""
    reply = server.request(path)
    assert (reply.status, reply.body) == (303, b"")
    form = server.request(reply.headers["location"])
    assert form.status == 200
    assert 'type="password"' in form.text
    assert "With files" not in form.text


@pytest.mark.parametrize(
    ("path", "method"),
    [("/files/1-A", "POST"), ("/_nicegui_ws/socket.io/?EIO=4&transport=polling", "POST"), ("/", "PUT")],
)
def test_other_methods_without_cookie(server: PageServer, path: str, method: str) -> None:
    """Without the cookie, no other method is answered."""
    assert server.request(path, method=method, body=b"x", headers={"Origin": server.address}).status == 403


def test_script_without_cookie(server: PageServer) -> None:
    """Without the cookie, the application's own files are not served either."""
    reply = server.request("/static/page.js", headers={"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "same-origin"})
    assert (reply.status, reply.text) == (403, "Enter the token on the page first.\n")


def test_token_gives_cookie(server: PageServer) -> None:
    """The token gives a cookie that scripts cannot read and that other sites do not send."""
    reply = server.login(next_path="/datasets")
    assert (reply.status, reply.headers["location"]) == (303, "/datasets")
    value, *attributes = [part.strip() for part in reply.headers["set-cookie"].split(";")]
    assert re.fullmatch(rf"deriva_ml_ui_{server.port}=[\w-]{{43}}", value)
    assert sorted(attribute.lower() for attribute in attributes) == ["httponly", "path=/", "samesite=strict"]
    assert server.token not in value
    page = server.request("/", headers={"Cookie": value})
    assert page.status == 200
    assert "With files" in page.text


@pytest.mark.parametrize("token", ["", "wrong", "é"])
def test_wrong_token(server: PageServer, token: str) -> None:
    """Another token gives no cookie, and the form says so."""
    reply = server.login(token)
    assert reply.status == 403
    assert "set-cookie" not in reply.headers
    assert "That is not the token of this server." in reply.text


def test_token_in_address(server: PageServer) -> None:
    """A token in an address gives nothing."""
    assert server.request(f"/?token={server.token}").status == 303
    reply = server.request(f"/login?token={server.token}")
    assert "set-cookie" not in reply.headers
    assert server.token not in reply.text


def test_long_form(server: PageServer) -> None:
    """A form that is too long is refused."""
    headers = {"Origin": server.address}
    assert server.request("/login", method="POST", body=b"token=" + b"x" * 5000, headers=headers).status == 403


@pytest.mark.parametrize(
    "next_path",
    [
        "//example.org",
        "https://example.org",
        "/\\example.org",
        "javascript:alert(1)",
        "/login",
        "/é",
        "/a\r\nSet-Cookie: a=b",
    ],
)
def test_login_leads_nowhere_else(server: PageServer, next_path: str) -> None:
    """After the login, a path that leads elsewhere is replaced by the first page."""
    assert server.login(next_path=next_path).headers["location"] == "/"


def test_form_shows_no_markup(server: PageServer) -> None:
    """The address that the form leads to is no markup."""
    form = server.request("/login?next=/%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    assert "<script" not in form.text
    assert 'value="/&quot;&gt;&lt;script&gt;' in form.text


@pytest.mark.parametrize(
    "host", ["example.org", "127.0.0.1", "127.0.0.1:1", "localhost", "[::1]:{port}", "a.localhost:{port}"]
)
def test_other_host(server: PageServer, host: str) -> None:
    """A request for another host is refused with the cookie too, as after DNS rebinding."""
    headers = {"Cookie": server.cookie(), "Host": host.format(port=server.port)}
    assert server.request("/", headers=headers).status == 403


def test_localhost(server: PageServer) -> None:
    """The name localhost works too."""
    host = f"localhost:{server.port}"
    assert server.request("/", headers={"Cookie": server.cookie(), "Host": host}).status == 200


def test_no_host(server: PageServer) -> None:
    """A request without a host is refused."""
    assert server.request("/", headers={"Cookie": server.cookie(), "Host": None}).status in (400, 403)


ORIGINS = ["http://example.org", "http://127.0.0.1:1", "https://127.0.0.1:{port}", "null", "http://localhost:{port}"]


@pytest.mark.parametrize("origin", ORIGINS)
def test_other_origin(server: PageServer, origin: str) -> None:
    """A request from another page is refused with the cookie too, also the one with the token."""
    text = origin.format(port=server.port)
    assert server.request("/", headers={"Cookie": server.cookie(), "Origin": text}).status == 403
    reply = server.login(origin=text)
    assert (reply.status, "set-cookie" in reply.headers) == (403, False)


def test_login_without_origin(server: PageServer) -> None:
    """A form without an origin is refused: each browser sends one."""
    assert server.login(origin=None).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_part_of_another_page(server: PageServer, site: str) -> None:
    """A page on another port cannot include a part of this one, although its requests have the cookie."""
    headers = {"Cookie": server.cookie(), "Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
    assert server.request("/static/page.js", headers=headers).status == 403


def open_socket(server: PageServer, **headers: str | None) -> int:
    own: dict[str, str | None] = {**UPGRADE, "Cookie": server.cookie(), "Origin": server.address, **headers}
    return server.request(SOCKET_PATH, headers=own).status


def test_websocket(server: PageServer) -> None:
    """The page's own WebSocket is accepted."""
    assert open_socket(server) == 101


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": None},
        {"Cookie": "deriva_ml_ui=x"},
        {"Origin": None},
        {"Origin": "http://example.org"},
        {"Host": "a.example"},
    ],
)
def test_websocket_of_others(server: PageServer, headers: dict[str, Any]) -> None:
    """A WebSocket without the cookie, or of another page, is refused."""
    assert open_socket(server, **headers) == 403


def test_content_security_policy(server: PageServer) -> None:
    """The policy allows what the application needs and nothing else, and each inline script has its nonce."""
    first, second = server.get("/"), server.get("/")
    nonces = [re.search(r"'nonce-([\w-]+)'", page.headers["content-security-policy"])[1] for page in (first, second)]
    assert nonces[0] != nonces[1]
    assert first.headers["content-security-policy"] == (
        "default-src 'none'; "
        f"script-src 'self' 'nonce-{nonces[0]}' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; "
        "font-src 'self'; "
        f"connect-src 'self' ws://127.0.0.1:{server.port}; "
        "base-uri 'none'; "
        "form-action 'self'; "
        "frame-ancestors 'none'"
    )
    tags = re.findall(r"<script[^>]*>", first.text)
    assert len(tags) > 3
    assert all(f'nonce="{nonces[0]}"' in tag for tag in tags)


def test_other_headers(server: PageServer) -> None:
    """Each response has the headers that keep other pages away from it."""
    for path in ("/", "/static/page.js", "/nothing"):
        headers = server.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
    assert server.get("/").headers["cache-control"] == "no-store"


def test_forwarded_prefix(server: PageServer) -> None:
    """A header of a proxy changes no address in the page."""
    page = server.request("/", headers={"Cookie": server.cookie(), "X-Forwarded-Prefix": "/elsewhere"})
    assert page.status == 200
    assert "elsewhere" not in page.text


def test_leaves_no_file(server: PageServer) -> None:
    """The server writes nothing into the folder that it is started in."""
    assert server.get("/").status == 200
    assert list(server.folder.iterdir()) == []


def test_port_in_use(server: PageServer) -> None:
    """A port that is in use is an error that says what to do."""
    command = [sys.executable, "-m", "deriva_ml_cli", "ui", "--port", str(server.port)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr == (
        f"error: Port {server.port} of this machine is in use. Choose another one with --port, or any free one with "
        "--port 0.\n"
    )
