"""Lists of files with previews, and the page of one asset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nicegui import ui

from deriva_ml_core._text import format_size, format_time, parse_time
from deriva_ml_core.analysis.describe import AssetDescription
from deriva_ml_core.errors import DerivaMLException
from deriva_ml_core.models import Asset
from deriva_ml_ui.answers import Answers
from deriva_ml_ui.live_view import LiveView
from deriva_ml_ui.page_parts import (
    Cell,
    Column,
    LiveTable,
    TableRow,
    add_copy_button,
    add_link,
    add_rid,
    add_section,
    address,
    clean,
    node,
)
from deriva_ml_ui.run_list import run_address
from deriva_ml_ui.stored_files import MAX_IMAGE_BYTES, Preview, file_address, load_preview

__all__ = ["FileList", "add_asset_page", "add_thumbnails", "asset_address", "looks_like_image", "show_preview"]

MAX_FILES = 200
"""Files that a list shows; the others are counted."""

MAX_THUMBNAILS = 24
MAX_DIFF_LINES = 1_000
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".webp")


def asset_address(rid: str) -> str:
    """Return the address of an asset's page."""
    return address(f"/assets/{rid}")


def looks_like_image(filename: str, length: int) -> bool:
    """Return whether a file may be shown as a small picture; its bytes decide in the end."""
    return filename.lower().endswith(IMAGE_ENDINGS) and 0 < length <= MAX_IMAGE_BYTES


class FileList:
    """A table of files, and small pictures of those that are images.

    Args:
        caption: What it lists.
        answers: The catalog.
    """

    def __init__(self, caption: str, answers: Answers) -> None:
        self._answers = answers
        self._note = node("p", "", "note")
        self._table_place = node("div")
        with self._table_place:
            self._table = LiveTable(caption)
        self._pictures: Any = node("div", None, "thumbnails")
        self._shown: tuple[str, ...] = ()

    def show(self, assets: Sequence[Asset]) -> None:
        """Show these files; an empty list shows nothing."""
        self._table_place.set_visibility(bool(assets))
        columns = [
            Column("name", "Name"),
            Column("size", "Size", is_number=True),
            Column("table", "Table"),
            Column("download", "Download"),
            Column("types", "Types"),
        ]
        self._table.show(columns, [TableRow(asset.rid, _file_cells(asset)) for asset in assets[:MAX_FILES]])
        more = len(assets) - MAX_FILES
        self._note.text = f"The first {MAX_FILES} of {len(assets):,} files." if more > 0 else ""
        images = tuple(asset for asset in assets if looks_like_image(asset.filename, asset.length))[:MAX_THUMBNAILS]
        if self._shown != tuple(asset.rid for asset in images):
            self._shown = tuple(asset.rid for asset in images)
            self._pictures.clear()
            with self._pictures:
                add_thumbnails((asset.rid, asset.filename) for asset in images)


def _file_cells(asset: Asset) -> tuple[Cell, ...]:
    types = ", ".join(each for each in asset.asset_types if each != asset.table)
    return (
        Cell(asset.filename or asset.rid, asset_address(asset.rid), title=f"MD5 {asset.md5}"),
        Cell(format_size(asset.length)),
        Cell(asset.table),
        Cell("Download", file_address(asset.rid)),
        Cell(types),
    )


def add_thumbnails(images: Iterable[tuple[str, str]]) -> None:
    """Add small pictures that lead to the pages of their assets.

    Args:
        images: The RID and the file name of each.
    """
    for rid, filename in images:
        name = clean(filename)
        with node("a", None, "thumbnail", href=asset_address(rid), title=name):
            node("img", None, src=file_address(rid, as_image=True), alt="", loading="lazy")
            node("span", filename)


async def show_preview(answers: Answers, asset: Asset, place: Any) -> None:
    """Show what can be shown of a file in an element.

    Args:
        answers: The catalog.
        asset: The file.
        place: The element; its content is replaced.
    """
    try:
        preview = await answers.fetch(lambda ml: load_preview(ml, asset))
    except (DerivaMLException, OSError) as error:
        preview = Preview("error", str(error))
    place.clear()
    with place:
        if preview.kind == "image":
            node("img", None, "full", src=file_address(asset.rid, as_image=True), alt=clean(asset.filename))
        elif preview.kind == "error":
            node("p", preview.text, "message", role="alert")
        elif preview.kind == "none":
            node("p", "There is no preview of this kind of file. Download it.", "note")
        elif asset.filename.endswith((".patch", ".diff")):
            add_diff(preview.text)
        else:
            add_text_block(preview.text, asset.filename)
        if preview.is_cut:
            node("p", "Only the beginning is shown. Download the file for the rest.", "note")


def add_text_block(text: str, name: str) -> None:
    """Add a text of several lines that can be scrolled."""
    block: Any = node("pre", None, "text", tabindex="0", role="region", aria_label=clean(name))
    block.text = visible_text(text)


def visible_text(text: str) -> str:
    """Return a text with escapes for control characters other than line breaks and tabs."""
    return "\n".join("\t".join(map(clean, line.split("\t"))) for line in text.splitlines())


def add_diff(text: str) -> None:
    """Add the text of a patch, with added and removed lines marked."""
    lines = text.splitlines()
    with node("pre", None, "text diff", tabindex="0", role="region", aria_label="Uncommitted changes"):
        for line in lines[:MAX_DIFF_LINES]:
            is_header = line.startswith(("+++", "---", "diff ", "@@"))
            kind = "file" if is_header else {"+": "added", "-": "removed"}.get(line[:1], "")
            span: Any = node("span", None, kind)
            span.text = visible_text(line) + "\n"
    if len(lines) > MAX_DIFF_LINES:
        node("p", f"The first {MAX_DIFF_LINES:,} of {len(lines):,} lines are shown.", "note")


def add_asset_page(answers: Answers, rid: str) -> LiveView[Any]:
    """Add everything that is recorded about an asset, and return what loads it."""
    view: LiveView[Any] = LiveView(answers, ("describe", rid), lambda ml: ml.describe(rid), is_live=lambda _: False)

    def show(description: Any) -> None:
        view.content.clear()
        if not isinstance(description, AssetDescription):
            node("p", f"{clean(rid)} is no asset.", "message", role="alert")
            return
        asset = description.asset
        with node("dl", None, "facts"):
            node("dt", "RID")
            with node("dd"):
                add_rid(asset.rid)
            for name, value in (
                ("Table", asset.table),
                ("Types", ", ".join(asset.asset_types)),
                ("Size", format_size(asset.length)),
                ("MD5", asset.md5),
                ("Created", f"{format_time(parse_time(description.created))} UTC" if description.created else ""),
                *((name, str(value)) for name, value in asset.metadata.items()),
            ):
                if value:
                    node("dt", name)
                    node("dd", value)
            node("dt", "File")
            with node("dd"):
                add_link("Download", file_address(asset.rid))
            node("dt", "Shell")
            with node("dd"):
                add_command(f"deriva-ml download {asset.rid}")
        with add_section("Runs", "runs"):
            add_uses(description)
        with add_section("Lineage", "lineage"):
            node("a", "Show what it was made from and what used it", href=address(f"/lineage/{asset.rid}"))
        with add_section("Preview", "preview"):
            place = node("div")
            with place:
                node("p", "Loading…", "waiting")
        ui.timer(0, lambda: show_preview(answers, asset, place), once=True)

    view.on_answer(show)
    return view


def add_uses(description: AssetDescription) -> None:
    """Add the runs that produced or used an asset."""
    if not description.uses:
        node("p", "No run produced or used it.", "note")
        return
    with node("ul"):
        for use in description.uses:
            with node("li"):
                node("span", "Produced by " if use.role == "Output" else "Used by ")
                add_link(use.execution.rid, run_address(use.execution.rid))
                node("span", f" {use.execution.description}")


def add_command(command: str) -> None:
    """Add a command line with a button that copies it."""
    node("code", command)
    add_copy_button(command, "the command")
