"""The suites of `make test-live` take the server from the environment, and delete what they created."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deriva_ml_core.backends.deriva.http import Server

TESTS = Path(__file__).parents[1]
LOGIN = {"cookie": "webauthn=test1"}

CONTRACTS = ("contracts/test_remote_contracts.py", "-k", "put or rows_are_added or insert")
OWN_CATALOGS = (
    "contracts/test_remote_contracts.py",
    "remote/test_compatibility.py",
    "remote/test_document_on_server.py",
    "-k",
    "(TestRemoteStore and killed and share) or (complete_run and newer) or on_entry or provenance_links or outside_git",
)


@pytest.fixture
def server() -> Iterator[Server]:
    """Run a server in a separate process."""
    command = [sys.executable, "-m", "fakes"]
    with subprocess.Popen(command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Server("http", process.stdout.readline().strip().removeprefix("http://"), LOGIN)
        assert process.stdin is not None
        process.stdin.close()


def run_live(server: Server, *tests: str, home: Path, **environ: str) -> str:
    """Run tests in a new process as `make test-live` does, and return the output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DERIVA_ML_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command,
        cwd=TESTS,
        env={**environment, "HOME": str(home), "DERIVA_ML_TEST_HOST": server.url, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def list_catalogs(server: Server) -> list[str]:
    """Return the numbers of the existing catalogs."""
    return [
        str(number) for number in range(1, 30) if server.request("GET", f"/ermrest/catalog/{number}").status_code == 200
    ]


def read_snaptime(server: Server, number: str) -> str:
    """Return the newest snapshot of a catalog."""
    return str(server.request("GET", f"/ermrest/catalog/{number}").json()["snaptime"])


def list_namespaces(server: Server) -> list[str]:
    """Return the names at the top of the object store."""
    namespaces = server.request("GET", "/hatrac/", headers={"Accept": "application/json"}).json()
    assert isinstance(namespaces, list)
    return namespaces


def test_created_catalogs_are_deleted(server: Server, tmp_path: Path) -> None:
    """With a login from the environment, catalogs and the namespace are created and deleted."""
    output = run_live(server, *OWN_CATALOGS, home=tmp_path, DERIVA_ML_TEST_CREDENTIAL=json.dumps(LOGIN))
    assert "skipped" not in output
    assert int(output.rpartition(" passed")[0].split()[-1]) >= 6
    assert (list_catalogs(server), list_namespaces(server)) == ([], [])
    assert server.request("POST", "/ermrest/catalog", body=b"{}").json()["id"] != "1"


def test_existing_catalog_is_used(server: Server, tmp_path: Path) -> None:
    """A catalog that the environment names is used with the stored login, and no other is created."""
    from deriva_ml_core.backends.deriva.open import create_catalog

    number = create_catalog(server, "given").catalog_id
    before = read_snaptime(server, number)
    stored = tmp_path / ".deriva" / "credential.json"
    stored.parent.mkdir()
    stored.write_text(json.dumps({server.host: LOGIN}))
    output = run_live(server, *CONTRACTS, home=tmp_path, DERIVA_ML_TEST_CATALOG=number)
    assert " passed" in output
    assert (list_catalogs(server), list_namespaces(server)) == ([number], [])
    added = server.request("POST", "/ermrest/catalog", body=b"{}").json()["id"]
    assert int(added) == int(number) + 1
    assert read_snaptime(server, number) != before
