"""Rows of a metrics file, one for each value, with fewer points of a long curve on request."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypedDict

from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.training.metrics_file import MetricValues, iter_values

__all__ = ["DecimatedCurve", "MetricPoint", "MetricRow", "check_row_filters", "read_metric_rows"]

STAGES, UNITS = ("fit", "validate", "test", "predict"), ("epoch", "step")
MIN_POINTS = 4
"""Smallest number of points of a decimated curve: its ends, its smallest and its largest value."""


class MetricRow(TypedDict):
    """One value of a metric.

    Args:
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
        fit: Number of the fit in its execution, from 1.
        by: ``epoch`` or ``step``: the unit that the value describes.
        epoch: Number of the epoch, from 1; None if unknown.
        step: Optimizer steps so far; None if unknown.
        time: Time of writing, ISO 8601 in UTC; empty if unknown.
        metric: Name of the metric.
        value: The value, which may be NaN or infinite.
    """

    stage: str
    fit: int
    by: str
    epoch: int | None
    step: int | None
    time: str
    metric: str
    value: float


class MetricPoint(NamedTuple):
    """One value of a curve; `number` orders the points."""

    number: int
    epoch: int | None
    step: int | None
    time: str
    value: float


def check_row_filters(*, stage: str | None, by: str | None, max_points: int | None) -> None:
    """Check the arguments of `read_metric_rows`.

    Raises:
        ConfigurationError: One of them has no meaning.
    """
    for name, value, known in (("stage", stage, STAGES), ("by", by, UNITS)):
        if value is not None and value not in known:
            raise ConfigurationError(f"{name}={value!r} is none of {', '.join(map(repr, known))} and None. Pass one.")
    if max_points is not None and max_points < MIN_POINTS:
        raise ConfigurationError(
            f"max_points must be at least {MIN_POINTS}, and is {max_points}. Pass more, or None for all points."
        )


def read_metric_rows(
    file: Path,
    *,
    metrics: Collection[str] | None = None,
    stage: str | None = None,
    by: str | None = None,
    max_points: int | None = None,
) -> list[MetricRow]:
    """Read the values in a metrics file, which may still be written to.

    A curve is what one metric has in one stage and fit, by epoch or by step. Memory is needed for the returned rows
    only: the file is read line by line.

    Args:
        file: The metrics file.
        metrics: Names of the metrics; None for all.
        stage: ``fit``, ``validate``, ``test`` or ``predict``; None for all.
        by: ``epoch`` or ``step``; None for both.
        max_points: Maximum number of rows of each curve, at least 4: its first and last one, and the smallest and the
            largest value of equal intervals. None for all.

    Returns:
        The rows, curve by curve in order of first appearance.

    Raises:
        OSError: The file cannot be read.
    """
    curves: dict[tuple[str, int, str, str], DecimatedCurve] = {}
    for number, line in enumerate(iter_values(file, by)):
        if stage in (None, line.stage):
            for name, value in _select(line, metrics):
                key = (line.stage, line.fit, line.by, name)
                if (curve := curves.get(key)) is None:
                    curve = curves[key] = DecimatedCurve(max_points)
                curve.add(MetricPoint(number, line.epoch, line.step, line.time, value))
    return [
        MetricRow(
            stage=key[0],
            fit=key[1],
            by=key[2],
            epoch=point.epoch,
            step=point.step,
            time=point.time,
            metric=key[3],
            value=point.value,
        )
        for key, curve in curves.items()
        for point in curve.points()
    ]


def _select(line: MetricValues, metrics: Collection[str] | None) -> Iterable[tuple[str, float]]:
    if metrics is None:
        return line.values.items()
    return ((name, line.values[name]) for name in metrics if name in line.values)


class DecimatedCurve:
    """The points of a curve; beyond the maximum, the extremes of intervals that grow with the curve.

    Args:
        max_points: Maximum number of points; None for all.
    """

    def __init__(self, max_points: int | None) -> None:
        self._max_points = max_points
        self._points: list[MetricPoint] = []
        self._last: MetricPoint | None = None
        """The newest point, once there are intervals; `_points` then has the first one only."""
        self._intervals: list[tuple[MetricPoint, MetricPoint]] = []
        """The smallest and the largest value of each interval."""
        self._interval_size, self._newest_size = 0, 0
        """Number of points in each interval, and so far in the newest one."""

    def add(self, point: MetricPoint) -> None:
        """Add the next point."""
        if self._interval_size:
            self._add_to_interval(point)
            return
        self._points.append(point)
        if self._max_points is not None and len(self._points) > self._max_points:
            self._interval_size = 1
            for each in self._points:
                self._add_to_interval(each)
            del self._points[1:]

    def points(self) -> list[MetricPoint]:
        """Return the points in their order."""
        if self._last is None:
            return self._points
        extremes = (point for interval in self._intervals for point in interval)
        return sorted({*self._points, *extremes, self._last}, key=lambda point: point.number)

    def _add_to_interval(self, point: MetricPoint) -> None:
        self._last = point
        if self._intervals and self._newest_size < self._interval_size:
            self._widen_interval(point)
            self._newest_size += 1
            return
        assert self._max_points is not None
        if len(self._intervals) == (self._max_points - 2) // 2:
            self._double_intervals()
            self._add_to_interval(point)
        else:
            self._intervals.append((point, point))
            self._newest_size = 1

    def _widen_interval(self, point: MetricPoint) -> None:
        low, high = self._intervals[-1]
        if not low.value <= point.value <= high.value:  # NaN too
            self._intervals[-1] = _extremes((low, high, point))

    def _double_intervals(self) -> None:
        """Merge the intervals by two; of an odd number, the last one has room for more points."""
        is_odd = len(self._intervals) % 2
        self._intervals = list(_merge(self._intervals))
        self._newest_size = self._interval_size * (1 if is_odd else 2)
        self._interval_size *= 2


def _merge(intervals: list[tuple[MetricPoint, MetricPoint]]) -> Iterator[tuple[MetricPoint, MetricPoint]]:
    for start in range(0, len(intervals), 2):
        yield _extremes([point for interval in intervals[start : start + 2] for point in interval])


def _extremes(points: Collection[MetricPoint]) -> tuple[MetricPoint, MetricPoint]:
    """Return the points with the smallest and the largest value; the first point if all are NaN."""
    numbers = [point for point in points if not math.isnan(point.value)] or list(points)[:1]
    return min(numbers, key=lambda point: point.value), max(numbers, key=lambda point: point.value)
