"""What a picture of a training shows: which metrics share a panel, and through which points their lines go."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from deriva_ml_core.training.reading import MetricSeries, MetricsLine, collect_series

__all__ = ["PlotLine", "PlotPanel", "PlotPlan", "plan_plot"]

MAX_POINTS = 2000
"""Of a line: beyond them no screen shows more."""

MAX_MEAN_POINTS = 150
"""Points of the smooth line through those of a line that is thinned."""

MAX_PANELS = 20
MAX_LOSSES_PER_PANEL = 4
"""Losses that share a panel, each perhaps of training and of validation; further ones have a panel beside it."""

MAX_PLOT_VALUE = 1e300
"""Values from here on cannot be drawn."""

_STAGE_PATTERN = r"(train(?:ing)?|val(?:id(?:ation)?)?)"
_STAGE_AFFIX = re.compile(rf"(?:^|(?<=[_/.])){_STAGE_PATTERN}[_/.]|[_/.]{_STAGE_PATTERN}$", re.IGNORECASE)
_LOSS_NAME = re.compile(r"(?<![a-z])loss(?:es)?(?![a-z])", re.IGNORECASE)
_ERROR_NAME = re.compile(r"(?<![a-z])(?:loss(?:es)?|error|err|r?mse|mae|nll|perplexity)(?![a-z])", re.IGNORECASE)

SeriesByMetric = Mapping[str, Mapping[int, MetricSeries]]


@dataclass(frozen=True)
class PlotLine:
    """One metric in a panel.

    Args:
        name: The metric.
        group: Which of the panel's metrics it is the training or the validation of, from 0.
        is_validation: Which of the two it is.
        x: Where its points are, in epochs or steps.
        y: Their values; NaN is a gap.
        non_finite_count: How many values were NaN, infinite, or beyond all that can be drawn.
        means: The means of stretches, as places and values, where the points are too many to be drawn singly.
    """

    name: str
    group: int
    is_validation: bool
    x: Sequence[float]
    y: Sequence[float]
    non_finite_count: int
    means: tuple[Sequence[float], Sequence[float]] | None = None


@dataclass(frozen=True)
class PlotPanel:
    """Metrics that are drawn into one pair of axes.

    Args:
        title: What they have in common.
        is_loss: Whether it is a loss or an error, whose decades count.
        lines: Training before validation.
    """

    title: str
    is_loss: bool
    lines: tuple[PlotLine, ...]


@dataclass(frozen=True)
class PlotPlan:
    """All panels of a training.

    Args:
        x_unit: What the horizontal axis counts: ``epoch`` or ``step``.
        x_min: Where it begins.
        x_max: Where it ends.
        fit_starts: Where the second and each further fit begins, by its number.
        panels: Losses first, then the others in the order in which they appear, then the learning rates.
        omitted_count: How many further metrics there are.
    """

    x_unit: str
    x_min: float
    x_max: float
    fit_starts: Mapping[int, float]
    panels: tuple[PlotPanel, ...]
    omitted_count: int = 0


def plan_plot(epochs: Sequence[MetricsLine], steps: Iterable[MetricsLine] = ()) -> PlotPlan | None:
    """Plan the picture of a training.

    Args:
        epochs: The metrics file's lines by epoch.
        steps: Its lines by step, to be drawn by step, with those by epoch that no step has; none to draw by epoch.

    Returns:
        None where there is nothing to draw.
    """
    by_step = collect_series(steps, "step")
    by = "step" if by_step else "epoch"
    metrics = _drop_duplicate_metrics(collect_series(epochs, by) | by_step)
    if not metrics:
        return None
    rates = collect_series((replace(line, values=line.learning_rates) for line in epochs), by)
    moved, begins = _offset_fits(chain(metrics.values(), rates.values()))
    panels = list(_build_panels(metrics, moved))
    if any(len(set(track.values)) > 1 for tracks in rates.values() for track in tracks.values()):
        panels.append(_build_panel("learning rate", [[name] for name in rates], rates, moved))
    places = [x for panel in panels for line in panel.lines for x in line.x]
    left_out = sum(len(panel.lines) for panel in panels[MAX_PANELS:])
    return PlotPlan(by, min(places), max(places), begins, tuple(panels[:MAX_PANELS]), left_out)


def _offset_fits(metrics: Iterable[Mapping[int, MetricSeries]]) -> tuple[dict[int, int], dict[int, float]]:
    """How far each fit is moved so that it follows the one before it, and where each but the first begins.

    A fit that counts on from where the one before it ended stays where it is.
    """
    reach: dict[int, tuple[int, int]] = {}
    for fit, track in chain.from_iterable(tracks.items() for tracks in metrics):
        first, last = min(track.positions), max(track.positions)
        known = reach.get(fit, (first, last))
        reach[fit] = min(first, known[0]), max(last, known[1])
    moved: dict[int, int] = {}
    begins: dict[int, float] = {}
    end: int | None = None
    for fit, (first, last) in sorted(reach.items()):
        moved[fit] = 0 if end is None or first > end else end + 1 - first
        if end is not None:
            begins[fit] = (end + first + moved[fit]) / 2
        end = last + moved[fit]
    return moved, begins


def _drop_duplicate_metrics(metrics: SeriesByMetric) -> SeriesByMetric:
    """Leave out what Lightning logs twice: ``x_epoch`` beside ``x``, and ``x_step`` beside either."""
    twins = {f"{name}_epoch" for name in metrics}
    for name in metrics:
        plain = name.removesuffix("_step")
        if plain != name and not {plain, f"{plain}_epoch"}.isdisjoint(metrics):
            twins.add(name)
    return {name: tracks for name, tracks in metrics.items() if name not in twins}


def _build_panels(metrics: SeriesByMetric, offsets: Mapping[int, int]) -> Iterator[PlotPanel]:
    groups: dict[str, list[str]] = {}
    for name in metrics:
        groups.setdefault(_strip_stage(name), []).append(name)
    losses = [group for group in groups if _LOSS_NAME.search(group)]
    together = [losses[start : start + MAX_LOSSES_PER_PANEL] for start in range(0, len(losses), MAX_LOSSES_PER_PANEL)]
    for named in (*together, *([group] for group in groups if group not in losses)):
        yield _build_panel(
            named[0] if len(named) == 1 else "losses", [groups[group] for group in named], metrics, offsets
        )


def _build_panel(
    title: str, groups: Sequence[Sequence[str]], metrics: SeriesByMetric, offsets: Mapping[int, int]
) -> PlotPanel:
    return PlotPanel(
        title,
        all(_ERROR_NAME.search(name) for group in groups for name in group),
        tuple(
            _build_line(name, number, metrics[name], offsets)
            for number, group in enumerate(groups)
            for name in sorted(group, key=_is_validation)
        ),
    )


def _strip_stage(name: str) -> str:
    """A metric's name without its stage: ``loss`` for ``val_loss``, ``train/loss`` and ``train_loss_epoch``."""
    return _STAGE_AFFIX.sub("", name, count=1).removesuffix("_epoch").removesuffix("_step") or name


def _is_validation(name: str) -> bool:
    found = _STAGE_AFFIX.search(name)
    return found is not None and (found[1] or found[2]).lower().startswith("val")


def _build_line(name: str, group: int, tracks: Mapping[int, MetricSeries], offsets: Mapping[int, int]) -> PlotLine:
    x, y, odd = array("d"), array("d"), 0
    for fit, track in sorted(tracks.items()):
        if x:  # a gap between fits
            x.append(x[-1])
            y.append(math.nan)
        x.extend(place + offsets[fit] for place in track.positions)
        y.extend(value if abs(value) < MAX_PLOT_VALUE else math.nan for value in track.values)
        odd += sum(not abs(value) < MAX_PLOT_VALUE for value in track.values)
    thin_x, thin_y = _downsample(x, y)
    middle = _compute_means(x, y) if len(thin_x) < len(x) else None
    return PlotLine(name, group, _is_validation(name), thin_x, thin_y, odd, middle)


def _downsample(x: Sequence[float], y: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """At most 2,000 points: of each stretch its least and its greatest value, so that no peak is lost."""
    if len(x) <= MAX_POINTS:
        return x, y
    kept: list[int] = []
    for start, stop in _split_range(len(x), MAX_POINTS // 2):
        finite = [place for place in range(start, stop) if not math.isnan(y[place])]
        kept += sorted({min(finite, key=y.__getitem__), max(finite, key=y.__getitem__)}) if finite else [start]
    return [x[place] for place in kept], [y[place] for place in kept]


def _compute_means(x: Sequence[float], y: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    means: list[tuple[float, float]] = []
    for start, stop in _split_range(len(x), MAX_MEAN_POINTS):
        finite = [value for value in y[start:stop] if not math.isnan(value)]
        means.append(((x[start] + x[stop - 1]) / 2, math.fsum(finite) / len(finite) if finite else math.nan))
    return [place for place, _ in means], [mean for _, mean in means]


def _split_range(length: int, max_parts: int) -> Iterator[tuple[int, int]]:
    size = math.ceil(length / max_parts)
    return ((start, min(start + size, length)) for start in range(0, length, size))
