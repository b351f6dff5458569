"""``deriva-ml list --sort``: best first by a metric."""

from __future__ import annotations

import pytest

from deriva_ml_core.client import DerivaML


def rids(result) -> list[str]:
    return [each["rid"] for each in result.json["executions"]]


@pytest.fixture
def runs(run) -> list[str]:
    """Three runs, sorted by their best ``val_loss``; the third has the smallest last value."""
    losses = {"one": (3.0, 1.0, 4.0), "two": (5.0, 2.0, 3.0), "three": (4.5, 3.5, 2.5)}
    return [
        run(name, metrics=[{"val_loss": value, "val_acc": value} for value in values]).execution_rid
        for name, values in losses.items()
    ]


def test_best_first(cli, runs: list[str]) -> None:
    """A smaller loss and a larger accuracy come first, by the best or the last value."""
    assert rids(cli("list", "--sort", "val_loss", "--json")) == runs
    assert rids(cli("list", "--sort", "val_loss:last", "--json")) == [runs[2], runs[1], runs[0]]
    assert rids(cli("list", "--sort", "val_acc", "--json")) == [runs[1], runs[2], runs[0]]
    best = cli("list", "--sort", "val_loss", "--json").json["executions"][0]["metric"]
    assert best == {
        "stage": "fit", "name": "val_loss", "last": 4.0, "best": 1.0, "best_at": 2, "larger_is_better": False
    }  # fmt: skip


def test_with_filters_and_pages(cli, runs: list[str]) -> None:
    """Filters apply, and pages follow each other without gaps."""
    pages = [cli("list", "--sort", "val_loss", "-n", "2", "--page", str(page), "--json") for page in (1, 2)]
    assert [rids(result) for result in pages] == [runs[:2], runs[2:]]
    assert [result.json["more"] for result in pages] == [True, False]
    assert rids(cli("list", "--sort", "val_loss", "--text", "three", "-n", "1", "--json")) == runs[2:]
    assert rids(cli("list", "--sort", "val_loss", "--status", "failed", "--json")) == []
    assert rids(cli("list", "--sort", "val_loss", "--type", "Training", "--json")) == runs


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_output(cli, runs: list[str], columns: int) -> None:
    """Each line has the value and fits the terminal; a wide one also has the last value and the epoch."""
    result = cli("list", "--sort", "val_loss", columns=columns)
    heading, first, *_ = result.stdout.splitlines()
    assert " val_loss " in heading
    assert first.startswith(runs[0])
    assert " 1 " in first
    assert ("at epoch" in heading) == (columns == 200)
    assert max(map(len, result.stdout.splitlines())) <= columns


def test_unknown_metric_and_stage(cli, ml: DerivaML, runs: list[str]) -> None:
    """An unknown metric or stage exits with 2 and prints the existing ones."""
    result = cli("list", "--sort", "val_lost")
    assert result.code == 2
    assert "val_acc, val_loss" in result.stderr
    assert cli("list", "--sort", "val_loss", "--stage", "test").code == 2
    assert "predict" in cli("list", "--sort", "val_loss", "--stage", "trial").stderr
    assert "--sort" in cli("list", "--stage", "test").stderr


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_long_metric_name(cli, run, columns: int) -> None:
    """A long, untrusted metric name is cut and escaped, and the value stays complete."""
    name = "val/[red]" + "macro_averaged_" * 4 + "loss\x1b[31m"
    run("one", metrics=[{name: -0.000012345}])
    result = cli("list", "--sort", name, columns=columns)
    assert "-1.234e-05" in result.stdout
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= columns
