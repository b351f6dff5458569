"""What `make test-live` runs takes a server from the environment, and leaves nothing on it but what was given to it."""

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
    "remote/test_other_catalogs.py",
    "remote/test_remote_document.py",
    "-k",
    "(TestRemoteStore and killed and share) or (whole_run and newer) or on_entry or provenance_links or outside_git",
)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server in a process of its own, that was told nothing."""
    command = [sys.executable, "-m", "fakes"]
    with subprocess.Popen(command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Server("http", process.stdout.readline().strip().removeprefix("http://"), LOGIN)
        assert process.stdin is not None
        process.stdin.close()


def run_live(server: Server, *tests: str, home: Path, **environ: str) -> str:
    """Run tests in a new process as `make test-live` does; what they say."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("DERIVA_ML_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command,
        cwd=TESTS,
        env={**known, "HOME": str(home), "DERIVA_ML_TEST_HOST": server.url, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def catalogs(server: Server) -> list[str]:
    """The numbers of the catalogs that are there."""
    return [
        str(number) for number in range(1, 30) if server.request("GET", f"/ermrest/catalog/{number}").status_code == 200
    ]


def state(server: Server, number: str) -> str:
    """The last state of a catalog."""
    return str(server.request("GET", f"/ermrest/catalog/{number}").json()["snaptime"])


def names(server: Server) -> list[str]:
    """The names at the top of the object store."""
    found = server.request("GET", "/hatrac/", headers={"Accept": "application/json"}).json()
    assert isinstance(found, list)
    return found


def test_catalogs_of_its_own(server: Server, tmp_path: Path) -> None:
    """With a login from the environment, catalogs are made and deleted, and so is the namespace with its objects."""
    said = run_live(server, *OWN_CATALOGS, home=tmp_path, DERIVA_ML_TEST_CREDENTIAL=json.dumps(LOGIN))
    assert "skipped" not in said
    assert int(said.rpartition(" passed")[0].split()[-1]) >= 6
    assert (catalogs(server), names(server)) == ([], [])
    assert server.request("POST", "/ermrest/catalog", body=b"{}").json()["id"] != "1"


def test_a_catalog_that_is_given(server: Server, tmp_path: Path) -> None:
    """With the login that the user has stored, a catalog that is named is used and stays, and no other is made."""
    from deriva_ml_core.backends.deriva.open import create_catalog

    number = create_catalog(server, "given").catalog_id
    before = state(server, number)
    stored = tmp_path / ".deriva" / "credential.json"
    stored.parent.mkdir()
    stored.write_text(json.dumps({server.host: LOGIN}))
    said = run_live(server, *CONTRACTS, home=tmp_path, DERIVA_ML_TEST_CATALOG=number)
    assert " passed" in said
    assert (catalogs(server), names(server)) == ([number], [])
    added = server.request("POST", "/ermrest/catalog", body=b"{}").json()["id"]
    assert int(added) == int(number) + 1
    assert state(server, number) != before
