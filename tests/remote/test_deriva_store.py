"""The object store of a Deriva server: uploads and downloads over unreliable connections."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from deriva_ml_core._retry import RetryingStore
from deriva_ml_core.backends.deriva.http import Server
from deriva_ml_core.backends.deriva.store import DerivaStore
from deriva_ml_core.backends.file_content import FileSlice
from deriva_ml_core.backends.object_names import HatracObjectName, parse_object_path
from deriva_ml_core.client import DerivaML
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
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import StoredObject, UploadOptions
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer
from fakes.faults import Fault, Harm, call_between_chunks, unavailable
from fakes.web import Answer
from waits import HANG

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
    """Store the file with retries, as uploads do. With WHOLE as options it is sent in one request."""

    def put_file(options: UploadOptions = OPTIONS, resume: object = None, note=lambda progress: None) -> StoredObject:
        return RetryingStore(store).put(
            "Model", "model.pt", file, handover=TransferMode.copy, options=options, resume=resume, note=note
        )

    return put_file


WHOLE = UploadOptions(max_retries=3, retry_delay=0)


def count_versions(fake: DerivaServer) -> int:
    """Count the count_versions of all objects on the server."""
    return sum(len(stored_object.versions) for stored_object in fake.hatrac.objects.values())


def stored_content(fake: DerivaServer) -> bytes:
    """Return the bytes of the only object on the server."""
    (stored_object,) = fake.hatrac.objects.values()
    return list(stored_object.versions.values())[-1].file.read_bytes()


def sent_chunks(fake: DerivaServer) -> list[int]:
    """Return the numbers of the chunks that were sent."""
    matches = (re.search(r";upload/\w+/(\d+)$", request.path) for request in fake.requests)
    return sorted(int(item[1]) for item in matches if item)


def test_request_counts(put, fake: DerivaServer) -> None:
    """A small file takes one request, and two if it is stored already; 3 chunks take 6."""
    first = put(WHOLE)
    assert [request.method for request in fake.requests] == ["PUT"]
    assert fake.requests[0].headers["content-md5"]
    fake.requests.clear()
    assert put(WHOLE) == first
    assert [request.method for request in fake.requests] == ["PUT", "HEAD"]
    fake.requests.clear()
    assert put() == first
    assert [request.method for request in fake.requests] == ["HEAD"]
    assert count_versions(fake) == 1


def test_chunked_upload(put, fake: DerivaServer) -> None:
    """A large file is looked up first, and then each chunk is sent once."""
    put()
    assert [request.method for request in fake.requests if not re.search(CHUNK, request.path)] == [
        "HEAD",
        "POST",
        "POST",
    ]
    assert sent_chunks(fake) == [0, 1, 2]
    assert stored_content(fake) == BYTES


@pytest.mark.parametrize("options", [WHOLE, OPTIONS], ids=["whole", "chunks"])
@pytest.mark.parametrize("harm", [Harm.answer, Harm.reset, Harm.lose])
@pytest.mark.parametrize("skip", range(6))
def test_upload_with_one_failed_request(put, fake: DerivaServer, options: UploadOptions, harm: Harm, skip: int) -> None:
    """Whichever request fails or loses its response, the object is stored once and intact."""
    fake.faults.add(Fault(harm, skip=skip))
    stored = put(options)
    assert (count_versions(fake), stored_content(fake)) == (1, BYTES)
    (stored_object,) = fake.hatrac.objects.values()
    assert stored.url.endswith(next(iter(stored_object.versions)))


def test_name_with_other_content(put, fake: DerivaServer, store: DerivaStore, file: Path) -> None:
    """Under a name with other content, the upload becomes a new version."""
    first = put(WHOLE)
    (stored_object,) = fake.hatrac.objects.values()
    next(iter(stored_object.versions.values())).metadata["content-md5"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    assert put(WHOLE).url != first.url
    assert put().url != first.url


@pytest.mark.parametrize("at", range(1, 5))
def test_upload_resumes_after_kill(put, fake: DerivaServer, at: int) -> None:
    """After a kill, confirmed leading chunks are not sent again."""

    class Killed(BaseException):
        pass

    saved: list = []

    def note(progress: object) -> None:
        saved.append(progress)
        if len(saved) == at:
            raise Killed

    with pytest.raises(Killed):
        put(note=note)
    fake.requests.clear()
    put(resume=saved[-1])
    assert stored_content(fake) == BYTES
    assert sent_chunks(fake) == list(range(saved[-1]["sent"], 3))


def test_lost_job_is_restarted(put, fake: DerivaServer) -> None:
    """A job that the server lost is created again, in this process and in the next."""
    saved: list = []
    fake.faults.add(Fault(Harm.call, path=CHUNK, skip=1, call=fake.hatrac.jobs.clear))
    put(note=saved.append)
    assert stored_content(fake) == BYTES
    fake.hatrac.objects.clear()
    put(resume=saved[-1])
    assert stored_content(fake) == BYTES


def test_damaged_chunk_is_detected(put, fake: DerivaServer) -> None:
    """A chunk that the server damaged makes the digest differ, so the file is sent again."""

    def damage() -> None:
        (job,) = fake.hatrac.jobs.values()
        job.file.write_bytes(b"?" + job.file.read_bytes()[1:])

    fake.faults.add(Fault(Harm.call, "POST", path=FINISH, call=damage))
    put()
    assert stored_content(fake) == BYTES
    assert fake.hatrac.jobs == {}


def test_changed_file_gets_new_job(put, fake: DerivaServer, file: Path) -> None:
    """A file that changed since the interruption gets a new job."""
    saved: list = []
    fake.faults.add(Fault(Harm.answer, "POST", path=FINISH, times=100))
    with pytest.raises(StoreUnavailable):
        put(note=saved.append)
    fake.faults.clear()
    file.write_bytes(BYTES[::-1])
    put(resume=saved[-1])
    assert [
        stored_object.file.read_bytes()
        for item in fake.hatrac.objects.values()
        for stored_object in item.versions.values()
    ] == [BYTES[::-1]]


@pytest.mark.parametrize("options", [WHOLE, OPTIONS], ids=["whole", "chunks"])
def test_file_changing_during_upload(put, fake: DerivaServer, file: Path, options: UploadOptions) -> None:
    """The stored bytes are those of one moment, if the file changes during the upload."""
    fake.faults.add(Fault(Harm.call, "HEAD|PUT", call=lambda: None))
    fake.faults.add(Fault(Harm.call, "POST", path=";upload$", call=lambda: file.write_bytes(b"other" * 2000)))
    stored = put(options)
    assert stored.length in (len(BYTES), 10_000)
    assert stored.md5 in stored.url


@pytest.mark.parametrize("text", ["duplicate key value violates", "in use"])
def test_collision_on_one_name(put, fake: DerivaServer, text: str) -> None:
    """A collision with another upload of the same name is retried."""
    reply = Answer.text(500 if "duplicate" in text else 409, text)
    fake.faults.add(Fault(Harm.answer, "PUT", reply=reply, times=3))
    put(WHOLE.model_copy(update={"max_retries": 0}))
    assert count_versions(fake) == 1


def test_deleted_name_cannot_be_reused(put, fake: DerivaServer) -> None:
    """A deleted name is never reusable, and the error says so."""
    stored = put(WHOLE)
    fake.hatrac.burnt.add(stored.url.removeprefix("/hatrac").rpartition(":")[0])
    fake.hatrac.objects.clear()
    with pytest.raises(FileConflict, match="another name"):
        put(WHOLE)


def test_no_permission_for_objects(connect, file: Path, fake: DerivaServer) -> None:
    """The error for missing object permissions differs from that for catalog permissions."""
    with pytest.raises(AccessRefused, match="does not include it"):
        DerivaStore(connect("test2")).put("Model", "a", file, handover=TransferMode.copy, options=WHOLE)


def test_session_expires_between_chunks(put, fake: DerivaServer) -> None:
    """An expired session is not retried; after a login the upload sends no chunk again that was confirmed before."""
    saved: list = []
    options = OPTIONS.model_copy(update={"chunk_size": 2048})
    call_between_chunks(fake.faults, 1, lambda: fake.log_out("test1"))
    with pytest.raises(LoginRequired, match="deriva-globus-auth-utils"):
        put(options, note=saved.append)
    fake.log_in("test1")
    fake.requests.clear()
    put(options, resume=saved[-1])
    assert {3, 4} <= set(sent_chunks(fake)) <= {1, 2, 3, 4}
    assert stored_content(fake) == BYTES


def test_retry_after_is_respected(put, fake: DerivaServer, waits: list) -> None:
    """The client waits as long as a busy server asks."""
    fake.faults.add(Fault(Harm.answer, "PUT", reply=unavailable(retry_after=3)))
    put(WHOLE)
    assert waits == [3]


def test_response_timeout(file: Path, fake: DerivaServer) -> None:
    """A response that takes longer than the timeout raises StoreUnavailable."""
    fake.latency = 2.0
    slow = DerivaStore(Server("http", fake.hostname.removeprefix("http://"), fake.credential()))
    options = UploadOptions(timeout=(5, 0.1), max_retries=0)
    with pytest.raises(StoreUnavailable, match="No response from"):
        slow.put("Model", "a", file, handover=TransferMode.copy, options=options)


@pytest.mark.parametrize("used_before", [False, True])
def test_slow_body_is_not_limited_by_connect_timeout(file: Path, fake: DerivaServer, used_before: bool) -> None:
    """The connect timeout does not limit sending a body, on a new or a reused connection."""
    length = 32 * 2**20
    file.write_bytes(bytes(length))
    server = Server("http", fake.hostname.removeprefix("http://"), fake.credential())
    if used_before:
        server.request("GET", "/authn/session")
    fake.slowness = 1.0
    with file.open("rb", buffering=0) as stream:
        body: Any = FileSlice(stream, 0, length)
        response = server.request("PUT", "/hatrac/new/object?parents=true", body=body, timeout=(0.3, 60))
    assert response.status_code == 201


def test_timeout_applies_to_each_block(file: Path, fake: DerivaServer, connect, tmp_path: Path) -> None:
    """The timeout applies to each block: a body that takes longer in total is sent."""
    file.write_bytes(bytes(32 * 2**20))
    fake.faults.add(Fault(Harm.sip, "PUT"))
    options = UploadOptions(timeout=(0.2, 2.5), chunk_size=64 * 2**20, max_retries=0)
    stored = DerivaStore(connect()).put("Model", "a", file, handover=TransferMode.copy, options=options)
    assert (stored.length, count_versions(fake)) == (32 * 2**20, 1)
    assert [request.method for request in fake.requests] == ["HEAD", "PUT"]


def test_body_timeout(file: Path, fake: DerivaServer, store: DerivaStore) -> None:
    """A body that the server does not read raises StoreUnavailable; a repeat stores the object once."""
    file.write_bytes(bytes(32 * 2**20))
    options = UploadOptions(timeout=(5, 0.3), chunk_size=64 * 2**20, max_retries=0)
    fake.faults.add(Fault(Harm.sip, "PUT", pause=2, pieces=2))
    with pytest.raises(StoreUnavailable, match=r"No response from .*/hatrac/Model/.*Try again later"):
        store.put("Model", "a", file, handover=TransferMode.copy, options=options)
    store.put(
        "Model", "a", file, handover=TransferMode.copy, options=WHOLE.model_copy(update={"chunk_size": 64 * 2**20})
    )
    assert count_versions(fake) == 1


@pytest.mark.parametrize("options", [WHOLE, OPTIONS], ids=["whole", "chunks"])
def test_damaged_upload_is_repeated(put, fake: DerivaServer, options: UploadOptions) -> None:
    """An upload that arrives damaged is detected by its digest and repeated."""
    fake.faults.add(Fault(Harm.garble, "PUT"))
    put(options)
    assert (count_versions(fake), stored_content(fake), fake.hatrac.jobs) == (1, BYTES, {})


@pytest.mark.parametrize("options", [WHOLE, OPTIONS], ids=["whole", "chunks"])
def test_upload_that_is_always_damaged(put, fake: DerivaServer, options: UploadOptions) -> None:
    """An upload that always arrives damaged raises StoreUnavailable and stores nothing."""
    fake.faults.add(Fault(Harm.garble, "PUT", times=1000))
    with pytest.raises(StoreUnavailable, match=r"was damaged on its way to "):
        put(options)
    assert (count_versions(fake), fake.hatrac.jobs) == (0, {})


@pytest.mark.parametrize("answers", [[404], [500, 404], [500, 500]], ids=str)
def test_job_finished_by_another_client(put, fake: DerivaServer, answers: list[int]) -> None:
    """If another client finishes the job, the server answers 500, then 404; the object shows that it is stored."""

    def finish() -> None:
        ((name, job),) = fake.hatrac.jobs.items()
        fake.hatrac._finalize(name, job)

    fake.faults.add(Fault(Harm.call, "POST", path=FINISH, skip=len(answers) - 1, call=finish))
    for status in answers[:-1]:
        fake.faults.add(Fault(Harm.answer, "POST", path=FINISH, reply=Answer.text(status, "is being finished")))
    put()
    assert (count_versions(fake), stored_content(fake), fake.hatrac.jobs) == (1, BYTES, {})
    assert sent_chunks(fake) == [0, 1, 2]


@pytest.mark.parametrize("options", [WHOLE, OPTIONS], ids=["whole", "chunks"])
def test_concurrent_uploads_of_one_file(connect, file: Path, fake: DerivaServer, options: UploadOptions) -> None:
    """Two concurrent uploads of the same file both get a URL of the right bytes, and no job is left."""
    barrier = Barrier(2, timeout=HANG)

    def put_at_once(store: DerivaStore) -> StoredObject:
        barrier.wait()
        return RetryingStore(store).put("Model", "model.pt", file, handover=TransferMode.copy, options=options)

    with ThreadPoolExecutor(2) as threads:
        matches = list(threads.map(put_at_once, [DerivaStore(connect()), DerivaStore(connect())]))
    (stored_object,) = fake.hatrac.objects.values()
    assert {item.url.rpartition(":")[2] for item in matches} <= stored_object.versions.keys()
    assert all(version.file.read_bytes() == BYTES for version in stored_object.versions.values())
    assert fake.hatrac.jobs == {}


def test_url_of_another_object_is_rejected(put, fake: DerivaServer) -> None:
    """A response that names another object raises StoreUnavailable."""
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
    """A long name is shortened to what a server accepts, stays unique, and keeps its suffix."""
    names = [HatracObjectName("Model", "0" * 32, f"{'図' * 70}{number}.ckpt").path for number in range(2)]
    assert len(set(names)) == 2
    assert all(len(name.rpartition("/")[2]) <= 32 + 1 + 180 and name.endswith(".ckpt") for name in names)


def test_name_that_is_not_unicode(store: DerivaStore, file: Path) -> None:
    """A file name that is not Unicode raises InvalidFileName."""
    with pytest.raises(InvalidFileName, match="not Unicode"):
        store.put("Model", "a\udcff", file, handover=TransferMode.copy, options=WHOLE)


# downloads


@pytest.fixture
def stored(put, fake: DerivaServer) -> StoredObject:
    matches = put(WHOLE)
    fake.requests.clear()
    return matches


def download(store: DerivaStore, stored: StoredObject, target: Path, repeats: bool = True) -> bytes:
    """Download the object, and return its bytes."""
    source = RetryingStore(store) if repeats else store
    source.get(stored.url, target, length=stored.length, md5=stored.md5, options=WHOLE)
    return target.read_bytes()


@pytest.mark.parametrize("keep", [0, 1, 5000])
def test_interrupted_download_resumes(
    store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path, keep: int
) -> None:
    """A download resumes after the bytes that arrived before the interruption."""
    fake.faults.add(Fault(Harm.truncate, "GET", keep=keep))
    assert download(store, stored, tmp_path / "copy") == BYTES
    ranges = [request.headers.get("range") for request in fake.requests]
    assert ranges == [None, f"bytes={keep}-" if keep else None]
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_slow_download(store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path) -> None:
    """The timeout applies to each block: a download that takes longer in total succeeds."""
    fake.faults.add(Fault(Harm.drip, "GET"))
    options = UploadOptions(timeout=(5, 2.5), max_retries=0)
    store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=options)
    assert (tmp_path / "copy").read_bytes() == BYTES
    assert len(fake.requests) == 1


def test_download_timeout(store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path) -> None:
    """A stalled download raises StoreUnavailable, and the next call resumes it."""
    fake.faults.add(Fault(Harm.drip, "GET", pieces=3, pause=3))
    options = UploadOptions(timeout=(5, 0.3), max_retries=0)
    target = tmp_path / "copy"
    with pytest.raises(StoreUnavailable, match=r"download of .* was interrupted"):
        store.get(stored.url, target, length=stored.length, md5=stored.md5, options=options)
    assert not target.exists()
    assert download(store, stored, target) == BYTES


@pytest.mark.parametrize("harm", [Harm.answer, Harm.reset, Harm.lose, Harm.damage])
def test_a_download_that_fails_once(
    store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path, harm: Harm
) -> None:
    """A failed or damaged download is repeated."""
    fake.faults.add(Fault(harm, "GET"))
    assert download(store, stored, tmp_path / "copy") == BYTES


def test_a_damaged_object(store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path) -> None:
    """A damaged object raises ChecksumMismatch with its URL, and no file is left."""
    fake.faults.add(Fault(Harm.damage, "GET", times=9))
    with pytest.raises(ChecksumMismatch, match=re.escape(stored.url)):
        download(store, stored, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir() if "copy" in path.name or path.name.endswith(".part")] == []


def test_lost_object(store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path) -> None:
    """An object that the server no longer has raises ChecksumMismatch, not StoreUnavailable."""
    fake.hatrac.objects.clear()
    with pytest.raises(ChecksumMismatch, match="lost"):
        download(store, stored, tmp_path / "copy")


def test_object_longer_than_recorded(store: DerivaStore, stored: StoredObject, tmp_path: Path) -> None:
    """An object that is longer than recorded is read for at most one block more."""
    with pytest.raises(ChecksumMismatch):
        store.get(stored.url, tmp_path / "copy", length=10, md5=stored.md5, options=WHOLE)


def test_redirect_gets_no_login(store: DerivaStore, stored: StoredObject, fake: DerivaServer, tmp_path: Path) -> None:
    """A redirect to another server is followed without the login."""
    from fakes.deriva_server import serving

    with serving(tmp_path / "other") as other:
        url = f"http://127.0.0.1:{other.port}/objects/1"
        other.faults.add(Fault(Harm.answer, reply=Answer(200, BYTES, {"Content-Length": str(len(BYTES))})))
        fake.faults.add(Fault(Harm.answer, "GET", reply=Answer(302, b"", {"Location": url, "Content-Length": "0"})))
        assert download(store, stored, tmp_path / "copy") == BYTES
        (request,) = other.requests
    assert "cookie" not in request.headers
    assert "authorization" not in request.headers


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
def test_invalid_object_urls(url: str) -> None:
    """A row's URL that is not an object of the server raises UnknownAddress."""
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
    """An object's URL may be absolute, unquoted, or without a version."""
    assert parse_object_path(url, "https://server.org") == path


def test_file_whose_name_is_not_utf8(ml: DerivaML) -> None:
    """It is uploaded to a server during a run, and its row and its downloaded copy have an escaped name."""
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
    with ml.create_execution(ExecutionConfiguration(workflow=workflow, description="d")) as exe:
        exe.asset_file_path("Image", os.fsdecode(b"r\xfcn/caf\xe9.png")).write_bytes(b"png")
        (asset,) = exe.upload_execution_outputs()["Image"]
        assert asset.filename == "r\\udcfcn/caf\\udce9.png"
        assert ml.lookup_asset(asset.rid).filename == "r\\udcfcn/caf\\udce9.png"
        assert exe.download_asset(asset.rid).read_bytes() == b"png"
