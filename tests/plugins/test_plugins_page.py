"""plugins/README.md: the example of each hook works in a real run."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pluggy
import pytest

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core import hookspecs
from deriva_ml_core.plugins import list_plugins, load_plugins
from pages import code_blocks

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


def test_writing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The plugin and its test work as shown."""
    module, use = code_blocks(PAGE, "python", section="Writing one")
    (tmp_path / "my_plugin.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, DerivaML] = {}
    exec(use, names)
    assert "my_plugin" in capsys.readouterr().out
    with names["ml"].create_execution(configuration()) as execution:
        execution.asset_file_path("Model", "best.pt")
    assert capsys.readouterr().out == f"{execution.execution_rid} will keep best.pt in Model\n"


@pytest.mark.filterwarnings("ignore::deriva_ml_core.errors.DerivaMLWarning")  # of this clone's own state
def test_detect_source() -> None:
    """The example returns the source of an engine's task; otherwise the built-in plugins do."""
    ask = with_example("detect_source").hook.detect_source
    script = Path(__file__)
    environ = {"ENGINE_TASK_URL": "https://engine.example.org/4", "ENGINE_TASK_SHA1": "0" * 40}
    found = ask(script=script, environ=environ)
    assert (found.url, found.checksum, found.path, found.kind) == (*environ.values(), script, "engine")
    assert ask(script=script, environ={}).kind == "script"


def test_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each uploaded object is copied to the mirror."""
    monkeypatch.setenv("MIRROR", str(tmp_path / "mirror"))
    ml = DerivaML(plugins=with_example("connect"))
    with ml.create_execution(configuration()) as execution:
        execution.asset_file_path("Model", "deep/best.pt").write_bytes(b"weights")
    (asset,) = execution.upload_execution_outputs()["Model"]
    copy = tmp_path / "mirror" / "Model" / f"{asset.md5}.best.pt"
    assert copy.read_bytes() == b"weights"
    ml.verify_asset(asset)


def test_describe_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch job is in the environment snapshot, under the plugin's name."""
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    execution = DerivaML(plugins=with_example("describe_environment")).create_execution(configuration())
    (snapshot,) = (asset for asset in execution.list_assets() if asset.filename.startswith("environment_snapshot"))
    recorded = json.loads(execution.download_asset(snapshot, tmp_path).read_text())
    assert recorded["example_describe_environment"] == {"SLURM_JOB_ID": "4711"}


@dataclass
class ChatRoom:
    """A chat room that collects messages."""

    url: str
    messages: list[str] = field(default_factory=list)


@pytest.fixture
def room() -> Iterator[ChatRoom]:
    """A chat room behind a real web server."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            open_room.messages.append(json.loads(body)["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        open_room = ChatRoom(f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield open_room
        server.shutdown()
        thread.join()


def test_status_changed(room: ChatRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chat room gets a message about a failure, with its reason, and no other message."""
    monkeypatch.setenv("CHAT_ROOM", room.url)
    ml = DerivaML(plugins=with_example("status_changed"))
    with ml.create_execution(configuration()):
        pass
    with pytest.raises(RuntimeError), ml.create_execution(configuration()) as execution:
        raise RuntimeError("out of paper")
    assert room.messages == [f"{execution.execution_rid} failed: RuntimeError: out of paper"]


def test_asset_registered(caplog: pytest.LogCaptureFixture) -> None:
    """The log names each registered file once."""
    ml = DerivaML(plugins=with_example("asset_registered"))
    with caplog.at_level(logging.INFO, "promises"), ml.create_execution(configuration()) as execution:
        for _ in range(2):
            execution.asset_file_path("Model", "best.pt", asset_types=["Model_File", "Derived"])
    promised = [record.getMessage() for record in caplog.records if record.name == "promises"]
    assert promised == [f"{execution.execution_rid} promises best.pt (Model_File, Derived)"]


def test_outputs_uploaded() -> None:
    """The list of checksums has each uploaded file once, in the format of ``md5sum``."""
    with DerivaML(plugins=with_example("outputs_uploaded")).create_execution(configuration()) as execution:
        execution.asset_file_path("Model", "best.pt").write_bytes(b"weights")
        execution.asset_file_path("Execution_Asset", "notes.txt").write_bytes(b"none")
    for _ in range(2):
        execution.upload_execution_outputs()
    sums = (execution.working_dir / "sent.md5").read_text().splitlines()
    expected = {"best.pt": b"weights", "notes.txt": b"none"}
    assert sorted(sums) == sorted(f"{hashlib.md5(sent).hexdigest()}  {name}" for name, sent in expected.items())


def test_examples_implement_their_hooks() -> None:
    """Each hook's section shows a plugin that implements this hook and no other."""
    for spec in (hookspecs.FirstResultHooks, hookspecs.CollectHooks, hookspecs.NotificationHooks):
        for hook in (name for name in vars(spec) if not name.startswith("_")):
            assert list_plugins(with_example(hook))[-1].hooks == (hook,)
