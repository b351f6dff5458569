"""plugins/README.md: the example of each hook, in a real run, does what the page says."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
import pytest

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core import hookspecs
from deriva_ml_core.plugins import list_plugins, load_plugins
from deriva_ml_core.testing import CatalogContract, ObjectStoreContract
from pages import blocks, code_blocks

PAGE = Path(__file__).parents[2] / "plugins" / "README.md"


def example(hook: str) -> ModuleType:
    """Return the module that the page shows for a hook."""
    (code,) = code_blocks(PAGE, "python", section=f"`{hook}`")
    module = ModuleType(f"example_{hook}")
    exec(compile(code, f"{PAGE.name}:{hook}", "exec"), vars(module))
    return module


def with_example(hook: str) -> pluggy.PluginManager:
    plugins = load_plugins({})
    plugins.register(example(hook), name=f"example_{hook}")
    return plugins


def configuration() -> ExecutionConfiguration:
    workflow = Workflow(name="Page", workflow_type="Training", url="https://example.org/page.py", checksum="0" * 40)
    return ExecutionConfiguration(workflow=workflow, description="An example")


@pytest.fixture
def my_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's first plugin, importable as ``my_plugin``."""
    (module,) = code_blocks(PAGE, "python", section="Writing a plugin")
    (tmp_path / "my_plugin.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_plugin", raising=False)


def test_testing_a_plugin(my_plugin: None, capsys: pytest.CaptureFixture[str]) -> None:
    """The program that tests the plugin runs, the plugin is called, and the output is the one on the page."""
    setup, recording, _ = code_blocks(PAGE, "python", section="Testing a plugin")
    (expected,) = code_blocks(PAGE, "text", section="Testing a plugin")
    names: dict[str, Any] = {}
    exec(setup, names)
    assert "my_plugin" in capsys.readouterr().out
    exec(recording, names)
    called, *printed = capsys.readouterr().out.splitlines()
    assert called == f"{names['execution'].execution_rid} will keep best.pt in Model"
    assert printed == expected.splitlines()


def test_testing_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test file for a backend subclasses both contract suites and overrides a fixture that they have."""
    (block,) = (block for block in blocks(PAGE) if block.title == "test_my_backend.py")
    backend = ModuleType("my_backend")
    vars(backend).update(MyCatalog=object, MyStore=object)
    monkeypatch.setitem(sys.modules, "my_backend", backend)
    names: dict[str, Any] = {}
    exec(block.code, names)
    assert issubclass(names["TestMyStore"], ObjectStoreContract)
    assert issubclass(names["TestMyCatalog"], CatalogContract)
    assert "store" in vars(ObjectStoreContract)
    assert hasattr(CatalogContract, "open_catalog")


@pytest.mark.filterwarnings("ignore::deriva_ml_core.errors.DerivaMLWarning")  # about the state of this clone
def test_detect_source() -> None:
    """The engine's variables name the source; without them the built-ins answer."""
    ask = with_example("detect_source").hook.detect_source
    script = Path(__file__)
    environ = {"ENGINE_TASK_URL": "https://engine.example.org/4", "ENGINE_TASK_SHA1": "0" * 40}
    source = ask(script=script, environ=environ)
    assert (source.url, source.checksum, source.path, source.kind) == (*environ.values(), script, "engine")
    assert ask(script=script, environ={}).kind == "script"


def test_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each object that a run uploads is also on the second disk, complete."""
    monkeypatch.setenv("MIRROR", str(tmp_path / "mirror"))
    ml = DerivaML(plugins=with_example("connect"))
    with ml.create_execution(configuration()) as execution:
        execution.asset_file_path("Model", "deep/best.pt").write_bytes(b"weights")
    (asset,) = execution.upload_execution_outputs()["Model"]
    copy = tmp_path / "mirror" / "Model" / f"{asset.md5}.best.pt"
    assert copy.read_bytes() == b"weights"
    ml.verify_asset(asset)


def test_describe_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment snapshot has the batch job under the plugin's name."""
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    execution = DerivaML(plugins=with_example("describe_environment")).create_execution(configuration())
    (snapshot,) = (asset for asset in execution.list_assets() if asset.filename.startswith("environment_snapshot"))
    environment = json.loads(execution.download_asset(snapshot, tmp_path).read_text())
    assert environment["example_describe_environment"] == {"SLURM_JOB_ID": "4711"}


@dataclass
class ChatRoom:
    """A chat room that stores what is posted to it."""

    url: str
    messages: list[str] = field(default_factory=list)


@pytest.fixture
def chat_room() -> Iterator[ChatRoom]:
    """A chat room behind a real web server."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            room.messages.append(json.loads(body)["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        room = ChatRoom(f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield room
        server.shutdown()
        thread.join()


def test_status_changed(chat_room: ChatRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chat room receives a failure with its reason, and nothing else."""
    monkeypatch.setenv("CHAT_ROOM", chat_room.url)
    ml = DerivaML(plugins=with_example("status_changed"))
    with ml.create_execution(configuration()):
        pass
    with pytest.raises(RuntimeError), ml.create_execution(configuration()) as execution:
        raise RuntimeError("out of paper")
    assert chat_room.messages == [f"{execution.execution_rid} failed: RuntimeError: out of paper"]


def test_asset_registered(caplog: pytest.LogCaptureFixture) -> None:
    """Each staged file is logged once."""
    ml = DerivaML(plugins=with_example("asset_registered"))
    with caplog.at_level(logging.INFO, "staged"), ml.create_execution(configuration()) as execution:
        for _ in range(2):
            execution.asset_file_path("Model", "best.pt", asset_types=["Model_File", "Derived"])
    logged = [record.getMessage() for record in caplog.records if record.name == "staged"]
    assert logged == [f"{execution.execution_rid} staged best.pt (Model_File, Derived)"]


def test_outputs_uploaded() -> None:
    """The file of checksums has each uploaded file once, in the format of ``md5sum``."""
    with DerivaML(plugins=with_example("outputs_uploaded")).create_execution(configuration()) as execution:
        execution.asset_file_path("Model", "best.pt").write_bytes(b"weights")
        execution.asset_file_path("Execution_Asset", "notes.txt").write_bytes(b"none")
    for _ in range(2):
        execution.upload_execution_outputs()
    sums = (execution.working_dir / "sent.md5").read_text().splitlines()
    contents = {"best.pt": b"weights", "notes.txt": b"none"}
    assert sorted(sums) == sorted(f"{hashlib.md5(content).hexdigest()}  {name}" for name, content in contents.items())


def test_each_hook_has_an_example() -> None:
    """The section of each hook shows a plugin that implements this hook and no other."""
    for spec in (hookspecs.FirstResultHooks, hookspecs.CollectHooks, hookspecs.NotificationHooks):
        for hook in (name for name in vars(spec) if not name.startswith("_")):
            assert list_plugins(with_example(hook))[-1].hooks == (hook,)
