"""Plot of a training's losses and metrics as a PNG file; equal metrics give equal bytes."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deriva_ml_core._files.atomic import atomic_path
from deriva_ml_core.training.metrics_file import MetricSeries, MetricsLine, collect_series, iter_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = [
    "PlotLine",
    "PlotPanel",
    "PlotPlan",
    "draw_curves",
    "format_tick",
    "plan_from_file",
    "plan_plot",
    "plan_series",
]


DPI = 120
PANEL_WIDTH, PANEL_HEIGHT = 4.6, 2.9
"""Size of one panel with its margins, in inches."""

MARGIN_LEFT, MARGIN_RIGHT, MARGIN_BOTTOM, MARGIN_TOP = 0.68, 0.16, 0.5, 0.38
"""Margins around the axes of a panel, in inches."""

TITLE_HEIGHT = 0.34
"""Height of the title, in inches."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours that are distinguishable with any colour vision: Okabe and Ito, Color Universal Design, 2008."""

TEXT_COLOUR, MUTED_COLOUR, GRID_COLOUR = "#24292f", "#6e7781", "#e3e6e9"
DASH_PATTERN = (4.0, 1.8)
MAX_MARKED_POINTS = 60
"""A line with at most this many points has a marker at each of them."""

LOG_SCALE_RATIO = 100
"""Ratio of a loss's largest to its smallest value above which its axis is logarithmic."""

MAX_LABELLED_FITS = 8
MAX_TITLE_LENGTH, MAX_NAME_LENGTH = 90, 32
"""Maximum characters of the title above two panels, and of a metric name in a panel."""

MAX_HEADER_LENGTH = 58
"""Maximum characters above a panel."""


def draw_curves(metrics: Path, target: Path, title: str = "") -> bool:
    """Draw the curves of a metrics file. The user's matplotlib settings neither change nor affect the plot.

    Args:
        metrics: The metrics file, in the format of ``metrics.jsonl``.
        target: Path of the PNG file, which is written atomically.
        title: Title above the panels.

    Returns:
        Whether a plot was drawn; false if matplotlib is not installed or there is nothing to draw.

    Raises:
        OSError: The metrics cannot be read, or the plot cannot be written.
    """
    if not metrics.exists() or (plan := plan_from_file(metrics)) is None:
        return False
    try:
        figure = _draw_figure(plan, title)
    except ImportError:
        return False
    with atomic_path(target) as partial:
        _save_png(figure, partial)
    return True


def plan_from_file(metrics: Path) -> PlotPlan | None:
    """Plan the plot by epoch, or by step if there are fewer than two epochs."""
    epochs = list(iter_metrics(metrics, "epoch"))
    if len({(line.fit, line.epoch) for line in epochs if line.stage == "fit" and line.values}) > 1:
        return plan_plot(epochs)
    return plan_plot(epochs, iter_metrics(metrics, "step"))


def _save_png(figure: Figure, file: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # without matplotlib's version, which would change the bytes
    FigureCanvasAgg(figure).print_png(str(file), metadata={"Software": None})  # type: ignore[no-untyped-call]


def _draw_figure(plan: PlotPlan, title: str) -> Figure:
    from matplotlib.figure import Figure

    count = len(plan.panels)
    columns = count if count < 4 else 2 if count == 4 else 3 if count < 10 else 4
    rows = math.ceil(count / columns)
    foot = f"and {plan.omitted_count} more in the metrics file" if plan.omitted_count else ""
    head = TITLE_HEIGHT if title or foot else 0.1
    wide, high = columns * PANEL_WIDTH, rows * PANEL_HEIGHT + head
    figure = Figure(figsize=(wide, high), dpi=DPI, facecolor="white", edgecolor="white", linewidth=0)
    figure.set_layout_engine("none")
    text_style = _TextStyle()
    for number, panel in enumerate(plan.panels):
        left = (number % columns) * PANEL_WIDTH + MARGIN_LEFT
        low = high - head - (number // columns + 1) * PANEL_HEIGHT + MARGIN_BOTTOM
        size = (
            left / wide,
            low / high,
            (PANEL_WIDTH - MARGIN_LEFT - MARGIN_RIGHT) / wide,
            (PANEL_HEIGHT - MARGIN_BOTTOM - MARGIN_TOP) / high,
        )
        _draw_panel(figure.add_axes(size, facecolor="white"), panel, plan, text_style)
    max_length = int(MAX_TITLE_LENGTH * columns / 2)
    shortened = title if len(title) <= max_length else title[: max_length - 1] + "…"
    y = (high - 0.12) / high
    heading = " ".join(shortened.split())
    figure.text(MARGIN_LEFT / wide, y, heading, va="top", **text_style.text_options(11, TEXT_COLOUR, bold=True))
    figure.text(1 - MARGIN_RIGHT / wide, y, foot, va="top", ha="right", **text_style.text_options(8, MUTED_COLOUR))
    for artist in figure.findobj():
        artist.set(sketch_params=None, path_effects=[])
    return figure


class _TextStyle:
    """Text options with the font that matplotlib ships, independent of settings; ``$`` and ``_`` stay literal."""

    def __init__(self) -> None:
        from matplotlib import get_data_path
        from matplotlib.font_manager import FontProperties

        self._folder = Path(get_data_path()) / "fonts" / "ttf"
        self._font_properties = FontProperties

    def font(self, size: float, *, bold: bool = False) -> Any:
        file = self._folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
        return self._font_properties(fname=file, size=size)

    def text_options(self, size: float, colour: str, *, bold: bool = False) -> dict[str, Any]:
        plain = {"usetex": False, "parse_math": False, "antialiased": True}
        return {"fontproperties": self.font(size, bold=bold), "color": colour, **plain}


def _draw_panel(axes: Axes, panel: PlotPanel, plan: PlotPlan, text_style: _TextStyle) -> None:
    values = [value for line in panel.lines for value in line.y if not math.isnan(value)]
    logarithmic = panel.is_loss and bool(values) and min(values) > 0 and max(values) > LOG_SCALE_RATIO * min(values)
    _style_axes(axes)
    title = f"{_truncate(panel.title)} (log scale)" if logarithmic else _truncate(panel.title)
    axes.set_title(title, loc="left", pad=5, y=1, **text_style.text_options(9.5, TEXT_COLOUR, bold=True))
    axes.set_xlabel(
        plan.x_unit + (", fits in turn" if plan.fit_starts else ""),
        labelpad=3,
        **text_style.text_options(8, MUTED_COLOUR),
    )
    _set_x_axis(axes, plan, text_style)
    _set_y_axis(axes, values, text_style, logarithmic=logarithmic)
    _draw_fit_boundaries(axes, plan, text_style)
    drawn = []
    for line, behind in _create_lines(panel):
        drawn.append(axes.add_line(line))
        if behind is not None:
            axes.add_line(behind)
    if len(drawn) > 1 or panel.lines[0].non_finite_count or panel.lines[0].name != panel.title:
        _draw_legend(axes, [_legend_label(line) for line in panel.lines], drawn, text_style, title=title)


def _truncate(name: str) -> str:
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…"


def _legend_label(line: PlotLine) -> str:
    return _truncate(line.name) + (f" ({line.non_finite_count} not finite)" if line.non_finite_count else "")


def _style_axes(axes: Axes) -> None:
    """Set every property that would otherwise come from the user's matplotlib settings."""
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=MUTED_COLOUR, linewidth=0.8, linestyle="solid")
    axes.set_axisbelow(True)
    axes.grid(visible=False, which="both")
    axes.grid(visible=True, which="major", axis="y", color=GRID_COLOUR, linewidth=0.8, linestyle="solid", alpha=1)
    for which, length in (("major", 3.0), ("minor", 1.8)):
        axes.tick_params(
            which=which, direction="out", length=length, width=0.8, color=MUTED_COLOUR, pad=3, top=False, right=False,
            bottom=True, left=True, labeltop=False, labelright=False, labelbottom=True, labelleft=True,
        )  # fmt: skip


def _set_x_axis(axes: Axes, plan: PlotPlan, text_style: _TextStyle) -> None:
    """Set the horizontal axis, with ticks at whole epochs or steps."""
    from matplotlib.ticker import MaxNLocator

    first, last = plan.x_min, plan.x_max
    places = [first]
    if last > first:
        ticks = MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]).tick_values(first, last)
        places = [float(place) for place in ticks if first <= place <= last]
    margin = 0.03 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)
    unit, sign = (1e6, "M") if last >= 1e6 else (1e3, "k") if last >= 2e4 else (1, "")
    labels = [f"{place / unit:g}{sign if place else ''}" for place in places]
    axes.xaxis.set_ticks(places, labels=labels, **text_style.text_options(7.5, MUTED_COLOUR))
    axes.xaxis.set_ticks([], minor=True)


def _set_y_axis(axes: Axes, values: Sequence[float], text_style: _TextStyle, *, logarithmic: bool) -> None:
    """Set the vertical axis to the range of the values."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(values, default=0.0), max(values, default=1.0)
    if logarithmic:
        _set_log_y_axis(axes, math.log10(low), math.log10(high), text_style)
        return
    margin = 0.06 * (high - low) or 0.1 * abs(low) or 0.5
    low, high = low - margin, high + margin
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high)
    places = [float(place) for place in ticks if low <= place <= high]
    axes.set_ylim(low, high)
    step = places[1] - places[0] if len(places) > 1 else high - low
    labels = [format_tick(place, step, max(map(abs, places))) for place in places]
    axes.yaxis.set_ticks(places, labels=labels, **text_style.text_options(7.5, MUTED_COLOUR))
    axes.yaxis.set_ticks([], minor=True)


def _set_log_y_axis(axes: Axes, low: float, high: float, text_style: _TextStyle) -> None:
    margin = 0.05 * (high - low)
    axes.set_yscale("log", nonpositive="mask")
    axes.set_ylim(10 ** (low - margin), 10 ** (high + margin))
    exponents = range(math.ceil(low - margin), math.floor(high + margin) + 1)
    between = len(exponents) <= 6
    exponents = exponents[:: math.ceil(len(exponents) / 6)]
    labels = [f"{10.0**each:g}" if -4 <= each <= 4 else f"1e{each}" for each in exponents]
    axes.yaxis.set_ticks(
        [10.0**each for each in exponents], labels=labels, **text_style.text_options(7.5, MUTED_COLOUR)
    )
    all_between = [digit * 10.0**each for each in (min(exponents) - 1, *exponents) for digit in range(2, 10)]
    inside = [place for place in all_between if low - margin <= math.log10(place) <= high + margin]
    axes.yaxis.set_ticks(inside if between else [], minor=True, labels=[""] * len(inside) if between else [])


def format_tick(value: float, step: float, largest: float) -> str:
    """Format a tick with as many digits as the distance between ticks needs."""
    fine, large = (math.floor(math.log10(size) + 1e-9) for size in (step, largest))
    if abs(value) < 1e-9 * step:
        return "0"
    if -4 <= large < 5:
        return f"{value:.{max(-fine, 0)}f}"
    digits, _, exponent = f"{value:.{max(math.floor(math.log10(abs(value)) + 1e-9) - fine, 0)}e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits}e{int(exponent)}"


def _draw_fit_boundaries(axes: Axes, plan: PlotPlan, text_style: _TextStyle) -> None:
    for fit, place in plan.fit_starts.items():
        axes.axvline(place, color=MUTED_COLOUR, linewidth=0.7, linestyle=(0, (2, 2)), zorder=1.5)
        if len(plan.fit_starts) < MAX_LABELLED_FITS:
            across = axes.get_xaxis_transform()
            axes.text(
                place,
                0.98,
                f" fit {fit}",
                transform=across,
                va="top",
                ha="left",
                **text_style.text_options(7, MUTED_COLOUR),
            )


def _create_lines(panel: PlotPanel) -> Iterator[tuple[Line2D, Line2D | None]]:
    """Create each line and, if it shows means, a fainter line of the values behind it.

    Training and validation of a single metric differ by colour; with several metrics, validation is dashed.
    """
    is_one = len({line.group for line in panel.lines}) == 1
    for number, line in enumerate(panel.lines):
        before = sum(each.is_validation == line.is_validation for each in panel.lines[:number])
        colour = COLOURS[(2 * before + line.is_validation if is_one else line.group) % len(COLOURS)]
        dashed = line.is_validation and not is_one
        if line.means is None:
            yield _create_line(line.x, line.y, colour, dashed=dashed), None
        else:
            yield _create_line(*line.means, colour, dashed=dashed), _create_line(line.x, line.y, colour, faint=True)


def _create_line(
    x: Sequence[float], y: Sequence[float], colour: str, *, dashed: bool = False, faint: bool = False
) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D(
        x, y, color=colour, linewidth=0.7 if faint else 1.5, alpha=0.3 if faint else 1, zorder=2 if faint else 2.5,
        linestyle=(0, DASH_PATTERN) if dashed else "solid", marker="o", markersize=5 if len(x) <= 3 else 3,
        markevery=_marker_indices(y), markeredgewidth=0, antialiased=True, drawstyle="default",
        dash_capstyle="butt", dash_joinstyle="round", solid_capstyle="round", solid_joinstyle="round",
    )  # fmt: skip


def _marker_indices(values: Sequence[float]) -> list[int]:
    """Return the points with a marker: all points of a short line, and points without neighbours."""
    drawn = [False, *(not math.isnan(value) for value in values), False]
    few = len(values) <= MAX_MARKED_POINTS
    return [
        place for place in range(len(values)) if drawn[place + 1] and (few or not (drawn[place] or drawn[place + 2]))
    ]


def _draw_legend(axes: Axes, names: list[str], handles: list[Line2D], text_style: _TextStyle, *, title: str) -> None:
    """Draw the legend next to the title if it fits, else inside the axes."""
    fits = len(title) + sum(len(name) + 5 for name in names) <= MAX_HEADER_LENGTH
    legend = axes.legend(
        handles, names, prop=text_style.font(7.5), labelcolor=TEXT_COLOUR, ncols=len(names) if fits else 1,
        loc="lower right" if fits else "best", bbox_to_anchor=(1.02, 1) if fits else (0, 0, 1, 1),
        frameon=not fits, framealpha=0.8, facecolor="white", edgecolor=GRID_COLOUR, fancybox=False, shadow=False,
        handlelength=1.8, handletextpad=0.5, columnspacing=1.2, labelspacing=0.25,
        borderpad=0 if fits else 0.4, borderaxespad=0.5, numpoints=1, markerscale=1, handleheight=0.7,
    )  # fmt: skip
    legend.get_frame().set_linewidth(0.8)
    for text in legend.get_texts():
        text.set(usetex=False, parse_math=False)


MAX_POINTS = 2000
"""Maximum points of a line; a screen does not show more."""

MAX_MEAN_POINTS = 150
"""Maximum points of the line of means that is drawn over a downsampled line."""

MAX_PANELS = 20
MAX_LOSSES_PER_PANEL = 4
"""Maximum number of losses in one panel, each with training and validation; further ones get another panel."""

MAX_PLOT_VALUE = 1e300
"""Values of this size or more cannot be drawn."""

_STAGE_PATTERN = r"(train(?:ing)?|val(?:id(?:ation)?)?)"
_STAGE_AFFIX = re.compile(rf"(?:^|(?<=[_/.])){_STAGE_PATTERN}[_/.]|[_/.]{_STAGE_PATTERN}$", re.IGNORECASE)
_LOSS_NAME = re.compile(r"(?<![a-z])loss(?:es)?(?![a-z])", re.IGNORECASE)
_ERROR_NAME = re.compile(r"(?<![a-z])(?:loss(?:es)?|error|err|r?mse|mae|nll|perplexity)(?![a-z])", re.IGNORECASE)

SeriesByMetric = Mapping[str, Mapping[int, MetricSeries]]


@dataclass(frozen=True)
class PlotLine:
    """Line of one metric in a panel.

    Args:
        name: Name of the metric.
        group: Index of the metric in the panel, from 0; training and validation of a metric share it.
        is_validation: Whether the values are of validation, and not of training.
        x: Positions of the points, in epochs or steps.
        y: Values of the points; NaN is a gap.
        non_finite_count: Number of values that are NaN, infinite, or too large to be drawn.
        means: Positions and values of means over intervals, if the line was downsampled.
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
    """Metrics that share a pair of axes.

    Args:
        title: Title of the panel.
        is_loss: Whether all metrics are losses or errors, which may get a logarithmic axis.
        lines: Lines of the panel, training before validation.
    """

    title: str
    is_loss: bool
    lines: tuple[PlotLine, ...]


@dataclass(frozen=True)
class PlotPlan:
    """All panels of a plot.

    Args:
        x_unit: Unit of the horizontal axis: ``epoch`` or ``step``.
        x_min: First position.
        x_max: Last position.
        fit_starts: Start position of each fit after the first, by the number of the fit.
        panels: Losses first, then the other metrics in order of appearance, then the learning rates.
        omitted_count: Number of lines without a panel.
    """

    x_unit: str
    x_min: float
    x_max: float
    fit_starts: Mapping[int, float]
    panels: tuple[PlotPanel, ...]
    omitted_count: int = 0


def plan_plot(epochs: Sequence[MetricsLine], steps: Iterable[MetricsLine] = ()) -> PlotPlan | None:
    """Plan the plot of a training.

    Args:
        epochs: Lines by epoch of the metrics file.
        steps: Lines by step. If there are any, the plot is by step and includes epoch metrics that no step has.

    Returns:
        The plan; None if there is nothing to draw.
    """
    by_step = collect_series(steps, "step")
    by = "step" if by_step else "epoch"
    rates = collect_series((replace(line, values=line.learning_rates) for line in epochs), by)
    return plan_series(collect_series(epochs, by) | by_step, by, rates)


def plan_series(series: SeriesByMetric, by: str, rates: SeriesByMetric = MappingProxyType({})) -> PlotPlan | None:
    """Plan the plot of metrics.

    Args:
        series: The values of each metric by fit.
        by: ``epoch`` or ``step``: the unit of their positions.
        rates: The learning rates of each optimizer by fit, at such positions too.

    Returns:
        The plan; None if there is nothing to draw.
    """
    metrics = _drop_duplicate_metrics(series)
    if not metrics:
        return None
    offsets, fit_starts = _offset_fits(chain(metrics.values(), rates.values()))
    panels = list(_build_panels(metrics, offsets))
    if any(len(set(series.values)) > 1 for by_fit in rates.values() for series in by_fit.values()):
        panels.append(_build_panel("learning rate", [[name] for name in rates], rates, offsets))
    positions = [x for panel in panels for line in panel.lines for x in line.x]
    omitted = sum(len(panel.lines) for panel in panels[MAX_PANELS:])
    return PlotPlan(by, min(positions), max(positions), fit_starts, tuple(panels[:MAX_PANELS]), omitted)


def _offset_fits(metrics: Iterable[Mapping[int, MetricSeries]]) -> tuple[dict[int, int], dict[int, float]]:
    """Return the offset that places each fit after the previous one, and the start of each fit after the first.

    A fit whose positions continue those of the previous one has offset 0.
    """
    ranges: dict[int, tuple[int, int]] = {}
    for fit, series in chain.from_iterable(by_fit.items() for by_fit in metrics):
        first, last = min(series.positions), max(series.positions)
        previous = ranges.get(fit, (first, last))
        ranges[fit] = min(first, previous[0]), max(last, previous[1])
    offsets: dict[int, int] = {}
    fit_starts: dict[int, float] = {}
    end: int | None = None
    for fit, (first, last) in sorted(ranges.items()):
        offsets[fit] = 0 if end is None or first > end else end + 1 - first
        if end is not None:
            fit_starts[fit] = (end + first + offsets[fit]) / 2
        end = last + offsets[fit]
    return offsets, fit_starts


def _drop_duplicate_metrics(metrics: SeriesByMetric) -> SeriesByMetric:
    """Drop metrics that Lightning logs twice: ``x_epoch`` if there is ``x``, and ``x_step`` if there is either."""
    duplicates = {f"{name}_epoch" for name in metrics}
    for name in metrics:
        plain = name.removesuffix("_step")
        if plain != name and not {plain, f"{plain}_epoch"}.isdisjoint(metrics):
            duplicates.add(name)
    return {name: by_fit for name, by_fit in metrics.items() if name not in duplicates}


def _build_panels(metrics: SeriesByMetric, offsets: Mapping[int, int]) -> Iterator[PlotPanel]:
    groups: dict[str, list[str]] = {}
    for name in metrics:
        groups.setdefault(_strip_stage(name), []).append(name)
    losses = [group for group in groups if _LOSS_NAME.search(group)]
    loss_panels = [
        losses[start : start + MAX_LOSSES_PER_PANEL] for start in range(0, len(losses), MAX_LOSSES_PER_PANEL)
    ]
    for names in (*loss_panels, *([group] for group in groups if group not in losses)):
        title = names[0] if len(names) == 1 else "losses"
        yield _build_panel(title, [groups[name] for name in names], metrics, offsets)


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
    """Return a metric's name without its stage: ``loss`` for ``val_loss``, ``train/loss`` and ``train_loss_epoch``."""
    return _STAGE_AFFIX.sub("", name, count=1).removesuffix("_epoch").removesuffix("_step") or name


def _is_validation(name: str) -> bool:
    match = _STAGE_AFFIX.search(name)
    return match is not None and (match[1] or match[2]).lower().startswith("val")


def _build_line(name: str, group: int, by_fit: Mapping[int, MetricSeries], offsets: Mapping[int, int]) -> PlotLine:
    x, y, non_finite_count = array("d"), array("d"), 0
    for fit, series in sorted(by_fit.items()):
        if x:  # a gap between fits
            x.append(x[-1])
            y.append(math.nan)
        x.extend(position + offsets[fit] for position in series.positions)
        y.extend(value if abs(value) < MAX_PLOT_VALUE else math.nan for value in series.values)
        non_finite_count += sum(not abs(value) < MAX_PLOT_VALUE for value in series.values)
    line_x, line_y = _downsample(x, y)
    means = _compute_means(x, y) if len(line_x) < len(x) else None
    return PlotLine(name, group, _is_validation(name), line_x, line_y, non_finite_count, means)


def _downsample(x: Sequence[float], y: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Reduce a line to at most 2,000 points, with the smallest and largest value of each interval."""
    if len(x) <= MAX_POINTS:
        return x, y
    indices: list[int] = []
    for start, stop in _split_range(len(x), MAX_POINTS // 2):
        finite = [index for index in range(start, stop) if not math.isnan(y[index])]
        indices += sorted({min(finite, key=y.__getitem__), max(finite, key=y.__getitem__)}) if finite else [start]
    return [x[index] for index in indices], [y[index] for index in indices]


def _compute_means(x: Sequence[float], y: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    means: list[tuple[float, float]] = []
    for start, stop in _split_range(len(x), MAX_MEAN_POINTS):
        finite = [value for value in y[start:stop] if not math.isnan(value)]
        means.append(((x[start] + x[stop - 1]) / 2, math.fsum(finite) / len(finite) if finite else math.nan))
    return [position for position, _ in means], [mean for _, mean in means]


def _split_range(length: int, max_parts: int) -> Iterator[tuple[int, int]]:
    size = math.ceil(length / max_parts)
    return ((start, min(start + size, length)) for start in range(0, length, size))
