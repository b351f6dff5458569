"""Every benchmark runs, in miniature; how long anything takes is asserted nowhere."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

NAMES = (
    "bags",
    "catalog",
    "commands",
    "crowd",
    "detection",
    "hooks",
    "imports",
    "members",
    "remote",
    "running",
    "starting",
    "uploading",
)

TRAININGS = ("checkpoints", "endings", "peers", "training")
"""Those that train, in many processes that take seconds each."""

COUNTED = {
    "crowd": ("processes", "executions", "files"),
    "imports": ("modules",),
    "remote": ("requests",),
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
    assert sorted(command.BENCHMARKS) == sorted(NAMES + TRAININGS)
    subjects = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "\ndef run(scale" in path.read_text()}
    assert subjects == {*NAMES, *TRAININGS}


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_gives_figures(command: Any, scale: Any, tmp_path: Path, name: str) -> None:
    """Each times something beside a floor, and what it counts is as it must be."""
    figures = [figure for _, figure in command.measured([name], scale, tmp_path)]
    timed = [figure for figure in figures if figure.unit == "s"]
    assert timed
    assert all(figure.value > 0 and figure.floor and figure.floor_value > 0 and figure.ratio > 0 for figure in timed)
    counted = [figure for figure in figures if figure.unit in COUNTED.get(name, ())]
    assert {figure.unit for figure in counted} == set(COUNTED.get(name, ()))
    assert all(figure.holds is not False for figure in counted if figure.unit != "copies")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name", [name if name == "training" else pytest.param(name, marks=pytest.mark.long) for name in TRAININGS]
)
def test_a_benchmark_of_trainings_gives_figures(command: Any, scale: Any, tmp_path: Path, name: str) -> None:
    """What it counts of ours is as it must be on any machine: calls, copies, points, and the status."""
    pytest.importorskip("pytorch_lightning")
    figures = [figure for _, figure in command.measured([name], scale, tmp_path)]
    assert any(figure.of.startswith("ours") for figure in figures) or name == "training"
    counted = [figure for figure in figures if figure.unit != "s" and figure.holds is not None]
    assert bool(counted) is (name != "peers")
    assert [figure for figure in counted if not figure.holds] == []


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", sorted({*TRAININGS} - {"training"}))
def test_the_peers_are_measured_too(command: Any, scale: Any, tmp_path: Path, name: str) -> None:
    """Each that is installed has its row: of costs, of checkpoints where it keeps them, of what survives."""
    pytest.importorskip("pytorch_lightning")
    scale = replace(scale, peers=True)
    installed = import_module("benchmarks.fresh").peers(scale)
    if installed == ("lightning csv",):
        pytest.skip("no peer is installed: make bench installs them")
    rows = {figure.of for _, figure in command.measured([name], scale, tmp_path)}
    keeping = import_module("benchmarks.checkpoints").KEEPING
    assert rows >= ({*installed} & {*keeping} if name == "checkpoints" else {*installed})


def test_several_that_are_compared_are_rows_of_a_table(command: Any) -> None:
    """A column for each figure, a row for each of them, the target beside what it is for."""
    figures = import_module("benchmarks.figures")
    ours = figures.Figure("added to a step", 5e-6, target=20e-6, of="ours")
    kept = figures.Figure("SIGKILL", 7, "of 8", of="another", note="exit -9", fine=False)
    (drawn,) = figures.tables([("peers", ours), ("peers", kept)])
    assert [column.header for column in drawn.columns] == ["", "added to a step", "SIGKILL"]
    assert [list(column.cells) for column in drawn.columns[1:]] == [
        ["[green]5 µs, ≤ 20 µs", ""],
        ["", "[bold red]7 of 8, exit -9"],
    ]


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
