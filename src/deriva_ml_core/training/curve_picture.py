"""Pictures of a training's metrics as SVG, without matplotlib, scripts and style sheets; all texts are escaped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from deriva_ml_core._text import sanitize_line
from deriva_ml_core.training.plot import (
    COLOURS,
    LOG_SCALE_RATIO,
    MAX_MARKED_POINTS,
    MAX_PLOT_VALUE,
    PlotPanel,
    PlotPlan,
    format_tick,
    plan_from_file,
)

__all__ = ["CurveLine", "CurvePanel", "plan_panels", "render_curves", "render_panel"]

WIDTH, PLOT_HEIGHT = 420, 170
"""Width of a picture, and height of its axes, in pixels."""

LEFT, RIGHT, TOP, BOTTOM = 58, 14, 30, 38
"""Margins around the axes, in pixels."""

LEGEND_LINE, CHARACTER_WIDTH = 15, 6.2
"""Height of a line of the legend, and the estimated width of a character, in pixels."""

MAX_LABEL_LENGTH, MAX_TITLE_LENGTH = 34, 56
MAX_LEGEND_LINES = 30
"""Maximum entries of a legend; the other lines are counted."""

MAX_TICK_LENGTH = 8
X_TICKS, Y_TICKS = 6, 5
"""Maximum number of ticks of an axis."""


@dataclass(frozen=True, slots=True)
class CurveLine:
    """A line in a picture.

    Args:
        label: Its name in the legend; empty for a line that belongs to the one before.
        x: Positions of the points, in epochs or steps.
        y: Values of the points; NaN and infinite values are gaps.
        colour: Index of its colour.
        is_dashed: Whether the line is dashed.
        is_faint: Whether the line is thin and light, as the values behind their means.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    is_dashed: bool = False
    is_faint: bool = False


@dataclass(frozen=True, slots=True)
class CurvePanel:
    """Lines that share a pair of axes.

    Args:
        title: Title above the axes.
        unit: Unit of the horizontal axis, ``epoch`` or ``step``.
        lines: The lines.
        is_loss: Whether all values are losses or errors, which may get a logarithmic axis.
        fit_starts: Positions at which a further fit starts, by its number.
    """

    title: str
    unit: str
    lines: Sequence[CurveLine]
    is_loss: bool = False
    fit_starts: Mapping[int, float] | None = None


def render_curves(metrics: Path | None) -> list[str]:
    """Return the curves of a metrics file as SVG elements, one for each panel.

    Args:
        metrics: The metrics file; None, and a file without values, return none.

    Raises:
        OSError: The file cannot be read.
    """
    if metrics is None or not metrics.exists() or (plan := plan_from_file(metrics)) is None:
        return []
    return [render_panel(panel) for panel in plan_panels(plan)]


def plan_panels(plan: PlotPlan) -> list[CurvePanel]:
    """Return the panels of a plan, with the colours that the picture of matplotlib has."""
    return [
        CurvePanel(panel.title, plan.x_unit, list(_plan_lines(panel)), panel.is_loss, plan.fit_starts)
        for panel in plan.panels
    ]


def _plan_lines(panel: PlotPanel) -> Iterator[CurveLine]:
    is_one = len({line.group for line in panel.lines}) == 1
    for number, line in enumerate(panel.lines):
        before = sum(each.is_validation == line.is_validation for each in panel.lines[:number])
        colour = 2 * before + line.is_validation if is_one else line.group
        label = f"{line.name} ({line.non_finite_count} not finite)" if line.non_finite_count else line.name
        is_dashed = line.is_validation and not is_one
        if line.means is not None:
            yield CurveLine("", line.x, line.y, colour, is_faint=True)
        x, y = line.means or (line.x, line.y)
        yield CurveLine(label, x, y, colour, is_dashed)


def render_panel(panel: CurvePanel) -> str:
    """Return a panel as an SVG element, whose texts have the colour of the page around it."""
    points = [[(x, y) for x, y in zip(line.x, line.y, strict=True) if _is_drawn(y)] for line in panel.lines]
    values = [y for line in points for _, y in line]
    positions = [x for line in panel.lines for x in line.x]
    is_logarithmic = panel.is_loss and bool(values) and min(values) > 0 and max(values) > LOG_SCALE_RATIO * min(values)
    axes = _Axes.around(positions, values, is_logarithmic=is_logarithmic)
    legend, legend_height = _render_legend(panel.lines)
    height = TOP + PLOT_HEIGHT + BOTTOM + legend_height
    title = f"{_shorten(panel.title, MAX_TITLE_LENGTH)}{' (log scale)' if is_logarithmic else ''}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" font-family="sans-serif" font-size="11" fill="currentColor">',
        f"<title>{escape(_shorten(panel.title, 300))} by {escape(sanitize_line(panel.unit))}</title>",
        f'<text x="{LEFT}" y="18" font-size="13" font-weight="bold">{escape(title)}</text>',
        *axes.render(panel.unit),
        *_render_fit_starts(axes, panel.fit_starts or {}),
        *(_render_line(line, axes) for line in panel.lines if line.is_faint),
        *(_render_line(line, axes) for line in panel.lines if not line.is_faint),
        legend,
        "</svg>",
    ]
    return "".join(parts)


def _is_drawn(value: float) -> bool:
    return abs(value) < MAX_PLOT_VALUE  # false for NaN


def _shorten(text: str, length: int) -> str:
    line = sanitize_line(text)
    return line if len(line) <= length else f"{line[: length - 1]}…"


@dataclass(frozen=True, slots=True)
class _Axes:
    """The ranges of both axes; those of a logarithmic one are exponents of 10."""

    left: float
    right: float
    low: float
    high: float
    is_logarithmic: bool

    @classmethod
    def around(cls, positions: Sequence[float], values: Sequence[float], *, is_logarithmic: bool) -> _Axes:
        left, right = min(positions, default=0.0), max(positions, default=1.0)
        low, high = min(values, default=0.0), max(values, default=1.0)
        if is_logarithmic:
            low, high = math.log10(low), math.log10(high)
        margin = 0.06 * (high - low) or 0.1 * abs(low) or 0.5
        side = 0.02 * (right - left) or 0.5
        return cls(left - side, right + side, low - margin, high + margin, is_logarithmic)

    def x(self, position: float) -> float:
        return LEFT + (position - self.left) / (self.right - self.left) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        place = math.log10(value) if self.is_logarithmic else value
        # halves, since the difference of two finite numbers may be infinite
        share = (place / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return TOP + (1 - share) * PLOT_HEIGHT

    def render(self, unit: str) -> Iterator[str]:
        bottom, right = TOP + PLOT_HEIGHT, WIDTH - RIGHT
        for value, label in self._y_ticks():
            y = self.y(value)
            yield (
                f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="currentColor" stroke-opacity=".12"/>'
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill-opacity=".7">{label}</text>'
            )
        for position, label in self._x_ticks():
            x = self.x(position)
            yield (
                f'<line x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 4}" stroke="currentColor" '
                f'stroke-opacity=".5"/><text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill-opacity=".7">'
                f"{label}</text>"
            )
        yield (
            f'<path d="M{LEFT},{TOP} V{bottom} H{right}" fill="none" stroke="currentColor" stroke-opacity=".5"/>'
            f'<text x="{(LEFT + right) / 2:g}" y="{bottom + 31}" text-anchor="middle" fill-opacity=".7">'
            f"{escape(sanitize_line(unit))}</text>"
        )

    def _x_ticks(self) -> Iterator[tuple[float, str]]:
        step = max(1.0, _round_up((self.right - self.left) / X_TICKS))
        unit, sign = (1e6, "M") if self.right >= 1e6 else (1e3, "k") if self.right >= 2e4 else (1.0, "")
        for number in range(math.ceil(self.left / step), math.floor(self.right / step) + 1):
            position = number * step
            yield position, f"{position / unit:g}{sign if position else ''}"

    def _y_ticks(self) -> Iterator[tuple[float, str]]:
        if self.is_logarithmic:
            first, last = math.ceil(self.low), math.floor(self.high)
            for exponent in range(first, last + 1, max(1, math.ceil((last - first + 1) / Y_TICKS))):
                yield 10.0**exponent, f"{10.0**exponent:g}" if -4 <= exponent <= 4 else f"1e{exponent}"
            return
        step = _round_up((self.high / Y_TICKS) - (self.low / Y_TICKS))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        largest = max(abs(first), abs(last)) * step
        for number in range(first, last + 1):
            label = format_tick(number * step, step, largest)
            yield number * step, label if len(label) <= MAX_TICK_LENGTH else f"{number * step:.4g}"


def _round_up(size: float) -> float:
    """Return the next larger one of 1, 2 and 5 times a power of 10."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= size * (1 - 1e-9))


def _render_fit_starts(axes: _Axes, fit_starts: Mapping[int, float]) -> Iterator[str]:
    for fit, position in fit_starts.items():
        x = axes.x(position)
        yield (
            f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{TOP + PLOT_HEIGHT}" stroke="currentColor" '
            f'stroke-opacity=".4" stroke-dasharray="2 2"/>'
            f'<text x="{x + 3:.1f}" y="{TOP + 9}" font-size="9" fill-opacity=".7">fit {fit}</text>'
        )


def _render_line(line: CurveLine, axes: _Axes) -> str:
    """Render a line in parts between its gaps; a short line, and a point between gaps, have markers."""
    colour = COLOURS[line.colour % len(COLOURS)]
    parts: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if _is_drawn(y):
            parts[-1].append((axes.x(x), axes.y(y)))
        elif parts[-1]:
            parts.append([])
    paths = " ".join("M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in part) for part in parts if len(part) > 1)
    is_short = len(line.x) <= MAX_MARKED_POINTS and not line.is_faint
    marked = [point for part in parts for point in part if is_short or len(part) == 1]
    markers = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in marked)
    dashes = ' stroke-dasharray="5 3"' if line.is_dashed else ""
    width, opacity = (0.8, ".35") if line.is_faint else (1.7, "1")
    path = (
        f'<path d="{paths}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}" '
        f'stroke-linejoin="round"{dashes}/>'
    )
    return (path if paths else "") + markers


def _render_legend(lines: Sequence[CurveLine]) -> tuple[str, int]:
    """Return the legend below the axes, and its height in pixels."""
    named = [line for line in lines if line.label]
    parts: list[str] = []
    x, row = float(LEFT), 0
    for line in named[:MAX_LEGEND_LINES]:
        label = _shorten(line.label, MAX_LABEL_LENGTH)
        width = 24 + len(label) * CHARACTER_WIDTH + 10
        if x > LEFT and x + width > WIDTH - RIGHT:
            x, row = float(LEFT), row + 1
        y = TOP + PLOT_HEIGHT + BOTTOM + row * LEGEND_LINE + 10
        dashes = ' stroke-dasharray="5 3"' if line.is_dashed else ""
        parts.append(
            f'<line x1="{x:.1f}" y1="{y - 4}" x2="{x + 18:.1f}" y2="{y - 4}" stroke-width="2.5" '
            f'stroke="{COLOURS[line.colour % len(COLOURS)]}"{dashes}/>'
            f'<text x="{x + 23:.1f}" y="{y}">{escape(label)}</text>'
        )
        x += width
    if len(named) > MAX_LEGEND_LINES:
        row += 1
        y = TOP + PLOT_HEIGHT + BOTTOM + row * LEGEND_LINE + 10
        parts.append(f'<text x="{LEFT}" y="{y}">and {len(named) - MAX_LEGEND_LINES:,} more</text>')
    return "".join(parts), (row + 1) * LEGEND_LINE + 4 if named else 0
