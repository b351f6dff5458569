"""What an answer shows: as HTML in notebooks, without scripts and style sheets, and on a terminal with rich.

An answer describes itself as a `View`. Its texts are untrusted: both forms escape them, and bound what they show.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from deriva_ml_core._text import describe_error, escape_control_characters, format_number, sanitize_line
from deriva_ml_core.definitions import status_traits

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.text import Text

__all__ = [
    "CELL_STYLE",
    "FRAME_STYLE",
    "MAX_ROWS",
    "Badge",
    "Cell",
    "Grid",
    "Link",
    "Picture",
    "Presentable",
    "View",
    "image_html",
    "render_cell",
    "render_link",
    "render_muted",
    "truncate",
]

log = logging.getLogger(__name__)

BORDER_STYLE = "1px solid rgba(127,127,127,.35)"
FRAME_STYLE = (
    f"border:{BORDER_STYLE};border-radius:6px;padding:10px 14px;margin:2px "
    f"0;max-width:960px;font-size:13px;line-height:1.5;"
    "text-align:left;overflow-x:auto"
)
CELL_STYLE = "text-align:left;vertical-align:top;padding:1px 14px 1px 0;background:none;border:0;font-size:13px"

MAX_ROWS = 100
"""Maximum rows of a table. The others are counted."""

MAX_COLUMNS = 30
"""Maximum columns of a table. The others are counted."""

MAX_NAME_LENGTH, MAX_TEXT_LENGTH = 100, 600
"""Maximum lengths of a cell and of a text, in characters."""


@dataclass(frozen=True, slots=True)
class Link:
    """A text that leads to a page, if the URL is one.

    Args:
        text: The text.
        url: The URL.
    """

    text: str
    url: str


@dataclass(frozen=True, slots=True)
class Badge:
    """A status in its colour.

    Args:
        status: The status.
    """

    status: str


Cell = str | float | bool | Link | Badge | None


@dataclass(frozen=True, slots=True)
class Grid:
    """A table.

    Args:
        rows: Its rows.
        header: The names of the columns; empty for rows of a name and its value.
        title: The title above the table.
        omitted: The number of further rows that are not in `rows`.
    """

    rows: Sequence[Sequence[Cell]]
    header: Sequence[str] = ()
    title: str = ""
    omitted: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """HTML or SVG that the program made, with escaped texts.

    Args:
        html: The HTML.
        text: What a terminal shows instead.
    """

    html: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What an answer shows.

    Args:
        title: What it is.
        parts: Texts, tables and pictures.
        status: A status next to the title.
        note: A text next to the title.
    """

    title: Cell
    parts: Sequence[str | Grid | Picture] = ()
    status: str = ""
    note: str = ""


class Presentable:
    """An answer with a representation in notebooks and, for rich, on terminals."""

    __slots__ = ()

    def _view(self) -> View:
        """Return what is shown; subclasses implement it."""
        raise NotImplementedError

    def _safe_view(self) -> View:
        """Return what is shown, or why it cannot be: a representation never raises."""
        try:
            return self._view()
        except Exception as error:
            log.debug("Failed to describe %s.", type(self).__name__, exc_info=True)
            return View(type(self).__name__, [describe_error(error)])

    def _repr_html_(self) -> str:
        return _render_html(self._safe_view())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _render_rich(self._safe_view())


def truncate(text: str, max_length: int = MAX_NAME_LENGTH) -> str:
    """Return a text of at most this many characters, with an ellipsis if it was longer."""
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def _cell_text(cell: Cell) -> str:
    if isinstance(cell, Link):
        cell = cell.text
    elif isinstance(cell, Badge):
        cell = cell.status
    if cell is None:
        return ""
    if isinstance(cell, float):
        return format_number(cell)
    return truncate(sanitize_line(cell))


def _bound(grid: Grid) -> tuple[list[list[Cell]], list[str], str]:
    """Return the rows and the header that are shown, and what is said about the others."""
    rows = [list(row)[:MAX_COLUMNS] for row in grid.rows[:MAX_ROWS]]
    omitted = len(grid.rows) - len(rows) + grid.omitted
    columns = max((len(row) for row in grid.rows), default=0) - MAX_COLUMNS
    notes = [f"and {omitted:,} more"] if omitted else []
    notes += [f"{columns:,} more columns"] if columns > 0 else []
    return rows, list(grid.header)[:MAX_COLUMNS], ", ".join(notes)


# HTML


def _render_html(view: View) -> str:
    badge = f" &nbsp;{_render_badge(view.status)}" if view.status else ""
    note = f" &nbsp;{render_muted(escape(truncate(sanitize_line(view.note))))}" if view.note else ""
    parts = [f"<div><b>{_render_content(view.title)}</b>{badge}{note}</div>"]
    for part in view.parts:
        if isinstance(part, Grid):
            parts.append(_render_grid(part))
        elif isinstance(part, Picture):
            parts.append(part.html)
        elif part:
            text = escape(truncate(escape_control_characters(part), MAX_TEXT_LENGTH))
            parts.append(f'<div style="white-space:pre-wrap">{text}</div>')
    return f'<div style="{FRAME_STYLE}">{"".join(parts)}</div>'


def _render_grid(grid: Grid) -> str:
    rows, header, note = _bound(grid)
    lines = []
    if header:
        lines.append("".join(render_cell(render_muted(escape(truncate(sanitize_line(name))))) for name in header))
    for row in rows:
        first = _render_content(row[0]) if row else ""
        cells = [first if header else render_muted(first), *map(_render_content, row[1:])]
        lines.append("".join(map(render_cell, cells)))
    body = "".join(f"<tr style='background:none'>{line}</tr>" for line in lines)
    title = f'<div style="margin-top:6px"><b>{escape(_cell_text(grid.title))}</b></div>' if grid.title else ""
    table = f'<table style="border-collapse:collapse;margin:4px 0 0 0">{body}</table>' if body else ""
    return title + table + (f"<div>{render_muted(escape(note))}</div>" if note else "")


def _render_content(cell: Cell) -> str:
    if isinstance(cell, Badge):
        return _render_badge(cell.status)
    return render_link(_cell_text(cell), cell.url) if isinstance(cell, Link) else escape(_cell_text(cell))


def _render_badge(status: str) -> str:
    colour = status_traits(status).html_colour
    style = f"background:{colour};color:#fff;border-radius:10px;padding:1px 9px"
    return f'<span style="{style}">{escape(sanitize_line(status))}</span>'


def render_link(text: str, url: str) -> str:
    """Render a text, as a link if the URL is a web page."""
    if not url.startswith("https://"):
        return escape(text)
    return f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{escape(text)}</a>'


def render_cell(html: str) -> str:
    """Render a cell of a table."""
    return f'<td style="{CELL_STYLE}">{html}</td>'


def render_muted(html: str) -> str:
    """Render HTML in a fainter colour."""
    return f'<span style="opacity:.65">{html}</span>' if html else ""


_IMAGE_TYPES = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif"))


def image_html(content: bytes, name: str, *, max_width: str = "100%") -> str:
    """Return a raster image as HTML; empty if the bytes are none of PNG, JPEG, GIF and WebP.

    Args:
        content: The bytes of the file.
        name: The text for those who do not see it.
        max_width: The maximum width, as CSS writes it.
    """
    kind = next((kind for head, kind in _IMAGE_TYPES if content.startswith(head)), "")
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        kind = "webp"
    if not kind:
        return ""
    style = f"max-width:{max_width};margin-top:8px;background:#fff;border-radius:4px"
    source = f"data:image/{kind};base64,{b64encode(content).decode()}"
    return f'<img alt="{escape(truncate(sanitize_line(name)))}" style="{style}" src="{source}">'


# Terminal


def _render_rich(view: View) -> Iterable[RenderableType]:
    from rich.text import Text

    heading = Text(_cell_text(view.title), "bold")
    if view.status:
        heading.append(" ").append_text(_rich_cell(Badge(view.status)))
    if view.note:
        heading.append(f"  {truncate(sanitize_line(view.note))}", "dim")
    yield heading
    for part in view.parts:
        if isinstance(part, Grid):
            yield from _render_rich_grid(part)
        elif isinstance(part, Picture):
            if part.text:
                yield Text(part.text)
        elif part:
            yield Text(truncate(escape_control_characters(part), MAX_TEXT_LENGTH))


def _render_rich_grid(grid: Grid) -> Iterable[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    rows, header, note = _bound(grid)
    if grid.title:
        yield Text(_cell_text(grid.title), "bold")
    table = Table(box=None, show_header=bool(header), pad_edge=False, header_style="dim")
    width = max([len(header), *map(len, rows)], default=0)
    for number in range(width):
        name = sanitize_line(header[number]) if number < len(header) else ""
        table.add_column(Text(name), style="" if header or number else "dim")
    for row in rows:
        table.add_row(*map(_rich_cell, row))
    if width:
        yield table
    if note:
        yield Text(note, "dim")


def _rich_cell(cell: Cell) -> Text:
    from rich.text import Text

    style = status_traits(cell.status).terminal_style if isinstance(cell, Badge) else ""
    return Text(_cell_text(cell), style)
