"""The curves of a fit in a notebook's cell while it runs."""

from __future__ import annotations

import logging
import os
from array import array
from collections import deque
from collections.abc import Mapping
from html import escape
from threading import Event, Thread
from typing import TYPE_CHECKING

from deriva_ml_core._cell_display import CellDisplay
from deriva_ml_core._progress import is_kernel, is_quiet
from deriva_ml_core._views import FRAME_STYLE
from deriva_ml_core.training.curve_picture import plan_panels, render_panel
from deriva_ml_core.training.metric_rows import DecimatedCurve, MetricPoint
from deriva_ml_core.training.metrics_file import MetricSeries
from deriva_ml_core.training.plot import plan_series

if TYPE_CHECKING:
    from deriva_ml_core.definitions import RID

__all__ = ["LiveCurve", "open_live_curve"]

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Minimum seconds between two updates of the cell."""

MAX_POINTS, MAX_METRICS, MAX_PANELS, MAX_PENDING_LINES = 400, 60, 8, 100_000
"""Maximum points of a curve, metrics and panels that are drawn, and lines that wait for the thread."""

STOP_TIMEOUT = 5.0
"""Maximum seconds that the end of a fit waits for the last update."""


def open_live_curve(execution: RID) -> LiveCurve | None:
    """Start a live curve in the running cell; None outside a notebook, which a log message says, or if it is silenced.

    Args:
        execution: RID of the execution.
    """
    if not is_kernel():
        log.warning("live=True shows curves in notebooks only, and this process is none: it has no effect.")
        return None
    if is_quiet():
        return None
    curve = LiveCurve(f"Execution {execution}")
    try:
        curve.start()
    except RuntimeError as error:  # the system starts no more threads
        log.warning("The live curve is not shown: %s.", error)
        return None
    return curve


class LiveCurve:
    """Draws the metrics of a fit in the running cell, at most once a second, on a thread of its own.

    The training thread only appends values to a queue in memory.

    Args:
        title: The text above the curves.
        display: The output to draw to; None for a new one in the running cell.
    """

    def __init__(self, title: str, display: CellDisplay | None = None) -> None:
        self._title = title
        self._pending: deque[tuple[int, str, int | None, int | None, Mapping[str, float]]] = deque(
            maxlen=MAX_PENDING_LINES
        )
        self._curves: dict[str, dict[str, dict[int, DecimatedCurve]]] = {"epoch": {}, "step": {}}
        self._count = 0
        self._display = display or CellDisplay()
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="deriva-ml-live-curve", daemon=True)
        self._pid = os.getpid()

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: The system starts no more threads.
        """
        self._thread.start()

    def add(self, fit: int, by: str, epoch: int | None, step: int | None, values: Mapping[str, float]) -> None:
        """Add the values of an epoch or a step; return at once."""
        self._pending.append((fit, by, epoch, step, values))

    def stop(self) -> None:
        """Draw the last values and end the thread; wait for it at most five seconds."""
        self._stopped.set()
        if self._pid == os.getpid() and self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopped.wait(INTERVAL)
            try:
                if self._pending:
                    self._take_pending()
                    self._draw()
            except Exception:
                log.warning("The live curve ends: it cannot be drawn.", exc_info=True)
                return

    def _take_pending(self) -> None:
        for _ in range(len(self._pending)):
            fit, by, epoch, step, values = self._pending.popleft()
            metrics = self._curves[by]
            for name, value in values.items():
                if name not in metrics and len(metrics) >= MAX_METRICS:
                    continue
                curve = metrics.setdefault(name, {}).setdefault(fit, DecimatedCurve(MAX_POINTS))
                curve.add(MetricPoint(self._count, epoch, step, "", value))
                self._count += 1

    def _draw(self) -> None:
        by = "step" if self._curves["step"] else "epoch"
        plan = plan_series(self._series("epoch", by) | self._series("step", by), by)
        if plan is not None:
            title = f'<div style="margin-bottom:4px"><b>{escape(self._title)}</b></div>'
            panels = plan_panels(plan)
            pictures = "".join(map(render_panel, panels[:MAX_PANELS]))
            hidden = max(0, len(panels) - MAX_PANELS) + plan.omitted_count
            more = f"<div>and {hidden:,} more</div>" if hidden else ""
            html = f'<div style="{FRAME_STYLE}">{title}<div>{pictures}</div>{more}</div>'
            self._display.show(html, f"{self._title}: {plan.x_unit} {plan.x_max:g}")

    def _series(self, by: str, unit: str) -> dict[str, dict[int, MetricSeries]]:
        """Return the curves that were logged by epoch or by step, at their epochs or steps."""
        found: dict[str, dict[int, MetricSeries]] = {}
        for name, fits in self._curves[by].items():
            for fit, curve in fits.items():
                points = [
                    (position, point.value)
                    for point in curve.points()
                    if (position := point.epoch if unit == "epoch" else point.step) is not None
                ]
                if points:
                    positions = array("q", [position for position, _ in points])
                    series = MetricSeries(positions, array("d", [value for _, value in points]))
                    found.setdefault(name, {})[fit] = series
        return found
