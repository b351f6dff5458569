"""Catalogs of other clients, older and newer, behave like the standard ones."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deriva_ml_core.backends.compatibility import CatalogAdapter
from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import MLTable, Status
from deriva_ml_core.errors import ConfigurationError, DerivaMLWarning, UnknownTable
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import DatasetSpec, Progress
from deriva_ml_core.training import TrainingReporter
from deriva_ml_core.workflow import Workflow
from fakes.replay import RECORDINGS
from remote_server import RemoteServer
from sample_run import count_rows, describe_run, record_sample_run


def setup_requests() -> Iterator[dict[str, Any]]:
    with (RECORDINGS / "other_client_setup.jsonl").open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


ACCESS_PATHS = ("/acl", "/schema/public")
"""Requests of the other client that set access for users that another server does not know."""


@pytest.fixture
def older(remote_server: RemoteServer) -> Iterator[str]:
    """Yield a catalog built request by request as another client built it."""
    remote_server.require_new_catalogs()
    number = ""
    for exchange in setup_requests():
        path = exchange["path"].replace("/catalog/8", f"/catalog/{number}")
        payload = json.loads(exchange["request_body"]) if exchange["request_body"] else None
        if remote_server.fake is not None or not path.endswith(ACCESS_PATHS):
            answer = remote_server.send(exchange["method"], path, payload)
            number = number or remote_server.register_catalog(answer["id"])
    yield number
    remote_server.delete_catalog(number)


def send(remote_server: RemoteServer, number: str, method: str, path: str, payload: Any = None) -> Any:
    return remote_server.send(method, f"/ermrest/catalog/{number}{path}", payload)


def column(name: str, kind: str = "text", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": {"typename": kind}, "nullok": True, **more}


SYSTEM = [
    column(name, f"ermrest_{name.lower()}", nullok=name in ("RCB", "RMB"))
    for name in ("RID", "RCT", "RMT", "RCB", "RMB")
]


def reference(table: str, own: str, other: str, key: str, schema: str = "deriva-ml") -> dict[str, Any]:
    return {
        "foreign_key_columns": [{"schema_name": schema, "table_name": table, "column_name": own}],
        "referenced_columns": [{"schema_name": "deriva-ml", "table_name": other, "column_name": key}],
    }


def vocabulary(name: str, columns: tuple[str, ...], schema: str = "deriva-ml") -> dict[str, Any]:
    identity, uri, title, *rest = columns
    return {
        "schema_name": schema,
        "table_name": name,
        "column_definitions": [
            *SYSTEM,
            column(identity, "ermrest_curie", nullok=False, default=f"{name}:{{RID}}"),
            column(uri, "ermrest_uri", nullok=False, default="/id/{RID}"),
            column(title, nullok=False),
            *(column(spec) for spec in rest),
        ],
        "keys": [{"unique_columns": [key]} for key in ("RID", identity, uri, title)],
    }


EXECUTION, WORKFLOW, DATASET_EXECUTION = (
    f"/schema/deriva-ml/table/{table}" for table in ("Execution", "Workflow", "Dataset_Execution")
)


def add_status_vocabulary(remote_server: RemoteServer, number: str) -> None:
    """Make the status of executions a term of a vocabulary that lacks some standard statuses."""
    statuses = ("Created", "Running", "Stopped", "Failed", "Pending_Upload", "Uploaded", "Aborted")
    created = vocabulary("Execution_Status", ("ID", "URI", "Name", "Description", "Synonyms"))
    send(remote_server, number, "POST", "/schema", [created])
    terms = [{"Name": state, "Description": ""} for state in statuses]
    send(remote_server, number, "POST", "/entity/deriva-ml:Execution_Status?defaults=ID,URI", terms)
    send(
        remote_server,
        number,
        "POST",
        f"{EXECUTION}/foreignkey",
        reference("Execution", "Status", "Execution_Status", "Name"),
    )


def add_workflow_type_links(remote_server: RemoteServer, number: str) -> None:
    """Store the types of workflows in a link table."""
    links = {
        "schema_name": "deriva-ml",
        "table_name": "Workflow_Workflow_Type",
        "column_definitions": [*SYSTEM, column("Workflow", nullok=False), column("Workflow_Type", nullok=False)],
        "keys": [{"unique_columns": ["RID"]}, {"unique_columns": ["Workflow", "Workflow_Type"]}],
        "foreign_keys": [
            reference("Workflow_Workflow_Type", "Workflow", "Workflow", "RID"),
            reference("Workflow_Workflow_Type", "Workflow_Type", "Workflow_Type", "Name"),
        ],
    }
    send(remote_server, number, "POST", "/schema", [links])
    send(remote_server, number, "DELETE", f"{WORKFLOW}/foreignkey/Workflow_Type/reference/deriva-ml:Workflow_Type/Name")
    send(remote_server, number, "DELETE", f"{WORKFLOW}/column/Workflow_Type")


def split_duration(remote_server: RemoteServer, number: str) -> None:
    """Replace the duration of executions by three columns."""
    for name in ("Execution_Duration", "Download_Duration", "Upload_Duration"):
        send(remote_server, number, "POST", f"{EXECUTION}/column", column(name))
    send(remote_server, number, "DELETE", f"{EXECUTION}/column/Duration")


def add_input_versions(remote_server: RemoteServer, number: str) -> None:
    """Add the dataset version to the links between datasets and executions."""
    send(remote_server, number, "POST", f"{DATASET_EXECUTION}/column", column("Dataset_Version"))
    key = reference("Dataset_Execution", "Dataset_Version", "Dataset_Version", "RID")
    send(remote_server, number, "POST", f"{DATASET_EXECUTION}/foreignkey", key)


def add_asset_types(remote_server: RemoteServer, number: str) -> None:
    """Add an asset type."""
    send(
        remote_server,
        number,
        "POST",
        "/entity/deriva-ml:Asset_Type?defaults=ID,URI",
        [{"Name": "Metrics_File", "Description": ""}],
    )


def drop_optional_tables(remote_server: RemoteServer, number: str) -> None:
    """Drop tables that a run does not require."""
    for table in ("Dataset_File", "File_Execution", "File_Asset_Type", "File", "Feature_Name"):
        send(remote_server, number, "DELETE", f"/schema/deriva-ml/table/{table}")


NEWER = (add_status_vocabulary, add_workflow_type_links, split_duration, add_input_versions, add_asset_types)


@pytest.fixture
def newer(remote_server: RemoteServer, older: str) -> str:
    """Apply all differences of newer catalogs to the older one."""
    for change in NEWER:
        change(remote_server, older)
    return older


def open_client(remote_server: RemoteServer, number: str) -> DerivaML:
    return remote_server.open(number)


@pytest.fixture(params=["older", "newer"])
def ml(request: pytest.FixtureRequest, remote_server: RemoteServer) -> DerivaML:
    """Return a client for an older or newer catalog, or for one with a single difference."""
    number = request.getfixturevalue(request.param if isinstance(request.param, str) else "older")
    if callable(request.param):
        request.param(remote_server, number)
    return open_client(remote_server, number)


@pytest.fixture
def config(ml: DerivaML) -> ExecutionConfiguration:
    ml.add_term("Workflow_Type", "Training", "Trains")
    ml.add_term("Dataset_Type", "Training", "To train with")
    url = "https://github.com/org/repo/blob/abc/train.py"
    workflow = Workflow(name="Test", workflow_type="Training", url=url, checksum="0" * 40)
    return ExecutionConfiguration(workflow=workflow, description="A test")


@pytest.mark.parametrize("ml", ["older", "newer", *NEWER, drop_optional_tables], indirect=True)
def test_complete_run(ml: DerivaML, config: ExecutionConfiguration, tmp_path: Path) -> None:
    """A run with inputs and outputs is recorded and read."""
    catalog = ml.connection.catalog
    (subject,) = catalog.reserve(1)
    catalog.insert("Subject", [{"RID": subject, "Name": "someone"}])
    exe = ml.create_execution(config)
    with exe:
        exe.update_status(Status.running, "halfway")
        exe.asset_file_path("Model", "m.pt", asset_types=["Model_File"]).write_bytes(b"weights")
        for number in range(3):
            exe.asset_file_path("Image", f"{number}.png", Subject=subject).write_bytes(bytes([number]))
    uploaded = exe.upload_execution_outputs()
    dataset = exe.create_dataset(description="images", dataset_types=["Training"])
    dataset.add_dataset_members([asset.rid for asset in uploaded["Image"]])

    second = ml.create_execution(config.model_copy(update={"datasets": (DatasetSpec(rid=dataset.rid),)}))
    with second:
        bag = second.download_dataset_bag(DatasetSpec(rid=dataset.rid))
        assert len(list(bag.path.rglob("*.png"))) == 3

    execution = ml.lookup_execution(exe.execution_rid)
    assert (execution.status, execution.workflow_rid) == (
        Status.completed,
        ml.lookup_execution(second.execution_rid).workflow_rid,
    )
    assert "sec" in str(execution.duration)
    assert [spec.rid for spec in ml.lookup_execution(second.execution_rid).list_input_datasets()] == [dataset.rid]
    assert {asset.filename for asset in execution.list_assets()} >= {"m.pt", "0.png"}


def test_workflows_have_types(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A workflow's type is stored, found and changed in every kind of catalog."""
    assert isinstance(config.workflow, Workflow)
    rid = ml.add_workflow(config.workflow)
    assert ml.add_workflow(config.workflow) == rid
    assert ml.lookup_workflow(rid).workflow_type == "Training"
    catalog = ml.connection.catalog
    assert [row["RID"] for row in catalog.select("Workflow", {"Workflow_Type": "Training"})] == [rid]
    assert catalog.select("Workflow", {"Workflow_Type": "Embedding"}) == []
    ml.add_term("Workflow_Type", "Inference", "")
    assert catalog.update("Workflow", [{"RID": rid, "Workflow_Type": "Inference"}]) == 1
    assert [row["Workflow_Type"] for row in catalog.select("Workflow", {"RID": rid})] == ["Inference"]


def test_workflow_without_type(remote_server: RemoteServer, newer: str) -> None:
    """A workflow to which another client gave neither type nor name is found, with empty texts."""
    send(remote_server, newer, "POST", "/entity/deriva-ml:Workflow", [{"URL": "https://example.org/x.py"}])
    ml = open_client(remote_server, newer)
    (workflow,) = ml.find_workflows()
    assert (workflow.name, workflow.workflow_type, workflow.url) == ("", "", "https://example.org/x.py")
    assert ml.lookup_workflow(str(workflow.rid)).workflow_type == ""
    (listed,) = ml.list_workflows().workflows
    assert (listed.name, listed.workflow_type) == ("", "")


def test_bag_without_table_of_types(remote_server: RemoteServer, older: str) -> None:
    """A bag of a dataset can be made in a catalog that has no types of datasets."""
    send(remote_server, older, "DELETE", "/schema/deriva-ml/table/Dataset_Dataset_Type")
    dataset = open_client(remote_server, older).create_dataset("empty")
    assert dataset.dataset_types == ()
    assert dataset.download_dataset_bag().path.is_dir()


@pytest.mark.parametrize("status", [*Status])
def test_every_status(remote_server: RemoteServer, newer: str, status: Status) -> None:
    """Each status is written as a term of the catalog, and a terminal one is read as terminal."""
    catalog = open_client(remote_server, newer).connection.catalog
    (rid,) = catalog.reserve(1)
    catalog.insert("Execution", [{"RID": rid, "Status": status}])
    (row,) = catalog.select("Execution", {"RID": rid})
    assert Status(row["Status"]).is_terminal == status.is_terminal
    assert catalog.select("Execution", {"Status": status}) == [row]


@pytest.mark.parametrize(
    ("term", "status"), [("Stopped", "Completed"), ("Uploaded", "Completed"), ("Failed", "Failed")]
)
def test_statuses_of_other_clients(remote_server: RemoteServer, newer: str, term: str, status: str) -> None:
    """Statuses of another client are read as the closest standard status."""
    send(remote_server, newer, "POST", "/entity/deriva-ml:Execution", [{"Status": term}])
    catalog = open_client(remote_server, newer).connection.catalog
    assert [row["Status"] for row in catalog.select("Execution")] == [status]
    assert len(catalog.select("Execution", {"Status": [status]})) == 1


def test_vocabulary_columns_in_other_case(remote_server: RemoteServer, older: str) -> None:
    """A table whose columns differ from a vocabulary's by case only is a vocabulary."""
    columns = ("id", "uri", "name", "description", "synonyms")
    send(remote_server, older, "POST", "/schema", [vocabulary("Colour", columns, "demo-schema")])
    ml = open_client(remote_server, older)
    assert isinstance(ml.connection.catalog, CatalogAdapter)
    ml.add_term("Colour", "red", "like blood")
    (row,) = ml.connection.catalog.select("Colour", {"Name": "red"}, order=("Name",))
    assert (row["Description"], row["ID"]) == ("like blood", f"Colour:{row['RID']}")


def test_new_tables_in_project_schema(remote_server: RemoteServer, older: str) -> None:
    """A new table is created in the schema of the project's tables."""
    ml = open_client(remote_server, older)
    ml.create_asset("Mask")
    assert ml.connection.catalog.model.table("Mask").schema == "demo-schema"


def test_missing_required_column(remote_server: RemoteServer, older: str) -> None:
    """Opening a catalog without a required column raises an error that names it."""
    send(remote_server, older, "DELETE", "/schema/deriva-ml/table/Workflow/column/Checksum")
    with pytest.raises(ConfigurationError, match=r"Workflow\.Checksum"):
        open_client(remote_server, older)


def read_tables(remote_server: RemoteServer, number: str) -> dict[str, dict[str, Any]]:
    """Return the definition of each table, by schema and name."""
    schemas = send(remote_server, number, "GET", "/schema")["schemas"]
    return {
        f"{schema}:{name}": table
        for schema, execution in schemas.items()
        for name, table in execution["tables"].items()
    }


@pytest.mark.parametrize("kind", ["bare", "older", "newer"])
def test_missing_tables_are_added(remote_server: RemoteServer, request: pytest.FixtureRequest, kind: str) -> None:
    """Missing tables and terms are added to an existing catalog in few requests; a repeat changes nothing."""
    remote_server.require_new_catalogs()
    if kind == "bare":
        number = remote_server.register_catalog(remote_server.send("POST", "/ermrest/catalog", {})["id"])
    else:
        number = request.getfixturevalue(kind)
    before = read_tables(remote_server, number)
    requests = remote_server.fake.requests if remote_server.fake else []
    requests.clear()
    ml = DerivaML.create(remote_server.hostname, "demo-schema", catalog_id=number, credential=remote_server.login)
    assert len(requests) <= 11
    assert {"Training", "Inference"} <= ml.list_terms("Workflow_Type").keys()
    assert ml.connection.catalog.model.asset_table("Model").is_asset
    after = read_tables(remote_server, number)
    assert {name: after[name] for name in before} == before
    DerivaML.create(remote_server.hostname, "demo-schema", catalog_id=number, credential=remote_server.login)
    assert read_tables(remote_server, number) == after


def test_catalog_without_metrics_table(remote_server: RemoteServer, newer: str) -> None:
    """A catalog without a metrics table records runs; sorting by metrics names the remedy."""

    def record_run(ml: DerivaML, loss: float) -> str:
        workflow = Workflow(name="W", workflow_type="Training", url="https://example.org/w.py", checksum="7" * 40)
        with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
            exe.update_status(Status.running, "1", progress=Progress(epoch=1, metrics={"loss": loss}))
        return exe.execution_rid

    ml = open_client(remote_server, newer)
    ml.add_term("Workflow_Type", "Training", "To train")
    early = record_run(ml, 3)
    with pytest.raises(ConfigurationError, match=r"Execution_Metric.*DerivaML\.create"):
        ml.find_executions(sort="loss")
    assert ml.lookup_execution(early).list_metrics() == []
    ml = DerivaML.create(remote_server.hostname, "demo-schema", catalog_id=newer, credential=remote_server.login)
    created = [record_run(ml, loss) for loss in (2, 1)]
    execution = ml.find_executions(sort="loss", status=Status.completed, workflow_type="Training")
    assert [execution.execution_rid for execution in execution] == created[::-1]
    ml.restore_execution(early)
    assert [execution.execution_rid for execution in ml.find_executions(sort="loss")] == [*created[::-1], early]


REQUIRED_TABLES = {
    *("Workflow", "Workflow_Type", "Execution", "Asset_Type", "Asset_Role"),
    *("Execution_Metadata", "Execution_Metadata_Execution", "Execution_Metadata_Asset_Type"),
}


@pytest.fixture
def minimal(remote_server: RemoteServer, older: str) -> str:
    """Drop all tables that recording a run does not require, and the link tables of images."""
    for name in read_tables(remote_server, older):
        schema, _, table = name.partition(":")
        if (schema == "deriva-ml" and table not in REQUIRED_TABLES) or table.startswith("Image_"):
            send(remote_server, older, "DELETE", f"/schema/{schema}/table/{table}")
    return older


@pytest.mark.parametrize("kind", ["older", "minimal"])
def test_missing_tables_are_empty(
    remote_server: RemoteServer, request: pytest.FixtureRequest, kind: str, home: Path, tmp_path: Path
) -> None:
    """Every question is answered in a catalog that lacks tables: a missing table reads as empty."""
    ml = open_client(remote_server, request.getfixturevalue(kind))
    ml.add_term("Workflow_Type", "Training", "To train")
    workflow = Workflow(name="W", workflow_type="Training", url="https://example.org/w.py", checksum="7" * 40)
    runs = []
    for description in ("first", "second"):
        with ml.create_execution(ExecutionConfiguration(workflow=workflow, description=description)) as exe:
            exe.asset_file_path("Model", "m.pt").write_text(description)
        exe.upload_execution_outputs()
        runs.append(exe.execution_rid)
    first, second = runs
    run = ml.lookup_execution(first)
    assert (run.list_nested_executions(recurse=True), run.list_parent_executions(), run.list_metrics()) == ([], [], [])
    assert (run.list_input_datasets(), run.list_output_datasets()) == ([], [])
    assert "m.pt" in [asset.filename for asset in run.list_assets("Output")]
    assert ml.describe(first).to_dict()["children"] == []
    assert "m.pt" in ml.export_prov(first)
    assert ml.export(first, tmp_path / "crate").is_dir()
    assert [node.name for node in ml.lineage(first).nodes.values()] == ["first", "m.pt"]
    assert ml.compare(first, second).left == first
    assert ml.verify(first).problems == ml.verify().problems == ()
    assert [each.rid for each in ml.list_executions().executions] == [second, first]
    assert [each.execution_rid for each in ml.find_executions(status=Status.completed)] == [second, first]
    assert ml.find_executions(dataset="1-0000") == ml.find_datasets() == []
    assert ml.list_datasets().datasets == ()
    assert ml.restore_execution(first).status is Status.completed
    here = DerivaML()
    assert here.lookup_execution(ml.push(first, here, make_tables=True).execution).description.startswith("first")
    snapshot = ml.connection.catalog.at(ml.connection.catalog.snapshot())
    assert list(snapshot.pages("Execution_Execution")) == snapshot.select("Execution_Execution") == []
    with pytest.raises(UnknownTable, match=r"no table Execution_Execution.*DerivaML\.create") as raised:
        exe.add_nested_execution(first)
    assert "<" not in str(raised.value)


def test_unknown_table_in_message(remote_server: RemoteServer, older: str) -> None:
    """A message names a table as the catalog does, and not as a member of an enum."""
    with pytest.raises(UnknownTable, match="no table 'Execution_Execution';"):
        DerivaCatalog(remote_server.connect(), older).select(MLTable.nested_execution)
    ml = open_client(remote_server, older)
    with pytest.raises(UnknownTable, match=r"no asset table 'Workflow'.*create_asset\('Workflow'\)"):
        ml.connection.catalog.model.asset_table(MLTable.workflow)
    with pytest.raises(UnknownTable, match=r"no vocabulary 'Workflow'.*create_vocabulary\('Workflow'\)"):
        ml.connection.catalog.model.vocabulary(MLTable.workflow)


def test_unknown_term_of_statuses(remote_server: RemoteServer, newer: str) -> None:
    """A status that only the catalog's vocabulary knows is shown as it is."""
    send(
        remote_server,
        newer,
        "POST",
        "/entity/deriva-ml:Execution_Status?defaults=ID,URI",
        [{"Name": "Archived", "Description": ""}],
    )
    send(remote_server, newer, "POST", "/entity/deriva-ml:Execution", [{"Status": "Archived"}])
    ml = open_client(remote_server, newer)
    assert [row["Status"] for row in ml.connection.catalog.select("Execution")] == ["Archived"]
    (run,) = ml.find_executions()
    assert (run.status, run.status_detail) == (Status.pending, "Unknown status 'Archived'")
    assert ml.find_executions(status=Status.created) == []


def test_catalog_without_parameters_table(
    remote_server: RemoteServer, newer: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a table of parameters, one warning names the remedy; parameters are read from journal or files."""
    workflow = Workflow(name="W", workflow_type="Training", url="https://example.org/w.py", checksum="7" * 40)

    def record_run(ml: DerivaML, lr: float) -> str:
        with ml.create_execution(ExecutionConfiguration(workflow=workflow, parameters={"lr": lr})) as exe:
            exe.log_params({"seed": 1})
            reporter = TrainingReporter(exe, curves=False, checkpoints="none")
            reporter.begin_fit(1, settings={"depth": 3})
            reporter.end_fit()
        exe.upload_execution_outputs()
        return exe.execution_rid

    ml = open_client(remote_server, newer)
    ml.add_term("Workflow_Type", "Training", "To train")
    early = record_run(ml, 0.5)
    warnings = [record.getMessage() for record in caplog.records if "Execution_Parameter" in record.getMessage()]
    assert len(warnings) == 1
    assert "DerivaML.create(" in warnings[0]
    assert ml.lookup_execution(early).params == {"lr": 0.5, "seed": 1, "depth": 3}
    os.rename(ml.lookup_execution(early).working_dir, tmp_path / "aside")
    assert ml.lookup_execution(early).params == {"lr": 0.5, "seed": 1, "depth": 3}
    links = ml.connection.catalog.select("Execution_Metadata", {"Filename": "journal.jsonl"})
    ml.connection.catalog.update("Execution_Metadata", [{"RID": row["RID"], "Filename": "other"} for row in links])
    assert ml.lookup_execution(early).params == {"lr": 0.5, "depth": 3}
    os.rename(tmp_path / "aside", ml.lookup_execution(early).working_dir)
    with pytest.raises(ConfigurationError, match=r"Execution_Parameter.*DerivaML\.create"):
        ml.find_executions(where="lr > 0.1")
    ml = DerivaML.create(remote_server.hostname, "demo-schema", catalog_id=newer, credential=remote_server.login)
    late = record_run(ml, 0.25)
    assert [execution.execution_rid for execution in ml.find_executions(where=["lr < 1", "seed = 1"])] == [late]
    ml.restore_execution(early)
    assert ml.lookup_execution(late).params == {"lr": 0.25, "seed": 1, "depth": 3}
    assert [execution.execution_rid for execution in ml.find_executions(where="seed = 1")] == [late, early]


def test_catalog_without_tags_table(remote_server: RemoteServer, newer: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without a table of tags, there are none, and a write names the owner's command, which adds the table."""
    ml = open_client(remote_server, newer)
    ml.add_term("Workflow_Type", "Training", "To train")
    workflow = Workflow(name="W", workflow_type="Training", url="https://example.org/w.py", checksum="7" * 40)
    with ml.create_execution(ExecutionConfiguration(workflow=workflow, tags=["planned"])) as exe:
        exe.add_tags("live")
    messages = [record.getMessage() for record in caplog.records if "Execution_Tag" in record.getMessage()]
    assert len(messages) == 2
    assert all("DerivaML.create(" in message for message in messages)
    run = ml.lookup_execution(exe.execution_rid)
    run.description = "Changed"
    assert (run.tags, ml.find_executions(tags=["live"]), ml.list_baselines()) == ((), [], {})
    assert [each.tags for each in ml.list_executions().executions] == [()]
    for write in (
        lambda: run.add_tags("a"),
        lambda: run.remove_tags("a"),
        lambda: ml.set_baseline(run.execution_rid),
    ):
        with pytest.raises(ConfigurationError, match=r"Execution_Tag.*DerivaML\.create"):
            write()
    DerivaML.create(remote_server.hostname, "demo-schema", catalog_id=newer, credential=remote_server.login)
    run.add_tags("paper", "good")  # the client reads the tables again
    ml.set_baseline(run.execution_rid)
    assert run.tags == ("baseline", "good", "paper")
    assert [each.execution_rid for each in ml.find_executions(tags=["paper", "good"])] == [run.execution_rid]
    assert ml.find_executions(tags=["paper", "none"]) == []
    assert ml.list_baselines() == {"baseline": run.execution_rid}
    run.remove_tags("baseline", "good")
    assert ml.lookup_execution(run.execution_rid).tags == ("paper",)
    assert ml.lookup_execution(run.execution_rid).description == "Changed"


@pytest.mark.parametrize("ml", ["newer", drop_optional_tables], indirect=True)
def test_push_there_and_back(ml: DerivaML, home: Path, tmp_path: Path) -> None:
    """A run is pushed to another client's catalog, and from there to a standard one."""
    here, back = DerivaML(), DerivaML(f"file:{tmp_path / 'back'}")
    rid = record_sample_run(here).execution_rid
    copy = here.push(rid, ml, make_tables=True)
    assert describe_run(ml, copy.execution) | {"inputs": []} == describe_run(here, rid) | {"inputs": []}
    assert ml.lookup_execution(copy.execution).list_metrics()
    before = count_rows(ml)
    shutil.rmtree(ml.connection.folder / "pushed")
    assert here.push(rid, ml).new == ()
    assert count_rows(ml) == before
    again = ml.push(copy.execution, back, make_tables=True)
    copied = describe_run(back, again.execution)["inputs"][0]
    original = describe_run(here, rid)["inputs"][0]  # an older catalog does not record the version
    assert copied | {"version": None} == original | {"version": None}


def test_push_of_metrics(remote_server: RemoteServer, older: str, home: Path) -> None:
    """Without a metrics table a push leaves metrics out with a note; with make_tables it creates the table."""
    here, ml = DerivaML(), open_client(remote_server, older)
    workflow = Workflow(name="W", workflow_type="Training", url="https://example.org/w.py", checksum="8" * 40)
    with here.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
        exe.update_status(Status.running, "1", progress=Progress(epoch=1, metrics={"loss": 2}))
    report = here.push(exe.execution_rid, ml)
    assert ["no table Execution_Metric" in note for note in report.notes] == [True]
    assert ml.lookup_execution(report.execution).list_metrics() == []
    assert here.push(exe.execution_rid, ml, make_tables=True).tables == ("Execution_Metric",)
    assert ml.lookup_execution(report.execution).list_metrics() == exe.list_metrics() != []


def test_development_versions(remote_server: RemoteServer, newer: str) -> None:
    """A dataset in a development period of another client is changed, read and used as an input; its row stays."""
    with open_client(remote_server, newer) as ml:
        ml.add_dataset_element_type("Image")
        dataset = ml.create_dataset(description="Labelled", dataset_types=[])
        row = {"Dataset": dataset.rid, "Version": "0.1.0.post1.dev4", "Description": "changed", "Snapshot": None}
        (development,) = ml.connection.catalog.reserve(1)
        ml.connection.catalog.insert("Dataset_Version", [{"RID": development, **row}])
        child = ml.create_dataset(description="Part", dataset_types=[])
        with pytest.warns(DerivaMLWarning, match="in a development period of another client"):
            dataset.add_dataset_members({"Dataset": [child.rid]})
        assert [version.version for version in dataset.dataset_history()] == ["0.1.0", "0.2.0"]
        with pytest.warns(DerivaMLWarning, match="not reproducible"):
            named = dataset.list_dataset_members("0.1.0.post1.dev4")
        assert [member["RID"] for member in named["Dataset"]] == [child.rid]
        (kept,) = ml.select_rows("Dataset_Version", {"RID": development})
        assert {name: kept[name] for name in row} == row
