"""The S3 store on real services: requests, faults, resumed transfers, and what is never overwritten."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from deriva_ml_core._retry import RetryingStore
from deriva_ml_core.backends.s3 import S3Store
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.errors import (
    AccessRefused,
    ChecksumMismatch,
    ConfigurationError,
    FileConflict,
    LoginRequired,
    StoreUnavailable,
    UnknownAddress,
)
from deriva_ml_core.models import StoredObject, UploadOptions
from engines.s3 import BUCKET, SECRET_KEY, S3Service
from engines.s3_proxy import (
    Request,
    S3Proxy,
    cut_response,
    lose_part,
    lose_response,
    refuse,
    running_proxy,
    wrong_etag,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

pytestmark = pytest.mark.usefixtures("s3_credentials")

MIB = 2**20
SMALL = b"a small file"
QUICK = UploadOptions(retry_delay=0.01, chunk_size=5 * MIB)
NO_RETRIES = UploadOptions(max_retries=0, chunk_size=5 * MIB)


def put(
    store: S3Store,
    file: Path,
    options: UploadOptions = QUICK,
    resume: JsonValue = None,
    note: Callable[[JsonValue], None] = lambda _: None,
    name: str = "a.bin",
) -> StoredObject:
    """Store a file as an upload does, with retries."""
    return RetryingStore(store).put(
        "Image", name, file, handover=TransferMode.copy, options=options, resume=resume, note=note
    )


def get(store: S3Store, stored: StoredObject, target: Path, options: UploadOptions = QUICK) -> bytes:
    RetryingStore(store).get(stored.url, target, length=stored.length, md5=stored.md5, options=options)
    return target.read_bytes()


@pytest.fixture
def prefix() -> str:
    return f"run-{os.urandom(4).hex()}"


@pytest.fixture
def store(s3_proxy: S3Proxy, seaweedfs: S3Service, prefix: str) -> S3Store:
    """Return a store behind the proxy, which knows already that conditions are honoured."""
    store = S3Store(seaweedfs.address(prefix, s3_proxy.port))
    assert store.objects.honours_conditions((6, 60))
    s3_proxy.requests.clear()
    return store


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.bin"
    file.write_bytes(SMALL)
    return file


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return a file of three parts: 5 MiB, 5 MiB and 1 MiB."""
    file = tmp_path / "large.bin"
    file.write_bytes(b"".join(bytes([number]) * MIB for number in range(11)))
    return file


def object_bytes(service: S3Service, key: str) -> bytes:
    content: bytes = service.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return content


# what is sent


def test_small_file_is_one_request(store: S3Store, s3_proxy: S3Proxy, small: Path) -> None:
    """A small file is stored by one conditional request, which the service checks by its MD5."""
    stored = put(store, small)
    assert stored.url == "/hatrac/Image/aed59494a00a1e91dfc79d3d9135b3d9.a.bin:1"
    (request,) = s3_proxy.requests
    assert (request.operation, request.headers["if-none-match"]) == ("PutObject", "*")
    assert request.headers["content-md5"] == "rtWUlKAKHpHfx509kTWz2Q=="
    assert request.headers["content-disposition"] == "filename*=UTF-8''a.bin"


def test_large_file_is_sent_in_parts(
    store: S3Store, s3_proxy: S3Proxy, seaweedfs: S3Service, prefix: str, large: Path
) -> None:
    """A large file is sent in parts with checked MD5s, and completed only if no object exists."""
    stored = put(store, large)
    assert Counter(s3_proxy.operations()) == {
        "HeadObject": 1, "CreateMultipartUpload": 1, "UploadPart": 3, "CompleteMultipartUpload": 1,
    }  # fmt: skip
    parts = [request for request in s3_proxy.requests if request.operation == "UploadPart"]
    assert {request.part: request.length for request in parts} == {1: 5 * MIB, 2: 5 * MIB, 3: MIB}
    assert all(request.headers["content-md5"] for request in parts)
    assert s3_proxy.requests[-1].headers["if-none-match"] == "*"
    key = f"{prefix}/hatrac/Image/{stored.md5}.a.bin"
    assert object_bytes(seaweedfs, key) == large.read_bytes()


def test_several_parts_at_once(store: S3Store, s3_proxy: S3Proxy, large: Path) -> None:
    """Parts are sent in parallel: the first waits until another one has arrived."""
    arrived = threading.Barrier(3)
    s3_proxy.on_request = lambda request: arrived.wait(60) if request.operation == "UploadPart" else None
    put(store, large)
    assert not arrived.broken


def test_conditions_are_found_out_once(s3_proxy: S3Proxy, seaweedfs: S3Service, prefix: str, tmp_path: Path) -> None:
    """The first store under a prefix sends two requests to find out about conditions, and a later one sends one."""
    for expected in (2, 1):
        s3_proxy.requests.clear()
        store = S3Store(seaweedfs.address(prefix, s3_proxy.port))
        for number in range(5):
            (tmp_path / "file").write_bytes(os.urandom(10))
            put(store, tmp_path / "file", name=f"{number}")
        assert [request.path.endswith("deriva-ml-store.txt") for request in s3_proxy.requests].count(True) == expected
        assert s3_proxy.operations() == ["PutObject"] * (5 + expected)


def test_service_that_knows_no_conditions(s3_proxy: S3Proxy, seaweedfs: S3Service, prefix: str, small: Path) -> None:
    """A service that rejects the header is asked without it, and the object is looked up before and after."""
    s3_proxy.add_fault("PutObject", refuse(501, "NotImplemented"))
    store = S3Store(seaweedfs.address(prefix, s3_proxy.port))
    put(store, small)
    assert s3_proxy.operations()[-3:] == ["HeadObject", "PutObject", "HeadObject"]
    assert "if-none-match" not in s3_proxy.requests[-2].headers


# what is never overwritten


def test_same_bytes_are_sent_once(store: S3Store, s3_proxy: S3Proxy, large: Path) -> None:
    """A large file that the store has is not sent again."""
    first = put(store, large)
    s3_proxy.requests.clear()
    assert put(store, large) == first
    assert s3_proxy.operations() == ["HeadObject"]


@pytest.mark.parametrize("engine", ["seaweedfs", "rclone"])
@pytest.mark.parametrize("size", [12, 11 * MIB])
def test_damaged_object_is_never_overwritten(
    request: pytest.FixtureRequest, engine: str, size: int, prefix: str, tmp_path: Path
) -> None:
    """An object that has the name and other bytes stays as it is, and the error names it."""
    service: S3Service = request.getfixturevalue(engine)
    file = tmp_path / "file.bin"
    file.write_bytes(b"x" * size)
    md5 = hashlib.md5(b"x" * size).hexdigest()
    key = f"{prefix}/hatrac/Image/{md5}.a.bin"
    service.client().put_object(Bucket=BUCKET, Key=key, Body=b"y" * size)
    with pytest.raises(FileConflict, match=f"{key} .* is damaged. Delete that object"):
        put(S3Store(service.address(prefix)), file)
    assert object_bytes(service, key) == b"y" * size


@pytest.mark.parametrize("engine", ["seaweedfs", "rclone"])
@pytest.mark.parametrize("size", [12, 11 * MIB])
def test_two_uploaders(request: pytest.FixtureRequest, engine: str, size: int, prefix: str, tmp_path: Path) -> None:
    """Two stores that send the same file at once both succeed, and the object is complete."""
    service: S3Service = request.getfixturevalue(engine)
    file = tmp_path / "file.bin"
    file.write_bytes(b"x" * size)
    start, results = threading.Barrier(2), []

    def upload() -> None:
        store = S3Store(service.address(prefix))
        start.wait(60)
        results.append(put(store, file))

    threads = [threading.Thread(target=upload) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert results[0] == results[1]
    assert object_bytes(service, f"{prefix}/hatrac/Image/{results[0].md5}.a.bin") == b"x" * size
    assert list(S3Store(service.address(prefix)).find_incomplete_uploads(timedelta(0))) == []


# faults


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_busy_service(store: S3Store, s3_proxy: S3Proxy, small: Path, tmp_path: Path, status: int) -> None:
    """A request that the service cannot process now is repeated."""
    s3_proxy.add_fault("PutObject", refuse(status, "SlowDown"), times=2)
    stored = put(store, small)
    assert s3_proxy.operations() == ["PutObject"] * 3
    s3_proxy.add_fault("GetObject", refuse(status, "SlowDown"), times=2)
    assert get(store, stored, tmp_path / "copy") == SMALL


def test_repeats_are_bounded(store: S3Store, s3_proxy: S3Proxy, small: Path) -> None:
    """A service that stays busy is asked as often as the options say, and the error names the file and the service."""
    s3_proxy.add_fault("PutObject", refuse(503, "SlowDown"), times=10)
    with pytest.raises(StoreUnavailable, match=r"bucket tests on 127.* cannot process /hatrac/Image/.* now \(SlowDown"):
        put(store, small, UploadOptions(max_retries=2, retry_delay=0.01))
    assert s3_proxy.operations() == ["PutObject"] * 3


def test_pause_that_the_service_asks_for(store: S3Store, s3_proxy: S3Proxy, small: Path) -> None:
    """A request is repeated after the pause that Retry-After names."""
    pauses: list[float] = []
    store._client.sleep = pauses.append
    s3_proxy.add_fault("PutObject", refuse(503, "SlowDown", retry_after=7))
    put(store, small)
    assert pauses == [7]


def test_busy_service_during_parts(store: S3Store, s3_proxy: S3Proxy, large: Path) -> None:
    """A part that the service refuses is repeated, and no other."""
    s3_proxy.add_fault("UploadPart", refuse(503, "SlowDown"), times=2, part=2)
    put(store, large)
    assert Counter(request.part for request in s3_proxy.requests if request.part) == {1: 1, 2: 3, 3: 1}


@pytest.mark.parametrize("operation", ["PutObject", "CompleteMultipartUpload", "UploadPart", "CreateMultipartUpload"])
def test_lost_response(
    store: S3Store, s3_proxy: S3Proxy, small: Path, large: Path, tmp_path: Path, operation: str
) -> None:
    """An upload whose response is lost succeeds, and the object is complete."""
    s3_proxy.add_fault(operation, lose_response)
    file = small if operation == "PutObject" else large
    assert get(store, put(store, file), tmp_path / "copy") == file.read_bytes()
    assert s3_proxy.faults == []


@pytest.mark.parametrize("part", [1, 3])
def test_lost_part(store: S3Store, s3_proxy: S3Proxy, large: Path, tmp_path: Path, part: int) -> None:
    """A part that the service has confirmed and lost is sent again, and no other."""
    s3_proxy.add_fault("UploadPart", lose_part, part=part)
    assert get(store, put(store, large), tmp_path / "copy") == large.read_bytes()
    assert Counter(request.part for request in s3_proxy.requests if request.part) == {1: 1, 2: 1, 3: 1} | {part: 2}


def test_service_that_always_loses_a_part(store: S3Store, s3_proxy: S3Proxy, large: Path) -> None:
    """An upload whose part is lost each time fails, stores no object, and leaves no parts."""
    s3_proxy.add_fault("UploadPart", lose_part, part=2, times=100)
    with pytest.raises(StoreUnavailable, match="loses parts of /hatrac/Image/"):
        put(store, large, NO_RETRIES)
    assert "CompleteMultipartUpload" in s3_proxy.operations()
    assert list(store.find_incomplete_uploads(timedelta(0))) == []


def test_wrong_etag_of_part(store: S3Store, s3_proxy: S3Proxy, large: Path, tmp_path: Path) -> None:
    """A part whose entity tag is not its MD5 is sent again."""
    s3_proxy.add_fault("UploadPart", wrong_etag, part=2)
    assert get(store, put(store, large), tmp_path / "copy") == large.read_bytes()
    assert [request.part for request in s3_proxy.requests].count(2) == 2


@pytest.mark.parametrize("operation", ["PutObject", "CompleteMultipartUpload"])
def test_wrong_etag_of_object(store: S3Store, s3_proxy: S3Proxy, small: Path, large: Path, operation: str) -> None:
    """An object whose entity tag is unexpected is read again, and accepted if its bytes are right."""
    s3_proxy.add_fault(operation, wrong_etag)
    put(store, small if operation == "PutObject" else large)
    assert s3_proxy.operations()[-1] == "GetObject"


def test_service_with_other_etags(store: S3Store, s3_proxy: S3Proxy, small: Path, large: Path) -> None:
    """If the entity tag of a known object is no MD5 either, entity tags prove nothing, and no object is read again."""
    for operation in ("PutObject", "HeadObject", "CompleteMultipartUpload"):
        s3_proxy.add_fault(operation, wrong_etag, times=100)
    put(store, small)
    put(store, large)
    assert "GetObject" not in s3_proxy.operations()


def test_bytes_damaged_on_the_way(store: S3Store, s3_proxy: S3Proxy, small: Path) -> None:
    """A body that arrives with another MD5 is refused by the service, and sent again."""
    s3_proxy.add_fault("PutObject", refuse(400, "BadDigest"))
    put(store, small)
    assert s3_proxy.operations() == ["PutObject", "PutObject"]


def test_file_that_changes_while_it_is_sent(store: S3Store, s3_proxy: S3Proxy, large: Path, tmp_path: Path) -> None:
    """A file that changes between its digest and its sending is stored with the new bytes, under their digest."""
    old, new = large.read_bytes(), b"n" * (11 * MIB)

    def change(request: Request) -> None:
        if request.operation == "CreateMultipartUpload" and large.read_bytes() == old:
            large.write_bytes(new)

    s3_proxy.on_request = change
    stored = put(store, large)
    assert stored.md5 == hashlib.md5(new).hexdigest()
    assert get(store, stored, tmp_path / "copy") == new
    assert list(store.find_incomplete_uploads(timedelta(0))) == []


def test_connect_timeout_does_not_limit_a_body(seaweedfs: S3Service, prefix: str, tmp_path: Path) -> None:
    """A service that reads slowly is waited for as long as the response timeout says."""
    file = tmp_path / "file.bin"
    file.write_bytes(os.urandom(20 * MIB))
    with running_proxy(seaweedfs.port) as proxy:
        proxy.pause_before_body = 1.5
        store = S3Store(seaweedfs.address(prefix, proxy.port))
        stored = put(store, file, UploadOptions(timeout=(0.4, 60), max_retries=0))
        assert stored.length == 20 * MIB


def test_service_that_does_not_respond(store: S3Store, s3_proxy: S3Proxy, small: Path) -> None:
    """A response that does not come within the timeout is an error that names the service."""
    hanging = threading.Event()
    s3_proxy.on_request = lambda request: hanging.wait(60) and None
    try:
        with pytest.raises(StoreUnavailable, match=r"No usable response from the bucket tests on 127\.0\.0\.1"):
            put(store, small, UploadOptions(timeout=(5, 0.3), max_retries=0))
    finally:
        hanging.set()


# resumed uploads


class Killed(BaseException):
    """Stands for a kill of the process."""


def test_resume_sends_no_part_twice(store: S3Store, s3_proxy: S3Proxy, seaweedfs: S3Service, large: Path) -> None:
    """An upload that was killed after a part continues in another store with the parts that are missing."""
    notes: list[JsonValue] = []

    def note(progress: JsonValue) -> None:
        notes.append(progress)
        if len(notes) == 2:  # the upload, and one part
            raise Killed

    with pytest.raises(Killed):
        put(store, large, note=note)
    sent = {request.part for request in s3_proxy.requests if request.part}
    assert isinstance(notes[-1], dict)
    assert set(notes[-1]) == {"upload", "part_size", "md5", "sent"}
    deadline_free = S3Store(store.address)
    listed = {part["PartNumber"] for part in seaweedfs.client().list_parts(
        Bucket=BUCKET, Key=f"{store.address.prefix}/hatrac/Image/{notes[-1]['md5']}.a.bin", UploadId=notes[-1]["upload"]
    )["Parts"]}  # fmt: skip
    assert listed <= sent
    s3_proxy.requests.clear()
    put(deadline_free, large, resume=notes[-1])
    assert {request.part for request in s3_proxy.requests if request.part} == {1, 2, 3} - listed
    assert s3_proxy.operations().count("CreateMultipartUpload") == 0


def test_resume_of_changed_file(store: S3Store, s3_proxy: S3Proxy, large: Path, tmp_path: Path) -> None:
    """If the file has changed since, its old parts are deleted, and all new bytes are sent."""
    notes: list[JsonValue] = []

    def note(progress: JsonValue) -> None:
        notes.append(progress)
        raise Killed

    with pytest.raises(Killed):
        put(store, large, note=note)
    large.write_bytes(b"n" * (6 * MIB))
    assert get(store, put(store, large, resume=notes[-1]), tmp_path / "copy") == b"n" * (6 * MIB)
    assert list(store.find_incomplete_uploads(timedelta(0))) == []


@pytest.mark.parametrize(
    "resume",
    [
        {"upload": "unknown", "part_size": 5 * MIB, "md5": "MD5", "sent": 2},
        {"upload": "../../etc", "part_size": 5 * MIB, "md5": "MD5", "sent": 2},
        {"upload": "a\nb", "part_size": 5 * MIB, "md5": "MD5", "sent": 2},
        {"upload": 5, "part_size": "x", "md5": None},
        {"draft": "x"},
        ["upload"],
        "text",
    ],
)
def test_resume_with_unusable_note(store: S3Store, large: Path, tmp_path: Path, resume: JsonValue) -> None:
    """A note that the service does not know, or that is none of an S3 store, starts the upload anew."""
    if isinstance(resume, dict) and resume.get("md5") == "MD5":
        resume = {**resume, "md5": hashlib.md5(large.read_bytes()).hexdigest()}
    assert get(store, put(store, large, resume=resume), tmp_path / "copy") == large.read_bytes()


def test_upload_that_was_aborted_meanwhile(store: S3Store, s3_proxy: S3Proxy, large: Path, tmp_path: Path) -> None:
    """An upload that a cleanup aborts while it is sent starts again."""

    def abort(request: Request) -> None:
        if request.operation == "CompleteMultipartUpload" and not aborted:
            aborted.extend(store.find_incomplete_uploads(timedelta(0)))
            store.abort_upload(aborted[0])

    aborted: list[object] = []
    s3_proxy.on_request = abort
    assert get(store, put(store, large), tmp_path / "copy") == large.read_bytes()
    assert len(aborted) == 1


# incomplete uploads


def test_incomplete_uploads(store: S3Store, seaweedfs: S3Service, prefix: str) -> None:
    """Abandoned uploads of this store are found by age and aborted, and those of other prefixes stay."""
    client = seaweedfs.client()
    for key in (f"{prefix}/hatrac/Image/a", f"{prefix}/hatrac/Image/b", f"{prefix}-other/hatrac/Image/c"):
        client.create_multipart_upload(Bucket=BUCKET, Key=key)
    assert list(store.find_incomplete_uploads()) == []
    found = list(store.find_incomplete_uploads(timedelta(0)))
    assert sorted(each.key for each in found) == [f"{prefix}/hatrac/Image/a", f"{prefix}/hatrac/Image/b"]
    for each in (*found, *found):
        store.abort_upload(each)
    assert list(store.find_incomplete_uploads(timedelta(0))) == []
    other = S3Store(seaweedfs.address(f"{prefix}-other"))
    (left,) = other.find_incomplete_uploads(timedelta(0))
    with pytest.raises(ConfigurationError, match="is not one of"):
        store.abort_upload(left)
    other.abort_upload(left)


# downloads


def test_interrupted_download_resumes(store: S3Store, s3_proxy: S3Proxy, large: Path, tmp_path: Path) -> None:
    """A download that was cut off continues at the last byte, in another store too."""
    stored = put(store, large)
    s3_proxy.requests.clear()
    s3_proxy.add_fault("GetObject", cut_response(3 * MIB))
    with pytest.raises(StoreUnavailable, match="was interrupted"):
        get(store, stored, tmp_path / "copy", NO_RETRIES)
    assert get(S3Store(store.address), stored, tmp_path / "copy") == large.read_bytes()
    assert [request.headers.get("range") for request in s3_proxy.requests] == [None, f"bytes={3 * MIB}-"]


def test_service_without_ranges(store: S3Store, s3_proxy: S3Proxy, large: Path, tmp_path: Path) -> None:
    """A service that refuses a range sends the whole object again."""
    stored = put(store, large)
    s3_proxy.add_fault("GetObject", cut_response(3 * MIB))
    s3_proxy.add_fault("GetObject", refuse(416, "InvalidRange"))
    assert get(store, stored, tmp_path / "copy") == large.read_bytes()


def test_damaged_download(store: S3Store, seaweedfs: S3Service, prefix: str, small: Path, tmp_path: Path) -> None:
    """An object whose bytes were changed in the bucket is reported, and nothing is left at the target."""
    stored = put(store, small)
    key = f"{prefix}/hatrac/Image/{stored.md5}.a.bin"
    seaweedfs.client().put_object(Bucket=BUCKET, Key=key, Body=b"A small file")
    for call in (lambda: get(store, stored, tmp_path / "copy"), lambda: verify(store, stored)):
        with pytest.raises(ChecksumMismatch, match="is damaged: received 12 bytes"):
            call()
    assert not (tmp_path / "copy").exists()
    seaweedfs.client().delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(ChecksumMismatch, match="is lost"):
        verify(store, stored)


def verify(store: S3Store, stored: StoredObject) -> None:
    store.verify(stored.url, length=stored.length, md5=stored.md5)


def test_slow_download(store: S3Store, s3_proxy: S3Proxy, large: Path, tmp_path: Path) -> None:
    """A download below the minimum rate ends with an error, although bytes keep arriving."""
    stored = put(store, large)
    s3_proxy.bytes_per_tick = 1
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="bytes per second, less than 1024"):
        get(store, stored, tmp_path / "copy", UploadOptions(timeout=(6, 0.5), max_retries=0))
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    "url",
    [
        "/hatrac/Image/0123456789abcdef0123456789abcdef.a.bin",
        "/hatrac/Image/../../0123456789abcdef0123456789abcdef.a.bin:1",
        "/hatrac/../0123456789abcdef0123456789abcdef.a:1",
        "/hatrac/Image/x/0123456789abcdef0123456789abcdef.a.bin:1",
        "/hatrac/Image/0123456789abcdef0123456789abcdef.a?x=1:1",
        "https://example.org/hatrac/Image/0123456789abcdef0123456789abcdef.a.bin:1",
        "/hatrac/Image/0123456789abcdef0123456789abcdef.a.bin:2",
    ],
)
def test_url_of_another_store(store: S3Store, s3_proxy: S3Proxy, tmp_path: Path, url: str) -> None:
    """A URL that no S3 store has written is refused before anything is sent."""
    with pytest.raises(UnknownAddress, match="is not the URL of an object of an S3 store"):
        store.get(url, tmp_path / "copy", length=1, md5="0" * 32, options=QUICK)
    assert s3_proxy.requests == []


# access


def test_presigned_url(store: S3Store, small: Path) -> None:
    """A presigned URL needs no login, and gives the bytes with their name."""
    url = store.presign(put(store, small, name="two words.txt").url, seconds=60)
    with urlopen(url) as response:
        assert response.read() == SMALL
        assert response.headers["Content-Disposition"] == "filename*=UTF-8''two%20words.txt"
    assert SECRET_KEY not in url
    for seconds in (0, 7 * 86400 + 1):
        with pytest.raises(ConfigurationError, match="1 to 604800 seconds"):
            store.presign("/hatrac/Image/0123456789abcdef0123456789abcdef.a.bin:1", seconds=seconds)


def test_wrong_credentials(seaweedfs: S3Service, prefix: str, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that the service refuses are an error that names Amazon's own ways, and no secret."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-1234567890")
    with pytest.raises(LoginRequired, match=r"SignatureDoesNotMatch.*AWS_PROFILE") as raised:
        put(S3Store(seaweedfs.address(prefix)), small)
    assert "another-secret" not in str(raised.value)


def test_no_credentials(seaweedfs: S3Service, prefix: str, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing credentials are an error that says where they are looked for."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(LoginRequired, match=r"No credentials .* were found.*AWS_ACCESS_KEY_ID.*~/.aws.*role"):
        put(S3Store(seaweedfs.address(prefix)), small)


def test_access_denied(store: S3Store, s3_proxy: S3Proxy, small: Path) -> None:
    """A right that the user lacks is an error that says which."""
    s3_proxy.add_fault("PutObject", refuse(403, "AccessDenied"), times=5)
    with pytest.raises(AccessRefused, match="rights to read and write objects"):
        put(store, small)
    assert s3_proxy.operations() == ["PutObject"]


def test_unknown_bucket(rclone: S3Service, small: Path) -> None:
    """A bucket that does not exist is an error that names it."""
    address = rclone.address("x").replace("s3://tests/", "s3://no-such-bucket/")
    with pytest.raises(UnknownAddress, match=r"The bucket no-such-bucket on .* does not exist"):
        put(S3Store(address), small)


def test_unreachable_service(prefix: str, small: Path) -> None:
    """A service that does not listen is an error without a stack of Python names."""
    store = S3Store(f"s3://bucket/{prefix}?endpoint=http://127.0.0.1:9")
    with pytest.raises(StoreUnavailable, match=r"^No usable response from the bucket bucket on 127.* .*refused"):
        put(store, small, NO_RETRIES)
