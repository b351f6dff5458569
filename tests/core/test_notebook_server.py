"""Source detection in notebooks, with a real Jupyter server, kernel and notebook."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from repositories import Repository, make_repository

from waits import HANG

pytest.importorskip("jupyter_server", reason="needs a Jupyter server")
pytest.importorskip("ipykernel", reason="needs a Jupyter kernel")
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

NOTEBOOK = "notes/my train.ipynb"
CELLS = (
    "import json, warnings\nwarnings.simplefilter('always')\nfrom deriva_ml_core.workflow import Workflow",
    "with warnings.catch_warnings(record=True) as caught:\n"
    "    workflow = Workflow(name='Notebook', workflow_type='Training')\n"
    "print(json.dumps({'url': workflow.url, 'checksum': workflow.checksum, 'version': workflow.version,\n"
    "    'kind': workflow.source.kind, 'dirty': workflow.source.dirty,\n"
    "    'warnings': [str(one.message) for one in caught]}))",
)


def notebook_json(cells: tuple[str, ...] = CELLS, outputs: dict[int, str] | None = None) -> str:
    """Return a notebook as Jupyter saves it."""
    content = [
        {
            "cell_type": "code",
            "id": secrets.token_hex(4),
            "metadata": {"execution": {"iopub.execute_input": time.time()}} if outputs else {},
            "execution_count": number + 1 if outputs else None,
            "outputs": [{"output_type": "stream", "name": "stdout", "text": [outputs[number]]}]
            if outputs and number in outputs
            else [],
            "source": source.splitlines(keepends=True),
        }
        for number, source in enumerate(cells)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return json.dumps(
        {"cells": content, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}, indent=1
    )


@dataclass
class Server:
    """A running Jupyter server with its files, its token and its log."""

    url: str
    token: str
    runtime: Path
    log: Path

    def request(self, method: str, path: str, content: object = None) -> Any:
        """Send a request to the server's REST API, as a browser does."""
        request = Request(f"{self.url}{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        if content is not None:
            request.data = json.dumps(content).encode()
            request.add_header("Content-Type", "application/json")
        with urlopen(request, timeout=HANG) as answer:
            return json.loads(answer.read() or "null")

    def open(self, path: str) -> tuple[str, BlockingKernelClient]:
        """Open a notebook, which starts its kernel; returns the session's id and a client of the kernel."""
        model = {"path": path, "name": Path(path).name, "type": "notebook", "kernel": {"name": "python3"}}
        session = self.request("POST", "api/sessions", model)
        client = BlockingKernelClient(connection_file=str(self.runtime / f"kernel-{session['kernel']['id']}.json"))
        client.load_connection_file()
        client.start_channels()
        wait_for(client)
        return session["id"], client


def wait_for(client: BlockingKernelClient) -> None:
    """Wait until a kernel answers, although a busy one that misses a heartbeat counts as dead."""
    end = time.monotonic() + 120
    while True:
        try:
            client.wait_for_ready()
        except RuntimeError:
            if time.monotonic() > end:
                raise
        else:
            return


def run(client: BlockingKernelClient, code: str) -> str:
    """Run a cell and return what it printed."""
    printed: list[str] = []

    def note(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            printed.append(message["content"]["text"])

    reply = client.execute_interactive(code, output_hook=note)
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(printed)


def run_all(client: BlockingKernelClient) -> dict[str, Any]:
    """Run the notebook's cells and return what they print about the workflow."""
    return json.loads([run(client, cell) for cell in CELLS][-1])


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Jupyter server on loopback next to a second one, with runtime files of dead and silent servers."""
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "root").mkdir()
    runtime = folder / "runtime"
    runtime.mkdir()
    (runtime / "jpserver-1.json").write_text('{"url": "http://127.0.0.1:9/", "token": "x", "root_dir": "/"}')
    (runtime / "jpserver-2.json").write_text("not json")
    silent = socket.create_server(("127.0.0.1", 0), backlog=99)
    for number in range(4, 9):
        file = runtime / f"jpserver-{number}.json"
        file.write_text(
            json.dumps({"url": f"http://127.0.0.1:{silent.getsockname()[1]}/", "token": "x", "root_dir": "/"})
        )
        os.utime(file, (2**32, 2**32))
    (runtime / "jpserver-3.json").write_text('{"url": "http+unix://%2Fnone", "token": "x", "root_dir": "/"}')
    environ = {**os.environ, "JUPYTER_RUNTIME_DIR": str(runtime)}
    for name in ("CONFIG", "DATA"):
        environ[f"JUPYTER_{name}_DIR"] = str(folder / name)
    environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "DERIVA_ML_HOME": str(folder / "home")}
    # a proxy that is unreachable: the kernel must request the server directly
    environ |= {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    for name in [name for name in environ if name.startswith(("DERIVA_ML_W", "DERIVA_ML_N", "DERIVA_MCP", "PYTEST_"))]:
        del environ[name]
    servers = [start(folder, environ, name) for name in ("root", "other")]
    try:
        yield connected(servers[0], folder, "root", runtime)
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(30)
        silent.close()


def start(folder: Path, environ: dict[str, str], name: str) -> subprocess.Popen[bytes]:
    (folder / name).mkdir(exist_ok=True)
    options = [f"--ServerApp.root_dir={folder / name}", "--ServerApp.port=0", "--ServerApp.ip=127.0.0.1", "--debug"]
    options += ["--no-browser", "--allow-root", "--ServerApp.base_url=/base", "--ServerApp.jpserver_extensions={}"]
    with (folder / f"{name}.log").open("wb") as log:
        command = [sys.executable, "-m", "jupyter_server", *options]
        return subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=subprocess.STDOUT)


def connected(process: subprocess.Popen[bytes], folder: Path, name: str, runtime: Path) -> Server:
    log, described = folder / f"{name}.log", runtime / f"jpserver-{process.pid}.json"
    for _ in range(600):
        if described.is_file() and described.read_text():
            break
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    found = json.loads(described.read_text())
    return Server(found["url"], found["token"], runtime, log)


@pytest.fixture
def notebook(jupyter: Server, request: pytest.FixtureRequest, git_settings: Path) -> Path:
    """A committed notebook in a sub-folder of a repository below the server's root."""
    root = Path(json.loads(next(jupyter.runtime.glob("jpserver-*[0-9][0-9]*.json")).read_text())["root_dir"]).parent
    repository = make_repository(root / "root" / request.node.name)
    repository.write("pyproject.toml", '[project]\nname = "p"\nversion = "0.3.1"\n')
    file = repository.write(NOTEBOOK, notebook_json())
    subprocess.run([sys.executable, "-m", "nbstripout", str(file)], check=True)
    repository.commit()
    return file


def repository_of(notebook: Path) -> Repository:
    return Repository(notebook.parents[1])


def path_in(notebook: Path) -> str:
    return str(notebook.relative_to(notebook.parents[2]))


def test_notebook_is_detected_by_the_server(jupyter: Server, notebook: Path) -> None:
    """The workflow has the URL of the notebook's commit and its hash without outputs, unchanged by each run."""
    _, client = jupyter.open(path_in(notebook))
    first = run_all(client)
    repository = repository_of(notebook)
    assert first == {
        "url": f"https://github.com/org/repo/blob/{repository.head}/notes/my%20train.ipynb",
        "checksum": repository.git("rev-parse", f"HEAD:{NOTEBOOK}"),
        "version": "0.3.1",
        "kind": "notebook",
        "dirty": False,
        "warnings": [],
    }
    content = json.loads(notebook_json(outputs={1: json.dumps(first)}))
    jupyter.request(
        "PUT", f"api/contents/{path_in(notebook).replace(' ', '%20')}", {"type": "notebook", "content": content}
    )
    assert repository.git("diff", "--name-only") == NOTEBOOK
    assert run_all(client) == first
    client.stop_channels()


def test_token_is_sent_in_a_header(jupyter: Server, notebook: Path) -> None:
    """The server's log shows the request for sessions without the token."""
    _, client = jupyter.open(path_in(notebook))
    run_all(client)
    client.stop_channels()
    requests = [line for line in jupyter.log.read_text().splitlines() if "GET" in line and "/api/sessions" in line]
    assert requests
    assert not [line for line in requests if jupyter.token in line]


def test_changed_notebook_is_dirty(jupyter: Server, notebook: Path) -> None:
    """Changed code gives another checksum, and one warning that names the notebook."""
    repository = repository_of(notebook)
    _, client = jupyter.open(path_in(notebook))
    clean = run_all(client)
    notebook.write_text(notebook_json((*CELLS, "1 + 1")))
    dirty = run_all(client)
    client.stop_channels()
    assert dirty["dirty"]
    assert dirty["url"] == clean["url"]
    assert dirty["checksum"] not in (clean["checksum"], repository.hash(notebook))
    assert [str(notebook) in text and "differs" in text for text in dirty["warnings"]] == [True]


def test_renamed_notebook(jupyter: Server, notebook: Path) -> None:
    """The server's path counts, not the name that the kernel was started with, even if the old file exists."""
    session, client = jupyter.open(path_in(notebook))
    before = run_all(client)
    copy = notebook.with_name("copy.ipynb")
    copy.write_text(notebook_json((*CELLS, "'a copy'")))
    path = str(copy.relative_to(notebook.parents[2]))
    jupyter.request("PATCH", f"api/sessions/{session}", {"path": path, "name": copy.name, "type": "notebook"})
    after = run_all(client)
    client.stop_channels()
    assert before["url"].endswith("/my%20train.ipynb")
    assert after["url"] == copy.as_uri()
    assert "in no commit" in after["warnings"][0]


@pytest.fixture
def kernel_without_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockingKernelClient]:
    """A kernel that no server started."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "runtime").mkdir()
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    kernel, client = start_new_kernel(startup_timeout=HANG)
    yield client
    client.stop_channels()
    kernel.shutdown_kernel(now=True)


def test_without_a_server(kernel_without_server: BlockingKernelClient, tmp_path: Path) -> None:
    """One warning says which variables to set; each of them then names the source."""
    found = run_all(kernel_without_server)
    assert (found["url"], found["checksum"], found["kind"]) == ("", "", "interactive")
    (warning,) = found["warnings"]
    for variable in ("DERIVA_ML_NOTEBOOK_PATH", "DERIVA_ML_WORKFLOW_URL", "DERIVA_ML_WORKFLOW_CHECKSUM"):
        assert variable in warning
    named = {name: tmp_path / f"{name}.ipynb" for name in ("session", "code", "path")}
    for name, file in named.items():
        file.write_text(notebook_json((name,)))
    run(kernel_without_server, f"import os; os.environ['JPY_SESSION_NAME'] = {str(named['session'])!r}")
    assert run_all(kernel_without_server)["url"] == named["session"].as_uri()
    run(kernel_without_server, f"__vsc_ipynb_file__ = {str(named['code'])!r}")
    assert run_all(kernel_without_server)["url"] == named["code"].as_uri()
    run(kernel_without_server, f"os.environ['DERIVA_ML_NOTEBOOK_PATH'] = {str(named['path'])!r}")
    found = run_all(kernel_without_server)
    assert (found["url"], found["kind"]) == (named["path"].as_uri(), "notebook")
    run(kernel_without_server, "os.environ['DERIVA_ML_WORKFLOW_URL'] = 'https://example.org/x'")
    run(kernel_without_server, "os.environ['DERIVA_ML_WORKFLOW_CHECKSUM'] = 'abc'")
    found = run_all(kernel_without_server)
    assert (found["url"], found["checksum"], found["kind"], found["warnings"]) == (
        "https://example.org/x",
        "abc",
        "environment",
        [],
    )


def test_require_clean_in_an_unknown_notebook(kernel_without_server: BlockingKernelClient) -> None:
    """With ``DERIVA_ML_REQUIRE_CLEAN=1``, an unknown notebook is an error."""
    run(
        kernel_without_server, "import os; os.environ['DERIVA_ML_REQUIRE_CLEAN'] = '1'; " + CELLS[0].replace("\n", "; ")
    )
    printed = run(
        kernel_without_server,
        "from deriva_ml_core.errors import NotReproducible\n"
        "try:\n    Workflow(name='a', workflow_type='Training')\n"
        "except NotReproducible as error:\n    print(error)",
    )
    assert "DERIVA_ML_NOTEBOOK_PATH" in printed


def test_explicit_script_in_a_notebook(kernel_without_server: BlockingKernelClient, tmp_path: Path) -> None:
    """``Workflow(script=…)`` takes precedence over the notebook."""
    script = tmp_path / "train.py"
    script.write_text("1")
    run(kernel_without_server, CELLS[0])
    run(kernel_without_server, "warnings.simplefilter('ignore')")
    code = f"workflow = Workflow(name='a', workflow_type='Training', script={str(script)!r}); print(workflow.url)"
    assert run(kernel_without_server, code).strip() == script.as_uri()
