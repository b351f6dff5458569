"""An embedded catalog whose files are in an S3 store: creation, confirmation, runs, verification, push, doctor."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deriva_ml_cli.app import app
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import ConfigurationError, MissingDependency, StoreConflict, UnconfirmedStore, UnknownAddress
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import UploadOptions
from engines.s3 import BUCKET, S3Service
from engines.s3_proxy import S3Proxy, refuse, running_proxy

pytestmark = pytest.mark.usefixtures("s3_credentials")


@pytest.fixture
def address(seaweedfs: S3Service) -> str:
    return seaweedfs.address(f"team-{os.urandom(4).hex()}")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return f"file:{tmp_path / 'catalog'}"


def run(ml: DerivaML, config: ExecutionConfiguration, files: dict[str, bytes]) -> str:
    """Record a run with some outputs, and return its RID."""
    with ml.create_execution(config) as exe:
        for name, content in files.items():
            exe.asset_file_path("Model", name).write_bytes(content)
    exe.upload_execution_outputs()
    return str(exe.execution_rid)


# creation


def test_new_catalog_keeps_its_store(folder: str, address: str, config: ExecutionConfiguration) -> None:
    """A catalog that is created with a store finds the store again, without a folder of objects and without a login."""
    with DerivaML.create(folder, store=address) as ml:
        rid = run(ml, config, {"a.txt": b"bytes"})
    with DerivaML(folder) as ml:
        (asset,) = [each for each in ml.lookup_execution(rid).list_assets() if each.table == "Model"]
        copy = ml.lookup_execution(rid)
        assert asset.url == "/hatrac/Model/4b3a6218bb3e3a7303e8a171a60fcf92.a.txt:1"
        assert copy.status == "Completed"
        assert str(ml.connection.store) == repr(ml.connection.store)
        assert address in repr(ml.connection.store)
    root = Path(folder.removeprefix("file:"))
    assert not (root / "objects").exists()
    for file in root.rglob("*"):
        if file.is_file():
            assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in file.read_bytes()


def test_creation_without_a_bucket_creates_nothing(rclone: S3Service, folder: str) -> None:
    """If the store cannot be written, there is no catalog afterwards."""
    address = rclone.address("x").replace("s3://tests/", "s3://no-such-bucket/")
    with pytest.raises(UnknownAddress, match="The bucket no-such-bucket on"):
        DerivaML.create(folder, store=address)
    assert not Path(folder.removeprefix("file:")).exists()


def test_creation_again(folder: str, address: str) -> None:
    """A second creation with the same store opens the catalog, and one with another store is an error."""
    DerivaML.create(folder, store=address).close()
    DerivaML.create(folder, store=address).close()
    with pytest.raises(StoreConflict, match="has its files in s3://tests/team-"):
        DerivaML.create(folder, store=address.replace("/team-", "/other-"))
    with pytest.raises(StoreConflict, match="has its files in s3://tests/team-"):
        DerivaML(folder, store=address.replace("/team-", "/other-"))


def test_catalog_with_its_own_folder(folder: str, address: str) -> None:
    """A catalog that has its files in its folder cannot be opened or created with another store."""
    DerivaML(folder).close()
    for call in (lambda: DerivaML(folder, store=address), lambda: DerivaML.create(folder, store=address)):
        with pytest.raises(StoreConflict, match="has its files in its own folder"):
            call()


def test_store_of_no_catalog(folder: str, address: str) -> None:
    """Opening a folder without a catalog with a store is an error that says how to create one."""
    with pytest.raises(UnknownAddress, match=r"has no catalog; create one with DerivaML\.create\('file:"):
        DerivaML(folder, store=address)


def test_store_of_a_server(address: str) -> None:
    """A Deriva server has its own store, and needs a project name."""
    for call in (
        lambda: DerivaML("server.example.org", "1", store=address),
        lambda: DerivaML.create("server.example.org", "project", store=address),
    ):
        with pytest.raises(ConfigurationError, match="has its own object store"):
            call()
    with pytest.raises(ConfigurationError, match="add project_name"):
        DerivaML.create("server.example.org")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("s3://key:secret-word@bucket/x", "a login"),
        ("s3://bucket/x?endpoint=https://key:secret-word@host", "a login does not belong"),
        ("s3://bucket/x?access_key=secret-word", "only endpoint and region"),
        ("s3://bucket/x?endpoint=http://s3.example.org", "unencrypted: use https://s3.example.org"),
        ("s3://bucket/x?endpoint=http://127.0.0.1.example.org", "unencrypted"),
        ("s3://bucket/../x", "its prefix"),
        ("s3:///x", "no valid bucket"),
        ("gs://bucket/x", "use s3://<bucket>"),
        ("/data/objects", "or file:<folder>"),
    ],
)
def test_malformed_address(folder: str, text: str, reason: str) -> None:
    """An address that cannot be used, or that has a login, is an error without its text."""
    with pytest.raises(UnknownAddress, match=reason) as raised:
        DerivaML.create(folder, store=text)
    assert "secret-word" not in str(raised.value)


def test_endpoint_of_the_configuration(folder: str, seaweedfs: S3Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint and region of AWS's own variables are kept in the catalog, so that others need not set them."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweedfs.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    prefix = f"configured-{os.urandom(4).hex()}"
    DerivaML.create(folder, store=f"s3://{BUCKET}/{prefix}").close()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with DerivaML(folder) as ml:
        expected = f"s3://{BUCKET}/{prefix}?endpoint={seaweedfs.endpoint}&region=eu-central-1"
        assert repr(ml.connection.store) == f"S3Store({expected!r})"
        assert [check.is_error for check in ml.connection.store.check()] == [False] * 4  # type: ignore[attr-defined]


# confirmation


@pytest.fixture
def foreign(folder: str, address: str, home: Path) -> str:
    """Return a catalog that comes from another user: this user has not confirmed its store."""
    DerivaML.create(folder, store=address).close()
    shutil.rmtree(home)
    return folder


def test_unconfirmed_store(foreign: str, address: str) -> None:
    """A store that this user has not used before is an error that shows it, and how to confirm it."""
    with pytest.raises(UnconfirmedStore, match="which you have not used before") as raised:
        DerivaML(foreign)
    assert raised.value.store == address
    assert f"DerivaML({foreign!r}, store={address!r})" in str(raised.value)
    assert f"deriva-ml doctor --host {foreign} --store '{address}'" in str(raised.value)


def test_nothing_is_sent_to_an_unconfirmed_store(
    folder: str, seaweedfs: S3Service, s3_proxy: S3Proxy, home: Path
) -> None:
    """Before a store is confirmed, nothing is sent to it."""
    DerivaML.create(folder, store=seaweedfs.address("quiet", s3_proxy.port)).close()
    shutil.rmtree(home)
    s3_proxy.requests.clear()
    with pytest.raises(UnconfirmedStore):
        DerivaML(folder)
    assert s3_proxy.requests == []


def test_confirmation_is_remembered(folder: str, seaweedfs: S3Service, address: str, home: Path) -> None:
    """A store that is named once is used from then on, under any prefix; another bucket is asked for again."""
    bucket = f"other-{os.urandom(4).hex()}"
    seaweedfs.client().create_bucket(Bucket=bucket)
    catalogs = {
        f"{folder}-1": address,
        f"{folder}-2": address.replace("/team-", "/team/"),
        f"{folder}-3": address.replace(BUCKET, bucket, 1),
    }
    for catalog, store in catalogs.items():
        DerivaML.create(catalog, store=store).close()
    shutil.rmtree(home)
    DerivaML(f"{folder}-1", store=address).close()
    DerivaML(f"{folder}-1").close()
    DerivaML(f"{folder}-2").close()
    with pytest.raises(UnconfirmedStore, match=bucket):
        DerivaML(f"{folder}-3")


def test_confirmation_by_environment(foreign: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment can confirm exactly this store: an address without the endpoint does not."""
    monkeypatch.setenv("DERIVA_ML_STORE", address.partition("?")[0])
    with pytest.raises(UnconfirmedStore):
        DerivaML(foreign)
    monkeypatch.setenv("DERIVA_ML_STORE", address)
    DerivaML(foreign).close()


def test_client_can_be_pickled(folder: str, address: str) -> None:
    """A connection with a store opens again in another process."""
    with DerivaML.create(folder, store=address) as ml:
        connection = pickle.loads(pickle.dumps(ml.connection))
    assert repr(connection.store) == f"S3Store({address!r})"


# runs


def test_requests_of_an_upload(
    folder: str, seaweedfs: S3Service, s3_proxy: S3Proxy, config: ExecutionConfiguration
) -> None:
    """An upload of 100 files sends at most 110 requests, and each object once."""
    with DerivaML.create(folder, store=seaweedfs.address(f"many-{os.urandom(4).hex()}", s3_proxy.port)) as ml:
        with ml.create_execution(config) as exe:
            for number in range(100):
                exe.asset_file_path("Model", f"{number}.txt").write_text(f"{number}")
        s3_proxy.requests.clear()
        assert len(exe.upload_execution_outputs()["Model"]) == 100
        assert len(s3_proxy.requests) <= 110
        paths = Counter(request.path for request in s3_proxy.requests)
        assert [path for path, count in paths.items() if count > 1] == []


@pytest.mark.long
def test_run_without_its_store(
    folder: str, seaweedfs: S3Service, s3_proxy: S3Proxy, config: ExecutionConfiguration
) -> None:
    """A run starts, records and ends while its store refuses everything; the upload says so and succeeds later."""
    from deriva_ml_core.errors import UploadFailed

    DerivaML.create(folder, store=seaweedfs.address(f"down-{os.urandom(4).hex()}", s3_proxy.port)).close()
    with DerivaML(folder, exit_timeout=0.1) as ml:
        for operation in ("PutObject", "HeadObject"):
            s3_proxy.add_fault(operation, refuse(503, "SlowDown"), times=10_000)
        with ml.create_execution(config) as exe:
            exe.asset_file_path("Model", "a.txt").write_text("a")
        assert ml.lookup_execution(exe.execution_rid).status == "Completed"
        with pytest.raises(UploadFailed, match="SlowDown"):
            exe.upload_execution_outputs(max_retries=1, retry_delay=0.01)
        s3_proxy.faults.clear()
        assert [asset.filename for asset in exe.upload_execution_outputs()["Model"]] == ["a.txt"]


@pytest.mark.parametrize("engine", ["seaweedfs", pytest.param("rclone", marks=pytest.mark.long)])
def test_story(
    request: pytest.FixtureRequest, engine: str, folder: str, tmp_path: Path, config: ExecutionConfiguration
) -> None:
    """A run with small and large files is uploaded, verified, downloaded, and pushed there and back."""
    service: S3Service = request.getfixturevalue(engine)
    files = {"small.txt": b"small", "empty.txt": b"", "large.bin": os.urandom(30 * 2**20), "two words/ö.txt": b"name"}
    with (
        DerivaML.create(folder, store=service.address(f"story-{os.urandom(4).hex()}")) as ml,
        DerivaML(f"file:{tmp_path / 'local'}") as local,
        DerivaML.create(
            f"file:{tmp_path / 'second'}", store=service.address(f"second-{os.urandom(4).hex()}")
        ) as second,
    ):
        rid = run(ml, config, files)
        assert ml.verify(rid).problems == ()
        pushed = ml.push(rid, local)
        back = local.push(str(pushed.execution), second)
        for client, name in ((ml, rid), (local, str(pushed.execution)), (second, str(back.execution))):
            recorded = client.lookup_execution(name)
            models = {asset.filename: asset for asset in recorded.list_assets() if asset.table == "Model"}
            assert models.keys() == files.keys()
            for filename, asset in models.items():
                target = tmp_path / "copy"
                options = UploadOptions()
                client.connection.store.get(asset.url, target, length=asset.length, md5=asset.md5, options=options)
                assert target.read_bytes() == files[filename]


def test_dataset(folder: str, address: str, config: ExecutionConfiguration, tmp_path: Path) -> None:
    """A dataset of files in the store is downloaded and verified, and a run reads a file of another run."""
    with DerivaML.create(folder, store=address) as ml:
        with ml.create_execution(config) as exe:
            for name in ("a.png", "b.png"):
                exe.asset_file_path("Image", name).write_bytes(name.encode())
        images = exe.upload_execution_outputs()["Image"]
        ml.add_dataset_element_type("Image")
        with ml.create_execution(config) as exe:
            dataset = exe.create_dataset(description="Photographs", dataset_types=["Training"])
            dataset.add_dataset_members([image.rid for image in images])
        bag = ml.lookup_dataset(dataset.dataset_rid).download_dataset_bag()
        found = {file.name: file.read_bytes() for file in (bag.path / "data").rglob("*.png")}
        assert found == {"a.png": b"a.png", "b.png": b"b.png"}
        with ml.create_execution(config) as exe:
            assert exe.download_asset(images[0].rid, tmp_path / "input").read_bytes() == images[0].filename.encode()


SCRIPT = """
import sys
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration

ml = DerivaML(sys.argv[1])
workflow = ml.create_workflow("Scaling", "Training")
with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
    exe.asset_file_path("Model", "model.txt").write_text("weights")
exe.upload_execution_outputs()
print(exe.execution_rid)
"""


def test_reproduce(folder: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is rebuilt from its records in the store, and its command records a second run there."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "run.py").write_text(SCRIPT)
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    for args in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "First")):
        subprocess.run(["git", *args], cwd=repository, check=True)
    DerivaML.create(folder, store=address).close()
    command = [sys.executable, "run.py", folder]
    rid = subprocess.run(command, cwd=repository, check=True, text=True, capture_output=True).stdout.strip()
    monkeypatch.chdir(tmp_path)
    with DerivaML(folder) as ml:
        reproduction = ml.reproduce(rid, repository=repository)
        assert Path(f"reproduce-{rid}") / "records" / "configuration.json" in reproduction.records
        assert reproduction.run() == 0
        assert len(ml.find_executions()) == 2
        assert ml.verify().problems == ()


def doctor(catalog: str, *options: str) -> tuple[int, list[dict[str, str]]]:
    result = CliRunner().invoke(app, ["doctor", "--json", "--host", catalog, *options])
    return result.exit_code, json.loads(result.stdout)["findings"]


def test_doctor(foreign: str, address: str) -> None:
    """The command doctor confirms a store and checks it; without it, the error says how."""
    code, findings = doctor(foreign)
    assert code == 1
    (catalog,) = [each["said"] for each in findings if each["name"] == "catalog"]
    assert catalog.startswith(f"The catalog {foreign} has its files in {address}, which you have not used before.")
    code, findings = doctor(foreign, "--store", address)
    assert [(each["verdict"], each["said"]) for each in findings if each["name"] == "store"] == [
        ("good", f"{address} can be written and read"),
        ("good", "the service refuses to overwrite an object"),
        ("good", "no upload was abandoned"),
        ("doubtful", "the bucket has no lifecycle rules"),
    ]


def test_doctor_without_conditions(folder: str, rclone: S3Service) -> None:
    """The command doctor says that a service overwrites objects."""
    DerivaML.create(folder, store=rclone.address("doctor")).close()
    found = [(each["verdict"], each["said"]) for each in doctor(folder)[1] if each["name"] == "store"]
    message = "the service overwrites objects although it is told not to; each file is looked up before and after"
    assert ("doubtful", message) in found


def test_doctor_without_the_service(folder: str, seaweedfs: S3Service) -> None:
    """The command doctor reports a store that it cannot reach, and checks the rest."""
    with running_proxy(seaweedfs.port) as proxy:
        DerivaML.create(folder, store=seaweedfs.address("gone", proxy.port)).close()
    code, findings = doctor(folder)
    assert code == 1
    (store,) = [each for each in findings if each["name"] == "store"]
    assert store["verdict"] == "bad"
    assert store["said"].startswith("No usable response from the bucket tests on 127.0.0.1")


def test_init(folder: str, address: str) -> None:
    """The command init creates a catalog with a store."""
    result = CliRunner().invoke(app, ["init", "--host", folder, "--store", address])
    assert result.exit_code == 0, result.output
    with DerivaML(folder) as ml:
        assert repr(ml.connection.store) == f"S3Store({address!r})"


def test_missing_package(folder: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without botocore, the error names the extra."""
    DerivaML.create(folder, store=address).close()
    for name in [name for name in sys.modules if name.startswith(("botocore", "deriva_ml_core.backends.s3"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(MissingDependency, match=r"A store on S3 needs the package 'botocore'.*\[s3\]"):
        DerivaML(folder)
