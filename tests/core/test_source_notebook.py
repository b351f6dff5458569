"""The notebook detector outside a kernel: it speaks for notebooks only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from repositories import Repository

from deriva_ml_core.builtin.source_notebook import detect_source

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
