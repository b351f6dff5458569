"""``DerivaML.export`` and ``export_prov``; the tests of the command check the formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recorded_runs import Runs

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import ConfigurationError, FileConflict

pytest.importorskip("rocrate", reason="the extra export is not installed")
pytest.importorskip("prov", reason="the extra export is not installed")


def test_export_crate(ml: DerivaML, runs: Runs, tmp_path: Path) -> None:
    """An RO-Crate with all files has the inputs, and an existing path is not replaced."""
    path = ml.export(runs.second, tmp_path / "crate", include="all", license="https://spdx.org/licenses/CC0-1.0")
    assert path == tmp_path / "crate"
    assert [file.read_text() for file in (path / "inputs").rglob("model.pt")] == ["weights"]
    graph = json.loads((path / "ro-crate-metadata.json").read_text())["@graph"]
    (action,) = [entity for entity in graph if entity["@type"] == "CreateAction"]
    assert (action["identifier"], action["error"]) == (runs.second, "ValueError: no more data")
    with pytest.raises(FileConflict):
        ml.export(runs.second, path)


def test_export_zip(ml: DerivaML, runs: Runs, tmp_path: Path) -> None:
    """An RO-Crate can be a ZIP archive."""
    path = ml.export(runs.first, tmp_path / "crate.zip", include="none", as_zip=True)
    assert path.read_bytes().startswith(b"PK")


def test_export_prov(ml: DerivaML, runs: Runs, tmp_path: Path) -> None:
    """PROV-JSON is the same as text and as a file."""
    text = ml.export_prov(runs.first)
    assert json.loads(text)["activity"].keys() == {f"run:{runs.first}"}
    path = ml.export(runs.first, tmp_path / "new" / "run.json", format="prov-json")
    assert path.read_text(encoding="utf-8") == text


def test_unknown_format(ml: DerivaML, runs: Runs, tmp_path: Path) -> None:
    """An unknown format is an error that names the formats."""
    with pytest.raises(ConfigurationError, match="ro-crate, prov-json"):
        ml.export(runs.first, tmp_path / "run", format="bagit")


def test_tags_are_keywords(ml: DerivaML, runs: Runs, tmp_path: Path) -> None:
    """The tags of a run are keywords of its RO-Crate, of its action, and of its activity in PROV."""
    ml.lookup_execution(runs.first).add_tags("paper", "two words")
    path = ml.export(runs.first, tmp_path / "crate", include="none")
    graph = json.loads((path / "ro-crate-metadata.json").read_text())["@graph"]
    (root,) = [entity for entity in graph if entity["@id"] == "./"]
    (action,) = [entity for entity in graph if entity["@type"] == "CreateAction"]
    assert (root["keywords"], action["keywords"]) == ("paper, two words", "paper, two words")
    activity = json.loads(ml.export_prov(runs.first))["activity"][f"run:{runs.first}"]
    assert sorted(activity["schema:keywords"]) == ["paper", "two words"]
