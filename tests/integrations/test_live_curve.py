"""The curves of a fit while it runs: drawn on a thread of their own, in notebooks only."""

from __future__ import annotations

import logging
import re
from threading import Event

import pytest

from deriva_ml_core._cell_display import CellDisplay
from deriva_ml_core.execution import Execution
from deriva_ml_core.training import TrainingReporter
from deriva_ml_core.training.live_curve import LiveCurve
from html_reader import text_of

EVIL = "<script>alert(1)</script>\x1b[31m"


class RecordingDisplay(CellDisplay):
    """A display that keeps what it shows, and waits while it is blocked."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[str, str]] = []
        self.entered, self.released = Event(), Event()
        self.released.set()

    def show(self, html: str, text: str) -> None:
        self.entered.set()
        assert self.released.wait(60)
        self.shown.append((html, text))


def test_last_values_are_drawn() -> None:
    """The end of the fit draws what the thread has not drawn yet."""
    display = RecordingDisplay()
    curve = LiveCurve("Execution 1-A", display)
    curve.start()
    for epoch in range(1, 2001):
        curve.add(1, "epoch", epoch, 10 * epoch, {"loss": 1 / epoch})
    curve.stop()
    html, text = display.shown[-1]
    assert text == "Execution 1-A: epoch 2000"
    assert "Execution 1-A" in text_of(html, allow_svg=True)
    assert 200 <= len(re.findall(r"[ML]\d", html)) <= 420


def test_steps_come_before_epochs() -> None:
    """If steps are logged, the axis has steps, for metrics of epochs too."""
    display = RecordingDisplay()
    curve = LiveCurve("Execution 1-A", display)
    curve.start()
    curve.add(1, "step", 1, 50, {"loss": 2.0})
    curve.add(1, "step", 1, 100, {"loss": 1.0})
    curve.add(1, "epoch", 1, 100, {"val_loss": 3.0})
    curve.stop()
    html, text = display.shown[-1]
    assert text == "Execution 1-A: step 100"
    assert {"step", "50", "100", "val_loss"} <= set(text_of(html, allow_svg=True))


def test_names_are_escaped_and_metrics_bounded() -> None:
    """Names are text, and further panels are counted."""
    display = RecordingDisplay()
    curve = LiveCurve(EVIL, display)
    curve.start()
    for epoch in (1, 2):
        curve.add(1, "epoch", epoch, None, {EVIL: 1.0, **{f"m{number}": 1.0 for number in range(100)}})
    curve.stop()
    html, _ = display.shown[-1]
    texts = text_of(html, allow_svg=True)
    assert "<script" not in html
    assert html.count("<svg") == 8
    assert "and 52 more" in texts


def test_training_does_not_wait_for_the_display() -> None:
    """While an update hangs, values are added to memory, and the next update has all of them."""
    display = RecordingDisplay()
    display.released.clear()
    curve = LiveCurve("Execution 1-A", display)
    curve.start()
    curve.add(1, "epoch", 1, None, {"loss": 1.0})
    assert display.entered.wait(60)
    for epoch in range(2, 1001):
        curve.add(1, "epoch", epoch, None, {"loss": 1.0})
    assert display.shown == []
    display.released.set()
    curve.stop()
    assert [text for _, text in display.shown] == ["Execution 1-A: epoch 1", "Execution 1-A: epoch 1000"]


def test_no_effect_outside_a_notebook(exe: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """In a script, live=True says once that it has no effect, and the training goes on."""
    with exe, caplog.at_level(logging.WARNING):
        reporter = TrainingReporter(exe, checkpoints="none", curves=False, live=True)
        for _ in range(2):
            reporter.begin_fit(1)
            reporter.end_epoch(1, {"loss": 1.0})
            reporter.end_fit()
    assert [record.message for record in caplog.records if "live=True" in record.message] == [
        "live=True shows curves in notebooks only, and this process is none: it has no effect."
    ]
    assert exe.metrics["loss"].last == 1.0
