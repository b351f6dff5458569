"""The server of the page as a process, and plain HTTP requests to it."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from waits import HANG

ANNOUNCEMENT = re.compile(r"http://127\.0\.0\.1:(\d+)/\s+Its token is\s+(\S+)")


@dataclass(frozen=True)
class Reply:
    """The response to a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class PageServer:
    """A running server.

    Args:
        process: Its process.
        port: The port that it printed.
        token: The token that it printed.
        folder: The folder that it was started in.
        temporary: Its folder for temporary files.
    """

    process: subprocess.Popen[str]
    port: int
    token: str
    folder: Path
    temporary: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def request(
        self, path: str, *, method: str = "GET", body: bytes = b"", headers: Mapping[str, str | None] | None = None
    ) -> Reply:
        """Send a request; a header with the value None is not sent."""
        sent = {"Host": self.host, **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, b"" if response.status == 101 else response.read())
        finally:
            connection.close()

    def login(self, token: str | None = None, next_path: str = "/", origin: str | None = "own") -> Reply:
        """Send the form of the token."""
        form = urlencode({"token": self.token if token is None else token, "next": next_path}).encode()
        own = {"Origin": self.address if origin == "own" else origin}
        headers = {"Content-Type": "application/x-www-form-urlencoded", **own}
        return self.request("/login", method="POST", body=form, headers=headers)

    def cookie(self) -> str:
        """Exchange the token, and return the header of the cookie."""
        return self.login().headers["set-cookie"].partition(";")[0]

    def get(self, path: str, **headers: str) -> Reply:
        """Send a request with the cookie."""
        return self.request(path, headers={"Cookie": self.cookie(), **headers})


@contextmanager
def page_server(home: Path, folder: Path, *arguments: str, user_home: Path | None = None) -> Iterator[PageServer]:
    """Start ``deriva-ml ui`` on a free port, and end it afterwards.

    Args:
        home: DERIVA_ML_HOME of the server.
        folder: The folder to start it in.
        arguments: Further arguments.
        user_home: HOME of the server; None for that of the test.
    """
    temporary = Path(tempfile.mkdtemp(prefix="page-"))
    environment = {**os.environ, "DERIVA_ML_HOME": str(home), "PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary)}
    if user_home is not None:
        environment["HOME"] = str(user_home)
    environment.pop("PYTEST_CURRENT_TEST", None)  # NiceGUI behaves otherwise in tests
    command = [sys.executable, "-m", "deriva_ml_cli", "ui", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, env=environment, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        printed = ""
        while (match := ANNOUNCEMENT.search(printed)) is None:
            line = process.stdout.readline()
            assert line, f"deriva-ml ui ended: {printed}"
            printed += line
        yield PageServer(process, int(match[1]), match[2], folder, temporary)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
        shutil.rmtree(temporary)
