"""Where the code is in a notebook: the file that a running Jupyter server has open for this kernel."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deriva_ml_core.git import file_source
from deriva_ml_core.models import SourceCode
from deriva_ml_core.plugins.manager import hookimpl
from deriva_ml_core.user_warnings import warn_not_reproducible

NOTEBOOK_VARIABLE = "DERIVA_ML_NOTEBOOK_PATH"
"""The environment variable that names the notebook where no server can."""

_REQUEST_TIMEOUT = 2.0
_TOTAL_TIMEOUT = 6.0


@hookimpl
def detect_source(script: Path | None, environ: Mapping[str, str]) -> SourceCode | None:
    """Answer in a notebook's kernel, and for a script that is a notebook."""
    if script:
        return file_source(script, "notebook", environ) if script.suffix == ".ipynb" else None
    kernel = _current_kernel()
    if kernel is None:
        return None
    if notebook := _find_notebook(kernel, environ):
        return file_source(notebook, "notebook", environ)
    warn_not_reproducible(
        "No running Jupyter server says which notebook this is, so this run is recorded but cannot be repeated. "
        f"Set {NOTEBOOK_VARIABLE} to the notebook's file, or DERIVA_ML_WORKFLOW_URL and DERIVA_ML_WORKFLOW_CHECKSUM.",
        environ,
    )
    return SourceCode(kind="interactive")


def _current_kernel() -> Any | None:
    """This process's kernel, where it is one."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None)


def _find_notebook(kernel: Any, environ: Mapping[str, str]) -> Path | None:
    return next(filter(None, map(_existing_notebook, _candidate_paths(kernel, environ))), None)


def _candidate_paths(kernel: Any, environ: Mapping[str, str]) -> Iterator[str | None]:
    """What may be the notebook's path, the surest first: a session's name does not change when the notebook's does."""
    yield environ.get(NOTEBOOK_VARIABLE)
    yield kernel.shell.user_ns.get("__vsc_ipynb_file__")
    yield from _session_paths(environ)
    yield environ.get("JPY_SESSION_NAME")


def _existing_notebook(name: str | None) -> Path | None:
    file = Path(name).expanduser().absolute() if name else None
    return file if file and file.suffix == ".ipynb" and file.is_file() else None


def _session_paths(environ: Mapping[str, str]) -> Iterator[str]:
    """The paths that the running servers have open for this kernel."""
    from ipykernel.connect import get_connection_file

    kernel_id = Path(get_connection_file()).stem.removeprefix("kernel-")
    for server in _iter_servers():
        token = server.get("token") or environ.get("JUPYTERHUB_API_TOKEN", "")
        for path in _paths_for_kernel(_fetch_sessions(str(server.get("url", "")), token), kernel_id):
            # jupyter-collaboration names its drive before the path
            yield str(Path(server.get("root_dir") or server.get("notebook_dir") or "", path.removeprefix("RTC:")))


def _paths_for_kernel(sessions: Any, kernel_id: str) -> Iterator[str]:
    """The paths that sessions have open for a kernel; who answers at a port that a server once had may say anything."""
    for session in sessions if isinstance(sessions, list) else []:
        match session:
            case {"kernel": {"id": str(found)}, "path": str(path)} if found == kernel_id and path:
                yield path
            case {"kernel": {"id": str(found)}, "notebook": {"path": str(path)}} if found == kernel_id:
                yield path


def _iter_servers() -> Iterator[dict[str, Any]]:
    """What the servers say of themselves: first the one that started this process, then the newest.

    A home folder that machines share is full of servers that cannot be reached, so not all are asked.
    """
    from jupyter_core.paths import jupyter_runtime_dir

    deadline = time.monotonic() + _TOTAL_TIMEOUT
    found = []
    for name in ("jpserver", "nbserver"):
        for file in Path(jupyter_runtime_dir()).glob(f"{name}-*.json"):
            with suppress(OSError):  # that server has just ended
                found.append((file.stem.endswith(f"-{os.getppid()}"), file.stat().st_mtime, file))
    for _, _, file in sorted(found, reverse=True):
        with suppress(OSError, ValueError):
            server = json.loads(file.read_text())
            if isinstance(server, dict) and time.monotonic() < deadline:
                yield server


def _fetch_sessions(url: str, token: str) -> Any:
    """What a server says of its sessions; None where it says nothing. No proxy is asked, no redirection followed."""
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
        answer = connection.getresponse()
        return json.loads(answer.read()) if answer.status == 200 else None
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
