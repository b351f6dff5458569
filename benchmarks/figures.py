"""Measured figures, their targets, and the tables that show them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.timing import Comparison

__all__ = ["Figure", "comparison_figure", "table", "tables"]

_VERDICTS = {None: "", True: "[green]yes", False: "[bold red]NO"}


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure.

    Args:
        what: What was measured.
        value: The result, in `unit`.
        unit: ``s`` for seconds, or the name of what is counted.
        floor: The name of the baseline; empty if there is none.
        floor_value: The result of the baseline, in `unit`.
        ratio: The result divided by that of the baseline.
        target: The highest acceptable ratio, or value if there is no ratio; None for no target.
        of: The tracker that was measured. Such a figure is a cell in a table with one row per tracker.
        note: A remark to show with the figure.
        fine: Whether the figure is acceptable, if that does not depend on `target`; None otherwise.
    """

    what: str
    value: float
    unit: str = "s"
    floor: str = ""
    floor_value: float | None = None
    ratio: float | None = None
    target: float | None = None
    of: str = ""
    note: str = ""
    fine: bool | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None if there is none."""
        if self.target is None:
            return self.fine
        return (self.value if self.ratio is None else self.ratio) <= self.target


def comparison_figure(what: str, floor: str, comparison: Comparison, target: float | None = None) -> Figure:
    """Return the figure of a comparison with a baseline."""
    return Figure(what, comparison.seconds, "s", floor, comparison.floor, comparison.ratio, target)


def tables(figures: Sequence[tuple[str, Figure]]) -> Iterator[Table]:
    """Yield the table of single figures, then a table for each benchmark that compares trackers."""
    if lines := [(name, figure) for name, figure in figures if not figure.of]:
        yield table(lines)
    for name in dict.fromkeys(name for name, figure in figures if figure.of):
        yield _tracker_table(name, [figure for of, figure in figures if of == name and figure.of])


def table(figures: Iterable[tuple[str, Figure]]) -> Table:
    """Return the table of single figures, each with the name of its benchmark."""
    result = Table(title="Figures and their baselines: medians of alternating runs")
    for heading in ("benchmark", "what", "baseline"):
        result.add_column(heading, overflow="fold")
    for heading in ("result", "baseline result", "ratio", "target", "met"):
        result.add_column(heading, justify="right", no_wrap=True)
    last = ""
    for name, figure in figures:
        if last and name != last:
            result.add_section()
        result.add_row("" if name == last else name, *_cells(figure))
        last = name
    return result


def _tracker_table(name: str, figures: Sequence[Figure]) -> Table:
    result = Table(title=f"{name}: green meets the target, red does not")
    result.add_column("", no_wrap=True)
    columns = list(dict.fromkeys(figure.what for figure in figures))
    for what in columns:
        result.add_column(what, justify="right", overflow="fold")
    cells = {(figure.of, figure.what): figure for figure in figures}
    for row in dict.fromkeys(figure.of for figure in figures):
        result.add_row(row, *(_cell(cells.get((row, what))) for what in columns))
    return result


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    text = _amount(figure.value, figure.unit)
    if figure.ratio is not None:
        text += f" ({figure.ratio:.2f}x baseline)"
    if figure.target is not None:
        text += f", {_target(figure)}"
    if figure.note:
        text += f", {figure.note}"
    return {None: "", True: "[green]", False: "[bold red]"}[figure.holds] + text


def _cells(figure: Figure) -> list[str]:
    return [
        figure.what + (f" ({figure.note})" if figure.note else ""),
        figure.floor,
        _amount(figure.value, figure.unit),
        "" if figure.floor_value is None else _amount(figure.floor_value, figure.unit),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if figure.target is None else _target(figure),
        _VERDICTS[figure.holds],
    ]


def _target(figure: Figure) -> str:
    assert figure.target is not None
    seconds = figure.unit == "s" and figure.ratio is None
    return f"≤ {_amount(figure.target, 's') if seconds else f'{figure.target:g}'}"


def _amount(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:,.{0 if float(value).is_integer() else 2}f} {unit}"
    for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if abs(value) * factor >= 1:
            return f"{value * factor:.3g} {name}"
    return f"{value * 1e9:.3g} ns"
