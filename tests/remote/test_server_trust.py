"""Trust in servers: certificates are verified, and no path is derived from names that a server returns."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from deriva_ml_core.assets.lookup import download_asset
from deriva_ml_core.backends.deriva.http import Server
from deriva_ml_core.backends.deriva.store import DerivaStore
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import CatalogUnavailable, InvalidFileName, StoreUnavailable
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import Asset, UploadOptions
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer, serving
from fakes.faults import Fault, Harm
from fakes.web import Answer

WORKFLOW = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a self-signed certificate for localhost, with its key."""
    x509 = pytest.importorskip("cryptography.x509", reason="cryptography, which makes certificates, is not installed")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("certificate") / "localhost.pem"
    secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.write_bytes(
        builder.public_bytes(serialization.Encoding.PEM) + key.private_bytes(serialization.Encoding.PEM, *secret)
    )
    return file


@pytest.fixture
def secure_server(certificate: Path, tmp_path: Path) -> Iterator[DerivaServer]:
    """Run a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(tmp_path / "hatrac", tls=context) as server:
        yield server


def test_untrusted_certificate(secure_server: DerivaServer) -> None:
    """A server with an untrusted certificate receives no request, and so no login."""
    with pytest.raises(CatalogUnavailable, match="certificate"):
        DerivaML(secure_server.hostname, "1", credential=secure_server.credential())
    assert secure_server.requests == []


def test_trusted_certificate(secure_server: DerivaServer, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is recorded over https."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with DerivaML.create(secure_server.hostname, "demo", credential=secure_server.credential()) as ml:
        with ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW)) as exe:
            exe.asset_file_path("Model", "m.pt").write_bytes(b"w" * 10_000)
        (asset,) = exe.upload_execution_outputs(chunk_size=4096)["Model"]
        ml.verify_asset(asset)


@pytest.mark.parametrize("name", ["../../../evil.png", "/tmp/evil.png", "a/../../evil.png", "..", "x\n/../evil.png"])
def test_filename_outside_folder(ml: DerivaML, fake: DerivaServer, name: str) -> None:
    """A file name of another client cannot place the file outside its folder."""
    with ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW)) as exe:
        exe.asset_file_path("Image", "x.png").write_bytes(b"pixels")
    (asset,) = exe.upload_execution_outputs()["Image"]
    ml.add_dataset_element_type("Image")
    dataset = exe.create_dataset("images")
    ml.connection.catalog.update("Image", [{"RID": asset.rid, "Filename": name}])
    dataset.add_dataset_members([asset.rid])
    second = ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW))
    bag = second.download_dataset_bag(dataset.rid)
    (row,) = bag.list_dataset_members()["Image"]
    paths = [Path(row["Filename"]), second.download_asset(asset.rid)]
    assert [path.read_bytes() for path in paths] == [b"pixels"] * 2
    assert paths[0].resolve().is_relative_to(bag.path.resolve())
    assert paths[1].resolve().is_relative_to(second.working_dir.resolve())


@pytest.mark.parametrize(("table", "rid"), [("..", "1-ABC"), ("/tmp", "1-ABC"), ("Image", "../../x"), ("Image", "..")])
def test_table_or_rid_outside_folder(ml: DerivaML, tmp_path: Path, table: str, rid: str) -> None:
    """A table name or RID cannot place a file outside its folder."""
    asset = Asset(rid=rid, table=table, filename="x", url="/hatrac/Image/x:A", length=1, md5="0" * 32)
    with pytest.raises(InvalidFileName, match="cannot name a folder"):
        download_asset(ml.connection, asset, tmp_path / "inner" / "folder")
    assert not (tmp_path / "inner").exists()


def test_redirect_without_encryption(
    secure_server: DerivaServer, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect from https to http is refused: neither the same host nor another one receives a request."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    server = Server("https", secure_server.hostname.removeprefix("https://"), secure_server.credential())
    options = UploadOptions(max_retries=0)
    with serving(tmp_path / "plain") as plain:
        location = f"http://localhost:{plain.port}/objects/1"
        headers = {"Location": location, "Content-Length": "0"}
        secure_server.faults.add(Fault(Harm.answer, "GET", reply=Answer(302, b"", headers)))
        with pytest.raises(StoreUnavailable, match="without encryption"):
            DerivaStore(server).get("/hatrac/Model/x:A", tmp_path / "x", length=1, md5="0" * 32, options=options)
        assert plain.requests == []
    assert len(secure_server.requests) == 1


def test_second_redirect_without_encryption(
    secure_server: DerivaServer, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect from https to http is refused also after a first redirect to https."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    options = UploadOptions(max_retries=0)
    with serving(tmp_path / "plain") as plain:
        server = Server("http", plain.hostname.removeprefix("http://"), plain.credential())
        for source, target in (plain, secure_server), (secure_server, plain):
            headers = {"Location": f"{target.hostname}/objects/1", "Content-Length": "0"}
            source.faults.add(Fault(Harm.answer, "GET", reply=Answer(302, b"", headers)))
        with pytest.raises(StoreUnavailable, match="without encryption"):
            DerivaStore(server).get("/hatrac/Model/x:A", tmp_path / "x", length=1, md5="0" * 32, options=options)
        assert (len(plain.requests), len(secure_server.requests)) == (1, 1)
