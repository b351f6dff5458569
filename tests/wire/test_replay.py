"""The fake server responds to recorded requests as the real one did."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from fakes.deriva_server import DerivaServer
from fakes.faults import unavailable
from fakes.replay import NOT_SERVED, RECORDINGS, Exchange, Replay, read
from fakes.web import Request, User

RUN = "/ermrest/catalog/13/entity/demo:Run"

DIFFERENT_TEXTS = {
    "ermrest": {
        2: "the times of the session",
        123: "the place of a syntax error",
        124: "the place of a syntax error",
        146: "which of PostgreSQL's functions complained",
        147: "which of PostgreSQL's functions complained",
        **dict.fromkeys((82, 87, 163, 164), "the request does not sort the rows"),
    },
    "ermrest_2": {},
    "hatrac": {1: "what else there was on that server", 126: "a row of the server's own tables"},
    "techniques": {
        3: "the times of the session",
        108: "the server's own path",
        153: "record ids that stand in no recording",
    },
}
"""Exchanges whose status is the same but whose text differs, with the reason."""


def substitute_request(replay: Replay, exchange: Exchange) -> None:
    """Bring about the effect of an exchange that the fake server does not support."""
    match exchange["seq"]:
        case 34 | 36:
            rows = [
                {name: value or None for name, value in row.items()}
                for row in csv.DictReader(io.StringIO(exchange["request_body"]))
            ]
            replay.send_as(exchange, "POST", RUN, rows)
        case 91:
            rows = [{"RID": "1TR", "Score": 42.5}]
            replay.send_as(exchange, "PUT", RUN.replace("entity", "attributegroup") + "/RID;Score", rows)
        case 93:
            columns = ("Status", "N", "Score", "At", "Day", "Doc", "Ok")
            path = f"{RUN.replace('entity', 'attributegroup')}/RID;{','.join(columns)}"
            replay.send_as(exchange, "PUT", path, [{"RID": "1TT"}])
        case 92 | 115:
            rows = [{"Name": json.loads(exchange["request_body"])[0]["Name"]}]
            replay.send_as(exchange, "POST", RUN, rows)


@pytest.mark.parametrize(
    ("recording", "first"), [("ermrest", 13), ("ermrest_2", 105), ("hatrac", 1), ("techniques", 28)]
)
def test_recording(recording: str, first: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each recorded request gets the status, headers and body of the real server."""
    server = DerivaServer(tmp_path, first_catalog=first)
    replay = Replay(server)
    mismatches: dict[int, list[str]] = {}
    served = 0
    for exchange in read(recording):
        seq = exchange["seq"]
        if seq in NOT_SERVED[recording]:
            if recording == "ermrest":
                substitute_request(replay, exchange)
            continue
        served += 1
        # an aborted transaction is a fault that the fake server injects on request
        answer = unavailable() if exchange["status"] == 503 else replay.send(exchange)
        differences = replay.compare(exchange, answer)
        if seq in DIFFERENT_TEXTS[recording]:
            differences = [difference for difference in differences if difference.startswith("status")]
        if differences:
            mismatches[seq] = [exchange["stage"], *differences]
    with capsys.disabled():
        print(f"\n{recording}: {served} of {served + len(NOT_SERVED[recording])} recorded exchanges are answered so")
    assert not mismatches, "\n".join(f"{seq}: {differences}" for seq, differences in mismatches.items())


def test_model_of_posted_schema(tmp_path: Path) -> None:
    """A schema posted in one request is returned as the real server returns it."""
    server = DerivaServer(tmp_path)
    user = User("test1", ("admin",))

    def send(method: str, path: str, body: bytes = b"") -> object:
        return json.loads(server.answer(Request(method, f"/ermrest/catalog{path}", "", {}, body, user)).body)

    send("POST", "")
    send("POST", "/1/schema", (RECORDINGS / "schema_request.json").read_bytes())
    now = send("GET", "/1/schema")
    then = json.loads((RECORDINGS / "schema_response.json").read_text(encoding="utf-8"))
    assert isinstance(now, dict)
    tables = now["schemas"]["deriva-ml"]["tables"]
    assert Replay(server)._compare_json(then["schemas"]["deriva-ml"]["tables"], tables, "") == []
    assert now.keys() == then.keys()
