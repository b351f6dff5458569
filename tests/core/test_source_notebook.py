"""Source detection for notebooks outside a kernel."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from repositories import Repository

from deriva_ml_core.plugins.builtin.source_notebook import _fetch_sessions, _paths_for_kernel, detect_source

NOTEBOOK = {
    "cells": [{"cell_type": "code", "id": "0", "metadata": {}, "execution_count": 3, "outputs": [], "source": ["1"]}],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.mark.parametrize("length", [10**12, 2])
def test_server_without_end(length: int) -> None:
    """A Jupyter server's response is read up to 16 MiB; a usual one is read whole."""
    sent = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal sent
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(b"[]")
                while sent < length - 2:
                    sent += self.wfile.write(b" " * 2**20)

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        sessions = _fetch_sessions(f"http://127.0.0.1:{server.server_port}/", "")
        server.shutdown()
    assert sessions == (None if length > 2 else [])
    assert sent < 64 * 2**20


def test_not_in_a_kernel(tmp_path: Path) -> None:
    """A script, and an interactive session without a kernel, are left to other plugins."""
    assert detect_source(tmp_path / "train.py", {}) is None
    assert detect_source(None, {"DERIVA_ML_NOTEBOOK_PATH": str(tmp_path / "a.ipynb")}) is None


def test_explicit_notebook(repository: Repository) -> None:
    """``Workflow(script=notebook)`` has the checksum of the stripped notebook, whatever its outputs."""
    file = repository.write("a b.ipynb", json.dumps(NOTEBOOK))
    subprocess.run([sys.executable, "-m", "nbstripout", str(file)], check=True)
    commit = repository.commit()
    source = detect_source(file, {})
    assert source
    assert source.url == f"https://github.com/org/repo/blob/{commit}/a%20b.ipynb"
    assert (source.kind, source.checksum, source.dirty) == (
        "notebook",
        repository.git("rev-parse", "HEAD:a b.ipynb"),
        False,
    )
    file.write_text(json.dumps(NOTEBOOK))
    assert detect_source(file, {}) == source


def test_notebook_committed_with_outputs(repository: Repository) -> None:
    """A notebook that only ran is clean, as it is compared without outputs."""
    file = repository.write("a.ipynb", json.dumps(NOTEBOOK))
    repository.commit()
    before = detect_source(file, {})
    content = json.loads(json.dumps(NOTEBOOK))
    content["cells"][0] |= {"execution_count": 4, "id": "other"}
    file.write_text(json.dumps(content))
    assert before
    assert detect_source(file, {}) == before
    assert not before.dirty
    content["cells"][0]["source"] = ["2"]
    file.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="differs"):
        after = detect_source(file, {})
    assert after
    assert after.dirty
    assert after.checksum != before.checksum


@pytest.mark.parametrize("url", ["http://localhost:port/", "http://[::1/", "file:///etc/", ""])
def test_invalid_server_address(url: str) -> None:
    """An invalid address in a runtime file is ignored."""
    assert _fetch_sessions(url, "") is None


@pytest.mark.parametrize("response", [None, 3, {"message": "Forbidden"}, [None, {"kernel": None, "path": "a.ipynb"}]])
def test_unexpected_response_of_a_server(response: object) -> None:
    """A response that is not a list of sessions names no notebook."""
    assert list(_paths_for_kernel(response, "k")) == []


def test_sessions_of_old_and_new_servers() -> None:
    """The path is read from the session, or from its notebook as old servers send it."""
    new, old = {"path": "a.ipynb"}, {"path": "", "notebook": {"path": "b.ipynb"}}
    sessions = [{"kernel": {"id": name}, **session} for name in ("k", "l") for session in (new, old)]
    assert list(_paths_for_kernel(sessions, "k")) == ["a.ipynb", "b.ipynb"]
