"""Plugins: loading, order of calls, and isolation of failures."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent
from typing import Any

import pluggy
import pytest

from deriva_ml_core.backend import Backend
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import PluginError
from deriva_ml_core.models import Address, ExecutionInfo, SourceCode, StagedAsset, StatusUpdate, UploadReport
from deriva_ml_core.plugins import hookimpl, list_plugins, load_plugins, plugin_manager
from deriva_ml_core.plugins.manager import DEFAULT_PLUGINS, collect, notify

EXECUTION = ExecutionInfo(rid="1-4A2C", url="file:///home#1-4A2C", status=Status.running)
UPDATE = StatusUpdate(status=Status.running, message="Epoch 1/2", time=datetime(2026, 11, 22, tzinfo=UTC))
STAGED = StagedAsset(key="1", table="Model", filename="best.pt", path=Path("best.pt"), asset_types=("Model",))
NOTIFICATIONS: dict[str, dict[str, Any]] = {
    "status_changed": {"execution": EXECUTION, "update": UPDATE},
    "asset_registered": {"execution": EXECUTION, "asset": STAGED},
    "outputs_uploaded": {"execution": EXECUTION, "report": UploadReport(sent={})},
}

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution with one module and one entry point where importlib finds it."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(name: str, code: str, *, entry: str | None = None) -> Path:
        module = f"installed_{name}"
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text("from deriva_ml_core.plugins import hookimpl\n" + dedent(code))
        metadata = tmp_path / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {module}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[deriva_ml]\n{entry or name} = {module}\n")
        return tmp_path / f"{module}.py"

    return put


def load_with(*plugins: object) -> pluggy.PluginManager:
    """Return a manager with the built-ins and these plugins."""
    manager = load_plugins({})
    for plugin in plugins:
        manager.register(plugin)
    return manager


# ---- each hook, implemented by an installed plugin


@pytest.mark.filterwarnings("ignore::deriva_ml_core.errors.DerivaMLWarning")  # of this clone's own state
def test_hook_detect_source(install: Install) -> None:
    """An installed plugin detects the source before any built-in, from the environment passed to it."""
    install(
        "forge",
        """
        from deriva_ml_core.models import SourceCode

        @hookimpl
        def detect_source(script, environ):
            if forge := environ.get("FORGE"):
                return SourceCode(url=f"{forge}/{script.name}", kind="forge")
        """,
    )
    call = load_plugins({}).hook.detect_source
    source = call(script=Path(__file__), environ={"FORGE": "https://forge.example.org"})
    assert source == SourceCode(url="https://forge.example.org/test_plugins.py", kind="forge")
    assert call(script=Path(__file__), environ={}).kind == "script"


def test_hook_connect(install: Install, tmp_path: Path) -> None:
    """An installed plugin serves its own scheme, and can replace one half of another plugin's backend."""
    install(
        "own",
        """
        @hookimpl
        def connect(address):
            if address.hostname == "own://here":
                return "mine"
        """,
    )
    install(
        "half",
        """
        from dataclasses import replace

        @hookimpl(wrapper=True)
        def connect(address):
            backend = yield
            return backend if isinstance(backend, str) else replace(backend, store="its store")
        """,
    )
    call = load_plugins({}).hook.connect
    assert call(address=Address(hostname="own://here")) == "mine"
    backend = call(address=Address(hostname=f"file:{tmp_path / 'catalog'}"))
    assert isinstance(backend, Backend)
    assert backend.store == "its store"
    assert backend.catalog.model.vocabulary("Workflow_Type")
    backend.catalog.close()


def test_hook_describe_environment(install: Install) -> None:
    """Each plugin's result is recorded under its name, next to that of the built-in."""
    install(
        "cluster",
        """
        @hookimpl
        def describe_environment(environ):
            return {"job": environ["JOB"]} if "JOB" in environ else None
        """,
    )
    manager = load_plugins({})
    results = collect(manager, "describe_environment", {"environ": {"JOB": "4711"}})
    assert results["cluster"] == {"job": "4711"}
    assert set(results) == {"cluster", "environment"}
    assert "cluster" not in collect(manager, "describe_environment", {"environ": {}})


class Listener:
    """Records all notifications."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, object]] = []

    @hookimpl
    def status_changed(self, execution: ExecutionInfo, update: StatusUpdate) -> None:
        self.received.append(("status_changed", execution.rid, update))

    @hookimpl
    def asset_registered(self, execution: ExecutionInfo, asset: StagedAsset) -> None:
        self.received.append(("asset_registered", execution.rid, asset))

    @hookimpl
    def outputs_uploaded(self, execution: ExecutionInfo, report: UploadReport) -> None:
        self.received.append(("outputs_uploaded", execution.rid, report))


def notify_listener(hook: str) -> list[tuple[str, str, object]]:
    """Return what a listener receives for one notification."""
    listener = Listener()
    notify(load_with(listener), hook, NOTIFICATIONS[hook])
    return listener.received


def test_hook_status_changed() -> None:
    """A listener receives a status with its execution."""
    assert notify_listener("status_changed") == [("status_changed", "1-4A2C", UPDATE)]


def test_hook_asset_registered() -> None:
    """A listener receives a staged file."""
    assert notify_listener("asset_registered") == [("asset_registered", "1-4A2C", STAGED)]


def test_hook_outputs_uploaded() -> None:
    """A listener receives the report of an upload."""
    assert notify_listener("outputs_uploaded") == [("outputs_uploaded", "1-4A2C", UploadReport(sent={}))]


def test_hook_with_fewer_arguments() -> None:
    """A plugin names only the arguments that it needs, so that new ones can be added."""
    received = []

    class Brief:
        @hookimpl
        def status_changed(self, update: StatusUpdate) -> None:
            received.append(update)

    notify(load_with(Brief()), "status_changed", NOTIFICATIONS["status_changed"])
    assert received == [UPDATE]


# ---- a plugin that fails


class Broken:
    """Fails in every hook."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @hookimpl
    def detect_source(self) -> SourceCode:
        raise self.error

    @hookimpl
    def connect(self) -> Backend:
        raise self.error

    @hookimpl
    def describe_environment(self) -> Mapping[str, str]:
        raise self.error

    @hookimpl
    def status_changed(self) -> None:
        raise self.error

    @hookimpl
    def asset_registered(self) -> None:
        raise self.error

    @hookimpl
    def outputs_uploaded(self) -> None:
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("spilled"), SystemExit(3)], ids=["exception", "exit"])
@pytest.mark.parametrize("hook", NOTIFICATIONS)
def test_failing_notification(hook: str, error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """A listener that raises or exits is named in the log; the listeners before and after it are called."""
    before, after = Listener(), Listener()
    manager = load_with(after)
    manager.register(Broken(error), name="spiller")
    manager.register(before)
    notify(manager, hook, NOTIFICATIONS[hook])
    assert len(before.received) == len(after.received) == 1
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "deriva_ml_core.plugins.manager")
    assert "'spiller'" in record.message
    assert hook in record.message
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize("error", [RuntimeError("spilled"), SystemExit(3)], ids=["exception", "exit"])
def test_failing_collected_hook(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """A collected hook that fails is logged by plugin name and left out; other results are used."""
    manager = load_plugins({})
    manager.register(Broken(error), name="spiller")
    results = collect(manager, "describe_environment", {"environ": {}})
    assert set(results) == {"environment"}
    assert "'spiller'" in caplog.text


@pytest.mark.parametrize(
    ("hook", "arguments"),
    [("detect_source", {"script": None, "environ": {}}), ("connect", {"address": Address(hostname="x://y")})],
)
def test_failing_first_result_hook(hook: str, arguments: dict[str, Any]) -> None:
    """An exception of a first-result hook propagates: a run must not start with the second-best result."""
    error = RuntimeError("spilled")
    with pytest.raises(RuntimeError) as caught:
        getattr(load_with(Broken(error)).hook, hook)(**arguments)
    assert caught.value is error


# ---- loading


def test_installed_plugins_are_called_before_built_ins(install: Install) -> None:
    """Installed plugins are registered after the built-ins, and so called first, whatever their names."""
    install("aaa", "@hookimpl\ndef describe_environment(environ): return {}")
    install("zzz", "@hookimpl\ndef describe_environment(environ): return {}")
    names = [plugin.name for plugin in list_plugins(load_plugins({}))]
    assert names == [*DEFAULT_PLUGINS, "aaa", "zzz"]


def test_list_plugins(install: Install) -> None:
    """The list has the distribution and the hooks of each plugin."""
    install("forge", "@hookimpl\ndef detect_source(script): ...\n@hookimpl\ndef connect(address): ...")
    *built_in, installed = list_plugins(load_plugins({}))
    assert (installed.name, installed.distribution) == ("forge", "installed_forge")
    assert installed.hooks == ("connect", "detect_source")
    assert {plugin.distribution for plugin in built_in} == {None}
    assert all(plugin.hooks for plugin in built_in)


def test_unknown_hook(install: Install) -> None:
    """An unknown hook raises at load; the message names the plugin, the hook and the remedy."""
    install("clumsy", "@hookimpl\ndef detect_sorce(script): ...")
    with pytest.raises(PluginError, match=r"(?s)'clumsy'.*detect_sorce.*DERIVA_ML_DISABLED_PLUGINS=clumsy"):
        load_plugins({})


def test_unknown_argument(install: Install) -> None:
    """An unknown argument of a hook raises at load."""
    install("clumsy", "@hookimpl\ndef detect_source(scripts): ...")
    with pytest.raises(PluginError, match=r"(?s)'clumsy'.*scripts"):
        load_plugins({})


@pytest.mark.parametrize(
    ("code", "reason"),
    [("import no_such_library", "no_such_library"), ("1 / 0", "division"), ("def", "syntax"), ("exit(1)", "1")],
)
def test_import_error(install: Install, code: str, reason: str) -> None:
    """A plugin that cannot be imported raises an error with its name, the reason and the remedy."""
    install("torn", code)
    with pytest.raises(PluginError, match=rf"(?s)'torn'.*{reason}.*DERIVA_ML_DISABLED_PLUGINS=torn"):
        load_plugins({})


@pytest.mark.parametrize("hook", [*NOTIFICATIONS, "describe_environment"])
def test_only_first_result_hooks_can_be_wrapped(install: Install, hook: str) -> None:
    """A wrapper of another hook is rejected at load, since it could suppress other plugins."""
    install("muffler", f"@hookimpl(wrapper=True)\ndef {hook}():\n    yield")
    with pytest.raises(PluginError, match=rf"'muffler'.*wraps {hook}"):
        load_plugins({})


def test_plugin_without_hookimpl(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    """A plugin that implements no hook, for example without ``@hookimpl``, is named in the log."""
    install("mute", "def status_changed(update): ...")
    load_plugins({})
    (record,) = caplog.records
    assert "'mute'" in record.message
    assert "hookimpl" in record.message


@pytest.mark.parametrize("name", ["connect", "twin"])
def test_duplicate_name(install: Install, name: str) -> None:
    """A second plugin with the same name as another or a built-in raises."""
    install("twin", "@hookimpl\ndef connect(address): ...", entry=name)
    install("other", "@hookimpl\ndef connect(address): ...", entry="twin")
    with pytest.raises(PluginError, match=f"{name!r}.*another plugin has that name"):
        load_plugins({})


@pytest.mark.parametrize("listed", ["torn", "jsonl, torn", "torn,,connect"])
def test_disable_by_name(install: Install, listed: str) -> None:
    """DERIVA_ML_DISABLED_PLUGINS prevents the import of a plugin."""
    install("torn", "1 / 0")
    manager = load_plugins({"DERIVA_ML_DISABLED_PLUGINS": listed})
    assert "torn" not in {plugin.name for plugin in list_plugins(manager)}
    assert "installed_torn" not in sys.modules


def test_disable_built_in() -> None:
    """A built-in can be disabled."""
    names = {plugin.name for plugin in list_plugins(load_plugins({"DERIVA_ML_DISABLED_PLUGINS": "source_script"}))}
    assert names == set(DEFAULT_PLUGINS) - {"source_script"}


def test_plugins_are_loaded_once() -> None:
    """The process has one plugin manager; `load_plugins` creates separate ones."""
    mine = load_with(Listener())
    assert plugin_manager() is plugin_manager()
    assert len(list_plugins(mine)) == len(list_plugins(plugin_manager())) + 1
