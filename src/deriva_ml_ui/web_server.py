"""The server of the page: one loopback port, one process, until it is interrupted."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from typing import Any

import uvicorn
from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.responses import Response
from starlette.routing import Route

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_ui.access import AccessGuard, AccessKeys
from deriva_ml_ui.answers import Answers
from deriva_ml_ui.page_routes import register_pages
from deriva_ml_ui.stored_files import file_routes

__all__ = ["DEFAULT_PORT", "open_port", "serve"]

DEFAULT_PORT = 8230
PORTS_TO_TRY = 20
GRACE_SECONDS = 1
"""How long open pages may delay the end of the server."""

STATIC_FILES = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}


def open_port(port: int | None) -> socket.socket:
    """Return a socket that listens on a port of 127.0.0.1.

    Args:
        port: The port; 0 for any free one; None for the first free one from `DEFAULT_PORT`.

    Raises:
        ConfigurationError: The port is in use, or may not be used.
    """
    candidates = range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TO_TRY) if port is None else (port,)
    for candidate in candidates:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", candidate))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE and candidate != candidates[-1]:
                continue
            if error.errno == errno.EADDRINUSE:
                raise ConfigurationError(
                    f"Port {candidate} of this machine is in use. Choose another one with --port, or any free one with "
                    "--port 0."
                ) from error
            raise ConfigurationError(
                f"Port {candidate} of this machine cannot be used: {error.strerror}. Choose another one with --port."
            ) from error
        return listener
    raise AssertionError("a range of ports is never empty")


def serve(ml: DerivaML, listener: socket.socket, announce: Callable[[str, str], None]) -> None:
    """Serve the page of a catalog until the process is interrupted.

    Args:
        ml: The client.
        listener: The result of `open_port`.
        announce: Called with the address and the token when the server is ready for requests.
    """
    keys = AccessKeys(listener.getsockname()[1])
    answers = Answers(ml)
    try:
        server = uvicorn.Server(_configure(create_application(answers, keys)))
        announce(f"http://127.0.0.1:{keys.port}/", keys.token)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    finally:
        answers.close()


def create_application(answers: Answers, keys: AccessKeys) -> AccessGuard:
    """Return the application with its guard.

    Args:
        answers: The catalog.
        keys: The secrets of this process.
    """
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    application.router.routes.extend([*file_routes(answers), *map(_static_route, STATIC_FILES)])
    register_pages(answers)
    nicegui_app.config.socket_io_js_transports = ["websocket"]
    ui.run_with(
        application,
        title="deriva-ml",
        dark=None,
        language="en-US",
        tailwind=False,
        gzip_middleware_factory=None,  # nothing is gained on a loopback address, and the guard adds nonces to pages
        show_welcome_message=False,
    )
    return AccessGuard(application, keys)


def _static_route(name: str) -> Route:
    content = files("deriva_ml_ui").joinpath("static", name).read_bytes()
    headers = {"Cache-Control": "no-cache"}

    async def send(request: Any) -> Response:  # noqa: ARG001
        return Response(content, headers=headers, media_type=STATIC_FILES[name])

    return Route(f"/static/{name}", send, methods=["GET"])


def _configure(application: AccessGuard) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        limit_concurrency=200,
        ws_max_size=2**20,
    )
