"""The lines of the table: what was measured, beside what, and whether a target holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.measure import Beside

__all__ = ["Figure", "compared", "table", "tables"]

_VERDICTS = {None: "", True: "[green]yes", False: "[bold red]NO"}


@dataclass(frozen=True, slots=True)
class Figure:
    """One line.

    Args:
        what: What was measured.
        value: How much of `unit` it took.
        unit: ``s`` for seconds; otherwise what is counted.
        floor: What it stands beside, in words; empty where it stands alone.
        floor_value: How much of `unit` that took.
        ratio: How many floors it took.
        target: The highest ratio, or value where there is no ratio, that is good enough; None where none is set.
        of: Who it is of, where several are compared: then it is a cell of a table with a row for each of them.
        note: What else there is to say.
        fine: Whether all is well, where that is no matter of a number; None to go by `target`.
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
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return self.fine
        return (self.value if self.ratio is None else self.ratio) <= self.target


def compared(what: str, floor: str, taken: Beside, target: float | None = None) -> Figure:
    """The line of two things that were timed in turn."""
    return Figure(what, taken.seconds, "s", floor, taken.floor, taken.ratio, target)


def tables(figures: Sequence[tuple[str, Figure]]) -> Iterator[Table]:
    """All that is to be drawn: the lines, then for each benchmark that compares several a table of them."""
    if lines := [(name, figure) for name, figure in figures if not figure.of]:
        yield table(lines)
    for name in dict.fromkeys(name for name, figure in figures if figure.of):
        yield _comparison(name, [figure for of, figure in figures if of == name and figure.of])


def table(figures: Iterable[tuple[str, Figure]]) -> Table:
    """All lines, each with the name of its benchmark, for people."""
    drawn = Table(title="Each subject beside its floor: medians of runs that took turns")
    for heading in ("benchmark", "what", "floor"):
        drawn.add_column(heading, overflow="fold")
    for heading in ("took", "floor took", "ratio", "target", "holds"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    last = ""
    for name, figure in figures:
        if last and name != last:
            drawn.add_section()
        drawn.add_row("" if name == last else name, *_cells(figure))
        last = name
    return drawn


def _comparison(name: str, figures: Sequence[Figure]) -> Table:
    drawn = Table(title=f"{name}: ours green where a target holds, red where it does not")
    drawn.add_column("", no_wrap=True)
    columns = list(dict.fromkeys(figure.what for figure in figures))
    for what in columns:
        drawn.add_column(what, justify="right", overflow="fold")
    cells = {(figure.of, figure.what): figure for figure in figures}
    for row in dict.fromkeys(figure.of for figure in figures):
        drawn.add_row(row, *(_cell(cells.get((row, what))) for what in columns))
    return drawn


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    told = _amount(figure.value, figure.unit)
    if figure.ratio is not None:
        told += f" ({figure.ratio:.2f} of it)"
    if figure.target is not None:
        told += f", {_target(figure)}"
    if figure.note:
        told += f", {figure.note}"
    return {None: "", True: "[green]", False: "[bold red]"}[figure.holds] + told


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
