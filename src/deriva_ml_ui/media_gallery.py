"""Images, figures and tables that a run logged, each with a slider over its steps."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import islice
from typing import Any

from nicegui import ui

from deriva_ml_core._text import format_count
from deriva_ml_core.errors import DerivaMLException
from deriva_ml_core.models import Asset, MediaFile
from deriva_ml_ui.answers import Answers
from deriva_ml_ui.file_list import asset_address
from deriva_ml_ui.page_parts import Cell, Column, LiveTable, TableRow, add_link, clean, node
from deriva_ml_ui.stored_files import file_address, load_preview

__all__ = ["MediaGallery", "describe_position", "group_media", "read_table"]

MAX_NAMES = 24
MAX_TABLE_ROWS, MAX_TABLE_COLUMNS = 20, 12
EMIT_NUMBER = "(event) => emit(Number(event.target.value))"


def group_media(media: Sequence[MediaFile]) -> dict[tuple[str, str], list[MediaFile]]:
    """Return the uploaded files by kind and name, in the order in which they were logged."""
    groups: dict[tuple[str, str], list[MediaFile]] = {}
    for each in media:
        if each.asset is not None:
            groups.setdefault((each.kind, each.name), []).append(each)
    return groups


def describe_position(media: MediaFile) -> str:
    """Return when a file was logged: fit, epoch and step, as far as they are known."""
    parts = (("fit", media.fit), ("epoch", media.epoch), ("step", media.step))
    return ", ".join(f"{name} {number}" for name, number in parts if number is not None)


def read_table(text: str) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the first rows of a table that was logged; empty if it is none."""
    try:
        first = islice(csv.reader(text.splitlines()), MAX_TABLE_ROWS + 1)
        rows = [row[:MAX_TABLE_COLUMNS] for row in first]
    except csv.Error:
        return [], []
    return (rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]) if rows else ([], [])


class MediaGallery:
    """What a run logged in addition to numbers.

    Args:
        answers: The catalog.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._note = node("p", "", "note")
        self._place = node("div", None, "panels")
        self._views: dict[tuple[str, str], _MediaView] = {}

    def show(self, media: Sequence[MediaFile]) -> None:
        """Show these files."""
        groups = group_media(media)
        waiting = sum(each.asset is None for each in media)
        notes = [f"{format_count(waiting, 'file')} not uploaded yet."] if waiting else []
        notes += [f"The first {MAX_NAMES} of {len(groups):,} names."] if len(groups) > MAX_NAMES else []
        self._note.say(" ".join(notes))
        for key in list(groups)[:MAX_NAMES]:
            if key not in self._views:
                with self._place:
                    self._views[key] = _MediaView(self._answers, *key)
            self._views[key].show(groups[key])


class _MediaView:
    """The files of one name. The newest is shown until a person moves the slider."""

    def __init__(self, answers: Answers, kind: str, name: str) -> None:
        self._answers = answers
        self._files: list[MediaFile] = []
        self._shown: MediaFile | None = None
        self._is_moved = False
        with node("figure", None, "panel", aria_label=f"{kind.capitalize()} {clean(name)}"):
            node("figcaption", name)
            self._slider = node("input", type="range", min="0", max="0", value="0", aria_label=f"Step of {clean(name)}")
            self._position = node("p", "", "note", role="status")
            self._place = node("div", None, "media")
        self._slider.on("input", self._move, js_handler=EMIT_NUMBER, throttle=0.15)

    def show(self, files: Sequence[MediaFile]) -> None:
        self._files = list(files)
        self._slider.set_visibility(len(files) > 1)
        self._slider.props["max"] = str(len(files) - 1)
        if not self._is_moved:
            self._slider.props["value"] = str(len(files) - 1)
            self._select(len(files) - 1)

    def _move(self, event: Any) -> None:
        if isinstance(event.args, int | float) and 0 <= event.args < len(self._files):
            self._is_moved = True
            self._select(int(event.args))

    def _select(self, number: int) -> None:
        media = self._files[number]
        if media == self._shown or media.asset is None:
            return
        self._shown, asset = media, media.asset
        self._position.say(describe_position(media))
        self._place.clear()
        with self._place:
            if media.filename.lower().endswith(".png"):
                alt = f"{media.name}, {describe_position(media)}"
                with node("a", None, href=asset_address(asset.rid)):
                    node("img", None, "full", src=file_address(asset.rid, as_image=True), alt=clean(alt))
            elif media.kind == "table":
                place = self._place
                ui.timer(0, lambda: self._show_table(asset, place), once=True)
            else:
                add_link(media.filename, asset_address(asset.rid))

    async def _show_table(self, asset: Asset, place: Any) -> None:
        try:
            preview = await self._answers.fetch(lambda ml: load_preview(ml, asset))
        except (DerivaMLException, OSError) as error:
            with place:
                node("p", error, "message", role="alert")
            return
        if self._shown is None or self._shown.asset != asset:  # the slider was moved meanwhile
            return
        titles, rows = read_table(preview.text)
        place.clear()
        with place:
            columns = [Column(str(number), title) for number, title in enumerate(titles)]
            cells = [TableRow(str(number), tuple(Cell(clean(text)) for text in row)) for number, row in enumerate(rows)]
            LiveTable(asset.filename).show(columns, cells)
            add_link("The whole table", asset_address(asset.rid))
