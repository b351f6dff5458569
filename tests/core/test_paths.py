"""Addresses that the embedded backend serves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.errors import ConfigurationError, UnknownAddress
from deriva_ml_core.models import Address
from deriva_ml_core.paths import embedded_catalog_folder
from deriva_ml_core.plugins import load_plugins
from deriva_ml_core.plugins.builtin.connect import connect


@pytest.mark.parametrize("hostname", [None, ""])
def test_default_folder(hostname: str | None, home: Path) -> None:
    """Without a host name, the catalog is in DERIVA_ML_HOME, in local/."""
    assert embedded_catalog_folder(hostname) == home / "local"


def test_default_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without DERIVA_ML_HOME, the home folder is ~/.deriva-ml."""
    monkeypatch.delenv("DERIVA_ML_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert embedded_catalog_folder(None) == Path("/home/ada/.deriva-ml/local")


@pytest.mark.parametrize(
    ("hostname", "folder"),
    [
        ("file:/data/x", "/data/x"),
        ("file:///data/x", "/data/x"),
        ("file://localhost/data/x", "/data/x"),
        ("file:///data/a%20b", "/data/a b"),
        ("file:/data/a%20b", "/data/a%20b"),
        ("file:~/x", "/home/ada/x"),
        ("file:x", "<here>/x"),
        ("file:./x/../y", "<here>/y"),
        ("file:/data/a b", "/data/a b"),
    ],
)
def test_file_addresses(hostname: str, folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder can be absolute, relative to the current directory or the home directory, or a URL."""
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.chdir(tmp_path)
    assert str(embedded_catalog_folder(hostname)) == folder.replace("<here>", str(tmp_path))


@pytest.mark.parametrize(
    "hostname", ["localhost:8080", "localhost", "example.org", "https://x.org", "HTTP://localhost"]
)
def test_server_addresses(hostname: str) -> None:
    """The address of a server has no folder, and needs the number of a catalog."""
    assert embedded_catalog_folder(hostname) is None
    with pytest.raises(ConfigurationError, match=r"DerivaML\.create"):
        connect(Address(hostname=hostname))


@pytest.mark.parametrize("hostname", ["x://y", "s3://bucket", "ftp://example.org", "file://other-machine/x", "file:"])
def test_unknown_addresses(hostname: str) -> None:
    """An unknown scheme, and an address without a folder, raise with the supported addresses."""
    with pytest.raises(UnknownAddress, match="file:"):
        connect(Address(hostname=hostname))


@pytest.mark.parametrize(
    "hostname",
    [
        *("https://ada:s3cret@x.org", "http://ada:s3cret@x.org:8080", "https://s3cret@x.org", "ada:s3cret@x.org"),
        *("https://ada:s3/cr@t:s3cret@x.org", "x://ada:s3cret@y", "x://s3cret@y", "file://ada:s3cret@x.org/data"),
        *("file://s3cret@x.org/data", "x://y?password=s3cret"),
    ],
)
@pytest.mark.parametrize("catalog", [None, "1"])
def test_logins_in_addresses(hostname: str, catalog: str | None) -> None:
    """The message about an address with a login does not show the login, nor does the address's repr."""
    with pytest.raises(UnknownAddress) as raised:
        connect(Address(hostname=hostname, catalog_id=catalog))
    assert "s3" not in str(raised.value)
    assert "[redacted: " in str(raised.value)
    shown = repr(Address(hostname=hostname, catalog_id=catalog))
    assert "s3" not in shown
    assert "[redacted: " in shown


@pytest.mark.parametrize("hostname", ["file:/data/a@b", "file:///data/a@b", "file:a@b", "x.org:80", "https://x.org"])
def test_addresses_without_login(hostname: str) -> None:
    """The repr of an address without a login shows the address."""
    assert repr(Address(hostname=hostname)) == (f"Address(hostname='{hostname}', catalog_id=None, working_dir=None)")


def test_catalog_id_is_refused(tmp_path: Path) -> None:
    """An embedded catalog has no number."""
    with pytest.raises(ConfigurationError, match="'1'"):
        connect(Address(hostname=f"file:{tmp_path}", catalog_id="1"))


def test_hook_connect(tmp_path: Path) -> None:
    """The hook `connect` opens the catalog and the store in the folder, which also holds the working folders."""
    backend = load_plugins({}).hook.connect(address=Address(hostname=f"file:{tmp_path}/x"))
    assert backend.folder == tmp_path / "x"
    assert "Workflow" in backend.catalog.model.tables
    assert (tmp_path / "x" / "catalog.sqlite").exists()


def test_import_does_not_load_sqlalchemy() -> None:
    """Importing the built-in plugin does not load SQLAlchemy."""
    code = "import deriva_ml_core.plugins.builtin.connect, sys; print('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
