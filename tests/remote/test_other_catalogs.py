"""Catalogs that other clients made, older and newer, are used as ours are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deriva_ml_core.backends.compatibility import CatalogAdapter
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import DatasetSpec, Progress
from deriva_ml_core.workflow import Workflow
from fakes.replay import RECORDINGS
from places import Place
from pushed_world import counts, make_world, told


def setup_requests() -> Iterator[dict[str, Any]]:
    with (RECORDINGS / "other_client_setup.jsonl").open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


RIGHTS = ("/acl", "/schema/public")
"""Where the other client put rights of people that another server does not know."""


@pytest.fixture
def older(place: Place) -> Iterator[str]:
    """A catalog built request by request as another client built it."""
    place.require_new_catalogs()
    number = ""
    for exchange in setup_requests():
        path = exchange["path"].replace("/catalog/8", f"/catalog/{number}")
        given = json.loads(exchange["request_body"]) if exchange["request_body"] else None
        if place.fake is not None or not path.endswith(RIGHTS):
            answer = place.send(exchange["method"], path, given)
            number = number or place.register_catalog(answer["id"])
    yield number
    place.delete_catalog(number)


def send(place: Place, number: str, method: str, path: str, given: Any = None) -> Any:
    return place.send(method, f"/ermrest/catalog/{number}{path}", given)


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
            *(column(one) for one in rest),
        ],
        "keys": [{"unique_columns": [key]} for key in ("RID", identity, uri, title)],
    }


EXECUTION, WORKFLOW, DATASET_EXECUTION = (
    f"/schema/deriva-ml/table/{table}" for table in ("Execution", "Workflow", "Dataset_Execution")
)


def states_are_terms(place: Place, number: str) -> None:
    """An execution's status is one of the terms of a vocabulary that lacks some of ours."""
    states = ("Created", "Running", "Stopped", "Failed", "Pending_Upload", "Uploaded", "Aborted")
    made = vocabulary("Execution_Status", ("ID", "URI", "Name", "Description", "Synonyms"))
    send(place, number, "POST", "/schema", [made])
    terms = [{"Name": state, "Description": ""} for state in states]
    send(place, number, "POST", "/entity/deriva-ml:Execution_Status?defaults=ID,URI", terms)
    send(place, number, "POST", f"{EXECUTION}/foreignkey", reference("Execution", "Status", "Execution_Status", "Name"))


def workflows_have_several_types(place: Place, number: str) -> None:
    """A workflow's types stand in an association."""
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
    send(place, number, "POST", "/schema", [links])
    send(place, number, "DELETE", f"{WORKFLOW}/foreignkey/Workflow_Type/reference/deriva-ml:Workflow_Type/Name")
    send(place, number, "DELETE", f"{WORKFLOW}/column/Workflow_Type")


def three_durations(place: Place, number: str) -> None:
    """An execution's duration is told apart from those of its transfers."""
    for name in ("Execution_Duration", "Download_Duration", "Upload_Duration"):
        send(place, number, "POST", f"{EXECUTION}/column", column(name))
    send(place, number, "DELETE", f"{EXECUTION}/column/Duration")


def inputs_have_versions(place: Place, number: str) -> None:
    """A dataset's link to an execution says which version it took."""
    send(place, number, "POST", f"{DATASET_EXECUTION}/column", column("Dataset_Version"))
    key = reference("Dataset_Execution", "Dataset_Version", "Dataset_Version", "RID")
    send(place, number, "POST", f"{DATASET_EXECUTION}/foreignkey", key)


def more_terms(place: Place, number: str) -> None:
    """There are more types of assets."""
    send(
        place,
        number,
        "POST",
        "/entity/deriva-ml:Asset_Type?defaults=ID,URI",
        [{"Name": "Metrics_File", "Description": ""}],
    )


def fewer_tables(place: Place, number: str) -> None:
    """Tables are missing that a run can do without."""
    for table in ("Dataset_File", "File_Execution", "File_Asset_Type", "File", "Feature_Name"):
        send(place, number, "DELETE", f"/schema/deriva-ml/table/{table}")


NEWER = (states_are_terms, workflows_have_several_types, three_durations, inputs_have_versions, more_terms)


@pytest.fixture
def newer(place: Place, older: str) -> str:
    """The same catalog with each of the differences that newer ones have."""
    for change in NEWER:
        change(place, older)
    return older


def opened(place: Place, number: str) -> DerivaML:
    return place.open(number)


@pytest.fixture(params=["older", "newer"])
def ml(request: pytest.FixtureRequest, place: Place) -> DerivaML:
    """A client of either, or of one with a single difference."""
    number = request.getfixturevalue(request.param if isinstance(request.param, str) else "older")
    if callable(request.param):
        request.param(place, number)
    return opened(place, number)


@pytest.fixture
def config(ml: DerivaML) -> ExecutionConfiguration:
    ml.add_term("Workflow_Type", "Training", "Trains")
    ml.add_term("Dataset_Type", "Training", "To train with")
    url = "https://github.com/org/repo/blob/abc/train.py"
    workflow = Workflow(name="Test", workflow_type="Training", url=url, checksum="0" * 40)
    return ExecutionConfiguration(workflow=workflow, description="A test")


@pytest.mark.parametrize("ml", ["older", "newer", *NEWER, fewer_tables], indirect=True)
def test_a_whole_run(ml: DerivaML, config: ExecutionConfiguration, tmp_path: Path) -> None:
    """A run with inputs and outputs is recorded and read back."""
    catalog = ml.connection.catalog
    (subject,) = catalog.reserve(1)
    catalog.insert("Subject", [{"RID": subject, "Name": "someone"}])
    exe = ml.create_execution(config)
    with exe:
        exe.update_status(Status.running, "halfway")
        exe.asset_file_path("Model", "m.pt", asset_types=["Model_File"]).write_bytes(b"weights")
        for number in range(3):
            exe.asset_file_path("Image", f"{number}.png", Subject=subject).write_bytes(bytes([number]))
    sent = exe.upload_execution_outputs()
    dataset = exe.create_dataset(description="images", dataset_types=["Training"])
    dataset.add_dataset_members([asset.rid for asset in sent["Image"]])

    second = ml.create_execution(config.model_copy(update={"datasets": (DatasetSpec(rid=dataset.rid),)}))
    with second:
        bag = second.download_dataset_bag(DatasetSpec(rid=dataset.rid))
        assert len(list(bag.path.rglob("*.png"))) == 3

    found = ml.lookup_execution(exe.execution_rid)
    assert (found.status, found.workflow_rid) == (
        Status.completed,
        ml.lookup_execution(second.execution_rid).workflow_rid,
    )
    assert "sec" in str(found.duration)
    assert [one.rid for one in ml.lookup_execution(second.execution_rid).list_input_datasets()] == [dataset.rid]
    assert {asset.filename for asset in found.list_assets()} >= {"m.pt", "0.png"}


def test_workflows_have_types(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A workflow's type is kept, found by, and changed, wherever the catalog has it."""
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


@pytest.mark.parametrize("status", [*Status])
def test_every_state(place: Place, newer: str, status: Status) -> None:
    """Each of our states is written as a term that the catalog has, and ended ones are read as ended."""
    catalog = opened(place, newer).connection.catalog
    (rid,) = catalog.reserve(1)
    catalog.insert("Execution", [{"RID": rid, "Status": status}])
    (row,) = catalog.select("Execution", {"RID": rid})
    assert Status(row["Status"]).is_terminal == status.is_terminal
    assert catalog.select("Execution", {"Status": status}) == [row]


@pytest.mark.parametrize(
    ("term", "status"), [("Stopped", "Completed"), ("Uploaded", "Completed"), ("Failed", "Failed")]
)
def test_others_states(place: Place, newer: str, term: str, status: str) -> None:
    """The states that another client wrote are read as the nearest of ours."""
    send(place, newer, "POST", "/entity/deriva-ml:Execution", [{"Status": term}])
    catalog = opened(place, newer).connection.catalog
    assert [row["Status"] for row in catalog.select("Execution")] == [status]
    assert len(catalog.select("Execution", {"Status": [status]})) == 1


def test_columns_of_another_case(place: Place, older: str) -> None:
    """A vocabulary whose columns are written otherwise is one all the same, and may be referred to."""
    columns = ("id", "uri", "name", "description", "synonyms")
    send(place, older, "POST", "/schema", [vocabulary("Colour", columns, "demo-schema")])
    ml = opened(place, older)
    assert isinstance(ml.connection.catalog, CatalogAdapter)
    ml.add_term("Colour", "red", "like blood")
    (row,) = ml.connection.catalog.select("Colour", {"Name": "red"}, order=("Name",))
    assert (row["Description"], row["ID"]) == ("like blood", f"Colour:{row['RID']}")


def test_new_tables_go_where_the_projects_are(place: Place, older: str) -> None:
    """A table that is made lies in the schema that the project's tables have there."""
    ml = opened(place, older)
    ml.create_asset("Mask")
    assert ml.connection.catalog.model.table("Mask").schema == "demo-schema"


def test_what_cannot_be_done_without(place: Place, older: str) -> None:
    """A catalog that lacks what a run needs says so, by table and column."""
    send(place, older, "DELETE", "/schema/deriva-ml/table/Workflow/column/Checksum")
    with pytest.raises(ConfigurationError, match=r"Workflow\.Checksum"):
        opened(place, older)


def tables_of(place: Place, number: str) -> dict[str, dict[str, Any]]:
    """The definition of each table, by schema and name."""
    schemas = send(place, number, "GET", "/schema")["schemas"]
    return {f"{schema}:{name}": table for schema, found in schemas.items() for name, table in found["tables"].items()}


@pytest.mark.parametrize("kind", ["bare", "older", "newer"])
def test_what_a_catalog_lacks_is_added(place: Place, request: pytest.FixtureRequest, kind: str) -> None:
    """A catalog that is there gets missing tables and terms in few requests, and keeps all it has; again: nothing."""
    place.require_new_catalogs()
    if kind == "bare":
        number = place.register_catalog(place.send("POST", "/ermrest/catalog", {})["id"])
    else:
        number = request.getfixturevalue(kind)
    before = tables_of(place, number)
    asked = place.fake.requests if place.fake else []
    asked.clear()
    ml = DerivaML.create(place.hostname, "demo-schema", catalog_id=number, credential=place.login)
    assert len(asked) <= 11
    assert {"Training", "Inference"} <= ml.list_terms("Workflow_Type").keys()
    assert ml.connection.catalog.model.asset_table("Model").is_asset
    after = tables_of(place, number)
    assert {name: after[name] for name in before} == before
    DerivaML.create(place.hostname, "demo-schema", catalog_id=number, credential=place.login)
    assert tables_of(place, number) == after


def test_metrics_need_a_place(place: Place, newer: str) -> None:
    """A catalog without a table for metrics records runs all the same, and says how to get one that has."""

    def ran(ml: DerivaML, loss: float) -> str:
        workflow = Workflow(name="W", workflow_type="Training", url="https://example.org/w.py", checksum="7" * 40)
        with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
            exe.update_status(Status.running, "1", progress=Progress(epoch=1, metrics={"loss": loss}))
        return exe.execution_rid

    ml = opened(place, newer)
    ml.add_term("Workflow_Type", "Training", "To train")
    early = ran(ml, 3)
    with pytest.raises(ConfigurationError, match=r"Execution_Metric.*DerivaML\.create"):
        ml.find_executions(sort="loss")
    assert ml.lookup_execution(early).list_metrics() == []
    ml = DerivaML.create(place.hostname, "demo-schema", catalog_id=newer, credential=place.login)
    made = [ran(ml, loss) for loss in (2, 1)]
    found = ml.find_executions(sort="loss", status=Status.completed, workflow_type="Training")
    assert [each.execution_rid for each in found] == made[::-1]
    ml.restore_execution(early)
    assert [each.execution_rid for each in ml.find_executions(sort="loss")] == [*made[::-1], early]


@pytest.mark.parametrize("ml", ["newer", fewer_tables], indirect=True)
def test_a_run_is_copied_there_and_back(ml: DerivaML, home: Path, tmp_path: Path) -> None:
    """A run of ours is copied to another client's catalog, which gets what it lacks, and from there to one of ours."""
    here, back = DerivaML(), DerivaML(f"file:{tmp_path / 'back'}")
    rid = make_world(here).execution_rid
    copy = here.push(rid, ml, make_tables=True)
    assert told(ml, copy.execution) | {"inputs": []} == told(here, rid) | {"inputs": []}
    assert ml.lookup_execution(copy.execution).list_metrics()
    before = counts(ml)
    shutil.rmtree(ml.connection.folder / "pushed")
    assert here.push(rid, ml).new == ()
    assert counts(ml) == before
    again = ml.push(copy.execution, back, make_tables=True)
    whole = told(back, again.execution)["inputs"][0]
    wanted = told(here, rid)["inputs"][0]  # an older catalog does not say which version went in
    assert whole | {"version": None} == wanted | {"version": None}


def test_metrics_are_copied_where_there_is_a_place(place: Place, older: str, home: Path) -> None:
    """Where there is no table for metrics the run is copied without, and that is said; asked to, the table is made."""
    here, ml = DerivaML(), opened(place, older)
    workflow = Workflow(name="W", workflow_type="Training", url="https://example.org/w.py", checksum="8" * 40)
    with here.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
        exe.update_status(Status.running, "1", progress=Progress(epoch=1, metrics={"loss": 2}))
    report = here.push(exe.execution_rid, ml)
    assert ["no table Execution_Metric" in note for note in report.notes] == [True]
    assert ml.lookup_execution(report.execution).list_metrics() == []
    assert here.push(exe.execution_rid, ml, make_tables=True).tables == ("Execution_Metric",)
    assert ml.lookup_execution(report.execution).list_metrics() == exe.list_metrics() != []
