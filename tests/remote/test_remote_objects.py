"""Objects on a server over a line that breaks: each file is sent and brought whole, once, from where it stopped."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from deriva_ml_core._retry import RetryingStore
from deriva_ml_core.backends.deriva.hatrac_upload import FileSlice
from deriva_ml_core.backends.deriva.http import Server
from deriva_ml_core.backends.deriva.store import DerivaStore
from deriva_ml_core.backends.object_names import HatracObjectName, parse_object_path
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.errors import (
    AccessRefused,
    ChecksumMismatch,
    FileConflict,
    InvalidFileName,
    LoginRequired,
    StoreUnavailable,
    UnknownAddress,
)
from deriva_ml_core.models import StoredObject, UploadOptions
from fakes.deriva_server import DerivaServer
from fakes.faults import Fault, Harm, unavailable
from fakes.web import Answer

BYTES = bytes(range(256)) * 40
OPTIONS = UploadOptions(chunk_size=4096, max_retries=3, retry_delay=0)
CHUNK = r";upload/\w+/\d+$"
FINISH = r";upload/\w+$"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(BYTES)
    return path


@pytest.fixture
def put(store: DerivaStore, file: Path):
    """Store the file as uploads do, with repeats; large options make it one request."""

    def stored(options: UploadOptions = OPTIONS, resume: object = None, note=lambda said: None) -> StoredObject:
        return RetryingStore(store).put(
            "Model", "model.pt", file, handover=TransferMode.copy, options=options, resume=resume, note=note
        )

    return stored


WHOLE = UploadOptions(max_retries=3, retry_delay=0)


def versions(fake: DerivaServer) -> int:
    return sum(len(held.versions) for held in fake.hatrac.objects.values())


def content(fake: DerivaServer) -> bytes:
    (held,) = fake.hatrac.objects.values()
    return list(held.versions.values())[-1].file.read_bytes()


def sent_chunks(fake: DerivaServer) -> list[int]:
    found = (re.search(r";upload/\w+/(\d+)$", request.path) for request in fake.requests)
    return sorted(int(one[1]) for one in found if one)


def test_requests(put, fake: DerivaServer) -> None:
    """A small file is one request, and the same one again is two; a file of 3 chunks is 6."""
    first = put(WHOLE)
    assert [request.method for request in fake.requests] == ["PUT"]
    assert fake.requests[0].headers["content-md5"]
    fake.requests.clear()
    assert put(WHOLE) == first
    assert [request.method for request in fake.requests] == ["PUT", "HEAD"]
    fake.requests.clear()
    assert put() == first
    assert [request.method for request in fake.requests] == ["HEAD"]
    assert versions(fake) == 1


def test_chunks(put, fake: DerivaServer) -> None:
    """A larger file goes in chunks, each once, and is looked for first."""
    put()
    assert [request.method for request in fake.requests if not re.search(CHUNK, request.path)] == [
        "HEAD",
        "POST",
        "POST",
    ]
    assert sent_chunks(fake) == [0, 1, 2]
    assert content(fake) == BYTES


@pytest.mark.parametrize("options", [WHOLE, OPTIONS], ids=["whole", "chunks"])
@pytest.mark.parametrize("harm", [Harm.answer, Harm.reset, Harm.lose])
@pytest.mark.parametrize("skip", range(6))
def test_any_request_may_fail(put, fake: DerivaServer, options: UploadOptions, harm: Harm, skip: int) -> None:
    """Whichever request is refused, breaks, or loses its answer, the object is there once and right."""
    fake.faults.add(Fault(harm, skip=skip))
    stored = put(options)
    assert (versions(fake), content(fake)) == (1, BYTES)
    (held,) = fake.hatrac.objects.values()
    assert stored.url.endswith(next(iter(held.versions)))


def test_other_content_under_the_name(put, fake: DerivaServer, store: DerivaStore, file: Path) -> None:
    """Where another content has the name, ours becomes a version of its own."""
    first = put(WHOLE)
    (held,) = fake.hatrac.objects.values()
    next(iter(held.versions.values())).metadata["content-md5"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    assert put(WHOLE).url != first.url
    assert put().url != first.url


@pytest.mark.parametrize("at", range(1, 5))
def test_a_new_process_goes_on(put, fake: DerivaServer, at: int) -> None:
    """After a kill, what was noted as confirmed, which is all before a chunk, is not sent again."""

    class Killed(BaseException):
        pass

    heard: list = []

    def note(said: object) -> None:
        heard.append(said)
        if len(heard) == at:
            raise Killed

    with pytest.raises(Killed):
        put(note=note)
    fake.requests.clear()
    put(resume=heard[-1])
    assert content(fake) == BYTES
    assert sent_chunks(fake) == list(range(heard[-1]["sent"], 3))


def test_a_job_that_is_gone_is_begun_again(put, fake: DerivaServer) -> None:
    """A job that the server has forgotten is made anew, in this process and in the next."""
    heard: list = []
    fake.faults.add(Fault(Harm.call, path=CHUNK, skip=1, call=fake.hatrac.jobs.clear))
    put(note=heard.append)
    assert content(fake) == BYTES
    fake.hatrac.objects.clear()
    put(resume=heard[-1])
    assert content(fake) == BYTES


def test_a_lost_chunk_is_found_out(put, fake: DerivaServer) -> None:
    """A chunk that the server took and lost makes the digest wrong: all is sent again."""

    def lose() -> None:
        (job,) = fake.hatrac.jobs.values()
        job.file.write_bytes(b"?" + job.file.read_bytes()[1:])

    fake.faults.add(Fault(Harm.call, "POST", path=FINISH, call=lose))
    put()
    assert content(fake) == BYTES
    assert fake.hatrac.jobs == {}


def test_a_job_of_other_bytes_is_not_gone_on_with(put, fake: DerivaServer, file: Path) -> None:
    """A file that was written since gets a job of its own."""
    heard: list = []
    fake.faults.add(Fault(Harm.answer, "POST", path=FINISH, times=100))
    with pytest.raises(StoreUnavailable):
        put(note=heard.append)
    fake.faults.clear()
    file.write_bytes(BYTES[::-1])
    put(resume=heard[-1])
    assert [held.file.read_bytes() for one in fake.hatrac.objects.values() for held in one.versions.values()] == [
        BYTES[::-1]
    ]


@pytest.mark.parametrize("options", [WHOLE, OPTIONS], ids=["whole", "chunks"])
def test_a_file_that_changes_while_it_is_sent(put, fake: DerivaServer, file: Path, options: UploadOptions) -> None:
    """The bytes that are stored are those of one moment."""
    fake.faults.add(Fault(Harm.call, "HEAD|PUT", call=lambda: None))
    fake.faults.add(Fault(Harm.call, "POST", path=";upload$", call=lambda: file.write_bytes(b"other" * 2000)))
    stored = put(options)
    assert stored.length in (len(BYTES), 10_000)
    assert stored.md5 in stored.url


@pytest.mark.parametrize("text", ["duplicate key value violates", "in use"])
def test_two_who_put_one_name(put, fake: DerivaServer, text: str) -> None:
    """What the server says when two put one name at once is no error."""
    reply = Answer.text(500 if "duplicate" in text else 409, text)
    fake.faults.add(Fault(Harm.answer, "PUT", reply=reply, times=3))
    put(WHOLE.model_copy(update={"max_retries": 0}))
    assert versions(fake) == 1


def test_a_burnt_name(put, fake: DerivaServer) -> None:
    """A name that was deleted is never given again, and that is said."""
    stored = put(WHOLE)
    fake.hatrac.burnt.add(stored.url.removeprefix("/hatrac").rpartition(":")[0])
    fake.hatrac.objects.clear()
    with pytest.raises(FileConflict, match="another name"):
        put(WHOLE)


def test_no_right_to_store(connect, file: Path, fake: DerivaServer) -> None:
    """A writer of the catalog may have no right to objects, which is told apart."""
    with pytest.raises(AccessRefused, match="does not include it"):
        DerivaStore(connect("test2")).put("Model", "a", file, handover=TransferMode.copy, options=WHOLE)


def test_a_session_that_ends_between_chunks(put, fake: DerivaServer) -> None:
    """It is not tried again and again; after a login the upload goes on from the chunk where it stopped."""
    heard: list = []
    fake.faults.add(Fault(Harm.call, path=CHUNK, skip=1, call=lambda: fake.log_out("test1")))
    fake.faults.add(Fault(Harm.answer, path=CHUNK, skip=1, times=9, reply=Answer.text(401, "")))
    with pytest.raises(LoginRequired, match="deriva-globus-auth-utils"):
        put(note=heard.append)
    fake.faults.clear()
    fake.log_in("test1")
    fake.requests.clear()
    put(resume=heard[-1])
    assert 0 not in sent_chunks(fake)
    assert content(fake) == BYTES


def test_the_wait_that_is_asked_for(put, fake: DerivaServer, waits: list) -> None:
    """A server that is busy is left alone for as long as it asks."""
    fake.faults.add(Fault(Harm.answer, "PUT", reply=unavailable(retry_after=3)))
    put(WHOLE)
    assert waits == [3]


def test_an_answer_that_does_not_come(file: Path, fake: DerivaServer) -> None:
    """The time to wait for an answer is kept, and the upload says that it may succeed later."""
    fake.latency = 2.0
    slow = DerivaStore(Server("http", fake.hostname.removeprefix("http://"), fake.credential()))
    options = UploadOptions(timeout=(5, 0.1), max_retries=0)
    with pytest.raises(StoreUnavailable, match="No response from"):
        slow.put("Model", "a", file, handover=TransferMode.copy, options=options)


@pytest.mark.parametrize("used_before", [False, True])
def test_a_body_that_is_taken_slowly(file: Path, fake: DerivaServer, used_before: bool) -> None:
    """The time to connect does not limit how long a body may take on its way, on a new line or an old one."""
    length = 32 * 2**20
    file.write_bytes(bytes(length))
    server = Server("http", fake.hostname.removeprefix("http://"), fake.credential())
    if used_before:
        server.request("GET", "/authn/session")
    fake.slowness = 1.0
    with file.open("rb", buffering=0) as opened:
        body: Any = FileSlice(opened, 0, length)
        answer = server.request("PUT", "/hatrac/new/object?parents=true", body=body, timeout=(0.3, 60))
    assert answer.status_code == 201


def test_a_body_that_is_taken_piece_by_piece(file: Path, fake: DerivaServer, connect, tmp_path: Path) -> None:
    """The time to wait is one for each piece: a body whose whole way takes longer than that arrives."""
    file.write_bytes(bytes(32 * 2**20))
    fake.faults.add(Fault(Harm.sip, "PUT"))
    options = UploadOptions(timeout=(0.2, 2.5), chunk_size=64 * 2**20, max_retries=0)
    stored = DerivaStore(connect()).put("Model", "a", file, handover=TransferMode.copy, options=options)
    assert (stored.length, versions(fake)) == (32 * 2**20, 1)
    assert [request.method for request in fake.requests] == ["HEAD", "PUT"]


def test_a_body_that_is_not_taken(file: Path, fake: DerivaServer, store: DerivaStore) -> None:
    """After the time to wait the upload says that it may succeed later; then it does, and the object is there once."""
    file.write_bytes(bytes(32 * 2**20))
    options = UploadOptions(timeout=(5, 0.3), chunk_size=64 * 2**20, max_retries=0)
    fake.faults.add(Fault(Harm.sip, "PUT", pause=2, pieces=2))
    with pytest.raises(StoreUnavailable, match=r"No response from .*/hatrac/Model/.*Try again later"):
        store.put("Model", "a", file, handover=TransferMode.copy, options=options)
    store.put(
        "Model", "a", file, handover=TransferMode.copy, options=WHOLE.model_copy(update={"chunk_size": 64 * 2**20})
    )
    assert versions(fake) == 1


@pytest.mark.parametrize("options", [WHOLE, OPTIONS], ids=["whole", "chunks"])
def test_bytes_that_arrive_as_others(put, fake: DerivaServer, options: UploadOptions) -> None:
    """The digest that goes with them finds it out, and they are sent again."""
    fake.faults.add(Fault(Harm.garble, "PUT"))
    put(options)
    assert (versions(fake), content(fake), fake.hatrac.jobs) == (1, BYTES, {})


@pytest.mark.parametrize("options", [WHOLE, OPTIONS], ids=["whole", "chunks"])
def test_bytes_that_always_arrive_as_others(put, fake: DerivaServer, options: UploadOptions) -> None:
    """That is said, and no object has them."""
    fake.faults.add(Fault(Harm.garble, "PUT", times=1000))
    with pytest.raises(StoreUnavailable, match=r"was damaged on its way to "):
        put(options)
    assert (versions(fake), fake.hatrac.jobs) == (0, {})


@pytest.mark.parametrize("answers", [[404], [500, 404], [500, 500]], ids=str)
def test_a_job_that_another_finishes(put, fake: DerivaServer, answers: list[int]) -> None:
    """While another finishes the job the server says 500, afterwards 404: the object itself tells that it is done."""

    def finish() -> None:
        ((name, job),) = fake.hatrac.jobs.items()
        fake.hatrac._finalize(name, job)

    fake.faults.add(Fault(Harm.call, "POST", path=FINISH, skip=len(answers) - 1, call=finish))
    for status in answers[:-1]:
        fake.faults.add(Fault(Harm.answer, "POST", path=FINISH, reply=Answer.text(status, "is being finished")))
    put()
    assert (versions(fake), content(fake), fake.hatrac.jobs) == (1, BYTES, {})
    assert sent_chunks(fake) == [0, 1, 2]


@pytest.mark.parametrize("options", [WHOLE, OPTIONS], ids=["whole", "chunks"])
def test_two_who_put_the_same(connect, file: Path, fake: DerivaServer, options: UploadOptions) -> None:
    """Two at once, each in a session of its own, both get a URL of the right bytes, and no job stays."""
    barrier = Barrier(2, timeout=60)

    def putting(store: DerivaStore) -> StoredObject:
        barrier.wait()
        return RetryingStore(store).put("Model", "model.pt", file, handover=TransferMode.copy, options=options)

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(putting, [DerivaStore(connect()), DerivaStore(connect())]))
    (held,) = fake.hatrac.objects.values()
    assert {one.url.rpartition(":")[2] for one in found} <= held.versions.keys()
    assert all(version.file.read_bytes() == BYTES for version in held.versions.values())
    assert fake.hatrac.jobs == {}


def test_names_that_a_server_answers_with(put, fake: DerivaServer) -> None:
    """An answer that names another object is not believed."""
    for text in (
        "/hatrac/Other/x:ABC",
        "https://evil.example/hatrac/Model/x:A",
        "/hatrac/Model/../../etc/passwd:A",
        "",
    ):
        fake.faults.add(Fault(Harm.answer, "PUT", reply=Answer.text(201, text)))
        with pytest.raises(StoreUnavailable, match="another object"):
            put(WHOLE.model_copy(update={"max_retries": 0}))


def test_long_names() -> None:
    """A name that a server's disk would not take is shortened, differently for different names, with its ending."""
    names = [HatracObjectName("Model", "0" * 32, f"{'図' * 70}{number}.ckpt").path for number in range(2)]
    assert len(set(names)) == 2
    assert all(len(name.rpartition("/")[2]) <= 32 + 1 + 180 and name.endswith(".ckpt") for name in names)


def test_a_name_that_is_no_text(store: DerivaStore, file: Path) -> None:
    """A file name that is not Unicode cannot be stored on a server, and is named."""
    with pytest.raises(InvalidFileName, match="not Unicode"):
        store.put("Model", "a\udcff", file, handover=TransferMode.copy, options=WHOLE)


# bringing


@pytest.fixture
def stored(put, fake: DerivaServer) -> StoredObject:
    found = put(WHOLE)
    fake.requests.clear()
    return found


def bring(store: DerivaStore, stored: StoredObject, target: Path, repeats: bool = True) -> bytes:
    which = RetryingStore(store) if repeats else store
    which.get(stored.url, target, length=stored.length, md5=stored.md5, options=WHOLE)
    return target.read_bytes()


@pytest.mark.parametrize("keep", [0, 1, 5000])
def test_a_download_that_breaks_goes_on(
    store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path, keep: int
) -> None:
    """What came before the line broke is not brought again."""
    fake.faults.add(Fault(Harm.truncate, "GET", keep=keep))
    assert bring(store, stored, tmp_path / "copy") == BYTES
    ranges = [request.headers.get("range") for request in fake.requests]
    assert ranges == [None, f"bytes={keep}-" if keep else None]
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_download_byte_by_byte(store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path) -> None:
    """The time to wait is one for each piece: bytes that go on coming are waited for."""
    fake.faults.add(Fault(Harm.drip, "GET"))
    options = UploadOptions(timeout=(5, 2.5), max_retries=0)
    store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=options)
    assert (tmp_path / "copy").read_bytes() == BYTES
    assert len(fake.requests) == 1


def test_a_download_that_stands_still(
    store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path
) -> None:
    """After the time to wait that is said; the same call goes on with what is missing."""
    fake.faults.add(Fault(Harm.drip, "GET", pieces=3, pause=3))
    options = UploadOptions(timeout=(5, 0.3), max_retries=0)
    target = tmp_path / "copy"
    with pytest.raises(StoreUnavailable, match=r"download of .* was interrupted"):
        store.get(stored.url, target, length=stored.length, md5=stored.md5, options=options)
    assert not target.exists()
    assert bring(store, stored, target) == BYTES


@pytest.mark.parametrize("harm", [Harm.answer, Harm.reset, Harm.lose, Harm.damage])
def test_a_download_that_fails_once(
    store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path, harm: Harm
) -> None:
    """It is repeated, also where bytes came damaged."""
    fake.faults.add(Fault(harm, "GET"))
    assert bring(store, stored, tmp_path / "copy") == BYTES


def test_a_damaged_object(store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path) -> None:
    """An object that is damaged is named, and nothing is left of it."""
    fake.faults.add(Fault(Harm.damage, "GET", times=9))
    with pytest.raises(ChecksumMismatch, match=re.escape(stored.url)):
        bring(store, stored, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir() if "copy" in path.name or path.name.endswith(".part")] == []


def test_an_object_that_is_gone(store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path) -> None:
    """An object that the server has no more is lost, not unavailable."""
    fake.hatrac.objects.clear()
    with pytest.raises(ChecksumMismatch, match="lost"):
        bring(store, stored, tmp_path / "copy")


def test_an_object_that_does_not_end(store: DerivaStore, stored: StoredObject, tmp_path: Path) -> None:
    """No more is written than was recorded, and a piece."""
    with pytest.raises(ChecksumMismatch):
        store.get(stored.url, tmp_path / "copy", length=10, md5=stored.md5, options=WHOLE)


def test_another_server_gets_no_login(
    store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path
) -> None:
    """Where objects lie with another server, it is asked without the login."""
    from fakes.deriva_server import serving

    with serving(tmp_path / "other") as other:
        url = f"http://127.0.0.1:{other.port}/objects/1"
        other.faults.add(Fault(Harm.answer, reply=Answer(200, BYTES, {"Content-Length": str(len(BYTES))})))
        fake.faults.add(Fault(Harm.answer, "GET", reply=Answer(302, b"", {"Location": url, "Content-Length": "0"})))
        assert bring(store, stored, tmp_path / "copy") == BYTES
        (asked,) = other.requests
    assert "cookie" not in asked.headers
    assert "authorization" not in asked.headers


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.org/hatrac/Model/x:A",
        "/etc/passwd",
        "/hatrac/../ermrest/catalog/1:A",
        "/hatrac/Model/%2e%2e/x:A",
        "/hatrac/Model/x\ny:A",
        "/hatrac",
        "/hatrac/Model/x:A?z",
        "file:///etc/passwd:A",
    ],
)
def test_urls_that_name_no_object(url: str) -> None:
    """A row's URL that names something else is not followed."""
    with pytest.raises(UnknownAddress):
        parse_object_path(url, "https://server.org")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://server.org/hatrac/Model/x:A", "/hatrac/Model/x:A"),
        ("/hatrac/Model/x%20y:A", "/hatrac/Model/x%20y:A"),
        ("/hatrac/Model/x y=1.png", "/hatrac/Model/x%20y=1.png"),
    ],
)
def test_urls_of_other_clients(url: str, path: str) -> None:
    """An object may be named by its whole URL, unquoted, or without a version."""
    assert parse_object_path(url, "https://server.org") == path
