"""The metrics of a training in a few lines of text: first, last and best values, and how they went between."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from deriva_ml_core.scores import larger_is_better
from deriva_ml_core.training.reading import MetricSeries, MetricsLine, collect_series, iter_metrics

__all__ = ["MetricCurve", "read_curves", "sparkline"]

UNICODE_BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-=^"
"""For a terminal that knows no more."""


@dataclass(frozen=True, slots=True)
class MetricCurve:
    """One metric in one fit, or in a stage beside it.

    Args:
        name: The metric.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
        fit: The number of the fit in its execution.
        by: ``epoch`` or ``step``: what is counted.
        first: Its first value.
        last: Its last value.
        best: Its best value, by what the training or its name says of better; None where no value is a finite number.
        best_at: The epoch or step of that.
        values: All of them in their order.
    """

    name: str
    stage: str
    fit: int
    by: str
    first: float
    last: float
    best: float | None
    best_at: int | None
    values: Sequence[float]

    def to_dict(self) -> dict[str, object]:
        """Its value for programs, without the many values."""
        found = asdict(self)
        return {**{name: found[name] for name in found if name != "values"}, "count": len(self.values)}


def read_curves(file: Path | None, larger_better: Mapping[str, bool] = MappingProxyType({})) -> list[MetricCurve]:
    """Read the curves of a metrics file: those by epoch, else those by step; then the values of test and the like.

    Args:
        file: The file; None where there is none.
        larger_better: Whether larger values of a metric are better, where the training said so.
    """
    if file is None:
        return []
    lines = list(iter_metrics(file, "epoch"))
    fits = list(_iter_fit_curves(collect_series(lines), "epoch", larger_better))
    fits = fits or list(_iter_fit_curves(collect_series(iter_metrics(file, "step"), by="step"), "step", larger_better))
    return fits + list(_iter_stage_curves(lines, larger_better))


def _iter_fit_curves(
    tracks: dict[str, dict[int, MetricSeries]], by: str, larger_better: Mapping[str, bool]
) -> Iterator[MetricCurve]:
    for name, fits in tracks.items():
        for fit, track in fits.items():
            yield _build_curve(name, "fit", fit, by, track.positions, track.values, larger_better)


def _iter_stage_curves(lines: Sequence[MetricsLine], larger_better: Mapping[str, bool]) -> Iterator[MetricCurve]:
    found: dict[tuple[str, int, str], list[float]] = {}
    for line in lines:
        if line.stage != "fit":
            for name, value in line.values.items():
                found.setdefault((line.stage, line.fit, name), []).append(value)
    for (stage, fit, name), values in found.items():
        yield _build_curve(name, stage, fit, "epoch", None, values, larger_better)


def _build_curve(
    name: str,
    stage: str,
    fit: int,
    by: str,
    positions: Sequence[int] | None,
    values: Sequence[float],
    larger_better: Mapping[str, bool],
) -> MetricCurve:
    choose = max if larger_better.get(name, larger_is_better(name)) else min
    numbers = [place for place, value in enumerate(values) if math.isfinite(value)]
    best = choose(numbers, key=lambda place: values[place]) if numbers else None
    return MetricCurve(
        name=name,
        stage=stage,
        fit=fit,
        by=by,
        first=values[0],
        last=values[-1],
        best=None if best is None else values[best],
        best_at=None if best is None or positions is None else positions[best],
        values=values,
    )


def sparkline(values: Sequence[float], width: int, *, unicode: bool = True) -> str:
    """A row of blocks as high as the values; where there are more values than blocks, each block is the mean of some.

    Args:
        values: The values; what is no number leaves a gap.
        width: The most blocks.
        unicode: Whether the terminal knows blocks.
    """
    marks = UNICODE_BLOCKS if unicode else ASCII_BLOCKS
    means = list(_iter_bin_means(values, width))
    known = [value for value in means if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    if not (math.isfinite(high - low) and high > low):
        return "".join(marks[len(marks) // 2] if math.isfinite(value) else " " for value in means)
    top = len(marks) - 1
    return "".join(marks[round((value - low) / (high - low) * top)] if math.isfinite(value) else " " for value in means)


def _iter_bin_means(values: Sequence[float], max_bins: int) -> Iterator[float]:
    count = min(max_bins, len(values))
    for place in range(count):
        part = values[place * len(values) // count : (place + 1) * len(values) // count]
        known = [value for value in part if math.isfinite(value)]
        yield math.fsum(known) / len(known) if known else math.nan
