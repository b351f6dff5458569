"""Rows in a catalog with a busy server, lost responses and concurrent clients: none is lost or written twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from deriva_ml_core._retry import BUSY_SERVER, CONCURRENT_WRITE
from deriva_ml_core.backend import AnyOf
from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.backends.deriva.open import create_catalog
from deriva_ml_core.errors import (
    AccessRefused,
    CatalogUnavailable,
    ConfigurationError,
    DuplicateRow,
    LoginRequired,
    RowInUse,
    UnknownAddress,
    UnknownVersion,
)
from deriva_ml_core.schema import Column, Table
from fakes.deriva_server import DerivaServer
from fakes.ermrest import APACHE_404
from fakes.faults import Fault, Harm, unavailable
from fakes.web import Answer

TERM = {"Name": "new", "Description": ""}


def fault(harm: Harm, method: str = ".*", times: int = 1, path: str = "", **more: object) -> Fault:
    return Fault(harm, method=method, times=times, path=path, **more)


def methods(fake: DerivaServer) -> list[str]:
    return [request.method for request in fake.requests]


@pytest.mark.parametrize("times", [1, 8])
def test_busy_server_is_retried(writer_catalog: DerivaCatalog, fake: DerivaServer, waits: list, times: int) -> None:
    """A request that the server aborts is repeated, with increasing random waits."""
    fake.faults.add(fault(Harm.answer, "POST|PUT", times))
    assert writer_catalog.insert("Dataset_Type", [TERM]) == 1
    assert len(writer_catalog.select("Dataset_Type", {"Name": "new"})) == 1
    assert len(waits) == times == len(set(waits))


def test_server_stays_busy(writer_catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """If the server stays busy, CatalogUnavailable is raised and nothing is written."""
    fake.faults.add(fault(Harm.answer, "POST", 100))
    with pytest.raises(CatalogUnavailable, match=r"503.*Transaction aborted"):
        writer_catalog.insert("Dataset_Type", [TERM])
    fake.faults.clear()
    assert writer_catalog.select("Dataset_Type", {"Name": "new"}) == []


def test_retry_after_is_respected(writer_catalog: DerivaCatalog, fake: DerivaServer, waits: list) -> None:
    """The client waits as long as the server asks."""
    fake.faults.add(fault(Harm.answer, "GET", reply=unavailable(retry_after=7)))
    writer_catalog.select("Workflow")
    assert waits == [7]


def test_aborted_transaction_is_repeated_for_minutes(
    writer_catalog: DerivaCatalog, fake: DerivaServer, waits: list, caplog: pytest.LogCaptureFixture
) -> None:
    """A write whose transaction is aborted 30 times is repeated, with growing pauses and a message after 10 seconds."""
    fake.faults.add(fault(Harm.answer, "POST", 30))
    writer_catalog.insert("Dataset_Type", [{"Name": "late", "Description": ""}])
    assert len(waits) == 30
    assert sum(waits[:10]) < sum(waits[10:20]) < sum(waits) < 300
    (record,) = caplog.records
    assert "repeating it for up to 300 seconds: Transaction aborted." in record.getMessage()
    waits.clear()
    fake.faults.add(fault(Harm.answer, "POST", 10_000))
    with pytest.raises(CatalogUnavailable, match="Transaction aborted"):
        writer_catalog.insert("Dataset_Type", [{"Name": "later", "Description": ""}])
    assert 285 < sum(waits) <= 300
    waits.clear()
    with pytest.raises(CatalogUnavailable, match="Transaction aborted"):
        writer_catalog.insert_unless("Workflow", {"URL": "x"}, {"URL": "x"})
    assert 285 < sum(waits) <= 300
    fake.faults.clear()
    assert writer_catalog.select("Workflow") == []


def test_other_failures_are_repeated_briefly(writer_catalog: DerivaCatalog, fake: DerivaServer, waits: list) -> None:
    """A server that is unavailable for another reason is asked 12 times."""
    fake.faults.add(fault(Harm.answer, "GET", 10_000, reply=Answer.text(503, "Maintenance", "text/html")))
    with pytest.raises(CatalogUnavailable):
        writer_catalog.select("Workflow")
    assert len(waits) == 11


def test_writers_of_different_tables(catalog: DerivaCatalog, writer_catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """Concurrent writers to different tables each write once, although many requests are refused."""
    fake.faults.add(fault(Harm.answer, "POST|PUT", BUSY_SERVER.attempts - 1))  # one of them may meet them all

    def write(number: int) -> int:
        table = ("Dataset_Type", "Asset_Type", "Workflow_Type", "Feature_Name")[number % 4]
        user = (catalog, writer_catalog)[number % 2]
        return user.insert(table, [{"Name": f"n{number}", "Description": ""}])

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(write, range(16))) == 16
    for table in ("Dataset_Type", "Asset_Type", "Workflow_Type", "Feature_Name"):
        assert sum(row["Name"].startswith("n") for row in writer_catalog.select(table)) == 4


@pytest.mark.parametrize("harm", [Harm.reset, Harm.lose])
def test_lost_response_of_read(writer_catalog: DerivaCatalog, fake: DerivaServer, harm: Harm) -> None:
    """A read is repeated after a lost response."""
    fake.faults.add(fault(harm, "GET"))
    assert writer_catalog.select("Asset_Role", {"Name": "Output"})


INVALID_RESPONSES = {
    "ends early": fault(Harm.truncate, keep=5),
    "is damaged": fault(Harm.damage),
    "is a login's page": fault(Harm.answer, reply=Answer.text(200, "<html>Please log in.</html>", "text/html")),
    "is empty": fault(Harm.answer, reply=Answer.text(200, "", "application/json")),
    "sends elsewhere": fault(Harm.answer, reply=Answer(302, b"", {"Location": "https://login.example.org/x"})),
}


@pytest.mark.parametrize("which", INVALID_RESPONSES)
def test_invalid_response_counts_as_lost(writer_catalog: DerivaCatalog, fake: DerivaServer, which: str) -> None:
    """An invalid response counts as lost: reads, reservations and repeatable writes are repeated."""

    def inject(times: int = 1) -> None:
        fake.faults.clear()
        fake.faults.add(replace(INVALID_RESPONSES[which], times=times))

    inject()
    assert writer_catalog.select("Asset_Role", {"Name": "Output"})
    inject()
    (rid,) = writer_catalog.reserve(1)
    inject()
    assert writer_catalog.insert("Dataset", [{"RID": rid}]) == 1
    inject()
    assert writer_catalog.update("Dataset", [{"RID": rid, "Description": "after"}]) == 1
    inject()
    row = {"Name": "w", "URL": "u", "Workflow_Type": "Training"}
    assert writer_catalog.insert_unless("Workflow", {"URL": "u"}, row)[0]["URL"] == "u"
    assert (len(writer_catalog.select("Dataset")), len(writer_catalog.select("Workflow"))) == (1, 1)
    inject(times=100)
    with pytest.raises(CatalogUnavailable, match="cannot be reached"):
        writer_catalog.select("Asset_Role")


@pytest.mark.parametrize("harm", [Harm.reset, Harm.lose])
def test_lost_response_of_reservation(writer_catalog: DerivaCatalog, fake: DerivaServer, harm: Harm) -> None:
    """After a lost response other RIDs are reserved; the lost ones stay unused."""
    fake.faults.add(fault(harm, "POST"))
    rids = writer_catalog.reserve(3)
    assert len(set(rids)) == 3
    assert writer_catalog.insert("Dataset", [{"RID": rid} for rid in rids]) == 3
    assert writer_catalog.locate(rids) == dict.fromkeys(rids, "Dataset")


@pytest.mark.parametrize("which", [*INVALID_RESPONSES][:3])
def test_lost_response_of_catalog_creation(connect, fake: DerivaServer, which: str) -> None:
    """The creation of a catalog is not repeated; the error says that the catalog may exist."""
    fake.faults.add(replace(INVALID_RESPONSES[which], times=1))
    with pytest.raises(CatalogUnavailable, match="Check the server before you try again"):
        create_catalog(connect(), "demo")
    assert len([request for request in fake.requests if request.path == "/ermrest/catalog"]) == 1


@pytest.mark.parametrize("harm", [Harm.reset, Harm.lose])
def test_lost_response_of_insert_with_reserved_rid(
    writer_catalog: DerivaCatalog, fake: DerivaServer, harm: Harm
) -> None:
    """A row with a reserved RID exists once after a lost response."""
    (rid,) = writer_catalog.reserve(1)
    fake.faults.add(fault(harm, "POST"))
    assert writer_catalog.insert("Dataset", [{"RID": rid, "Description": "x"}]) == 1
    assert [row["RID"] for row in writer_catalog.select("Dataset")] == [rid]


@pytest.mark.parametrize("harm", [Harm.reset, Harm.lose])
def test_lost_response_of_insert_with_keys(writer_catalog: DerivaCatalog, fake: DerivaServer, harm: Harm) -> None:
    """Rows that may be skipped are sent again after a lost response."""
    fake.faults.add(fault(harm, "POST"))
    writer_catalog.insert("Dataset_Type", [TERM], skip_existing=True)
    assert len(writer_catalog.select("Dataset_Type", {"Name": "new"})) == 1


def test_lost_response_of_insert_without_key(writer_catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """A row without RID or key is not sent twice; the error says that it may exist."""
    fake.faults.add(fault(Harm.lose, "POST"))
    with pytest.raises(CatalogUnavailable, match="check whether the rows exist"):
        writer_catalog.insert("Dataset", [{"Description": "x"}])
    assert len(writer_catalog.select("Dataset")) == 1


@pytest.mark.parametrize("harm", [Harm.reset, Harm.lose])
def test_lost_response_of_update(writer_catalog: DerivaCatalog, fake: DerivaServer, harm: Harm) -> None:
    """An update is repeated after a lost response."""
    (rid,) = writer_catalog.reserve(1)
    writer_catalog.insert("Dataset", [{"RID": rid}])
    fake.faults.add(fault(harm, "PUT"))
    assert writer_catalog.update("Dataset", [{"RID": rid, "Description": "after"}]) == 1
    assert writer_catalog.select("Dataset")[0]["Description"] == "after"


@pytest.mark.parametrize("harm", [Harm.reset, Harm.lose])
def test_lost_response_of_deletion(writer_catalog: DerivaCatalog, fake: DerivaServer, harm: Harm) -> None:
    """A deletion is repeated after a lost response, and rows that are gone are no error."""
    writer_catalog.insert("Dataset_Type", [TERM])
    fake.faults.add(fault(harm, "DELETE"))
    assert writer_catalog.delete("Dataset_Type", {"Name": "new"}) == 1
    assert writer_catalog.select("Dataset_Type", {"Name": "new"}) == []


def test_reserved_rid_used_twice(catalog: DerivaCatalog, writer_catalog: DerivaCatalog) -> None:
    """A reserved RID that is used again is skipped or raises DuplicateRow, for writers and owners."""
    for user in (writer_catalog, catalog):
        (rid,) = user.reserve(1)
        assert user.insert("Dataset", [{"RID": rid}]) == 1
        assert user.insert("Dataset", [{"RID": rid}], skip_existing=True) == 0
        with pytest.raises(DuplicateRow, match=rid):
            user.insert("Dataset", [{"RID": rid}])


def test_some_reservations_used(writer_catalog: DerivaCatalog) -> None:
    """Of several rows with reserved RIDs, only the missing ones are inserted."""
    rids = writer_catalog.reserve(3)
    writer_catalog.insert("Dataset", [{"RID": rids[1]}])
    assert writer_catalog.insert("Dataset", [{"RID": rid} for rid in rids], skip_existing=True) == 2
    assert len(writer_catalog.select("Dataset", {"RID": rids})) == 3


def test_rid_that_was_not_reserved(writer_catalog: DerivaCatalog) -> None:
    """A writer who is not an owner cannot choose a RID."""
    with pytest.raises(AccessRefused, match="non-leased value '9-ZZZZ'"):
        writer_catalog.insert("Dataset", [{"RID": "9-ZZZZ"}])


def test_rows_that_share_a_key(writer_catalog: DerivaCatalog) -> None:
    """Two rows with the same key are inserted once with skip_existing, and otherwise raise DuplicateRow."""
    assert writer_catalog.insert("Dataset_Type", [TERM, TERM], skip_existing=True) == 1
    other = {"Name": "other", "Description": ""}
    with pytest.raises(DuplicateRow):
        writer_catalog.insert("Dataset_Type", [other, other])


@pytest.mark.parametrize("harm", [Harm.answer, Harm.lose, Harm.reset])
def test_insert_unless_with_failing_request(writer_catalog: DerivaCatalog, fake: DerivaServer, harm: Harm) -> None:
    """If the insertion fails, there is still one row, and every caller gets it."""
    fake.faults.add(fault(harm, "POST"))
    wanted = {"Name": "w", "URL": "https://x.org/a", "Checksum": "1" * 40, "Workflow_Type": "Training"}
    where = AnyOf(({"URL": wanted["URL"]}, {"Checksum": wanted["Checksum"]}))
    row, _ = writer_catalog.insert_unless("Workflow", where, wanted)
    again, new = writer_catalog.insert_unless("Workflow", where, wanted)
    assert (again["RID"], new) == (row["RID"], False)
    assert len(writer_catalog.select("Workflow")) == 1


def test_insert_unless_with_constant_writes(
    writer_catalog: DerivaCatalog, catalog: DerivaCatalog, fake: DerivaServer
) -> None:
    """A row is inserted although others write all the time."""
    fake.faults.add(
        fault(
            Harm.call,
            "POST",
            CONCURRENT_WRITE.attempts,
            path="Workflow$",
            call=lambda: fake.ermrest.catalog(catalog.catalog_id).tick(),
        )
    )
    row, new = writer_catalog.insert_unless(
        "Workflow", {"URL": "u"}, {"Name": "w", "URL": "u", "Workflow_Type": "Training"}
    )
    assert (new, len(writer_catalog.select("Workflow"))) == (True, 1)
    assert row["URL"] == "u"


def test_html_404_is_an_error(writer_catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """An HTML 404 of the web server raises UnknownAddress; it does not mean that no row matches."""
    page = Answer.text(404, APACHE_404, "text/html; charset=iso-8859-1")
    for query in (
        lambda: writer_catalog.select("Dataset", {"RID": "1-ABC"}),
        lambda: writer_catalog.locate(["1-ABC"]),
    ):
        fake.faults.add(fault(Harm.answer, "GET", reply=page))
        with pytest.raises(UnknownAddress, match="HTML"):
            query()


def test_long_conditions_are_split(writer_catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """No path is longer than a server accepts."""
    rows = [{"Name": f"{number:03}" + "図" * 60, "Description": ""} for number in range(60)]
    writer_catalog.insert("Feature_Name", rows)
    names = [row["Name"] for row in rows]
    fake.requests.clear()
    assert len(writer_catalog.select("Feature_Name", {"Name": names})) == 60
    either = AnyOf(tuple({"Name": name} for name in names))
    assert len(writer_catalog.select("Feature_Name", either, order=("Name",), limit=7)) == 7
    assert max(len(request.path) for request in fake.requests) < 8000
    with pytest.raises(ConfigurationError, match="too long"):
        writer_catalog.select("Feature_Name", {"Name": "x" * 5000})


def test_expired_session(writer_catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """An expired session raises LoginRequired; after a login the same call succeeds."""
    fake.log_out("test2")
    with pytest.raises(LoginRequired, match="Log in"):
        writer_catalog.insert("Dataset_Type", [TERM])
    fake.log_in("test2")
    assert writer_catalog.insert("Dataset_Type", [TERM]) == 1


def test_missing_permission(writer_catalog: DerivaCatalog) -> None:
    """A writer who is not an owner cannot create tables."""
    with pytest.raises(AccessRefused, match="create access"):
        writer_catalog.create_tables([Table("New", (Column("A"),))])


def test_a_row_in_use(writer_catalog: DerivaCatalog) -> None:
    """A row that others refer to is not deleted, and the error names the referring table."""
    writer_catalog.insert("Workflow", [{"Name": "w", "Workflow_Type": "Training"}])
    with pytest.raises(RowInUse, match="Workflow refers to it"):
        writer_catalog.delete("Workflow_Type", {"Name": "Training"})


def test_a_snapshot_of_another_catalog(writer_catalog: DerivaCatalog) -> None:
    """A snapshot that the catalog never had raises UnknownVersion."""
    with pytest.raises(UnknownVersion, match="revision"):
        writer_catalog.at("1").select("Workflow")


def test_times_sort_as_texts(writer_catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """Times are padded so that they sort as texts, although the server omits trailing zeros."""
    row = {"RID": "1", "RCT": "2026-01-01T00:00:00.5+00:00", "RMT": "2026-01-01T00:00:00+00:00"}
    fake.faults.add(fault(Harm.answer, "GET", reply=Answer.json(200, [row])))
    (found,) = writer_catalog.select("Dataset")
    assert (found["RCT"], found["RMT"]) == ("2026-01-01T00:00:00.500000+00:00", "2026-01-01T00:00:00.000000+00:00")
    assert found["Description"] is None


def test_an_empty_text(writer_catalog: DerivaCatalog) -> None:
    """A condition can be an empty text, alone or among other values."""
    writer_catalog.insert("Dataset_Type", [TERM])
    assert [row["Name"] for row in writer_catalog.select("Dataset_Type", {"Description": ""})] == ["new"]
    assert len(writer_catalog.select("Dataset_Type", {"Description": ["", "To test with"]})) == 2


def test_many_rids_are_located_by_table(writer_catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """Many RIDs are looked up with one request per table, likely tables first."""
    rids = writer_catalog.reserve(30)
    writer_catalog.insert("Dataset", [{"RID": rid} for rid in rids])
    fake.requests.clear()
    assert set(writer_catalog.locate(rids).values()) == {"Dataset"}
    assert len(fake.requests) <= 4
