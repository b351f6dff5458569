"""Complete runs on a server with one failing request: the record is the same as without the failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import MalformedData
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import DatasetSpec
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer
from fakes.faults import Fault, Harm
from fakes.web import Answer

PAGE = Answer.text(200, "<html>Please log in.</html>", "text/html")
ELSEWHERE = Answer(302, b"", {"Location": "https://login.example.org/", "Content-Length": "0"})

FAULTS = {
    "busy": lambda skip: Fault(Harm.answer, skip=skip),
    "reset": lambda skip: Fault(Harm.reset, skip=skip),
    "lost": lambda skip: Fault(Harm.lose, skip=skip),
    "truncated": lambda skip: Fault(Harm.truncate, skip=skip, keep=5),
    "a page": lambda skip: Fault(Harm.answer, skip=skip, reply=PAGE),
    "elsewhere": lambda skip: Fault(Harm.answer, skip=skip, reply=ELSEWHERE),
}
TABLES = (
    "Workflow",
    "Execution",
    "Dataset",
    "Dataset_Version",
    "Model",
    "Image",
    "Execution_Metadata",
    "Dataset_Image",
)


def run(ml: DerivaML, contents: Path) -> None:
    """Create, run, upload, create a dataset of the outputs, and use it as an input."""
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
    config = ExecutionConfiguration(workflow=workflow, description="d")
    exe = ml.create_execution(config)
    with exe:
        exe.update_status("Running", "halfway")
        exe.asset_file_path("Model", "big.pt", asset_types=["Model_File"]).write_bytes(b"w" * 5000)
        for number in range(2):
            exe.asset_file_path("Image", f"{number}.png").write_bytes(bytes([number]))
    images = exe.upload_execution_outputs(chunk_size=2048, retry_delay=0)["Image"]
    ml.add_dataset_element_type("Image")
    dataset = exe.create_dataset("images", dataset_types=["Training"])
    dataset.add_dataset_members([asset.rid for asset in images])
    config = ExecutionConfiguration(workflow=workflow, description="d", datasets=[DatasetSpec(rid=dataset.rid)])
    with ml.create_execution(config) as second:
        bag = second.download_dataset_bag(dataset.rid)
        recorded = sorted(Path(row["Filename"]).read_bytes() for row in bag.list_dataset_members()["Image"])
        assert recorded == [b"\0", b"\1"]
    second.upload_execution_outputs(retry_delay=0)


def record(ml: DerivaML, fake: DerivaServer) -> dict[str, object]:
    """Return what is recorded, without RIDs and times."""
    catalog = ml.connection.catalog
    recorded: dict[str, object] = {table: len(catalog.select(table)) for table in TABLES}
    for table in ("Model", "Image", "Execution_Metadata"):
        kinds = {row["RID"]: row["Filename"].rpartition("_")[0] or row["Filename"] for row in catalog.select(table)}
        for link in (f"{table}_Execution", f"{table}_Asset_Type"):
            recorded[link] = Counter(kinds[row[table]] for row in catalog.select(link))
    recorded["states"] = Counter(row["Status"] for row in catalog.select("Execution"))
    recorded["objects"] = Counter(len(stored_object.versions) for stored_object in fake.hatrac.objects.values())
    recorded["jobs"] = len(fake.hatrac.jobs)
    return recorded


@pytest.fixture
def fresh(fake: DerivaServer, catalog: DerivaCatalog, home: Path) -> Iterator[DerivaML]:
    """Yield clients for copies of the catalog, with an empty store."""

    def clients() -> Iterator[DerivaML]:
        while True:
            fake.hatrac.objects.clear()
            fake.faults.clear()
            ml = DerivaML(fake.hostname, fake.ermrest.copy_of(catalog.catalog_id), credential=fake.credential("test2"))
            fake.requests.clear()
            yield ml

    return clients()


@pytest.fixture
def undisturbed(fresh: Iterator[DerivaML], fake: DerivaServer, tmp_path: Path) -> tuple[dict[str, object], int]:
    """Return the record of a run without failures, and its number of requests."""
    ml = next(fresh)
    run(ml, tmp_path)
    count = len(fake.requests)
    return record(ml, fake), count


def fail_each(
    points: Sequence[int],
    expected: dict[str, object],
    fresh: Iterator[DerivaML],
    fake: DerivaServer,
    folder: Path,
    turn: int = 0,
) -> None:
    """Repeat the run with one failing request at each point, and compare the record."""
    kinds = list(FAULTS)
    for at in points:
        kind = kinds[(at + at // len(kinds) + turn) % len(kinds)]
        ml = next(fresh)
        fake.faults.add(FAULTS[kind](at))
        try:
            run(ml, folder)
        finally:
            print(f"{kind!r} at request {at}: {fake.requests[at].method} {fake.requests[at].path}")
        assert record(ml, fake) == expected


def test_some_request_fails(
    undisturbed: tuple[dict[str, object], int], fresh: Iterator[DerivaML], fake: DerivaServer, tmp_path: Path
) -> None:
    """A failing request is invisible to the user, and nothing is lost or duplicated."""
    expected, count = undisturbed
    fail_each(range(3, count, 14), expected, fresh, fake, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("turn", range(len(FAULTS)))
def test_any_request_fails(
    undisturbed: tuple[dict[str, object], int], fresh: Iterator[DerivaML], fake: DerivaServer, tmp_path: Path, turn: int
) -> None:
    """Each request fails in each way."""
    expected, count = undisturbed
    fail_each(range(count), expected, fresh, fake, tmp_path, turn)


MALFORMED = [
    *("{}", "[1]", "[[]]", "[{}]", "[x]"),
    *('{"schemas": 1}', '{"schemas": {"a": {}}}', '{"schemas": {"a": {"tables": {"t": {}}}}}'),
]


@pytest.mark.parametrize("body", MALFORMED)
def test_response_of_another_form(body: str, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """A response whose JSON has another form is an error that names the host or the table, whatever was asked."""
    (rid,) = catalog.reserve(1)
    requests: list[Callable[[], object]] = [
        catalog.refresh,
        catalog.snapshot,
        lambda: catalog.select("Workflow"),
        lambda: list(catalog.pages("Workflow")),
        lambda: catalog.reserve(1),
        lambda: catalog.locate(["1-0001"]),
        lambda: catalog.insert("Workflow_Type", [{"Name": "n", "Description": "d", "ID": "a:1", "URI": "u"}]),
        lambda: catalog.insert_unless("Execution", {"RID": rid}, {"RID": rid}),
        lambda: catalog.update("Workflow_Type", [{"RID": rid, "Description": "d"}]),
        lambda: catalog.delete("Workflow_Type", {"RID": rid}),
    ]
    raised = 0
    for send in requests:
        fake.faults.add(Fault(Harm.answer, times=99, reply=Answer.text(200, body, "application/json")))
        try:
            send()
        except MalformedData as error:
            assert "Deriva catalog" in str(error)
            raised += 1
        fake.faults.clear()
    assert raised == len(requests)
