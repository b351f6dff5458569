"""``deriva-ml list --sort``: the best first by a metric."""

from __future__ import annotations

import pytest

from deriva_ml_core.client import DerivaML


def rids(said) -> list[str]:
    return [each["rid"] for each in said.json["executions"]]


@pytest.fixture
def three(run) -> list[str]:
    """Three runs, the best by ``val_loss`` first; that of the third is the smallest at its end."""
    losses = {"one": (3.0, 1.0, 4.0), "two": (5.0, 2.0, 3.0), "three": (4.5, 3.5, 2.5)}
    return [
        run(name, metrics=[{"val_loss": value, "val_acc": value} for value in values]).execution_rid
        for name, values in losses.items()
    ]


def test_the_best_first(ask, three: list[str]) -> None:
    """Less of a loss and more of an accuracy is better, by the best value or by the last."""
    assert rids(ask("list", "--sort", "val_loss", "--json")) == three
    assert rids(ask("list", "--sort", "val_loss:last", "--json")) == [three[2], three[1], three[0]]
    assert rids(ask("list", "--sort", "val_acc", "--json")) == [three[1], three[2], three[0]]
    best = ask("list", "--sort", "val_loss", "--json").json["executions"][0]["metric"]
    assert best == {
        "stage": "fit", "name": "val_loss", "last": 4.0, "best": 1.0, "best_at": 2, "larger_is_better": False
    }  # fmt: skip


def test_with_filters_and_pages(ask, three: list[str]) -> None:
    """The other filters hold, and a page goes on where the last one ended."""
    pages = [ask("list", "--sort", "val_loss", "-n", "2", "--page", str(page), "--json") for page in (1, 2)]
    assert [rids(said) for said in pages] == [three[:2], three[2:]]
    assert [said.json["more"] for said in pages] == [True, False]
    assert rids(ask("list", "--sort", "val_loss", "--text", "three", "-n", "1", "--json")) == three[2:]
    assert rids(ask("list", "--sort", "val_loss", "--status", "failed", "--json")) == []
    assert rids(ask("list", "--sort", "val_loss", "--type", "Training", "--json")) == three


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_screen(ask, three: list[str], columns: int) -> None:
    """The value stands beside each run, in a line that fits; on a broad screen with the last one and the epoch."""
    said = ask("list", "--sort", "val_loss", columns=columns)
    heading, first, *_ = said.out.splitlines()
    assert " val_loss " in heading
    assert first.startswith(three[0])
    assert " 1 " in first
    assert ("at epoch" in heading) == (columns == 200)
    assert max(map(len, said.out.splitlines())) <= columns


def test_wrong_words(ask, ml: DerivaML, three: list[str]) -> None:
    """A metric, or a stage, that nobody has told of is wrong use, and those that there are, are named."""
    said = ask("list", "--sort", "val_lost")
    assert said.code == 2
    assert "val_acc, val_loss" in said.complaint
    assert ask("list", "--sort", "val_loss", "--stage", "test").code == 2
    assert "predict" in ask("list", "--sort", "val_loss", "--stage", "trial").complaint
    assert "--sort" in ask("list", "--stage", "test").complaint


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_long_name_takes_no_digits(ask, run, columns: int) -> None:
    """A metric with a long name, from wherever, leaves its value whole, and is not obeyed."""
    name = "val/[red]" + "macro_averaged_" * 4 + "loss\x1b[31m"
    run("one", metrics=[{name: -0.000012345}])
    said = ask("list", "--sort", name, columns=columns)
    assert "-1.234e-05" in said.out
    assert "\x1b" not in said.out
    assert max(map(len, said.out.splitlines())) <= columns
