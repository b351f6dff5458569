"""Parts of every page: its frame, elements with plain text, and tables that change in place.

Text of the catalog is only ever the text of an element or the value of an attribute. It is never HTML, Markdown, a name
of an attribute, or a key in the options of a chart: NiceGUI evaluates values whose name begins with a colon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TypedDict, Unpack
from urllib.parse import quote, urlencode, urlsplit

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from deriva_ml_core._text import format_age, format_time, sanitize_line
from deriva_ml_core.definitions import Status

__all__ = [
    "Cell",
    "Column",
    "LiveTable",
    "TableRow",
    "add_copy_button",
    "add_frame",
    "add_link",
    "add_rid",
    "add_section",
    "address",
    "age_cell",
    "is_dark",
    "is_web_address",
    "node",
    "set_class",
    "status_class",
]

SECTIONS: Mapping[str, str] = {
    "Runs": "/",
    "Compare": "/compare",
    "Datasets": "/datasets",
    "Workflows": "/workflows",
}
"""The links at the top of each page."""

HEAD = '<link rel="stylesheet" href="/static/page.css"><script defer src="/static/page.js"></script>'


class Attributes(TypedDict, total=False):
    """The HTML attributes that the pages use; ``_`` stands for ``-``. None leaves an attribute out."""

    aria_current: str | None
    aria_label: str | None
    aria_labelledby: str | None
    aria_live: str | None
    aria_sort: str | None
    action: str | None
    alt: str | None
    autocomplete: str | None
    checked: bool | None
    colspan: str | None
    data_copy: str | None
    data_theme: str | None
    disabled: bool | None
    download: str | None
    height: str | None
    href: str | None
    id: str | None
    list: str | None
    loading: str | None
    max: str | None
    method: str | None
    min: str | None
    name: str | None
    open: bool | None
    placeholder: str | None
    rel: str | None
    role: str | None
    scope: str | None
    selected: bool | None
    src: str | None
    step: str | None
    tabindex: str | None
    target: str | None
    title: str | None
    type: str | None
    value: str | None


class PlainText(TextElement):
    """An HTML element with a text.

    Args:
        tag: Its tag.
        text: Its text.
    """

    def __init__(self, tag: str, text: str) -> None:
        super().__init__(tag=tag, text=text)

    def say(self, text: str) -> None:
        """Show another text."""
        self.text = text


def node(tag: str, text: object = None, classes: str = "", **attributes: Unpack[Attributes]) -> PlainText:
    """Add an HTML element to the current one.

    Args:
        tag: Its tag.
        text: Its text; control characters are escaped. None for an element without text.
        classes: Its CSS classes.
        **attributes: Its attributes.
    """
    element = PlainText(tag, "" if text is None else clean(text))
    if classes:
        element.classes(classes)
    for name, value in attributes.items():
        if value is not None:
            element.props[name.replace("_", "-")] = value
    return element


def clean(text: object) -> str:
    """Return a text in one line, with escapes for control characters, as it is shown."""
    return sanitize_line(text)


def set_class(element: Element, old: str, new: str) -> None:
    """Replace CSS classes of an element."""
    if old != new:
        element.classes(remove=old, add=new)


def address(path: str, query: Mapping[str, object] = MappingProxyType({})) -> str:
    """Return an address on this server.

    Args:
        path: Its path; each part is quoted.
        query: Its query; empty values are left out.
    """
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return quote(path) + (f"?{urlencode(given)}" if given else "")


def is_web_address(text: str) -> bool:
    """Return whether a text of the catalog may become a link: ``javascript:`` and others may not."""
    try:
        return urlsplit(text).scheme in ("http", "https")
    except ValueError:
        return False


async def is_dark() -> bool:
    """Return whether the page is dark in the browser, which has to be connected."""
    return bool(await ui.run_javascript("document.body.classList.contains('body--dark')", timeout=10))


def status_class(status: Status) -> str:
    """Return the CSS class of a status."""
    return f"status status-{status.name}"


def add_link(text: object, target: str, classes: str = "") -> PlainText:
    """Add a link to an address on this server."""
    return node("a", text, classes, href=target)


def add_copy_button(text: str, what: str) -> None:
    """Add a button that copies a text; page.js handles it.

    Args:
        text: The text.
        what: What it is, for screen readers.
    """
    node("button", "", "copy", type="button", data_copy=text, aria_label=f"Copy {clean(what)}", title=f"Copy {what}")


def add_rid(rid: str, target: str | None = None) -> None:
    """Add a RID with its copy button, as a link if it has a target."""
    with node("span", None, "rid"):
        if target is None:
            node("code", rid)
        else:
            add_link(rid, target)
        add_copy_button(rid, f"RID {rid}")


def add_frame(title: str, catalog: str, section: str, *, heading: str | None = None) -> None:
    """Add what every page has: title, links, and the place of messages.

    Args:
        title: The title of the browser's tab.
        catalog: The catalog's name.
        section: The key of `SECTIONS` that the page belongs to.
        heading: The heading of the page; the title by default.
    """
    ui.page_title(f"{clean(title)} · deriva-ml")
    ui.add_head_html(HEAD)
    node("a", "Skip to the content", "skip", href="#content")
    with node("header", None, "top"):
        node("strong", "deriva-ml", "brand")
        with node("nav", None, aria_label="Sections"):
            for name, target in SECTIONS.items():
                node("a", name, href=target, aria_current="page" if name == section else None)
        node("span", catalog, "catalog", title=clean(catalog))
        node("button", "", "theme", type="button", data_theme="", aria_label="Change between light and dark")
    node("div", "", role="status", id="toast")
    node("h1", title if heading is None else heading, id="content", tabindex="-1")


def add_section(title: str, anchor: str, classes: str = "") -> Element:
    """Add a section with a heading, and return it for its content."""
    section = node("section", None, classes, aria_labelledby=f"{anchor}-title", id=anchor)
    with section:
        node("h2", title, id=f"{anchor}-title")
    return section


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        key: What identifies it.
        title: Its heading.
        is_number: Whether its cells are aligned to the right.
        sort_target: The address that sorts by it; None if it does not sort.
        sort_state: ``ascending`` or ``descending`` if the table is sorted by it.
    """

    key: str
    title: str
    is_number: bool = False
    sort_target: str | None = None
    sort_state: str | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table.

    Args:
        text: Its text.
        target: The address that it links to; None for text only.
        copied: What its copy button copies; None for no button.
        classes: The CSS classes of its text.
        title: A longer text, shown by the browser.
    """

    text: str
    target: str | None = None
    copied: str | None = None
    classes: str = ""
    title: str | None = None


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table.

    Args:
        key: What identifies it.
        cells: Its cells, in the order of the columns.
    """

    key: str
    cells: tuple[Cell, ...]


def age_cell(time: datetime | None) -> Cell:
    """Return the cell of a time: how long ago it was, and the time itself as its title."""
    return Cell(format_age(time), title=f"{format_time(time, show_seconds=True)} UTC" if time else None)


class LiveTable:
    """A table whose rows change in place, so that focus, selection and scroll position stay.

    Args:
        caption: What it lists, for screen readers.
        on_select: Called with the key of a row and whether it was selected; None for a table without checkboxes.
        selected: The keys of the rows that are selected at first.
    """

    def __init__(
        self, caption: str, on_select: Callable[[str, bool], None] | None = None, selected: Sequence[str] = ()
    ) -> None:
        self._on_select = on_select
        self._selected = set(selected)
        self._columns: tuple[Column, ...] | None = None
        self._rows: dict[str, _RowView] = {}
        self._frame = node("div", None, "table-frame", role="region", aria_label=f"Table: {caption}", tabindex="0")
        with self._frame, node("table"):
            node("caption", caption, "hidden")
            self._head = node("thead")
            self._body = node("tbody")

    def show(self, columns: Sequence[Column], rows: Sequence[TableRow]) -> None:
        """Show these rows; the elements of rows that stay are kept."""
        if tuple(columns) != self._columns:
            self._show_head(columns)
        wanted = {row.key for row in rows}
        for key in [key for key in self._rows if key not in wanted]:
            self._body.remove(self._rows.pop(key).element)
        order = list(self._rows)
        for position, row in enumerate(rows):
            view = self._rows.get(row.key)
            if view is None:
                with self._body:
                    view = self._rows[row.key] = self._add_row(row)
                if position < len(order):
                    view.element.move(target_index=position)
                order.insert(position, row.key)
            else:
                if order[position] != row.key:
                    view.element.move(target_index=position)
                    order.remove(row.key)
                    order.insert(position, row.key)
                view.update(row.cells)

    def _show_head(self, columns: Sequence[Column]) -> None:
        self._columns = tuple(columns)
        self._head.clear()
        self._body.clear()
        self._rows.clear()
        with self._head, node("tr"):
            if self._on_select is not None:
                node("td")
            for column in columns:
                with node("th", None, "number" if column.is_number else "", scope="col", aria_sort=column.sort_state):
                    if column.sort_target is None:
                        node("span", column.title)
                    else:
                        mark = {"ascending": " ▲", "descending": " ▼"}.get(column.sort_state or "", "")
                        node("a", column.title + mark, href=column.sort_target, title="Sort by this column")

    def _add_row(self, row: TableRow) -> _RowView:
        element = node("tr")
        with element:
            if (on_select := self._on_select) is not None:
                with node("td"):
                    checked = True if row.key in self._selected else None
                    box = node("input", None, type="checkbox", aria_label=f"Select {clean(row.key)}", checked=checked)
                    box.on("change", lambda event: on_select(row.key, bool(event.args)), js_handler=_EMIT_CHECKED)
            views = []
            for column, cell in zip(self._columns or (), row.cells, strict=True):
                views.append(_CellView(cell, is_number=column.is_number))
        return _RowView(element, views)


_EMIT_CHECKED = "(event) => emit(event.target.checked)"


class _RowView:
    """The elements of a row."""

    def __init__(self, element: Element, cells: Sequence[_CellView]) -> None:
        self.element = element
        self._cells = cells

    def update(self, cells: Sequence[Cell]) -> None:
        for view, cell in zip(self._cells, cells, strict=True):
            view.update(cell)


class _CellView:
    """The elements of a cell; its text, its classes and its title change in place."""

    def __init__(self, cell: Cell, *, is_number: bool) -> None:
        self._cell = cell
        title = cell.title and clean(cell.title)
        kind = "number" if is_number else ""
        if cell.target is None and cell.copied is None and not cell.classes:  # most cells, as one element
            self._text = node("td", cell.text, kind, title=title)
            return
        with node("td", None, kind):
            tag = "span" if cell.target is None else "a"
            self._text = node(tag, cell.text, cell.classes, href=cell.target, title=title)
            if cell.copied is not None:
                add_copy_button(cell.copied, f"RID {cell.copied}")

    def update(self, cell: Cell) -> None:
        if cell == self._cell:
            return
        self._text.say(clean(cell.text))
        set_class(self._text, self._cell.classes, cell.classes)
        for name, value in (("title", cell.title and clean(cell.title)), ("href", cell.target)):
            if value is not None:
                self._text.props[name] = value
        self._cell = cell
