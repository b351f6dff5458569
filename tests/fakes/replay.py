"""Replay of recorded exchanges with a real server against the fake one, and comparison of the responses."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fakes.deriva_server import DerivaServer
from fakes.web import Answer, Request, User

__all__ = ["NOT_SERVED", "RECORDINGS", "Exchange", "Replay", "read"]

RECORDINGS = Path(__file__).parents[1] / "wire"

Exchange = dict[str, Any]

NOT_SERVED = {
    "ermrest": {
        **dict.fromkeys((34, 35, 36, 74, 75, 76), "CSV and streams of JSON, which the client never requests"),
        **dict.fromkeys((91, 92, 93, 115, 117, 118, 121), "PUT of whole entities, which would empty columns"),
        148: "the range of the history",
        153: "the list of users",
    },
    "ermrest_2": {},
    "hatrac": {
        **dict.fromkeys((69, 70), "changing metadata"),
        **dict.fromkeys((137, 138, 139), "renaming"),
    },
    "techniques": {
        **dict.fromkeys((166, 167), "a session that is valid for a minute after its end"),
    },
}
"""Exchanges that the fake server does not support, with the reason; `fakes.forms` detects such requests."""

COMPARED_HEADERS = (
    "Location",
    "Content-Location",
    "content-md5",
    "content-range",
    "content-disposition",
    "accept-ranges",
)
"""Headers that clients use. Of Content-Type only the type is compared, of ETag only its presence."""

BYTES = bytes(range(256)) * 520
CHUNKED = BYTES[: 2 * 65536 + 1000]
"""Substitute for the 132,072 bytes that were sent in chunks of 65,536, which the recording does not contain."""

TOKEN = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9]")
VOLATILE = (
    re.compile(r"[0-9A-HJKMNP-TV-Z]{1,4}"),  # a RID or a part of a snapshot
    re.compile(r"[A-Z2-7]{26}"),  # a version or a job of Hatrac
    re.compile(r"[0-9a-f]{32}"),  # a digest of bytes that are not in the recording
    re.compile(r"\d{2}T?\d{2}|\d+"),  # part of a time
    re.compile(r"0x[0-9a-f]+"),
)


def digest(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body).digest()).decode()


KNOWN_DIGESTS = {
    "H4dUuShX33mpYRgQZqruLg==": digest(CHUNKED),
    "CAy6vjWpCMxlFRy5Mxma3g==": digest(CHUNKED[65536 : 2 * 65536]),
    "daAQzd+o8n0ic+J2GWTADg==": digest(BYTES[:72]),
}


def read(name: str) -> Iterator[Exchange]:
    """Yield the exchanges of a recording, in order."""
    with (RECORDINGS / f"{name}.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


class Replay:
    """Replay of one recording against a server.

    Args:
        server: A new fake server.
    """

    def __init__(self, server: DerivaServer) -> None:
        self._server = server
        self._known: dict[str, str] = dict(KNOWN_DIGESTS)
        self._etags: dict[str, str] = {}

    def send(self, exchange: Exchange) -> Answer:
        """Send a recorded request, with names translated to those that this server assigned."""
        path, _, query = self._translate(exchange["path"]).partition("?")
        headers = {
            name.lower(): self._etags.get(value) or self._known.get(value, value)
            for name, value in exchange["request_headers"].items()
        }
        body = self._body(exchange)
        headers["content-length"] = str(len(body))
        has_ended = exchange["stage"].startswith("an ended session")
        user = User() if has_ended else self._user(exchange.get("user") or "anonymous")
        return self._server.answer(Request(exchange["method"], path, query, headers, body, user))

    def send_as(self, exchange: Exchange, method: str, path: str, rows: list[dict[str, Any]]) -> None:
        """Bring about the effect of an exchange that the fake server does not support."""
        request = {**exchange, "method": method, "path": path, "request_body": json.dumps(rows)}
        request["request_headers"] = {"Content-Type": "application/json"}
        answer = self.send(request)
        assert answer.status == 200, answer.body
        self._learn_by_name(exchange, json.loads(answer.body))

    def compare(self, exchange: Exchange, answer: Answer) -> list[str]:
        """Return the differences between the recorded and the present response, and learn the assigned names."""
        if answer.status != exchange["status"]:
            return [f"status {answer.status} for {exchange['status']}: {answer.body[:300]!r}"]
        recorded = exchange["response_headers"]
        differences = []
        for name in COMPARED_HEADERS:
            then, now = _header(recorded, name), _header(answer.headers, name)
            if (then is None) != (now is None) or (then and now and not self._is_equivalent(then, now)):
                differences.append(f"{name} {now!r} for {then!r}")
        types = [(_header(headers, "Content-Type") or "").partition(";")[0] for headers in (recorded, answer.headers)]
        if types[0] != types[1] and answer.status not in (204, 304) and exchange["method"] != "HEAD":
            differences.append(f"type {types[1]} for {types[0]}")
        if ((etag := _header(recorded, "ETag")) is None) != (_header(answer.headers, "ETag") is None):
            differences.append(f"ETag {_header(answer.headers, 'ETag')} for {etag}")
        elif etag is not None:
            self._etags[etag] = answer.headers["ETag"]
        return differences + self._compare_body(exchange, answer)

    def _compare_body(self, exchange: Exchange, answer: Answer) -> list[str]:
        recorded = exchange["response_body"]
        if exchange["method"] == "HEAD":
            return []
        body = b"".join(answer.pieces()) if answer.pieces else answer.body
        if isinstance(recorded, dict):
            return [] if len(body) == recorded["bytes"] or answer.status >= 400 else [f"{len(body)} bytes"]
        text = body.decode()
        if (_header(answer.headers, "Content-Type") or "").startswith("application/json"):
            try:
                then = json.loads(recorded)
            except ValueError:
                return []  # the recorded body is truncated
            sort = "@sort" not in exchange["path"] and "catalog" in exchange["path"]
            return self._compare_json(then, json.loads(text), "", sort=sort and "limit" not in exchange["path"])
        if "html" in (_header(answer.headers, "Content-Type") or ""):
            return []
        return [] if self._is_equivalent(recorded, text) else [f"text {text[:300]!r} for {recorded[:300]!r}"]

    def _compare_json(self, then: Any, now: Any, where: str, *, sort: bool = False) -> list[str]:
        if isinstance(then, dict) and isinstance(now, dict):
            if then.keys() != now.keys():
                return [f"{where}: keys {sorted(now.keys() ^ then.keys())} differ"]
            return [found for key in then for found in self._compare_json(then[key], now[key], f"{where}/{key}")]
        if isinstance(then, list) and isinstance(now, list):
            if len(then) != len(now):
                return [f"{where}: {len(now)} for {len(then)}"]
            if sort and all(isinstance(one, dict) and "RID" in one for one in then):
                then = sorted(then, key=lambda row: self._known.get(row["RID"], row["RID"]))
                now = sorted(now, key=lambda row: row["RID"])
            pairs = enumerate(zip(then, now, strict=True))
            return [found for n, (one, other) in pairs for found in self._compare_json(one, other, f"{where}/{n}")]
        if isinstance(then, str) and isinstance(now, str):
            return [] if self._is_equivalent(then, now) else [f"{where}: {now!r} for {then!r}"]
        return [] if then == now and type(then) is type(now) else [f"{where}: {now!r} for {then!r}"]

    def _is_equivalent(self, then: str, now: str) -> bool:
        """Whether two texts differ only in what each server numbers on its own."""
        if then == now or self._translate(then) == now:
            return True
        one, other = TOKEN.findall(_pad_times(then)), TOKEN.findall(_pad_times(now))
        if len(one) != len(other):
            return self._known.get(then) == now
        pairs = [(first, second) for first, second in zip(one, other, strict=True) if first != second]
        if not all(any(v.fullmatch(first) and v.fullmatch(second) for v in VOLATILE) for first, second in pairs):
            return False
        self._known.setdefault(then, now)
        for first, second in pairs:
            if len(first) in (3, 26):
                self._known.setdefault(first, second)
        return True

    def _translate(self, text: str) -> str:
        if text in self._known:
            return self._known[text]
        found = re.split(r"(%[0-9A-Fa-f]{2}|[0-9A-Za-z]+(?:-[0-9A-Z]{4})*)", text)
        return "".join(self._known.get(part, part) for part in found)

    def _learn_by_name(self, exchange: Exchange, now: list[dict[str, Any]]) -> None:
        recorded = exchange["response_body"]
        rows = json.loads(recorded) if recorded.startswith("[") else list(csv.DictReader(io.StringIO(recorded)))
        by_name = {row.get("Name"): row for row in now}
        for row in rows:
            if row.get("RID") and row.get("Name") in by_name:
                self._known[row["RID"]] = by_name[row["Name"]]["RID"]

    def _body(self, exchange: Exchange) -> bytes:
        body = exchange["request_body"]
        if isinstance(body, dict):
            return self._bytes(exchange["path"], body.get("bytes", 0))
        if exchange["stage"].startswith("schema: whole") or exchange["stage"] == "schema: the same POST again 409":
            return (RECORDINGS / "schema_request.json").read_bytes()
        if exchange["request_headers"].get("Content-Type") == "application/json":
            return self._translate_json(body).encode()
        return (body or "").encode()

    def _translate_json(self, body: str) -> str:
        try:
            given = json.loads(body)
        except ValueError:
            return body
        return json.dumps(self._translate_values(given))

    def _translate_values(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._translate_values(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._translate_values(one) for one in value]
        return self._translate(value) if isinstance(value, str) else value

    def _bytes(self, path: str, length: int) -> bytes:
        chunk = re.search(r";upload/\w+/(\d+)$", path)
        first = int(chunk[1]) * 65536 if chunk and length in (65536, 1000) else 0
        if chunk and first + length > len(CHUNKED):
            return bytes(length)
        return CHUNKED[first : first + length] if chunk else bytes(length) if length > len(BYTES) else BYTES[:length]

    def _user(self, name: str) -> User:
        return {"test1": User("test1", ("admin",)), "test2": User("test2")}.get(name.partition(",")[0], User())


def _pad_times(text: str) -> str:
    """Write times with all digits, since trailing zeros may be omitted."""
    return re.sub(r"(\d\d:\d\d:\d\d)(?:\.(\d+))?", lambda found: f"{found[1]}.{found[2] or '':0<6}", text)


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)
