"""Every benchmark runs with the smallest sizes. No test asserts a time."""

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
    "concurrency",
    "detection",
    "execution",
    "hooks",
    "imports",
    "members",
    "remote",
    "s3",
    "searches",
    "startup",
    "uploads",
)

TRAININGS = ("checkpoints", "terminations", "trackers", "training")
"""The benchmarks that train, in many processes of several seconds."""

COUNTED = {
    "concurrency": ("processes", "executions", "files"),
    "execution": ("calls",),
    "imports": ("modules",),
    "remote": ("requests",),
    "s3": ("requests",),
    "uploads": ("copies",),
}
"""The units of figures that are counted and not timed; their targets hold on any machine."""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of ``python -m benchmarks``, which is not an installed package."""
    monkeypatch.syspath_prepend(ROOT)
    return import_module("benchmarks.__main__")


@pytest.fixture
def scale() -> Any:
    """The smallest sizes."""
    return import_module("benchmarks.scale").TINY


def test_all_benchmarks_are_listed(command: Any) -> None:
    """The command and these tests list every benchmark module."""
    assert sorted(command.BENCHMARKS) == sorted(NAMES + TRAININGS)
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "\ndef run(scale" in path.read_text()}
    assert modules == {*NAMES, *TRAININGS}


@pytest.mark.parametrize("name", NAMES)
def test_benchmark(command: Any, scale: Any, tmp_path: Path, name: str) -> None:
    """Each benchmark times something against a baseline, and its counts meet their targets."""
    figures = [figure for _, figure in command.run_benchmarks([name], scale, tmp_path)]
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
def test_training_benchmark(command: Any, scale: Any, tmp_path: Path, name: str) -> None:
    """The counts of this software meet their targets: calls, copies, points and statuses."""
    pytest.importorskip("pytorch_lightning")
    figures = [figure for _, figure in command.run_benchmarks([name], scale, tmp_path)]
    assert any(figure.of.startswith("deriva-ml") for figure in figures) or name == "training"
    counted = [figure for figure in figures if figure.unit != "s" and figure.holds is not None]
    assert bool(counted) is (name != "trackers")
    assert [figure for figure in counted if not figure.holds] == []


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", sorted({*TRAININGS} - {"training"}))
def test_other_trackers(command: Any, scale: Any, tmp_path: Path, name: str) -> None:
    """Each installed tracker has a row in each table; in that of checkpoints only if it stores them."""
    pytest.importorskip("pytorch_lightning")
    scale = replace(scale, trackers=True)
    installed = import_module("benchmarks.processes").installed_trackers(scale)
    if installed == ("lightning csv",):
        pytest.skip("no other tracker is installed; make bench installs them")
    rows = {figure.of for _, figure in command.run_benchmarks([name], scale, tmp_path)}
    storing = import_module("benchmarks.checkpoints").STORING
    assert rows >= ({*installed} & {*storing} if name == "checkpoints" else {*installed})


def test_tracker_table(command: Any) -> None:
    """The table of trackers has a column for each figure and a row for each tracker."""
    figures = import_module("benchmarks.figures")
    step = figures.Figure("added to a step", 5e-6, target=20e-6, of="deriva-ml")
    killed = figures.Figure("SIGKILL", 7, "of 8", of="another", note="exit -9", fine=False)
    (table,) = figures.tables([("trackers", step), ("trackers", killed)])
    assert [column.header for column in table.columns] == ["", "added to a step", "SIGKILL"]
    assert [list(column.cells) for column in table.columns[1:]] == [
        ["[green]5 µs, ≤ 20 µs", ""],
        ["", "[bold red]7 of 8, exit -9"],
    ]


def test_command_prints_a_table_and_writes_the_figures(
    command: Any, scale: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints one table, and writes a JSON file with the machine and every figure."""
    monkeypatch.setattr(command, "FULL", scale)
    file = tmp_path / "results" / "result.json"
    command.main(["hooks", "--json", str(file), "--folder", str(tmp_path)])
    written = json.loads(file.read_text())
    assert {line["benchmark"] for line in written["figures"]} == {"hooks"}
    assert written["machine"]["python"]
    printed = capsys.readouterr().out
    assert all(line["what"] in printed for line in written["figures"])


def test_unknown_benchmark(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The error for an unknown benchmark lists the existing ones."""
    with pytest.raises(SystemExit):
        command.main(["speed"])
    assert "unknown benchmark speed; choose from imports, " in capsys.readouterr().err


def test_figure_meets_its_target(command: Any) -> None:
    """The target applies to the ratio if there is a baseline, and otherwise to the value."""
    figure = import_module("benchmarks.figures").Figure
    assert figure("a", 9.0, floor="b", floor_value=3.0, ratio=3.0, target=3).holds is True
    assert figure("a", 9.3, floor="b", floor_value=3.0, ratio=3.1, target=3).holds is False
    assert figure("a", 1, "calls", target=0).holds is False
    assert figure("a", 0, "calls", target=0).holds is True
    assert figure("a", 9.0, floor="b", floor_value=3.0, ratio=3.0).holds is None
