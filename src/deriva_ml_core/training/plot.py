"""The picture of a training: its losses and metrics by epoch, as a PNG file that equal metrics make equal."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deriva_ml_core._files.atomic import atomic_path
from deriva_ml_core.training.metrics_file import MetricSeries, MetricsLine, collect_series, iter_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["PlotLine", "PlotPanel", "PlotPlan", "draw_curves", "plan_plot"]


DPI = 120
PANEL_WIDTH, PANEL_HEIGHT = 4.6, 2.9
"""Of one panel with what is around it, in inches."""

MARGIN_LEFT, MARGIN_RIGHT, MARGIN_BOTTOM, MARGIN_TOP = 0.68, 0.16, 0.5, 0.38
"""Around the axes of a panel, in inches."""

TITLE_HEIGHT = 0.34
"""For the title, in inches."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Told apart by all eyes: Okabe and Ito, Color Universal Design, 2008."""

TEXT_COLOUR, MUTED_COLOUR, GRID_COLOUR = "#24292f", "#6e7781", "#e3e6e9"
DASH_PATTERN = (4.0, 1.8)
MAX_MARKED_POINTS = 60
"""A line of so few points shows each of them."""

LOG_SCALE_RATIO = 100
"""A loss whose largest value is more than so many times its smallest has a logarithmic axis."""

MAX_LABELLED_FITS = 8
MAX_TITLE_LENGTH, MAX_NAME_LENGTH = 90, 32
"""In letters: above two panels, and in a panel."""

MAX_HEADER_LENGTH = 58
"""Letters above a panel."""


def draw_curves(metrics: Path, target: Path, title: str = "") -> bool:
    """Draw a metrics file; matplotlib's settings are left as they are, and say nothing about this picture.

    Args:
        metrics: The file, as ``metrics.jsonl`` has it.
        target: Where the PNG is to be; it appears there whole.
        title: What to write above it.

    Returns:
        Whether it was drawn: not where matplotlib is missing, or there is nothing to draw.

    Raises:
        OSError: The metrics cannot be read, or the picture cannot be written.
    """
    if not metrics.exists() or (plan := _plan_from_file(metrics)) is None:
        return False
    try:
        figure = _draw_figure(plan, title)
    except ImportError:
        return False
    with atomic_path(target) as partial:
        _save_png(figure, partial)
    return True


def _plan_from_file(metrics: Path) -> PlotPlan | None:
    """The picture by epoch; by step where there are no two epochs and steps tell more."""
    epochs = list(iter_metrics(metrics, "epoch"))
    if len({(line.fit, line.epoch) for line in epochs if line.stage == "fit" and line.values}) > 1:
        return plan_plot(epochs)
    return plan_plot(epochs, iter_metrics(metrics, "step"))


def _save_png(figure: Figure, file: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # the version of matplotlib is left out, so that it does not change the bytes
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
    words = _TextStyle()
    for number, panel in enumerate(plan.panels):
        left = (number % columns) * PANEL_WIDTH + MARGIN_LEFT
        low = high - head - (number // columns + 1) * PANEL_HEIGHT + MARGIN_BOTTOM
        size = (
            left / wide,
            low / high,
            (PANEL_WIDTH - MARGIN_LEFT - MARGIN_RIGHT) / wide,
            (PANEL_HEIGHT - MARGIN_BOTTOM - MARGIN_TOP) / high,
        )
        _draw_panel(figure.add_axes(size, facecolor="white"), panel, plan, words)
    room = int(MAX_TITLE_LENGTH * columns / 2)
    shown = title if len(title) <= room else title[: room - 1] + "…"
    at = (high - 0.12) / high
    figure.text(
        MARGIN_LEFT / wide, at, " ".join(shown.split()), va="top", **words.text_options(11, TEXT_COLOUR, bold=True)
    )
    figure.text(1 - MARGIN_RIGHT / wide, at, foot, va="top", ha="right", **words.text_options(8, MUTED_COLOUR))
    for artist in figure.findobj():
        artist.set(sketch_params=None, path_effects=[])
    return figure


class _TextStyle:
    """Text in matplotlib's own font, whatever fonts and settings there are; a metric's ``$`` and ``_`` stay."""

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
    """Say all that the user's settings would say otherwise."""
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
    """The horizontal axis: whole epochs or steps."""
    from matplotlib.ticker import MaxNLocator

    first, last = plan.x_min, plan.x_max
    places = [first]
    if last > first:
        found = MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]).tick_values(first, last)
        places = [float(place) for place in found if first <= place <= last]
    margin = 0.03 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)
    unit, sign = (1e6, "M") if last >= 1e6 else (1e3, "k") if last >= 2e4 else (1, "")
    labels = [f"{place / unit:g}{sign if place else ''}" for place in places]
    axes.xaxis.set_ticks(places, labels=labels, **text_style.text_options(7.5, MUTED_COLOUR))
    axes.xaxis.set_ticks([], minor=True)


def _set_y_axis(axes: Axes, values: Sequence[float], text_style: _TextStyle, *, logarithmic: bool) -> None:
    """The vertical axis: as far as the values reach."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(values, default=0.0), max(values, default=1.0)
    if logarithmic:
        _set_log_y_axis(axes, math.log10(low), math.log10(high), text_style)
        return
    margin = 0.06 * (high - low) or 0.1 * abs(low) or 0.5
    low, high = low - margin, high + margin
    found = MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high)
    places = [float(place) for place in found if low <= place <= high]
    axes.set_ylim(low, high)
    step = places[1] - places[0] if len(places) > 1 else high - low
    labels = [_format_tick(place, step, max(map(abs, places))) for place in places]
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


def _format_tick(value: float, step: float, largest: float) -> str:
    """A place on an axis, as exact as the places are apart."""
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
    """The lines, and the fainter ones behind those that are means.

    One metric's training and validation differ by colour, those of several metrics by dashes.
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
    """The points that are shown as such: all of a few, and those that no line goes to."""
    drawn = [False, *(not math.isnan(value) for value in values), False]
    few = len(values) <= MAX_MARKED_POINTS
    return [
        place for place in range(len(values)) if drawn[place + 1] and (few or not (drawn[place] or drawn[place + 2]))
    ]


def _draw_legend(axes: Axes, names: list[str], handles: list[Line2D], text_style: _TextStyle, *, title: str) -> None:
    """Name the lines: beside the title where there is room, else among the lines where they are not."""
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
