"""What is put on the terminal: tables, facts and JSON, of texts that nobody here wrote and that are not trusted."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deriva_ml_core._text import sanitize_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = [
    "Column",
    "can_print_unicode",
    "create_console",
    "print_fields",
    "print_json",
    "print_note",
    "print_table",
    "print_title",
    "safe_text",
    "status_text",
    "to_json_value",
]


COLUMN_GAP, MIN_COLUMN_WIDTH = 2, 8
"""Columns of the screen between two columns of a table, and those that a flexible one keeps."""

DEFAULT_WIDTH = 200
"""Columns where nobody looks: standard output is no terminal, and ``COLUMNS`` says nothing."""


def create_console(*, stderr: bool = False) -> Console:
    """Standard output, or standard error, as rich writes to it; it is made anew by each call, as both may change."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    unseen = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(file=stream, width=DEFAULT_WIDTH if unseen else None, highlight=False, markup=False, emoji=False)


def can_print_unicode(screen: Console) -> bool:
    """Whether block characters and an ellipsis can be shown."""
    return screen.encoding.lower().startswith("utf")


def safe_text(text: object, style: str = "") -> Text:
    """A text of unknown origin, as it may be put on a screen."""
    from rich.text import Text

    return Text(sanitize_line("" if text is None else text), style)


def status_text(status: str) -> Text:
    """Return a status in its colour."""
    from deriva_ml_core.definitions import status_traits

    return safe_text(status, status_traits(status).terminal_style)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        title: Its heading.
        align_right: Whether it holds numbers.
        flexible: Whether it gives way where the screen is narrow: it is cut, and the others are not.
        wrapped: Whether a flexible one is wrapped rather than cut.
        style: How it looks.
    """

    title: str
    align_right: bool = False
    flexible: bool = False
    wrapped: bool = False
    style: str = ""


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[object]], *, indent: int = 0) -> None:
    """Print rows under headings; where the screen is too narrow, the flexible columns give way."""
    from rich.padding import Padding
    from rich.table import Table

    screen = create_console()
    cells = [[_to_cell(cell) for cell in row] for row in rows]
    widths = _compute_widths(columns, cells, screen.width - indent)
    table = Table(box=None, pad_edge=False, padding=(0, COLUMN_GAP, 0, 0), header_style="bold", show_edge=False)
    table.show_header = any(column.title for column in columns)
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            column.title,
            justify="right" if column.align_right else "left",
            width=width,
            no_wrap=not column.wrapped,
            overflow="fold" if column.wrapped else "crop",
            style=column.style,
        )
    mark = can_print_unicode(screen)
    for row in cells:
        table.add_row(
            *(
                _truncate_cell(cell, column, width, mark)
                for cell, column, width in zip(row, columns, widths, strict=True)
            )
        )
    screen.print(Padding(table, (0, 0, 0, indent), expand=False) if indent else table)


def _to_cell(cell: object) -> Text:
    from rich.text import Text

    return cell if isinstance(cell, Text) else safe_text(cell)


def _truncate_cell(cell: Text, column: Column, width: int, ellipsis: bool) -> Text:
    if not column.wrapped:
        cell = cell.copy()
        cell.truncate(width, overflow="ellipsis" if ellipsis else "crop")
    return cell


def _compute_widths(columns: Sequence[Column], cells: Sequence[Sequence[Text]], available_width: int) -> list[int]:
    """How broad each column is: as its broadest cell, but that the flexible ones share what the others leave."""
    from rich.cells import cell_len

    widths = [max([cell_len(c.title), *(row[place].cell_len for row in cells)]) for place, c in enumerate(columns)]
    over = sum(widths) + COLUMN_GAP * (len(columns) - 1) - available_width
    while over > 0:
        giving = [place for place, column in enumerate(columns) if column.flexible and widths[place] > MIN_COLUMN_WIDTH]
        if not giving:
            break
        broadest = max(giving, key=lambda place: widths[place])
        widths[broadest] -= 1
        over -= 1
    return widths


def print_fields(fields: Mapping[str, object], *, indent: int = 2) -> None:
    """Print names and what they are, one a line; those of which nothing is known are left out."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value is not None and str(value) != "":
            table.add_row(name, value if isinstance(value, Text) else safe_text(value))
    if table.row_count:
        create_console().print(Padding(table, (0, 0, 0, indent), expand=False))


def print_title(*parts: object) -> None:
    """Print a heading, bold, with an empty line before it."""
    from rich.text import Text

    line = Text(" ").join(part if isinstance(part, Text) else safe_text(part, "bold") for part in parts)
    create_console().print("", line, sep="\n")


def print_note(text: str) -> None:
    """Print a sentence about what was shown, as far from the left as it is given."""
    from rich.padding import Padding

    indent = len(text) - len(text.lstrip(" "))
    create_console().print(Padding(safe_text(text, "dim"), (0, 0, 0, indent), expand=False))


def print_json(value: object) -> None:
    """Print one JSON value: times as ISO 8601, what is no number as null, letters beyond ASCII escaped."""
    sys.stdout.write(json.dumps(to_json_value(value), indent=2, allow_nan=False) + "\n")


def to_json_value(value: Any) -> Any:
    """The same with nothing in it that JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): to_json_value(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_value(part) for part in value]
    return str(value) if isinstance(value, (str, Path)) else value
