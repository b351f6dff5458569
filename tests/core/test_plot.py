"""Reading of the metrics file, and the plot of its curves."""

from __future__ import annotations

import json
import math
import random
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from deriva_ml_core.training.metrics_file import MetricsLine, collect_series, iter_metrics, read_metrics
from deriva_ml_core.training.plot import MAX_POINTS, draw_curves, plan_plot

NAN = math.nan


def metrics_line(place: int, values: Mapping[str, float], *, fit: int = 1, by: str = "epoch", **more: object) -> str:
    """Return a line in the format of metrics.jsonl."""
    record = {"stage": "fit", "fit": fit, "by": by, "epoch": place, "step": 10 * place, "time": "2026-11-23T00:00:00"}
    return json.dumps({**record, **more, "values": values}) + "\n"


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """The metrics file of a training of twelve epochs."""
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        "".join(metrics_line(e, {"loss": 1 / e, "val_loss": 2 / e, "acc": 1 - 1 / e}) for e in range(1, 13))
    )
    return file


def epochs(*values: Mapping[str, float], fit: int = 1, first: int = 1) -> list[MetricsLine]:
    return [MetricsLine(fit=fit, epoch=first + i, step=10 * (first + i), values=each) for i, each in enumerate(values)]


def panel_names(lines: list[MetricsLine]) -> dict[str, list[str]]:
    """Return the metrics of each panel, by its title."""
    plan = plan_plot(lines)
    assert plan is not None
    return {panel.title: [drawn.name for drawn in panel.lines] for panel in plan.panels}


def test_read_metrics(tmp_path: Path) -> None:
    """All fields of an epoch are read, including NaN and infinity; fields of a newer version are ignored."""
    file = tmp_path / "metrics.jsonl"
    more = {"seconds": 1.5, "learning_rates": {"Adam": 0.001}, "peak_memory": 5, "samples_per_second": 8.0, "new": [1]}
    file.write_text(metrics_line(3, {"loss": NAN, "reward": math.inf, "odd": "x"}, fit=2, **more))  # type: ignore[dict-item]
    (read,) = read_metrics(file)
    assert math.isnan(read.values["loss"])
    assert read.values["reward"] == math.inf
    assert read.values.keys() == {"loss", "reward"}
    assert (read.fit, read.epoch, read.step, read.seconds) == (2, 3, 30, 1.5)
    assert (read.learning_rates, read.peak_memory, read.samples_per_second) == ({"Adam": 0.001}, 5, 8.0)


def test_torn_line_is_skipped(tmp_path: Path) -> None:
    """A torn line, of a killed or a writing process, does not affect other lines."""
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        metrics_line(1, {"loss": 1})
        + metrics_line(2, {"loss": 2})[:40]
        + "\n"
        + metrics_line(3, {"loss": 3})
        + '{"stage": "f'
    )
    assert [read.epoch for read in read_metrics(file)] == [1, 3]


def test_lines_without_by_are_epochs(tmp_path: Path) -> None:
    """Lines of the first version, without the field ``by``, are of epochs."""
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"stage": "fit", "fit": 1, "epoch": 1, "step": 5, "values": {"loss": 1.0}}\n')
    assert [read.epoch for read in iter_metrics(file, "epoch")] == [1]
    assert list(iter_metrics(file, "step")) == []


def test_collect_series() -> None:
    """There is one series per fit, by epoch or step, in the order of the lines."""
    lines = [*epochs({"a": 1.0}, {"a": 2.0}), *epochs({"a": 3.0}, fit=2)]
    by_epoch, by_step = collect_series(lines, "epoch")["a"], collect_series(lines, "step")["a"]
    assert {fit: (list(track.positions), list(track.values)) for fit, track in by_epoch.items()} == {
        1: ([1, 2], [1.0, 2.0]),
        2: ([1], [3.0]),
    }
    assert list(by_step[1].positions) == [10, 20]


def test_training_and_validation_share_panel() -> None:
    """With Keras' and Lightning's names; losses come first, and metrics that Lightning logs twice are drawn once."""
    assert panel_names(epochs({"acc": 1, "val_acc": 1, "val_loss": 1, "loss": 1})) == {
        "loss": ["loss", "val_loss"],
        "acc": ["acc", "val_acc"],
    }
    logged = {"train_loss": 1, "train_loss_step": 1, "train_loss_epoch": 1, "val/f1": 1, "f1/train": 1, "valid_loss": 1}
    assert panel_names(epochs(logged)) == {"loss": ["train_loss", "valid_loss"], "f1": ["f1/train", "val/f1"]}


def test_losses_share_panel() -> None:
    """Losses, as of a GAN, share a panel; names that only contain 'loss' or 'val' as part of a word do not."""
    assert panel_names(epochs({"g_loss": 1, "glossy": 1, "d_loss": 1, "interval_error": 1})) == {
        "losses": ["g_loss", "d_loss"],
        "glossy": ["glossy"],
        "interval_error": ["interval_error"],
    }


def test_fits_follow_each_other() -> None:
    """A fit that counts from 1 is placed after the previous one; a fit that continues the count is not moved."""
    one = epochs({"loss": 3.0}, {"loss": 2.0})
    anew, on = epochs({"loss": 1.0}, fit=2), epochs({"loss": 1.0}, fit=2, first=3)
    for lines in (one + anew, one + on):
        plan = plan_plot(lines)
        assert plan is not None
        assert list(plan.panels[0].lines[0].x) == [1, 2, 2, 3]
        assert plan.fit_starts == {2: 2.5}


def test_non_finite_values_are_gaps() -> None:
    """Values that are not finite are gaps, and the legend has their number."""
    plan = plan_plot(epochs({"loss": 1.0}, {"loss": NAN}, {"loss": math.inf}, {"loss": 2.0}))
    assert plan is not None
    (drawn,) = plan.panels[0].lines
    assert [math.isnan(value) for value in drawn.y] == [False, True, True, False]
    assert drawn.non_finite_count == 2


def test_downsampling_keeps_peaks() -> None:
    """Of 100,000 steps at most 2,000 points are drawn, including the single peak."""
    steps = [
        MetricsLine(by="step", step=i, values={"loss": 50.0 if i == 54321 else math.sin(i)}) for i in range(100_000)
    ]
    plan = plan_plot([], steps)
    assert plan is not None
    (drawn,) = plan.panels[0].lines
    assert len(drawn.x) <= MAX_POINTS
    assert (54321, 50.0) in zip(drawn.x, drawn.y, strict=True)
    assert list(drawn.x) == sorted(drawn.x)


def test_changing_learning_rate_is_drawn() -> None:
    """A learning rate has a panel only if it changes."""
    for rates, drawn in (((0.1, 0.1), False), ((0.1, 0.01), True)):
        lines = [MetricsLine(epoch=i, values={"loss": 1}, learning_rates={"SGD": rate}) for i, rate in enumerate(rates)]
        assert ("learning rate" in panel_names(lines)) is drawn


def test_omitted_metrics_are_counted() -> None:
    """Twenty panels are drawn, and the plot has the number of further metrics."""
    plan = plan_plot(epochs({f"metric_{i}": 1.0 for i in range(27)}))
    assert plan is not None
    assert (len(plan.panels), plan.omitted_count) == (20, 7)


CASES: Mapping[str, str] = {
    "a single epoch": metrics_line(1, {"loss": 1.0}),
    "a constant": metrics_line(1, {"loss": 0.0}) + metrics_line(2, {"loss": 0.0}),
    "decades": "".join(metrics_line(e, {"loss": 10.0**-e}) for e in range(1, 30)),
    "negative": metrics_line(1, {"loss": -1e7}) + metrics_line(2, {"loss": -2e-7}),
    "huge": metrics_line(1, {"loss": 1e299}) + metrics_line(2, {"loss": -1e299}),
    "nothing finite": metrics_line(1, {"loss": NAN}) + metrics_line(2, {"loss": math.inf}),
    "a formula": metrics_line(1, {"$\\frac{a}_$": 1.0, "_x^": 2.0}),
    "many": "".join(metrics_line(e, {f"metric_{i}": i * e for i in range(27)}) for e in range(1, 4)),
    "many losses": metrics_line(1, {f"{'val_' * (i % 2)}{i // 2}_loss": i for i in range(18)}),
    "fits": "".join(metrics_line(1, {"loss": fit}, fit=fit) for fit in range(1, 100)),
    "steps": "".join(metrics_line(s, {"loss": 1 / s}, by="step") for s in range(1, 3000)),
    "one epoch of steps": metrics_line(1, {"val_loss": 1.0})
    + "".join(metrics_line(s, {"loss": 1 / s}, by="step") for s in (1, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_any_metrics_are_drawn(case: str, tmp_path: Path) -> None:
    """A PNG file is written, and no temporary file stays."""
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    file, target = tmp_path / "metrics.jsonl", tmp_path / "curves.png"
    file.write_text(CASES[case])
    assert draw_curves(file, target, "A title")
    content = target.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert 400 < width < 2500
    assert 300 < height < 2500
    assert sorted(tmp_path.iterdir()) == [target, file]


def test_nothing_to_draw(tmp_path: Path) -> None:
    """No file, an empty one, or one with only a test gives no plot."""
    file, target = tmp_path / "metrics.jsonl", tmp_path / "curves.png"
    assert not draw_curves(file, target)
    file.touch()
    assert not draw_curves(file, target)
    file.write_text(metrics_line(1, {"test_loss": 1.0}, stage="test"))
    assert not draw_curves(file, target)
    assert not target.exists()


def test_equal_metrics_give_equal_bytes(metrics: Path, tmp_path: Path) -> None:
    """The user's matplotlib settings, pyplot and the random state neither affect the plot nor change."""
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    plain, styled = tmp_path / "plain.png", tmp_path / "styled.png"
    assert draw_curves(metrics, plain, "Digits")
    code = """
import random, sys
from pathlib import Path
import matplotlib, matplotlib.style
import numpy
from deriva_ml_core.training.plot import draw_curves
matplotlib.style.use("ggplot")
matplotlib.rcParams.update({"text.usetex": True, "font.family": "serif", "savefig.dpi": 50, "path.sketch": (1, 9, 2)})
before = matplotlib.rcParams.copy(), random.getstate(), str(numpy.random.get_state())
assert draw_curves(Path(sys.argv[1]), Path(sys.argv[2]), "Digits")
assert before == (matplotlib.rcParams.copy(), random.getstate(), str(numpy.random.get_state()))
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(metrics), str(styled)], check=True)
    assert styled.read_bytes() == plain.read_bytes()


def test_other_values_give_other_bytes(metrics: Path, tmp_path: Path) -> None:
    """Different metrics give different bytes."""
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    one, other = tmp_path / "one.png", tmp_path / "other.png"
    draw_curves(metrics, one)
    metrics.write_text(metrics.read_text() + metrics_line(13, {"loss": random.Random(1).random()}))
    draw_curves(metrics, other)
    assert one.read_bytes() != other.read_bytes()


def test_without_matplotlib(metrics: Path, tmp_path: Path) -> None:
    """Without matplotlib, which is an extra, there is no plot and no error."""
    target = tmp_path / "curves.png"
    code = (
        "import sys; sys.modules['matplotlib'] = None; from pathlib import Path\n"
        "from deriva_ml_core.training.plot import draw_curves\n"
        "assert not draw_curves(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, str(metrics), str(target)], check=True)
    assert not target.exists()
