"""Rows on a server that is busy, loses answers, and has other clients: nothing is lost, nothing written twice."""

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
def test_a_busy_server_is_asked_again(written: DerivaCatalog, fake: DerivaServer, waits: list, times: int) -> None:
    """Where others' writes abort ours it is repeated, after longer and longer waits that differ."""
    fake.faults.add(fault(Harm.answer, "POST|PUT", times))
    assert written.insert("Dataset_Type", [TERM]) == 1
    assert len(written.select("Dataset_Type", {"Name": "new"})) == 1
    assert len(waits) == times == len(set(waits))


def test_a_server_that_stays_busy(written: DerivaCatalog, fake: DerivaServer) -> None:
    """After many repeats it is said that the same call may succeed later, and nothing is written."""
    fake.faults.add(fault(Harm.answer, "POST", 100))
    with pytest.raises(CatalogUnavailable, match=r"503.*Transaction aborted"):
        written.insert("Dataset_Type", [TERM])
    fake.faults.clear()
    assert written.select("Dataset_Type", {"Name": "new"}) == []


def test_a_server_says_how_long_to_wait(written: DerivaCatalog, fake: DerivaServer, waits: list) -> None:
    """The wait that it asks for is kept."""
    fake.faults.add(fault(Harm.answer, "GET", reply=unavailable(retry_after=7)))
    written.select("Workflow")
    assert waits == [7]


def test_writers_of_different_tables(catalog: DerivaCatalog, written: DerivaCatalog, fake: DerivaServer) -> None:
    """Several who write to different tables at once, many of whose calls are refused, all write once."""
    fake.faults.add(fault(Harm.answer, "POST|PUT", BUSY_SERVER.attempts - 1))  # one of them may meet them all

    def write(number: int) -> int:
        table = ("Dataset_Type", "Asset_Type", "Workflow_Type", "Feature_Name")[number % 4]
        user = (catalog, written)[number % 2]
        return user.insert(table, [{"Name": f"n{number}", "Description": ""}])

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(write, range(16))) == 16
    for table in ("Dataset_Type", "Asset_Type", "Workflow_Type", "Feature_Name"):
        assert sum(row["Name"].startswith("n") for row in written.select(table)) == 4


@pytest.mark.parametrize("harm", [Harm.reset, Harm.lose])
def test_a_read_whose_answer_is_lost(written: DerivaCatalog, fake: DerivaServer, harm: Harm) -> None:
    """It is read again."""
    fake.faults.add(fault(harm, "GET"))
    assert written.select("Asset_Role", {"Name": "Output"})


NO_ANSWERS = {
    "ends early": fault(Harm.truncate, keep=5),
    "is damaged": fault(Harm.damage),
    "is a login's page": fault(Harm.answer, reply=Answer.text(200, "<html>Please log in.</html>", "text/html")),
    "is empty": fault(Harm.answer, reply=Answer.text(200, "", "application/json")),
    "sends elsewhere": fault(Harm.answer, reply=Answer(302, b"", {"Location": "https://login.example.org/x"})),
}


@pytest.mark.parametrize("which", NO_ANSWERS)
def test_an_answer_that_is_none(written: DerivaCatalog, fake: DerivaServer, which: str) -> None:
    """It counts as lost: reads, reservations and repeatable writes are done again, and what stays so is said."""

    def meets(times: int = 1) -> None:
        fake.faults.clear()
        fake.faults.add(replace(NO_ANSWERS[which], times=times))

    meets()
    assert written.select("Asset_Role", {"Name": "Output"})
    meets()
    (rid,) = written.reserve(1)
    meets()
    assert written.insert("Dataset", [{"RID": rid}]) == 1
    meets()
    assert written.update("Dataset", [{"RID": rid, "Description": "after"}]) == 1
    meets()
    row = {"Name": "w", "URL": "u", "Workflow_Type": "Training"}
    assert written.insert_unless("Workflow", {"URL": "u"}, row)[0]["URL"] == "u"
    assert (len(written.select("Dataset")), len(written.select("Workflow"))) == (1, 1)
    meets(times=100)
    with pytest.raises(CatalogUnavailable, match="cannot be reached"):
        written.select("Asset_Role")


@pytest.mark.parametrize("harm", [Harm.reset, Harm.lose])
def test_a_reservation_whose_answer_is_lost(written: DerivaCatalog, fake: DerivaServer, harm: Harm) -> None:
    """Others are reserved, and what was reserved before is nobody's."""
    fake.faults.add(fault(harm, "POST"))
    rids = written.reserve(3)
    assert len(set(rids)) == 3
    assert written.insert("Dataset", [{"RID": rid} for rid in rids]) == 3
    assert written.locate(rids) == dict.fromkeys(rids, "Dataset")


@pytest.mark.parametrize("which", [*NO_ANSWERS][:3])
def test_a_catalog_that_was_perhaps_made(connect, fake: DerivaServer, which: str) -> None:
    """A catalog is never made twice by itself: that it is perhaps there is said."""
    fake.faults.add(replace(NO_ANSWERS[which], times=1))
    with pytest.raises(CatalogUnavailable, match="Check the server before you try again"):
        create_catalog(connect(), "demo")
    assert len([request for request in fake.requests if request.path == "/ermrest/catalog"]) == 1


@pytest.mark.parametrize("harm", [Harm.reset, Harm.lose])
def test_a_row_with_a_reserved_id(written: DerivaCatalog, fake: DerivaServer, harm: Harm) -> None:
    """After a lost answer the row is there once, whether the server had added it or not."""
    (rid,) = written.reserve(1)
    fake.faults.add(fault(harm, "POST"))
    assert written.insert("Dataset", [{"RID": rid, "Description": "x"}]) == 1
    assert [row["RID"] for row in written.select("Dataset")] == [rid]


@pytest.mark.parametrize("harm", [Harm.reset, Harm.lose])
def test_rows_that_may_be_there(written: DerivaCatalog, fake: DerivaServer, harm: Harm) -> None:
    """Rows whose taken keys are passed over are simply sent again."""
    fake.faults.add(fault(harm, "POST"))
    written.insert("Dataset_Type", [TERM], skip_existing=True)
    assert len(written.select("Dataset_Type", {"Name": "new"})) == 1


def test_a_row_that_cannot_be_told(written: DerivaCatalog, fake: DerivaServer) -> None:
    """A row without id or key is not sent twice: that it is perhaps there is said."""
    fake.faults.add(fault(Harm.lose, "POST"))
    with pytest.raises(CatalogUnavailable, match="check whether the rows exist"):
        written.insert("Dataset", [{"Description": "x"}])
    assert len(written.select("Dataset")) == 1


@pytest.mark.parametrize("harm", [Harm.reset, Harm.lose])
def test_an_update_whose_answer_is_lost(written: DerivaCatalog, fake: DerivaServer, harm: Harm) -> None:
    """It is made again, which changes nothing."""
    (rid,) = written.reserve(1)
    written.insert("Dataset", [{"RID": rid}])
    fake.faults.add(fault(harm, "PUT"))
    assert written.update("Dataset", [{"RID": rid, "Description": "after"}]) == 1
    assert written.select("Dataset")[0]["Description"] == "after"


@pytest.mark.parametrize("harm", [Harm.reset, Harm.lose])
def test_a_deletion_whose_answer_is_lost(written: DerivaCatalog, fake: DerivaServer, harm: Harm) -> None:
    """It is made again, and what is gone already is not missed."""
    written.insert("Dataset_Type", [TERM])
    fake.faults.add(fault(harm, "DELETE"))
    assert written.delete("Dataset_Type", {"Name": "new"}) == 1
    assert written.select("Dataset_Type", {"Name": "new"}) == []


def test_a_used_reservation(catalog: DerivaCatalog, written: DerivaCatalog) -> None:
    """A writer's reserved id is used once: again it is passed over, or named as taken; so it is for an owner."""
    for user in (written, catalog):
        (rid,) = user.reserve(1)
        assert user.insert("Dataset", [{"RID": rid}]) == 1
        assert user.insert("Dataset", [{"RID": rid}], skip_existing=True) == 0
        with pytest.raises(DuplicateRow, match=rid):
            user.insert("Dataset", [{"RID": rid}])


def test_some_reservations_used(written: DerivaCatalog) -> None:
    """Of several rows those that are not there yet are added."""
    rids = written.reserve(3)
    written.insert("Dataset", [{"RID": rids[1]}])
    assert written.insert("Dataset", [{"RID": rid} for rid in rids], skip_existing=True) == 2
    assert len(written.select("Dataset", {"RID": rids})) == 3


def test_an_id_that_was_not_reserved(written: DerivaCatalog) -> None:
    """A writer cannot give an id of his own choice."""
    with pytest.raises(AccessRefused, match="non-leased value '9-ZZZZ'"):
        written.insert("Dataset", [{"RID": "9-ZZZZ"}])


def test_rows_that_share_a_key(written: DerivaCatalog) -> None:
    """Twice the same key in one call is added once where taken keys are passed over, else it is an error."""
    assert written.insert("Dataset_Type", [TERM, TERM], skip_existing=True) == 1
    other = {"Name": "other", "Description": ""}
    with pytest.raises(DuplicateRow):
        written.insert("Dataset_Type", [other, other])


@pytest.mark.parametrize("harm", [Harm.answer, Harm.lose, Harm.reset])
def test_a_race_for_one_row(written: DerivaCatalog, fake: DerivaServer, harm: Harm) -> None:
    """Whatever befalls the insertion, there is one row, and everyone gets it."""
    fake.faults.add(fault(harm, "POST"))
    wanted = {"Name": "w", "URL": "https://x.org/a", "Checksum": "1" * 40, "Workflow_Type": "Training"}
    where = AnyOf(({"URL": wanted["URL"]}, {"Checksum": wanted["Checksum"]}))
    row, _ = written.insert_unless("Workflow", where, wanted)
    again, new = written.insert_unless("Workflow", where, wanted)
    assert (again["RID"], new) == (row["RID"], False)
    assert len(written.select("Workflow")) == 1


def test_a_catalog_that_never_stands_still(written: DerivaCatalog, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """Where others write all the time the row is added at last."""
    fake.faults.add(
        fault(
            Harm.call,
            "POST",
            CONCURRENT_WRITE.attempts,
            path="Workflow$",
            call=lambda: fake.ermrest.catalog(catalog.catalog_id).tick(),
        )
    )
    row, new = written.insert_unless("Workflow", {"URL": "u"}, {"Name": "w", "URL": "u", "Workflow_Type": "Training"})
    assert (new, len(written.select("Workflow"))) == (True, 1)
    assert row["URL"] == "u"


def test_a_page_of_html_is_no_answer(written: DerivaCatalog, fake: DerivaServer) -> None:
    """A 404 from the web server is never taken for "no match"."""
    page = Answer.text(404, APACHE_404, "text/html; charset=iso-8859-1")
    for ask in (
        lambda: written.select("Dataset", {"RID": "1-ABC"}),
        lambda: written.locate(["1-ABC"]),
    ):
        fake.faults.add(fault(Harm.answer, "GET", reply=page))
        with pytest.raises(UnknownAddress, match="HTML"):
            ask()


def test_long_conditions_are_asked_in_portions(written: DerivaCatalog, fake: DerivaServer) -> None:
    """No path is longer than a server takes, whatever the values are."""
    rows = [{"Name": f"{number:03}" + "図" * 60, "Description": ""} for number in range(60)]
    written.insert("Feature_Name", rows)
    names = [row["Name"] for row in rows]
    fake.requests.clear()
    assert len(written.select("Feature_Name", {"Name": names})) == 60
    either = AnyOf(tuple({"Name": name} for name in names))
    assert len(written.select("Feature_Name", either, order=("Name",), limit=7)) == 7
    assert max(len(request.path) for request in fake.requests) < 8000
    with pytest.raises(ConfigurationError, match="too long"):
        written.select("Feature_Name", {"Name": "x" * 5000})


def test_a_session_that_ends(written: DerivaCatalog, fake: DerivaServer) -> None:
    """An ended session is said, with what to do; after a login the same call goes on."""
    fake.log_out("test2")
    with pytest.raises(LoginRequired, match="Log in"):
        written.insert("Dataset_Type", [TERM])
    fake.log_in("test2")
    assert written.insert("Dataset_Type", [TERM]) == 1


def test_a_right_that_is_missing(written: DerivaCatalog) -> None:
    """A writer who is not an owner cannot make tables, and is told."""
    with pytest.raises(AccessRefused, match="create access"):
        written.create_tables([Table("New", (Column("A"),))])


def test_a_row_in_use(written: DerivaCatalog) -> None:
    """A row that others refer to is not deleted, and the table that does is named."""
    written.insert("Workflow", [{"Name": "w", "Workflow_Type": "Training"}])
    with pytest.raises(RowInUse, match="Workflow refers to it"):
        written.delete("Workflow_Type", {"Name": "Training"})


def test_a_snapshot_of_another_catalog(written: DerivaCatalog) -> None:
    """A state that the catalog never had is an error."""
    with pytest.raises(UnknownVersion, match="revision"):
        written.at("1").select("Workflow")


def test_times_have_one_form(written: DerivaCatalog, fake: DerivaServer) -> None:
    """Times sort as texts, though the server leaves zeros out."""
    row = {"RID": "1", "RCT": "2026-01-01T00:00:00.5+00:00", "RMT": "2026-01-01T00:00:00+00:00"}
    fake.faults.add(fault(Harm.answer, "GET", reply=Answer.json(200, [row])))
    (found,) = written.select("Dataset")
    assert (found["RCT"], found["RMT"]) == ("2026-01-01T00:00:00.500000+00:00", "2026-01-01T00:00:00.000000+00:00")
    assert found["Description"] is None


def test_an_empty_text(written: DerivaCatalog) -> None:
    """An empty text can be asked for, alone and among others."""
    written.insert("Dataset_Type", [TERM])
    assert [row["Name"] for row in written.select("Dataset_Type", {"Description": ""})] == ["new"]
    assert len(written.select("Dataset_Type", {"Description": ["", "To test with"]})) == 2


def test_many_ids_are_located_by_table(written: DerivaCatalog, fake: DerivaServer) -> None:
    """Ids are looked up many at a time, in the tables that have ids which people know first."""
    rids = written.reserve(30)
    written.insert("Dataset", [{"RID": rid} for rid in rids])
    fake.requests.clear()
    assert set(written.locate(rids).values()) == {"Dataset"}
    assert len(fake.requests) <= 4
