"""The fake server answers what a real one answered, request by request."""

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

DIFFERENT = {
    "ermrest": {
        2: "the times of the session",
        123: "the place of a syntax error",
        124: "the place of a syntax error",
        146: "which of PostgreSQL's functions complained",
        147: "which of PostgreSQL's functions complained",
        **dict.fromkeys((82, 87, 163, 164), "rows came in no order that was asked for"),
    },
    "hatrac": {1: "what else there was on that server", 126: "a row of the server's own tables"},
    "techniques": {
        3: "the times of the session",
        108: "the server's own path",
        153: "record ids that stand in no recording",
    },
}
"""Where only the words differ; the status is the same."""


def stand_in(replay: Replay, exchange: Exchange) -> None:
    """Bring about what an exchange did which the fake does not serve."""
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


@pytest.mark.parametrize(("recording", "first"), [("ermrest", 13), ("hatrac", 1), ("techniques", 28)])
def test_recording(recording: str, first: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each recorded request gets the status, the headers and the body that a real server gave."""
    server = DerivaServer(tmp_path, first_catalog=first)
    replay = Replay(server)
    found: dict[int, list[str]] = {}
    served = 0
    for exchange in read(recording):
        seq = exchange["seq"]
        if seq in NOT_SERVED[recording]:
            if recording == "ermrest":
                stand_in(replay, exchange)
            continue
        served += 1
        # what other writers abort is a fault that the fake has on command
        answer = unavailable() if exchange["status"] == 503 else replay.send(exchange)
        differences = replay.compare(exchange, answer)
        if seq in DIFFERENT[recording]:
            differences = [one for one in differences if one.startswith("status")]
        if differences:
            found[seq] = [exchange["stage"], *differences]
    with capsys.disabled():
        print(f"\n{recording}: {served} of {served + len(NOT_SERVED[recording])} recorded exchanges are answered so")
    assert not found, "\n".join(f"{seq}: {said}" for seq, said in found.items())


def test_the_model_of_a_whole_schema(tmp_path: Path) -> None:
    """A schema posted in one request is documented as the real server documents it."""
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
