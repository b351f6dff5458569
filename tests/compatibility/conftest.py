"""What the tests of compatibility start from: the data of an earlier version, and a client of its catalog."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from earlier_version import lay_out

from deriva_ml import DerivaML

os.environ["KERAS_BACKEND"] = "torch"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """The folder with the data, laid out as if they had been recorded on this machine."""
    lay_out(tmp_path)
    return tmp_path


@pytest.fixture
def ml(recorded: Path, home: Path) -> DerivaML:
    """A client of the recorded catalog, which is the default one."""
    assert home == recorded / "home"
    return DerivaML()
