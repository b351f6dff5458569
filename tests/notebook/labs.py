"""Client for JupyterLab on loopback that uses REST and a kernel's web socket, as JupyterLab's page does."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

PASSWORD = "open sesame"


@dataclass
class Lab:
    """A running server.

    Args:
        url: The URL of the server.
        session: The HTTP session, which is logged in.
    """

    url: str
    session: requests.Session
    cookies: dict[str, str] = field(default_factory=dict)

    def request(self, method: str, path: str, content: object = None) -> Any:
        """Send a request to the server's REST interface."""
        response = self.session.request(method, f"{self.url}{path}", json=content)
        response.raise_for_status()
        return response.json() if response.content else None

    def open(self, path: str) -> str:
        """Open a notebook, which starts its kernel, and return the kernel's ID."""
        model = {"path": path, "name": Path(path).name, "type": "notebook", "kernel": {"name": "python3"}}
        return str(self.request("POST", "api/sessions", model)["kernel"]["id"])

    def run(self, kernel: str, *cells: str) -> list[str]:
        """Run cells in a kernel and return what each printed; an error in a cell fails the test."""
        return asyncio.run(self._run(kernel, cells))

    def save(self, path: str, printed: list[str]) -> None:
        """Save a notebook with outputs and execution counts, as JupyterLab's page does after a run."""
        content = self.request("GET", f"api/contents/{quote(path)}")["content"]
        code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
        for number, (cell, text) in enumerate(zip(code, printed, strict=True), start=1):
            cell["execution_count"] = number
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text or "-"}]
        self.request("PUT", f"api/contents/{quote(path)}", {"type": "notebook", "format": "json", "content": content})

    async def _run(self, kernel: str, cells: tuple[str, ...]) -> list[str]:
        from tornado.httpclient import HTTPRequest
        from tornado.websocket import websocket_connect

        address = f"ws{self.url.removeprefix('http')}api/kernels/{kernel}/channels"
        headers = {name: str(value) for name, value in self.session.headers.items()}
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.session.cookies.items())
        socket = await websocket_connect(HTTPRequest(address, headers=headers, connect_timeout=600))
        try:
            return [await _run_cell(socket, cell) for cell in cells]
        finally:
            socket.close()


async def _run_cell(socket: Any, code: str) -> str:
    number = uuid.uuid4().hex
    header = {"msg_id": number, "msg_type": "execute_request", "username": "", "session": "lab", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
    request = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    await socket.write_message(json.dumps(request))
    printed = ""
    while True:
        message = json.loads(await socket.read_message())
        if message["parent_header"].get("msg_id") != number:
            continue
        content, kind = message["content"], message["header"]["msg_type"]
        assert kind != "error", "\n".join(content["traceback"])
        if kind == "stream":
            printed += content["text"]
        if kind == "status" and content["execution_state"] == "idle":
            return printed


def start_lab(root: Path, folder: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
    """Start JupyterLab without the user's settings; its output goes to a file."""
    environ = {**os.environ, "JUPYTER_RUNTIME_DIR": str(folder / "runtime"), "JUPYTER_PLATFORM_DIRS": "0"}
    environ |= {f"JUPYTER_{part}_DIR": str(folder / part) for part in ("CONFIG", "DATA")}
    environ |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "lab"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "lab")}
    settings = [f"--ServerApp.root_dir={root}", "--ServerApp.port=0", "--ServerApp.ip=127.0.0.1", "--no-browser"]
    with (folder / f"{name}.log").open("wb") as log:
        command = [sys.executable, "-m", "jupyterlab", "--allow-root", *settings, *options]
        return subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=subprocess.STDOUT)


def connect_lab(process: subprocess.Popen[bytes], folder: Path, name: str) -> Lab:
    """Wait until a server has started, and log in with its token, or with the password if it has none."""
    log, server_file = folder / f"{name}.log", folder / "runtime" / f"jpserver-{process.pid}.json"
    while not (server_file.is_file() and server_file.read_text().strip().endswith("}")):
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    server = json.loads(server_file.read_text())
    lab = Lab(server["url"], requests.Session())
    lab.session.trust_env = False
    if token := server["token"]:
        lab.session.headers["Authorization"] = f"token {token}"
        return lab
    page = lab.session.get(f"{lab.url}login")
    xsrf = re.findall(r'name="_xsrf" value="([^"]+)"', page.text)[0]
    lab.session.post(f"{lab.url}login", data={"password": PASSWORD, "_xsrf": xsrf}).raise_for_status()
    lab.session.headers["X-XSRFToken"] = lab.session.cookies["_xsrf"]
    return lab
