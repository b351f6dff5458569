"""Workflows: source detection, registration, lookup and changes in the catalog."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError
from repositories import Repository

from deriva_ml_core import workflow as workflows
from deriva_ml_core.client import DerivaML
from deriva_ml_core.connection import Connection, open_connection
from deriva_ml_core.errors import (
    CatalogReadOnly,
    ConfigurationError,
    DerivaMLWarning,
    NotReproducible,
    PluginError,
    UnknownRID,
    UnknownTerm,
    UnknownWorkflow,
    WrongTable,
)
from deriva_ml_core.models import Address, SourceCode
from deriva_ml_core.plugins import hookimpl, load_plugins
from deriva_ml_core.workflow import (
    CatalogWorkflow,
    Workflow,
    create_workflow,
    find_workflows,
    lookup_workflow,
    lookup_workflow_by_url,
    register_workflow,
)
from waits import HANG

URL = "https://github.com/org/repo/blob/abc/train.py"
CHECKSUM = "0123456789012345678901234567890123456789"


class FixedSource:
    """A plugin that returns a fixed value and records its arguments."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.calls: list[tuple[Path | None, Mapping[str, str]]] = []

    @hookimpl
    def detect_source(self, script: Path | None, environ: Mapping[str, str]) -> object:
        self.calls.append((script, environ))
        return self.answer


class UncallablePlugin:
    """A plugin that fails the test when it is called."""

    @hookimpl
    def detect_source(self) -> None:
        raise AssertionError("called")


def plugins(plugin: object) -> object:
    """Return the built-in plugins and one installed plugin."""
    manager = load_plugins({"DERIVA_ML_DISABLED_PLUGINS": ""})
    manager.register(plugin, "test")
    return manager


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    """A new embedded catalog."""
    return open_connection(Address(hostname=f"file:{tmp_path / 'catalog'}"))


def make_workflow(url: str = "", checksum: str = "", name: str = "Train", workflow_type: str = "Training") -> Workflow:
    """Create a workflow with a source; without URL and checksum it is an interactive one."""
    source = SourceCode(url=url, checksum=checksum, kind="test")
    return create_workflow(name, workflow_type, "What it does", plugins=plugins(FixedSource(source)), environ={})  # type: ignore[arg-type]


def rows(connection: Connection) -> list[dict[str, object]]:
    return connection.catalog.select("Workflow", {})


# where the code is


def test_explicit_url_disables_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a URL, no plugin is called and the environment variables are ignored."""
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_URL", "https://other")
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_CHECKSUM", "other")
    monkeypatch.setattr(workflows, "plugin_manager", lambda: plugins(UncallablePlugin()))
    workflow = Workflow(name="Custom Pipeline", workflow_type="Training", url=URL, checksum="abc123def456")
    assert (workflow.url, workflow.checksum, workflow.version) == (URL, "abc123def456", None)
    assert workflow.source == SourceCode(url=URL, checksum="abc123def456", kind="explicit")
    assert Workflow(name="a", workflow_type="b", url=URL).checksum == ""


def test_explicit_url_needs_no_git(tmp_path: Path) -> None:
    """With a URL, nothing fails or warns outside git, and git is not loaded."""
    code = (
        "import sys; from deriva_ml_core.workflow import Workflow\n"
        "Workflow(name='a', workflow_type='b', url='https://x'); print('git' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_environment_variables_precede_plugins() -> None:
    """The variables take precedence over every plugin."""
    environ = {"DERIVA_ML_WORKFLOW_URL": URL, "DERIVA_ML_WORKFLOW_CHECKSUM": CHECKSUM}
    workflow = create_workflow("a", "Training", plugins=plugins(UncallablePlugin()), environ=environ)  # type: ignore[arg-type]
    assert workflow.source == SourceCode(url=URL, checksum=CHECKSUM, kind="environment")
    assert (workflow.url, workflow.checksum) == (URL, CHECKSUM)


def test_plain_workflow_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain ``Workflow(…)`` reads the variables; its own checksum takes precedence."""
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_URL", URL)
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_CHECKSUM", "other")
    assert Workflow(name="a", workflow_type="b").checksum == "other"
    assert Workflow(name="a", workflow_type="b", checksum=CHECKSUM).checksum == CHECKSUM


def test_checksum_variable_alone() -> None:
    """A checksum in the environment replaces the detected one; the rest is detected."""
    found = SourceCode(url=URL, checksum="found", version="1", kind="test")
    manager = plugins(FixedSource(found))
    environ = {"DERIVA_ML_WORKFLOW_CHECKSUM": CHECKSUM}
    assert create_workflow("a", "b", plugins=manager, environ=environ).source == found.model_copy(
        update={"checksum": CHECKSUM}
    )  # type: ignore[arg-type]


def test_order_of_detection(repository: Repository) -> None:
    """Installed plugin, container, notebook, script: the first that detects a source wins."""
    script = repository.write("train.py", "1")
    repository.commit()
    docker = {"DERIVA_MCP_IN_DOCKER": "true", "DERIVA_MCP_IMAGE_NAME": "image", "DERIVA_MCP_IMAGE_DIGEST": "sha256:1"}
    source = SourceCode(url="https://plugin", kind="plugin")
    knows, passes = plugins(FixedSource(source)), plugins(FixedSource(None))
    kinds = [
        create_workflow("a", "b", script=script, plugins=manager, environ=environ).source.kind  # type: ignore[arg-type]
        for manager, environ in ((knows, docker), (passes, docker), (passes, {}))
    ]
    assert kinds == ["plugin", "container", "script"]
    inside = create_workflow("a", "b", script=script, plugins=passes, environ=docker)  # type: ignore[arg-type]
    assert (inside.url, inside.checksum, inside.source.path) == ("image@sha256:1", "sha256:1", script)


def test_plugin_gets_the_running_file() -> None:
    """The hook gets this test's file and the environment that was passed."""
    answer = FixedSource(SourceCode(url=URL))
    create_workflow("a", "b", plugins=plugins(answer), environ={"A": "1"})  # type: ignore[arg-type]
    assert answer.calls == [(Path(__file__), {"A": "1"})]


def test_explicit_script(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``Workflow(script=…)`` records that file, relative to the working directory; a missing file is an error."""
    repository.write("other script.py", "1")
    commit = repository.commit()
    monkeypatch.chdir(repository.root)
    workflow = Workflow(name="a", workflow_type="b", script=Path("other script.py"))
    assert workflow.url == f"https://github.com/org/repo/blob/{commit}/other%20script.py"
    assert workflow.source.repository == repository.root
    with pytest.raises(ConfigurationError, match=r"nowhere\.py is not a file"):
        Workflow(name="a", workflow_type="b", script=tmp_path / "nowhere.py")


def test_same_code_gives_equal_workflows(repository: Repository) -> None:
    """Two workflows of the same committed script are equal and have the same hash."""
    script = repository.write("train.py", "1")
    repository.commit()
    one, two = (Workflow(name="a", workflow_type="b", script=script) for _ in range(2))
    assert one == two
    assert len({one, two}) == 1


def test_require_clean_in_the_constructor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git_settings: Path) -> None:
    """``DERIVA_ML_REQUIRE_CLEAN=1`` makes a plain ``Workflow(…)`` raise NotReproducible, not a pydantic error."""
    script = tmp_path / "train.py"
    script.write_text("1")
    with pytest.warns(DerivaMLWarning, match="in no git repository"):
        assert Workflow(name="a", workflow_type="b", script=script).url == script.as_uri()
    monkeypatch.setenv("DERIVA_ML_REQUIRE_CLEAN", "1")
    with pytest.raises(NotReproducible):
        Workflow(name="a", workflow_type="b", script=script)


@pytest.mark.parametrize("answer", ["https://x", 1, {"url": "https://x"}])
def test_plugin_returns_a_wrong_type(answer: object) -> None:
    """A value that is not a SourceCode is an error that shows it."""
    with pytest.raises(PluginError, match="not a SourceCode"):
        create_workflow("a", "b", plugins=plugins(FixedSource(answer)), environ={})  # type: ignore[arg-type]


def test_workflow_is_frozen() -> None:
    """Fields cannot be assigned, and unknown fields are refused."""
    workflow = make_workflow(URL)
    with pytest.raises(ValidationError):
        workflow.description = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Workflow(name="a", workflow_type="b", url=URL, checksm="x")  # type: ignore[call-arg]


def test_workflow_is_serializable() -> None:
    """Pickled or read from JSON, a workflow is the same, and nothing is detected again."""
    workflow = make_workflow(URL, CHECKSUM)
    assert pickle.loads(pickle.dumps(workflow)) == workflow
    assert pickle.loads(pickle.dumps(workflow)).source == workflow.source
    again = Workflow.model_validate_json(workflow.model_dump_json())
    assert (again.url, again.checksum, again.source.kind) == (URL, CHECKSUM, "explicit")


def test_hydra_zen_builds_a_workflow() -> None:
    """hydra-zen can build a configuration from the signature."""
    hydra_zen = pytest.importorskip("hydra_zen", reason="needs hydra-zen")
    configured = hydra_zen.builds(Workflow, name="ResNet50", workflow_type="Training", populate_full_signature=True)
    assert hydra_zen.instantiate(configured, url=URL).url == URL


def test_the_signature_is_explicit() -> None:
    """Every field has a name, a type and a default in the constructor's signature."""
    import inspect

    parameters = inspect.signature(Workflow).parameters
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    assert list(parameters) == ["name", "workflow_type", "description", "url", "checksum", "version", "script", "rid"]
    assert required == ["name", "workflow_type"]


# the catalog


def test_new_workflow_gets_a_row(connection: Connection) -> None:
    """All fields are written, and lookup returns them."""
    source = SourceCode(url=URL, checksum=CHECKSUM, version="1.2.3")
    workflow = create_workflow("Train", "Training", "What", plugins=plugins(FixedSource(source)), environ={})  # type: ignore[arg-type]
    rid = register_workflow(connection, workflow)
    (row,) = rows(connection)
    expected = {
        "RID": rid,
        "Name": "Train",
        "Description": "What",
        "URL": URL,
        "Checksum": CHECKSUM,
        "Version": "1.2.3",
        "Workflow_Type": "Training",
    }
    assert expected.items() <= row.items()
    back = lookup_workflow(connection, rid)
    assert (back.name, back.workflow_type, back.description) == ("Train", "Training", "What")
    assert (back.url, back.checksum, back.version, back.rid) == (URL, CHECKSUM, "1.2.3", rid)


@pytest.mark.parametrize(
    ("url", "checksum"), [(URL, CHECKSUM), (URL, "other"), ("https://other", CHECKSUM), (URL, ""), ("", CHECKSUM)]
)
def test_same_url_or_checksum_matches(connection: Connection, url: str, checksum: str) -> None:
    """One of the two is enough to match, and nothing is written."""
    rid = register_workflow(connection, make_workflow(URL, CHECKSUM))
    before = rows(connection)
    assert register_workflow(connection, make_workflow(url, checksum)) == rid
    assert rows(connection) == before


@pytest.mark.parametrize(("url", "checksum"), [("https://other", "other"), ("https://other", ""), ("", "other")])
def test_different_url_and_checksum_make_a_new_row(connection: Connection, url: str, checksum: str) -> None:
    """With nothing in common, a second row is inserted; an empty checksum matches nothing."""
    register_workflow(connection, make_workflow(URL, ""))
    first = register_workflow(connection, make_workflow("https://first", CHECKSUM))
    second = register_workflow(connection, make_workflow(url, checksum))
    assert second != first
    assert len(rows(connection)) == 3
    assert register_workflow(connection, make_workflow(url, checksum)) == second


def test_checksum_takes_precedence(connection: Connection) -> None:
    """If the URL matches one row and the checksum another, the checksum decides, whichever row is older."""
    by_url = register_workflow(connection, make_workflow(URL, "a"))
    by_checksum = register_workflow(connection, make_workflow("https://other", "b"))
    assert register_workflow(connection, make_workflow(URL, "b")) == by_checksum
    assert register_workflow(connection, make_workflow("https://other", "a")) == by_url
    assert len(rows(connection)) == 2


def test_file_url_matches_by_checksum_only(connection: Connection) -> None:
    """A ``file:`` URL does not match; its checksum does."""
    first = register_workflow(connection, make_workflow("file:///home/me/train.py", "a"))
    assert register_workflow(connection, make_workflow("file:///home/me/train.py", "b")) != first
    assert register_workflow(connection, make_workflow("file:///elsewhere/train.py", "a")) == first
    assert register_workflow(connection, make_workflow(URL, "a")) == first


def test_interactive_workflow_is_always_new(connection: Connection) -> None:
    """Workflows without URL and checksum never match."""
    assert register_workflow(connection, make_workflow()) != register_workflow(connection, make_workflow())
    assert [(row["URL"], row["Checksum"]) for row in rows(connection)] == [(None, None)] * 2


@pytest.mark.parametrize(("name", "workflow_type"), [("Other", "Training"), ("Train", "Inference")])
def test_other_name_warns(connection: Connection, name: str, workflow_type: str) -> None:
    """The row is used unchanged; the warning names both."""
    rid = register_workflow(connection, make_workflow(URL))
    before = rows(connection)
    with pytest.warns(
        DerivaMLWarning, match=rf"workflow {rid}, 'Train' \(Training\).*{name!r} \({workflow_type}\)"
    ) as caught:
        assert register_workflow(connection, make_workflow(URL, name=name, workflow_type=workflow_type)) == rid
    assert len(caught) == 1
    assert rows(connection) == before


def test_unknown_workflow_type(connection: Connection) -> None:
    """The type is refused before anything is written; the error lists the known ones and the call that adds one."""
    known = r"'Trainign'.*Annotation, Evaluation, Inference, Preprocessing, Training"
    with pytest.raises(UnknownTerm, match=known + r".*ml\.add_term\('Workflow_Type', name, description\)"):
        register_workflow(connection, make_workflow(URL, workflow_type="Trainign"))
    assert rows(connection) == []


def register_in_process(folder: str, start: object, found: object) -> None:
    """Register the same workflow at the same moment as the other processes."""
    connection = open_connection(Address(hostname=f"file:{folder}"))
    start.wait()  # type: ignore[attr-defined]
    workflow = Workflow(name="Train", workflow_type="Training", url=URL, checksum=CHECKSUM)
    found.put(register_workflow(connection, workflow))  # type: ignore[attr-defined]


def test_concurrent_registration(connection: Connection, tmp_path: Path) -> None:
    """Eight processes that register the same code at once get one row."""
    context = multiprocessing.get_context("spawn")
    start, found = context.Barrier(8), context.Queue()
    workers = [
        context.Process(target=register_in_process, args=(str(tmp_path / "catalog"), start, found)) for _ in range(8)
    ]
    for worker in workers:
        worker.start()
    rids = {found.get(timeout=HANG) for _ in workers}
    for worker in workers:
        worker.join(HANG)
    assert rids == {row["RID"] for row in rows(connection)}
    assert len(rids) == 1


def test_registering_an_existing_workflow(connection: Connection) -> None:
    """Registering a workflow with a RID returns that RID, if it names a workflow."""
    rid = register_workflow(connection, make_workflow(URL))
    assert register_workflow(connection, lookup_workflow(connection, rid)) == rid
    assert register_workflow(connection, Workflow(name="a", workflow_type="b", rid=rid)) == rid
    with pytest.raises(UnknownRID):
        register_workflow(connection, Workflow(name="a", workflow_type="b", rid="1-XYZ"))


def test_lookups(connection: Connection) -> None:
    """Workflows are found by RID, URL and checksum; find_workflows lists all, the oldest first."""
    first = register_workflow(connection, make_workflow(URL, CHECKSUM))
    second = register_workflow(connection, make_workflow())
    assert lookup_workflow_by_url(connection, URL).rid == lookup_workflow_by_url(connection, CHECKSUM).rid == first
    assert [workflow.rid for workflow in find_workflows(connection)] == [first, second]
    assert all(isinstance(workflow, CatalogWorkflow) for workflow in find_workflows(connection))
    for nothing in ("https://nowhere", ""):
        with pytest.raises(UnknownWorkflow, match="has the URL or checksum"):
            lookup_workflow_by_url(connection, nothing)
    with pytest.raises(UnknownRID, match="1-XYZ"):
        lookup_workflow(connection, "1-XYZ")
    term = connection.catalog.select("Workflow_Type", {})[0]["RID"]
    with pytest.raises(WrongTable, match="Workflow_Type"):
        lookup_workflow(connection, term)


def test_lookup_detects_nothing(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins and variables do not affect a workflow from the catalog, not even an interactive one."""
    rid = register_workflow(connection, make_workflow())
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_URL", "https://other")
    monkeypatch.setattr(workflows, "plugin_manager", lambda: plugins(UncallablePlugin()))
    assert (lookup_workflow(connection, rid).url, find_workflows(connection)[0].checksum) == ("", "")


def test_assignment_writes_to_the_catalog(connection: Connection) -> None:
    """Assigned descriptions and types are in the row at once."""
    rid = register_workflow(connection, make_workflow(URL))
    workflow = lookup_workflow(connection, rid)
    workflow.description = "Updated: now includes data augmentation"
    workflow.workflow_type = "Inference"
    assert (workflow.description, workflow.workflow_type) == ("Updated: now includes data augmentation", "Inference")
    (row,) = rows(connection)
    assert (row["Description"], row["Workflow_Type"]) == (workflow.description, "Inference")


@pytest.mark.parametrize(
    ("name", "value"), [("url", "x"), ("checksum", "x"), ("name", "x"), ("rid", "1"), ("typo", "x"), ("description", 3)]
)
def test_other_assignments_are_refused(connection: Connection, name: str, value: object) -> None:
    """Fields that record what was run cannot be assigned; the error names those that can."""
    workflow = lookup_workflow(connection, register_workflow(connection, make_workflow(URL)))
    before = rows(connection)
    with pytest.raises(CatalogReadOnly, match="Only description and workflow_type"):
        setattr(workflow, name, value)
    assert rows(connection) == before


def test_unknown_type_is_not_assigned(connection: Connection) -> None:
    """The error lists the known types; neither row nor object changes."""
    workflow = lookup_workflow(connection, register_workflow(connection, make_workflow(URL)))
    with pytest.raises(UnknownTerm, match="Training"):
        workflow.workflow_type = "Trainign"
    assert workflow.workflow_type == rows(connection)[0]["Workflow_Type"] == "Training"


def test_assignment_to_a_deleted_row(connection: Connection) -> None:
    """A workflow whose row was deleted cannot be changed."""
    workflow = lookup_workflow(connection, register_workflow(connection, make_workflow(URL)))
    connection.catalog.delete("Workflow", {})
    with pytest.raises(UnknownRID, match="was deleted"):
        workflow.description = "x"


def test_workflow_at_a_snapshot(connection: Connection) -> None:
    """A RID with a snapshot returns the workflow of that time, which cannot be changed."""
    rid = register_workflow(connection, make_workflow(URL))
    snapshot = connection.catalog.snapshot()
    lookup_workflow(connection, rid).description = "later"
    past = lookup_workflow(connection, f"{rid}@{snapshot}")
    assert past.description == "What it does"
    with pytest.raises(CatalogReadOnly):
        past.description = "rewritten"


def test_pickled_workflow_has_no_catalog(connection: Connection) -> None:
    """In another process the workflow has the same values, without a connection."""
    workflow = lookup_workflow(connection, register_workflow(connection, make_workflow(URL, CHECKSUM)))
    again = pickle.loads(pickle.dumps(workflow))
    assert type(again) is Workflow
    assert again.model_dump() == workflow.model_dump()
    assert register_workflow(connection, again) == workflow.rid


def test_same_script_run_twice(tmp_path: Path, repository: Repository) -> None:
    """A committed script that runs twice, from different folders, has one workflow."""
    script = repository.write(
        "src/models/train.py",
        "import json\nfrom deriva_ml_core.client import DerivaML\n"
        "ml = DerivaML()\nworkflow = ml.create_workflow('ResNet50 Training', 'Training', 'Fine-tune')\n"
        "print(json.dumps([ml.add_workflow(workflow), workflow.url, workflow.checksum]))\n",
    )
    commit = repository.commit()
    found = [
        json.loads(subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, check=True).stdout)
        for folder in (repository.root, tmp_path)
    ]
    assert found[0] == found[1]
    assert found[0][1:] == [f"https://github.com/org/repo/blob/{commit}/src/models/train.py", repository.hash(script)]


def test_create_workflow_of_the_client(connection: Connection) -> None:
    """``create_workflow`` refuses an unknown type, and uses the client's plugins."""
    manager = plugins(FixedSource(SourceCode(url=URL)))
    ml = DerivaML(plugins=manager)  # type: ignore[arg-type]
    with pytest.raises(UnknownTerm, match="Training"):
        ml.create_workflow("a", "Trainign")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        workflow = ml.create_workflow(name="a", workflow_type="Training", description="b")
    rid = ml.add_workflow(workflow)
    assert ml.lookup_workflow(rid).url == ml.lookup_workflow_by_url(URL).url == ml.find_workflows()[0].url == URL
