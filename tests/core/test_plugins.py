"""Plugins: who is asked, in which order, and what a bad one can do (nothing)."""

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
NEWS: dict[str, dict[str, Any]] = {
    "status_changed": {"execution": EXECUTION, "update": UPDATE},
    "asset_registered": {"execution": EXECUTION, "asset": STAGED},
    "outputs_uploaded": {"execution": EXECUTION, "report": UploadReport(sent={})},
}

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution of one module with one entry point where importlib finds installed ones."""
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
    """The built-ins, and these after them."""
    manager = load_plugins({})
    for plugin in plugins:
        manager.register(plugin)
    return manager


# ---- each hook, as an installed plugin answers it


@pytest.mark.filterwarnings("ignore::deriva_ml_core.errors.DerivaMLWarning")  # of this clone's own state
def test_hook_detect_source(install: Install) -> None:
    """An installed plugin says where the code is before any built-in, from the environment that it is given."""
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
    ask = load_plugins({}).hook.detect_source
    found = ask(script=Path(__file__), environ={"FORGE": "https://forge.example.org"})
    assert found == SourceCode(url="https://forge.example.org/test_plugins.py", kind="forge")
    assert ask(script=Path(__file__), environ={}).kind == "script"


def test_hook_connect(install: Install, tmp_path: Path) -> None:
    """An installed plugin answers for its own scheme, and may exchange one half of another's backend."""
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
    ask = load_plugins({}).hook.connect
    assert ask(address=Address(hostname="own://here")) == "mine"
    backend = ask(address=Address(hostname=f"file:{tmp_path / 'catalog'}"))
    assert isinstance(backend, Backend)
    assert backend.store == "its store"
    assert backend.catalog.model.vocabulary("Workflow_Type")
    backend.catalog.close()


def test_hook_describe_environment(install: Install) -> None:
    """What each plugin contributes is kept under its name, beside what the built-in found."""
    install(
        "cluster",
        """
        @hookimpl
        def describe_environment(environ):
            return {"job": environ["JOB"]} if "JOB" in environ else None
        """,
    )
    manager = load_plugins({})
    given = collect(manager, "describe_environment", {"environ": {"JOB": "4711"}})
    assert given["cluster"] == {"job": "4711"}
    assert set(given) == {"cluster", "environment"}
    assert "cluster" not in collect(manager, "describe_environment", {"environ": {}})


class Listener:
    """Hears all news, by heart."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, object]] = []

    @hookimpl
    def status_changed(self, execution: ExecutionInfo, update: StatusUpdate) -> None:
        self.heard.append(("status_changed", execution.rid, update))

    @hookimpl
    def asset_registered(self, execution: ExecutionInfo, asset: StagedAsset) -> None:
        self.heard.append(("asset_registered", execution.rid, asset))

    @hookimpl
    def outputs_uploaded(self, execution: ExecutionInfo, report: UploadReport) -> None:
        self.heard.append(("outputs_uploaded", execution.rid, report))


def tell(hook: str) -> list[tuple[str, str, object]]:
    """What a listener hears of one piece of news."""
    listener = Listener()
    notify(load_with(listener), hook, NEWS[hook])
    return listener.heard


def test_hook_status_changed() -> None:
    """A listener hears a status with the execution that it is of."""
    assert tell("status_changed") == [("status_changed", "1-4A2C", UPDATE)]


def test_hook_asset_registered() -> None:
    """A listener hears of a staged file."""
    assert tell("asset_registered") == [("asset_registered", "1-4A2C", STAGED)]


def test_hook_outputs_uploaded() -> None:
    """A listener hears what an upload did."""
    assert tell("outputs_uploaded") == [("outputs_uploaded", "1-4A2C", UploadReport(sent={}))]


def test_a_hook_may_take_fewer_arguments() -> None:
    """A plugin names only the arguments that it needs, so that new ones can be added."""
    heard = []

    class Brief:
        @hookimpl
        def status_changed(self, update: StatusUpdate) -> None:
            heard.append(update)

    notify(load_with(Brief()), "status_changed", NEWS["status_changed"])
    assert heard == [UPDATE]


# ---- a plugin that fails


class Broken:
    """Fails at everything."""

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
@pytest.mark.parametrize("hook", NEWS)
def test_broken_at_news(hook: str, error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """A listener that raises or exits is named in the log, and those told before and after it still hear."""
    before, after = Listener(), Listener()
    manager = load_with(after)
    manager.register(Broken(error), name="spiller")
    manager.register(before)
    notify(manager, hook, NEWS[hook])
    assert len(before.heard) == len(after.heard) == 1
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "deriva_ml_core.plugins.manager")
    assert "'spiller'" in record.message
    assert hook in record.message
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize("error", [RuntimeError("spilled"), SystemExit(3)], ids=["exception", "exit"])
def test_broken_at_a_contribution(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """A contribution that fails is named in the log and left out; the others are kept."""
    manager = load_plugins({})
    manager.register(Broken(error), name="spiller")
    given = collect(manager, "describe_environment", {"environ": {}})
    assert set(given) == {"environment"}
    assert "'spiller'" in caplog.text


@pytest.mark.parametrize(
    ("hook", "arguments"),
    [("detect_source", {"script": None, "environ": {}}), ("connect", {"address": Address(hostname="x://y")})],
)
def test_broken_at_a_question(hook: str, arguments: dict[str, Any]) -> None:
    """A question that fails goes up as it is: a run must not begin with the second-best answer."""
    error = RuntimeError("spilled")
    with pytest.raises(RuntimeError) as caught:
        getattr(load_with(Broken(error)).hook, hook)(**arguments)
    assert caught.value is error


# ---- loading


def test_installed_are_asked_before_built_ins(install: Install) -> None:
    """Whatever their names, installed plugins come after the built-ins in the register, and so are asked first."""
    install("aaa", "@hookimpl\ndef describe_environment(environ): return {}")
    install("zzz", "@hookimpl\ndef describe_environment(environ): return {}")
    names = [plugin.name for plugin in list_plugins(load_plugins({}))]
    assert names == [*DEFAULT_PLUGINS, "aaa", "zzz"]


def test_listed_with_distribution_and_hooks(install: Install) -> None:
    """A list of the plugins says where each came from and what it answers."""
    install("forge", "@hookimpl\ndef detect_source(script): ...\n@hookimpl\ndef connect(address): ...")
    *built_in, installed = list_plugins(load_plugins({}))
    assert (installed.name, installed.distribution) == ("forge", "installed_forge")
    assert installed.hooks == ("connect", "detect_source")
    assert {plugin.distribution for plugin in built_in} == {None}
    assert all(plugin.hooks for plugin in built_in)


def test_misspelt_hook(install: Install) -> None:
    """A hook that does not exist is an error at load, which names the plugin, the word, and the way out."""
    install("clumsy", "@hookimpl\ndef detect_sorce(script): ...")
    with pytest.raises(PluginError, match=r"(?s)'clumsy'.*detect_sorce.*DERIVA_ML_DISABLED_PLUGINS=clumsy"):
        load_plugins({})


def test_unknown_argument(install: Install) -> None:
    """So is an argument that the hook does not have."""
    install("clumsy", "@hookimpl\ndef detect_source(scripts): ...")
    with pytest.raises(PluginError, match=r"(?s)'clumsy'.*scripts"):
        load_plugins({})


@pytest.mark.parametrize(
    ("code", "reason"),
    [("import no_such_library", "no_such_library"), ("1 / 0", "division"), ("def", "syntax"), ("exit(1)", "1")],
)
def test_cannot_be_imported(install: Install, code: str, reason: str) -> None:
    """An entry point that cannot be imported is an error that names the plugin, the reason, and the way out."""
    install("torn", code)
    with pytest.raises(PluginError, match=rf"(?s)'torn'.*{reason}.*DERIVA_ML_DISABLED_PLUGINS=torn"):
        load_plugins({})


@pytest.mark.parametrize("hook", [*NEWS, "describe_environment"])
def test_only_questions_are_wrapped(install: Install, hook: str) -> None:
    """A wrapper around news or a contribution could silence the others: it is refused at load."""
    install("muffler", f"@hookimpl(wrapper=True)\ndef {hook}():\n    yield")
    with pytest.raises(PluginError, match=rf"'muffler'.*wraps {hook}"):
        load_plugins({})


def test_forgotten_mark(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    """A plugin that answers no hook, as one whose author forgot ``@hookimpl``, is named in the log."""
    install("mute", "def status_changed(update): ...")
    load_plugins({})
    (record,) = caplog.records
    assert "'mute'" in record.message
    assert "hookimpl" in record.message


@pytest.mark.parametrize("name", ["connect", "twin"])
def test_name_taken(install: Install, name: str) -> None:
    """A second plugin of one name, a built-in's too, is an error instead of being passed over."""
    install("twin", "@hookimpl\ndef connect(address): ...", entry=name)
    install("other", "@hookimpl\ndef connect(address): ...", entry="twin")
    with pytest.raises(PluginError, match=f"{name!r}.*another plugin has that name"):
        load_plugins({})


@pytest.mark.parametrize("listed", ["torn", "jsonl, torn", "torn,,connect"])
def test_blocked_by_name(install: Install, listed: str) -> None:
    """DERIVA_ML_DISABLED_PLUGINS keeps a plugin from being imported at all."""
    install("torn", "1 / 0")
    manager = load_plugins({"DERIVA_ML_DISABLED_PLUGINS": listed})
    assert "torn" not in {plugin.name for plugin in list_plugins(manager)}
    assert "installed_torn" not in sys.modules


def test_blocked_built_in() -> None:
    """A built-in can be blocked too."""
    names = {plugin.name for plugin in list_plugins(load_plugins({"DERIVA_ML_DISABLED_PLUGINS": "source_script"}))}
    assert names == set(DEFAULT_PLUGINS) - {"source_script"}


def test_loaded_once() -> None:
    """The process has one register of plugins; `load_plugins` makes others, which share nothing with it."""
    mine = load_with(Listener())
    assert plugin_manager() is plugin_manager()
    assert len(list_plugins(mine)) == len(list_plugins(plugin_manager())) + 1
