"""What a picture of a training shows: which metrics share a panel, and through which points their lines go."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from deriva_ml_core.training.reading import MetricsLine, Track, series

__all__ = ["Line", "Panel", "Picture", "picture"]

MOST_POINTS = 2000
"""Of a line: beyond them no screen shows more."""

MOST_MEANS = 150
"""Points of the smooth line through those of a line that is thinned."""

MOST_PANELS = 20
MOST_TOGETHER = 4
"""Losses that share a panel, each perhaps of training and of validation; further ones have a panel beside it."""

LARGEST = 1e300
"""Values from here on cannot be drawn."""

_STAGE = r"(train(?:ing)?|val(?:id(?:ation)?)?)"
_PART = re.compile(rf"(?:^|(?<=[_/.])){_STAGE}[_/.]|[_/.]{_STAGE}$", re.IGNORECASE)
_LOSS = re.compile(r"(?<![a-z])loss(?:es)?(?![a-z])", re.IGNORECASE)
_ERROR = re.compile(r"(?<![a-z])(?:loss(?:es)?|error|err|r?mse|mae|nll|perplexity)(?![a-z])", re.IGNORECASE)

Metrics = Mapping[str, Mapping[int, Track]]


@dataclass(frozen=True)
class Line:
    """One metric in a panel.

    Args:
        name: The metric.
        group: Which of the panel's metrics it is the training or the validation of, from 0.
        of_validation: Which of the two it is.
        x: Where its points are, in epochs or steps.
        y: Their values; NaN is a gap.
        odd: How many values were NaN, infinite, or beyond all that can be drawn.
        middle: The means of stretches, as places and values, where the points are too many to be drawn singly.
    """

    name: str
    group: int
    of_validation: bool
    x: Sequence[float]
    y: Sequence[float]
    odd: int
    middle: tuple[Sequence[float], Sequence[float]] | None = None


@dataclass(frozen=True)
class Panel:
    """Metrics that are drawn into one pair of axes.

    Args:
        title: What they have in common.
        shrinks: Whether it is a loss or an error, whose decades count.
        lines: Training before validation.
    """

    title: str
    shrinks: bool
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Picture:
    """All panels of a training.

    Args:
        by: What the horizontal axis counts: ``epoch`` or ``step``.
        first: Where it begins.
        last: Where it ends.
        fits: Where the second and each further fit begins, by its number.
        panels: Losses first, then the others in the order in which they appear, then the learning rates.
        left_out: How many further metrics there are.
    """

    by: str
    first: float
    last: float
    fits: Mapping[int, float]
    panels: tuple[Panel, ...]
    left_out: int = 0


def picture(epochs: Sequence[MetricsLine], steps: Iterable[MetricsLine] = ()) -> Picture | None:
    """Plan the picture of a training.

    Args:
        epochs: The metrics file's lines by epoch.
        steps: Its lines by step, to be drawn by step, with those by epoch that no step has; none to draw by epoch.

    Returns:
        None where there is nothing to draw.
    """
    by_step = series(steps, "step")
    by = "step" if by_step else "epoch"
    metrics = _without_twins(series(epochs, by) | by_step)
    if not metrics:
        return None
    rates = series((replace(line, values=line.learning_rates) for line in epochs), by)
    moved, begins = _in_turn(chain(metrics.values(), rates.values()))
    panels = list(_panels(metrics, moved))
    if any(len(set(track.values)) > 1 for tracks in rates.values() for track in tracks.values()):
        panels.append(_panel("learning rate", [[name] for name in rates], rates, moved))
    places = [x for panel in panels for line in panel.lines for x in line.x]
    left_out = sum(len(panel.lines) for panel in panels[MOST_PANELS:])
    return Picture(by, min(places), max(places), begins, tuple(panels[:MOST_PANELS]), left_out)


def _in_turn(metrics: Iterable[Mapping[int, Track]]) -> tuple[dict[int, int], dict[int, float]]:
    """How far each fit is moved so that it follows the one before it, and where each but the first begins.

    A fit that counts on from where the one before it ended stays where it is.
    """
    reach: dict[int, tuple[int, int]] = {}
    for fit, track in chain.from_iterable(tracks.items() for tracks in metrics):
        first, last = min(track.places), max(track.places)
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


def _without_twins(metrics: Metrics) -> Metrics:
    """Leave out what Lightning logs twice: ``x_epoch`` beside ``x``, and ``x_step`` beside either."""
    twins = {f"{name}_epoch" for name in metrics}
    for name in metrics:
        plain = name.removesuffix("_step")
        if plain != name and not {plain, f"{plain}_epoch"}.isdisjoint(metrics):
            twins.add(name)
    return {name: tracks for name, tracks in metrics.items() if name not in twins}


def _panels(metrics: Metrics, moved: Mapping[int, int]) -> Iterator[Panel]:
    groups: dict[str, list[str]] = {}
    for name in metrics:
        groups.setdefault(_group(name), []).append(name)
    losses = [group for group in groups if _LOSS.search(group)]
    together = [losses[start : start + MOST_TOGETHER] for start in range(0, len(losses), MOST_TOGETHER)]
    for named in (*together, *([group] for group in groups if group not in losses)):
        yield _panel(named[0] if len(named) == 1 else "losses", [groups[group] for group in named], metrics, moved)


def _panel(title: str, groups: Sequence[Sequence[str]], metrics: Metrics, moved: Mapping[int, int]) -> Panel:
    return Panel(
        title,
        all(_ERROR.search(name) for group in groups for name in group),
        tuple(
            _line(name, number, metrics[name], moved)
            for number, group in enumerate(groups)
            for name in sorted(group, key=_is_of_validation)
        ),
    )


def _group(name: str) -> str:
    """A metric's name without its stage: ``loss`` for ``val_loss``, ``train/loss`` and ``train_loss_epoch``."""
    return _PART.sub("", name, count=1).removesuffix("_epoch").removesuffix("_step") or name


def _is_of_validation(name: str) -> bool:
    found = _PART.search(name)
    return found is not None and (found[1] or found[2]).lower().startswith("val")


def _line(name: str, group: int, tracks: Mapping[int, Track], moved: Mapping[int, int]) -> Line:
    x, y, odd = array("d"), array("d"), 0
    for fit, track in sorted(tracks.items()):
        if x:  # a gap between fits
            x.append(x[-1])
            y.append(math.nan)
        x.extend(place + moved[fit] for place in track.places)
        y.extend(value if abs(value) < LARGEST else math.nan for value in track.values)
        odd += sum(not abs(value) < LARGEST for value in track.values)
    thin_x, thin_y = _thinned(x, y)
    middle = _means(x, y) if len(thin_x) < len(x) else None
    return Line(name, group, _is_of_validation(name), thin_x, thin_y, odd, middle)


def _thinned(x: Sequence[float], y: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """At most 2,000 points: of each stretch its least and its greatest value, so that no peak is lost."""
    if len(x) <= MOST_POINTS:
        return x, y
    kept: list[int] = []
    for start, stop in _stretches(len(x), MOST_POINTS // 2):
        finite = [place for place in range(start, stop) if not math.isnan(y[place])]
        kept += sorted({min(finite, key=y.__getitem__), max(finite, key=y.__getitem__)}) if finite else [start]
    return [x[place] for place in kept], [y[place] for place in kept]


def _means(x: Sequence[float], y: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    means: list[tuple[float, float]] = []
    for start, stop in _stretches(len(x), MOST_MEANS):
        finite = [value for value in y[start:stop] if not math.isnan(value)]
        means.append(((x[start] + x[stop - 1]) / 2, math.fsum(finite) / len(finite) if finite else math.nan))
    return [place for place, _ in means], [mean for _, mean in means]


def _stretches(length: int, most: int) -> Iterator[tuple[int, int]]:
    size = math.ceil(length / most)
    return ((start, min(start + size, length)) for start in range(0, length, size))
