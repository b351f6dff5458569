"""The lines of the table: what was measured, beside what, and whether a target holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from benchmarks.measure import Beside

__all__ = ["Figure", "compared", "table"]


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
        target: The highest ratio, or value where there is no floor, that is good enough; None where none is set.
    """

    what: str
    value: float
    unit: str = "s"
    floor: str = ""
    floor_value: float | None = None
    ratio: float | None = None
    target: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return (self.value if self.ratio is None else self.ratio) <= self.target


def compared(what: str, floor: str, taken: Beside, target: float | None = None) -> Figure:
    """The line of two things that were timed in turn."""
    return Figure(what, taken.seconds, "s", floor, taken.floor, taken.ratio, target)


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


def _cells(figure: Figure) -> list[str]:
    verdict = {None: "", True: "[green]yes", False: "[bold red]NO"}[figure.holds]
    return [
        figure.what,
        figure.floor,
        _amount(figure.value, figure.unit),
        "" if figure.floor_value is None else _amount(figure.floor_value, figure.unit),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if figure.target is None else f"≤ {figure.target:g}",
        verdict,
    ]


def _amount(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:,.{0 if float(value).is_integer() else 2}f} {unit}"
    for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {name}"
    return f"{value * 1e9:.3g} ns"
