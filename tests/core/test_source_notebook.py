"""The notebook detector outside a kernel: it speaks for notebooks only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from repositories import Repository

from deriva_ml_core.plugins.builtin.source_notebook import _fetch_sessions, _paths_for_kernel, detect_source

NOTEBOOK = {
    "cells": [{"cell_type": "code", "id": "0", "metadata": {}, "execution_count": 3, "outputs": [], "source": ["1"]}],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}


def test_not_in_a_kernel(tmp_path: Path) -> None:
    """A script is left to the script detector, and so is an interactive session without a kernel."""
    assert detect_source(tmp_path / "train.py", {}) is None
    assert detect_source(None, {"DERIVA_ML_NOTEBOOK_PATH": str(tmp_path / "a.ipynb")}) is None


def test_a_notebook_that_is_named(repository: Repository) -> None:
    """``Workflow(script=notebook)`` has the checksum of the stripped notebook, whatever its outputs."""
    file = repository.write("a b.ipynb", json.dumps(NOTEBOOK))
    subprocess.run([sys.executable, "-m", "nbstripout", str(file)], check=True)
    commit = repository.commit()
    source = detect_source(file, {})
    assert source
    assert source.url == f"https://github.com/org/repo/blob/{commit}/a%20b.ipynb"
    assert (source.kind, source.checksum, source.dirty) == (
        "notebook",
        repository.git("rev-parse", "HEAD:a b.ipynb"),
        False,
    )
    file.write_text(json.dumps(NOTEBOOK))
    assert detect_source(file, {}) == source


def test_a_notebook_that_was_committed_with_outputs(repository: Repository) -> None:
    """Compared in stripped form, a notebook that only ran is clean."""
    file = repository.write("a.ipynb", json.dumps(NOTEBOOK))
    repository.commit()
    before = detect_source(file, {})
    content = json.loads(json.dumps(NOTEBOOK))
    content["cells"][0] |= {"execution_count": 4, "id": "other"}
    file.write_text(json.dumps(content))
    assert before
    assert detect_source(file, {}) == before
    assert not before.dirty
    content["cells"][0]["source"] = ["2"]
    file.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="differs"):
        after = detect_source(file, {})
    assert after
    assert after.dirty
    assert after.checksum != before.checksum


@pytest.mark.parametrize("url", ["http://localhost:port/", "http://[::1/", "file:///etc/", ""])
def test_an_address_that_is_none(url: str) -> None:
    """What a torn runtime file names as a server's address is passed over."""
    assert _fetch_sessions(url, "") is None


@pytest.mark.parametrize("said", [None, 3, {"message": "Forbidden"}, [None, {"kernel": None, "path": "a.ipynb"}]])
def test_a_stranger_at_a_servers_port(said: object) -> None:
    """What is no list of sessions names no notebook, and raises nothing."""
    assert list(_paths_for_kernel(said, "k")) == []


def test_sessions_of_old_and_new_servers() -> None:
    """The path stands at the session, and at its notebook in servers of old."""
    new, old = {"path": "a.ipynb"}, {"path": "", "notebook": {"path": "b.ipynb"}}
    sessions = [{"kernel": {"id": name}, **session} for name in ("k", "l") for session in (new, old)]
    assert list(_paths_for_kernel(sessions, "k")) == ["a.ipynb", "b.ipynb"]
