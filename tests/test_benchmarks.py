"""Every benchmark runs, in miniature; how long anything takes is asserted nowhere."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

NAMES = ("bags", "catalog", "crowd", "detection", "hooks", "imports", "members", "running", "starting", "uploading")

COUNTED = {
    "crowd": ("processes", "executions", "files"),
    "imports": ("modules",),
    "running": ("calls",),
    "uploading": ("copies",),
}
"""What a benchmark counts beside times, where the target must hold on any machine."""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module behind ``python -m benchmarks``, which is no installed package."""
    monkeypatch.syspath_prepend(ROOT)
    return import_module("benchmarks.__main__")


@pytest.fixture
def scale() -> Any:
    """The smallest sizes."""
    return import_module("benchmarks.scale").TINY


def test_these_are_all(command: Any) -> None:
    """No benchmark is left out here."""
    assert sorted(command.BENCHMARKS) == list(NAMES)
    subjects = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "\ndef run(scale" in path.read_text()}
    assert subjects == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_gives_figures(command: Any, scale: Any, tmp_path: Path, name: str) -> None:
    """Each times something beside a floor, and what it counts is as it must be."""
    figures = [figure for _, figure in command.measured([name], scale, tmp_path)]
    timed = [figure for figure in figures if figure.unit == "s"]
    assert timed
    assert all(figure.value > 0 and figure.floor and figure.floor_value > 0 and figure.ratio > 0 for figure in timed)
    counted = [figure for figure in figures if figure.unit in COUNTED.get(name, ())]
    assert {figure.unit for figure in counted} == set(COUNTED.get(name, ()))
    assert all(figure.holds for figure in counted if figure.unit != "copies")


def test_the_command_draws_a_table_and_keeps_the_figures(
    command: Any, scale: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One table for people, and a JSON file with the machine and every figure."""
    monkeypatch.setattr(command, "FULL", scale)
    file = tmp_path / "results" / "here.json"
    command.main(["hooks", "--json", str(file), "--folder", str(tmp_path)])
    kept = json.loads(file.read_text())
    assert {line["benchmark"] for line in kept["figures"]} == {"hooks"}
    assert kept["machine"]["python"]
    drawn = capsys.readouterr().out
    assert all(line["what"] in drawn for line in kept["figures"])


def test_a_name_that_is_none_is_refused(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The known benchmarks are named."""
    with pytest.raises(SystemExit):
        command.main(["speed"])
    assert "there is no benchmark speed; there are imports, " in capsys.readouterr().err


def test_a_target_holds_up_to_its_value(command: Any) -> None:
    """A ratio is held against it where there is a floor, else the value itself."""
    figure = import_module("benchmarks.figures").Figure
    assert figure("a", 9.0, floor="b", floor_value=3.0, ratio=3.0, target=3).holds is True
    assert figure("a", 9.3, floor="b", floor_value=3.0, ratio=3.1, target=3).holds is False
    assert figure("a", 1, "calls", target=0).holds is False
    assert figure("a", 0, "calls", target=0).holds is True
    assert figure("a", 9.0, floor="b", floor_value=3.0, ratio=3.0).holds is None
