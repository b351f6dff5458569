"""Built-in plugin that detects the source in a notebook: the file that a Jupyter server has open for this kernel."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deriva_ml_core.git import file_source
from deriva_ml_core.models import SourceCode
from deriva_ml_core.paths import expand_home, leads_nowhere
from deriva_ml_core.plugins.manager import hookimpl
from deriva_ml_core.user_warnings import warn_not_reproducible

if TYPE_CHECKING:
    from http.client import HTTPResponse

NOTEBOOK_VARIABLE = "DERIVA_ML_NOTEBOOK_PATH"
"""The environment variable that names the notebook if no server does."""

_REQUEST_TIMEOUT = 2.0
_TOTAL_TIMEOUT = 6.0
_MAX_RESPONSE_SIZE = 16 * 2**20


@hookimpl
def detect_source(script: Path | None, environ: Mapping[str, str]) -> SourceCode | None:
    """Return the notebook in a Jupyter kernel, or if the script is a notebook."""
    if script:
        return file_source(script, "notebook", environ) if script.suffix == ".ipynb" else None
    kernel = _current_kernel()
    if kernel is None:
        return None
    if notebook := _find_notebook(kernel, environ):
        return file_source(notebook, "notebook", environ)
    warn_not_reproducible(
        "No running Jupyter server knows this notebook's file, so this run is recorded but cannot be repeated. "
        f"Set {NOTEBOOK_VARIABLE} to the file, or set DERIVA_ML_WORKFLOW_URL and DERIVA_ML_WORKFLOW_CHECKSUM.",
        environ,
    )
    return SourceCode(kind="interactive")


def _current_kernel() -> Any | None:
    """Return the Jupyter kernel of this process, or None."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None)


def _find_notebook(kernel: Any, environ: Mapping[str, str]) -> Path | None:
    return next(filter(None, map(_existing_notebook, _candidate_paths(kernel, environ))), None)


def _candidate_paths(kernel: Any, environ: Mapping[str, str]) -> Iterator[str | None]:
    """Yield candidates for the notebook's path, the most reliable first.

    The session name comes last, as it stays the same when the notebook is renamed.
    """
    yield environ.get(NOTEBOOK_VARIABLE)
    yield kernel.shell.user_ns.get("__vsc_ipynb_file__")
    yield from _session_paths(environ)
    yield environ.get("JPY_SESSION_NAME")


def _existing_notebook(name: str | None) -> Path | None:
    if not name or leads_nowhere(file := expand_home(Path(name))):
        return None
    file = file.absolute()
    return file if file.suffix == ".ipynb" and file.is_file() else None


def _session_paths(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the paths that the running servers have open for this kernel."""
    from ipykernel.connect import get_connection_file

    kernel_id = Path(get_connection_file()).stem.removeprefix("kernel-")
    for server in _iter_servers():
        token = server.get("token") or environ.get("JUPYTERHUB_API_TOKEN", "")
        for path in _paths_for_kernel(_fetch_sessions(str(server.get("url", "")), token), kernel_id):
            # jupyter-collaboration puts the drive's name before the path
            yield str(Path(server.get("root_dir") or server.get("notebook_dir") or "", path.removeprefix("RTC:")))


def _paths_for_kernel(sessions: Any, kernel_id: str) -> Iterator[str]:
    """Yield the paths that sessions have open for a kernel.

    The response is validated, as another program may use the port that a server once had.
    """
    for session in sessions if isinstance(sessions, list) else []:
        match session:
            case {"kernel": {"id": str(session_kernel)}, "path": str(path)} if session_kernel == kernel_id and path:
                yield path
            case {"kernel": {"id": str(session_kernel)}, "notebook": {"path": str(path)}} if (
                session_kernel == kernel_id
            ):
                yield path


def _iter_servers() -> Iterator[dict[str, Any]]:
    """Yield the runtime files of Jupyter servers: first that of this process's parent, then the newest.

    A home folder shared between machines holds files of many unreachable servers, so the search stops after a timeout.
    """
    from jupyter_core.paths import jupyter_runtime_dir

    deadline = time.monotonic() + _TOTAL_TIMEOUT
    files = []
    for name in ("jpserver", "nbserver"):
        for file in Path(jupyter_runtime_dir()).glob(f"{name}-*.json"):
            with suppress(OSError):  # that server has just ended
                files.append((file.stem.endswith(f"-{os.getppid()}"), file.stat().st_mtime, file))
    for _, _, file in sorted(files, reverse=True):
        with suppress(OSError, ValueError):
            server = json.loads(file.read_text())
            if isinstance(server, dict) and time.monotonic() < deadline:
                yield server


def _read_body(response: HTTPResponse) -> bytes:
    """Read a response of at most `_MAX_RESPONSE_SIZE` bytes within `_TOTAL_TIMEOUT` seconds."""
    deadline = time.monotonic() + _TOTAL_TIMEOUT
    body = bytearray()
    while piece := response.read1(2**16):
        body += piece
        if len(body) > _MAX_RESPONSE_SIZE or time.monotonic() > deadline:
            raise OSError("the response is too large or too slow")
    return bytes(body)


def _fetch_sessions(url: str, token: str) -> Any:
    """Fetch a server's sessions, without proxies and redirects; None if it does not answer."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(host, port, timeout=_REQUEST_TIMEOUT)
    try:
        headers = {"Authorization": f"token {token}"} if token else {}
        connection.request("GET", f"{parts.path.rstrip('/')}/api/sessions", headers=headers)
        response = connection.getresponse()
        return json.loads(_read_body(response)) if response.status == 200 else None
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
