"""How one file's bytes get into Hatrac: at once, or in chunks that go on where they stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from deriva_ml_core.backends.remote.content import Changed, Content, Slice
from deriva_ml_core.backends.remote.hatrac import LARGEST_REQUEST, Hatrac, Places, Raced
from deriva_ml_core.backends.remote.names import ObjectName
from deriva_ml_core.backends.remote.server import backoff
from deriva_ml_core.crew import as_done
from deriva_ml_core.errors import StoreUnavailable

if TYPE_CHECKING:
    from pydantic import JsonValue
    from requests import Response

__all__ = ["Sending"]

LOOK_FIRST = 5 * 2**20
"""Bytes from which we ask for an object before we send it: a refused body costs its sending."""

RACES = 10
"""How often a request is repeated that met another to the same name."""

FINISHES = 6
"""How often a job is finished whose answer was lost, or which the server was still busy with."""

IN_FLIGHT = 2
"""Chunks on their way at once: more helped only over a long line."""

HASHED = 50e6
"""Bytes a second that a server surely hashes when it finishes a job; 530e6 were measured."""

Note = Callable[["JsonValue"], None]


@dataclass(frozen=True)
class Sending:
    """One file on its way.

    Args:
        hatrac: The store.
        name: What the object is called.
        content: The bytes.
        places: What else is just being put.
        note: Where to write down how far it is.
        resume: How far it was.
    """

    hatrac: Hatrac
    name: ObjectName
    content: Content
    places: Places
    note: Note
    resume: JsonValue = None

    def run(self) -> str:
        """Send, and return the versioned URL.

        Raises:
            Changed: The file was written meanwhile.
            StoreUnavailable: It may succeed later.
        """
        chunk = min(self.hatrac.options.chunk_size, LARGEST_REQUEST)
        for attempt in range(RACES):
            try:
                with self.places.entering(self.name.namespace, self.name.path):
                    url = self._at_once() if self.content.length <= chunk else self._in_chunks(chunk)
                self.places.know(self.name.namespace)
                return url
            except Raced:
                if attempt == RACES - 1:
                    raise
                self.hatrac.server.sleep(backoff(attempt))
        raise AssertionError("unreachable")

    # what is there

    def _there(self) -> tuple[str | None, bool]:
        """The URL of an object with these very bytes, where there is one; and whether there is any under this name."""
        response = self.hatrac.send("HEAD", self.name.path, self._what, expected=(404, 409))
        if response.status_code >= 400:
            return None, False
        headers = response.headers
        if not self.content.equals(headers.get("Content-MD5"), headers.get("Content-Length")):
            return None, True
        return self._url(headers.get("Content-Location", "")), True

    @property
    def _what(self) -> str:
        return unquote(self.name.path)

    def _url(self, answered: str) -> str:
        url = self.name.versioned(answered)
        if url is None:
            raise StoreUnavailable(
                f"{self.hatrac.server.host} answered with the name of another object for {self._what}. Look at what "
                "stands between this machine and the server."
            )
        return url

    # at once

    def _at_once(self) -> str:
        headers = {
            "Content-MD5": self.content.header,
            "Content-Type": self.name.type,
            "Content-Disposition": self.name.disposition,
        }
        if self.content.length < LOOK_FIRST:
            response = self._put({**headers, "If-None-Match": "*"})
            if response.status_code != 412:
                return self._url(response.text)
        url, _ = self._there()
        return url or self._url(self._put(headers).text)

    def _put(self, headers: dict[str, str]) -> Response:
        with self.content.file.open("rb", buffering=0) as opened:
            body: Any = Slice(opened, 0, self.content.length) if self.content.length else b""
            response = self.hatrac.send(
                "PUT", f"{self.name.path}?parents=true", self._what, headers=headers, body=body, expected=(400, 412)
            )
        if response.status_code == 400:
            raise self._other_bytes() if "MD5" in response.text else self.hatrac.refusal(response, self._what)
        return response

    def _other_bytes(self) -> Exception:
        if self.content.changed():
            return Changed()
        return StoreUnavailable(
            f"The bytes of {self._what} did not come to {self.hatrac.server.host} as they were sent. Try again."
        )

    # in chunks

    def _in_chunks(self, chunk: int) -> str:
        url, _ = self._there()
        if url is not None:
            return url
        job = _Job.resumed(self) or _Job.begun(self, chunk)
        url = job.finished() if job.sent_all() else None
        if url is None:  # it is gone or spoilt: once more, from the beginning
            if self.content.changed():
                raise Changed
            job = _Job.begun(self, chunk)
            url = job.finished() if job.sent_all() else None
        if url is None:
            raise self._other_bytes()
        return url


@dataclass
class _Job:
    """A chunked upload.

    Args:
        sending: Of what.
        path: Its own path.
        chunk: Bytes a chunk.
        done: How many chunks, from the first, are there.
    """

    sending: Sending
    path: str
    chunk: int
    done: int = 0

    @classmethod
    def begun(cls, sending: Sending, chunk: int) -> _Job:
        name, content = sending.name, sending.content
        given = {
            "chunk-length": chunk,
            "content-length": content.length,
            "content-md5": content.header,
            "content-type": name.type,
            "content-disposition": name.disposition,
        }
        response = sending.hatrac.send(
            "POST",
            f"{name.path};upload?parents=true",
            sending._what,
            headers={"Content-Type": "application/json"},
            body=json.dumps(given).encode(),
        )
        identity = response.text.strip().rpartition(";upload/")[2]
        if not identity.isalnum():
            raise StoreUnavailable(f"{sending.hatrac.server.host} named no job for {sending._what}. Try again later.")
        job = cls(sending, f"{name.path};upload/{identity}", chunk)
        job._noted()
        return job

    @classmethod
    def resumed(cls, sending: Sending) -> _Job | None:
        """The job of an upload that was interrupted, if it is there still and of the same bytes."""
        match sending.resume:
            case {"job": str(identity), "chunk": int(chunk), "sent": int(done), "md5": sending.content.md5}:
                job = cls(sending, f"{sending.name.path};upload/{identity}", chunk, done)
            case _:
                return None
        if not identity.isalnum():
            return None
        response = sending.hatrac.send("GET", job.path, sending._what, expected=(403, 404, 409))
        if response.status_code >= 400:
            return None
        found = response.json()
        wanted = {
            "chunk-length": chunk,
            "content-length": sending.content.length,
            "content-md5": sending.content.header,
        }
        return job if {key: found.get(key) for key in wanted} == wanted else None

    def _noted(self) -> None:
        content = self.sending.content
        self.sending.note(
            {
                "job": self.path.rpartition("/")[2],
                "chunk": self.chunk,
                "sent": self.done,
                "md5": content.md5,
                "stamp": list(content.stamp),
            }
        )

    def sent_all(self) -> bool:
        """Send the chunks that are not there, a few at once; False where the job is gone or spoilt."""
        count = -(-self.sending.content.length // self.chunk)
        confirmed: set[int] = set()
        sending = as_done(self._send, range(self.done, count), IN_FLIGHT, name="deriva-ml-chunk")
        with closing(sending) as chunks:
            for number, good in chunks:
                if not good:
                    return False
                confirmed.add(number)
                while self.done in confirmed:
                    self.done += 1
                self._noted()
        return True

    def _send(self, number: int) -> bool:
        start = number * self.chunk
        length = min(self.chunk, self.sending.content.length - start)
        with self.sending.content.file.open("rb", buffering=0) as opened:
            body: Any = Slice(opened, start, length)
            response = self.sending.hatrac.send(
                "PUT",
                f"{self.path}/{number}",
                f"chunk {number} of {self.sending._what}",
                headers={"Content-Type": "application/octet-stream"},
                body=body,
                expected=(404, 409),
            )
        return response.status_code < 400

    def finished(self) -> str | None:
        """Have the object made of the chunks; None where the job is gone, or its bytes are not those."""
        sending = self.sending
        for attempt in range(FINISHES):
            lost = False
            try:
                response = sending.hatrac.send(
                    "POST",
                    self.path,
                    sending._what,
                    expected=(404, 409, 500),
                    work=sending.content.length / HASHED,
                )
            except StoreUnavailable:
                lost = True
            if not lost and response.status_code < 400:
                return sending._url(response.text)
            # done already, or the answer was lost: the object itself tells
            url, _ = sending._there()
            if url is not None:
                return url
            if not lost and response.status_code in (404, 409):
                self._cancel()
                return None
            sending.hatrac.server.sleep(backoff(attempt, first=0.2))
        raise StoreUnavailable(
            f"{sending.hatrac.server.host} has all chunks of {sending._what} and does not put them together. "
            "Try again later."
        )

    def _cancel(self) -> None:
        self.sending.hatrac.send("DELETE", self.path, self.sending._what, expected=(404, 409, 500))
