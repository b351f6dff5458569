"""Terminal output: tables, fields and JSON. Texts of a catalog are untrusted, so control characters are escaped."""

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

from deriva_ml_core._progress import is_terminal
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
"""Characters between two columns, and the minimum width of a flexible column."""

DEFAULT_WIDTH = 200
"""Characters of a line if standard output is no terminal and ``COLUMNS`` is not set."""


def create_console(*, stderr: bool = False) -> Console:
    """Return a new rich console for standard output or standard error as they are now."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    is_redirected = not is_terminal(stream) and "COLUMNS" not in os.environ
    return Console(
        file=stream, width=DEFAULT_WIDTH if is_redirected else None, highlight=False, markup=False, emoji=False
    )


def can_print_unicode(screen: Console) -> bool:
    """Whether the console's encoding has block characters and an ellipsis."""
    return screen.encoding.lower().startswith("utf")


def safe_text(text: object, style: str = "") -> Text:
    """Return an untrusted text as one line without control characters or markup."""
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
        align_right: Whether to align it right, for numbers.
        flexible: Whether it shrinks on a narrow terminal.
        wrapped: Whether its text is wrapped instead of cut.
        style: Its style, as rich names it.
    """

    title: str
    align_right: bool = False
    flexible: bool = False
    wrapped: bool = False
    style: str = ""


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[object]], *, indent: int = 0) -> None:
    """Print rows under headings; on a narrow terminal the flexible columns shrink."""
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
    ellipsis = can_print_unicode(screen)
    for row in cells:
        table.add_row(
            *(
                _truncate_cell(cell, column, width, ellipsis)
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
    """Return the width of each column: its widest cell, less what flexible columns give up to fit the line."""
    from rich.cells import cell_len

    widths = [max([cell_len(c.title), *(row[place].cell_len for row in cells)]) for place, c in enumerate(columns)]
    excess = sum(widths) + COLUMN_GAP * (len(columns) - 1) - available_width
    while excess > 0:
        shrinkable = [
            place for place, column in enumerate(columns) if column.flexible and widths[place] > MIN_COLUMN_WIDTH
        ]
        if not shrinkable:
            break
        widest = max(shrinkable, key=lambda place: widths[place])
        widths[widest] -= 1
        excess -= 1
    return widths


def print_fields(fields: Mapping[str, object], *, indent: int = 2) -> None:
    """Print names with their values, one on a line; None and empty values are left out."""
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
    """Print a bold heading after an empty line."""
    from rich.text import Text

    line = Text(" ").join(part if isinstance(part, Text) else safe_text(part, "bold") for part in parts)
    create_console().print("", line, sep="\n")


def print_note(text: str) -> None:
    """Print a dimmed sentence, wrapped at its own indentation."""
    from rich.padding import Padding

    indent = len(text) - len(text.lstrip(" "))
    create_console().print(Padding(safe_text(text, "dim"), (0, 0, 0, indent), expand=False))


def print_json(value: object) -> None:
    """Print one JSON value in ASCII: times as ISO 8601, NaN and infinity as null."""
    sys.stdout.write(json.dumps(to_json_value(value), indent=2, allow_nan=False) + "\n")


def to_json_value(value: Any) -> Any:
    """Return a value with everything converted to types of JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): to_json_value(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_value(part) for part in value]
    return str(value) if isinstance(value, (str, Path)) else value
