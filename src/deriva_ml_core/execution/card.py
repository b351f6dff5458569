"""What a notebook shows of an execution: one compact card of HTML, whatever state it and its catalog are in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any, Protocol, TypeVar

from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable, Role, Status
from deriva_ml_core.journal.story import JOURNAL, FileStory, Story
from deriva_ml_core.models import Asset, DatasetSpec, UploadOptions

__all__ = ["card"]

CURVES_FILE, CURVES_TYPE = "training_curves.png", "Training_Curves"
FIRST = frozenset({"Best_Checkpoint", "Last_Checkpoint"})
"""Types of what is listed before all others."""

LARGEST_PICTURE = 512 * 2**10
"""In bytes: a notebook keeps what it shows."""

LISTED = 10
LONGEST_NAME, LONGEST_TEXT = 100, 600
"""In letters."""

COLOURS: Mapping[Status, str] = {
    Status.running: "#0969da",
    Status.completed: "#1a7f37",
    Status.failed: "#cf222e",
    Status.aborted: "#9a6700",
}
OTHER_COLOUR, LINE = "#6e7781", "1px solid rgba(127,127,127,.35)"
FRAME = (
    f"border:{LINE};border-radius:6px;padding:10px 14px;margin:2px 0;max-width:960px;font-size:13px;line-height:1.5;"
    "text-align:left;overflow-x:auto"
)
CELL = "text-align:left;vertical-align:top;padding:1px 14px 1px 0;background:none;border:0;font-size:13px"

T = TypeVar("T")

log = logging.getLogger(__name__)


class Shown(Protocol):
    """What a card is made of; a recorded and a live execution are such."""

    @property
    def connection(self) -> Connection: ...
    @property
    def execution_rid(self) -> RID: ...
    @property
    def workflow_rid(self) -> RID | None: ...
    @property
    def description(self) -> str: ...
    @property
    def working_dir(self) -> Path: ...
    @property
    def status(self) -> Status: ...
    @property
    def status_detail(self) -> str: ...
    @property
    def duration(self) -> str | None: ...
    @property
    def created(self) -> datetime | None: ...
    @property
    def url(self) -> str: ...

    def list_assets(self) -> list[Asset]: ...
    def list_input_datasets(self) -> list[DatasetSpec]: ...


def card(execution: Shown, story: Callable[[], Story]) -> str:
    """The HTML of an execution's card: no script, no style sheet, every text escaped; it never raises.

    Args:
        execution: Which one.
        story: Reads its journal, here or from the catalog.
    """
    try:
        return _card(execution, story)
    except Exception as error:
        log.debug("No card of the execution could be made.", exc_info=True)
        return f'<div style="{FRAME}">Execution: {escape(_cut(f"{type(error).__name__}: {error}", LONGEST_TEXT))}</div>'


@dataclass
class _Catalog:
    """Asks a catalog until it does not answer, and then no more, so that nobody waits for it twice."""

    trouble: str = ""

    def ask(self, question: Callable[[], T], otherwise: T) -> T:
        if self.trouble:
            return otherwise
        try:
            return question()
        except Exception as error:  # noqa: BLE001 - the card says so
            self.trouble = f"{type(error).__name__}: {error}"
            return otherwise


@dataclass(frozen=True)
class _File:
    name: str
    types: tuple[str, ...]
    size: int | None
    md5: str
    waits: bool = False


@dataclass(frozen=True)
class _Contents:
    """What went in, what came out, and the picture."""

    inputs: Sequence[str] = ()
    outputs: Sequence[_File] = ()
    records: Sequence[str] = ()
    picture: bytes = b""
    workflow: Mapping[str, Any] = field(default_factory=dict)


def _card(execution: Shown, story: Callable[[], Story]) -> str:
    catalog = _Catalog()
    told = catalog.ask(story, Story())
    contents = _gathered(execution, told, catalog)
    rows = [
        ("Workflow", _workflow(execution.workflow_rid, contents.workflow)),
        ("Inputs", _listed(map(escape, contents.inputs))),
        ("Outputs", _table(contents.outputs)),
        ("Records", _listed(map(escape, contents.records)) if contents.records else ""),
    ]
    parts = [_head(execution, told), *_words(execution)]
    body = "".join(
        f"<tr style='background:none'>{_cell(_faint(name))}{_cell(html)}</tr>" for name, html in rows if html
    )
    parts.append(f'<table style="border-collapse:collapse;margin:6px 0 0 0">{body}</table>')
    if catalog.trouble:
        text = _cut(catalog.trouble, LONGEST_TEXT)
        parts.append(f"<div>The catalog cannot be read now, so this may not be all: {escape(text)}</div>")
    if contents.picture:
        parts.append(_image(contents.picture))
    return f'<div style="{FRAME}">{"".join(parts)}</div>'


# What there is to tell


def _gathered(execution: Shown, story: Story, catalog: _Catalog) -> _Contents:
    found = execution.connection.catalog
    workflow: list[dict[str, Any]] = []
    if (rid := execution.workflow_rid) is not None:
        workflow = catalog.ask(lambda: found.select(MLTable.workflow, {"RID": rid}), [])
    datasets = catalog.ask(execution.list_input_datasets, list(story.datasets.values()))
    assets = catalog.ask(execution.list_assets, None)
    own = {file.rid for file in story.files.values() if file.asset.record}
    inputs = [f"Dataset {spec.rid}{f', version {spec.version}' if spec.version else ''}" for spec in datasets]
    if assets is None:  # what the journal tells will do
        inputs += story.assets
        sent = [_of_journal(file) for file in story.files.values() if file.rid is not None and file.rid not in own]
        records = [file.asset.filename for file in story.files.values() if file.asset.record]
    else:
        inputs += [f"{_cut(each.filename)} ({each.table} {each.rid})" for each in assets if each.role == Role.input]
        outputs = [each for each in assets if each.role != Role.input]
        of_run = [each for each in outputs if each.rid in own or each.filename == JOURNAL]
        sent = [_of_catalog(each) for each in outputs if each not in of_run]
        records = [each.filename for each in of_run]
    waiting = [_of_journal(file) for file in story.open_files() if not file.asset.record]
    sent.sort(key=lambda file: FIRST.isdisjoint(file.types))
    picture = _picture(execution, story, [] if assets is None else assets)
    return _Contents(inputs, [*waiting, *sent], list(dict.fromkeys(records)), picture, dict(*workflow))


def _of_catalog(asset: Asset) -> _File:
    return _File(asset.filename, asset.asset_types, asset.length, asset.md5)


def _of_journal(file: FileStory) -> _File:
    asset, stored = file.asset, file.stored
    if stored is not None:
        return _File(asset.filename, asset.asset_types, stored.length, stored.md5, waits=file.rid is None)
    try:
        size = asset.path.stat().st_size
    except OSError:  # not written yet
        size = None
    return _File(asset.filename, asset.asset_types, size, "", waits=True)


def _picture(execution: Shown, story: Story, assets: Sequence[Asset]) -> bytes:
    """The newest curves: staged, in the working folder, or in the store; empty where there are none that fit."""
    staged = [file.asset.path for file in story.open_files() if file.asset.filename == CURVES_FILE]
    for file in (*reversed(staged), execution.working_dir / CURVES_FILE):
        if content := _png(file):
            return content
    stored = [each for each in assets if CURVES_TYPE in each.asset_types or each.filename == CURVES_FILE]
    try:
        return _fetched(execution.connection, stored[-1]) if stored else b""
    except Exception:
        log.debug("The curves could not be fetched.", exc_info=True)
        return b""


def _fetched(connection: Connection, asset: Asset) -> bytes:
    import tempfile

    if asset.length > LARGEST_PICTURE:
        return b""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / CURVES_FILE
        connection.store.get(asset.url, file, length=asset.length, md5=asset.md5, options=UploadOptions())
        return _png(file)


def _png(file: Path) -> bytes:
    try:
        content = file.read_bytes() if file.stat().st_size <= LARGEST_PICTURE else b""
    except OSError:
        return b""
    return content if content.startswith(b"\x89PNG\r\n\x1a\n") else b""


# How it looks


def _head(execution: Shown, story: Story) -> str:
    status = execution.status
    colour = COLOURS.get(status, OTHER_COLOUR)
    badge = f'<span style="background:{colour};color:#fff;border-radius:10px;padding:1px 9px">{escape(status)}</span>'
    name = _linked(f"Execution {execution.execution_rid}", execution.url)
    since = story.start or execution.created
    times = [f"{since.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if since else "", _took(execution, story)]
    return f"<div><b>{name}</b> &nbsp;{badge} &nbsp;{_faint(escape(' · '.join(filter(None, times))))}</div>"


def _words(execution: Shown) -> Iterable[str]:
    for text in (execution.description, execution.status_detail):
        if text:
            yield f'<div style="white-space:pre-wrap">{escape(_cut(text, LONGEST_TEXT))}</div>'


def _took(execution: Shown, story: Story) -> str:
    """How long it ran, or runs by now."""
    ended = execution.status.ended
    if story.start is None or (ended and story.begun is not None):  # it died, nobody knows when
        return execution.duration or ""
    goes_on = timedelta() if story.begun is None else datetime.now(UTC) - story.begun
    return f"{'' if ended else 'for '}{_length(story.spent + goes_on)}"


def _length(spent: timedelta) -> str:
    seconds = spent.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = divmod(round(seconds), 60), divmod(round(seconds / 60), 60)
    return f"{minutes[0]} min {minutes[1]} s" if seconds < 3600 else f"{hours[0]} h {hours[1]} min"


def _workflow(rid: RID | None, row: Mapping[str, Any]) -> str:
    if rid is None:
        return ""
    name = _linked(_cut(row.get("Name") or f"Workflow {rid}"), row.get("URL") or "")
    return name + _faint(escape(f" {row['Version']}" if row.get("Version") else ""))


def _table(files: Sequence[_File]) -> str:
    if not files:
        return _faint("none")
    rows = [_row(file) for file in files[:LISTED]]
    more = _faint(f"and {len(files) - LISTED} more") if len(files) > LISTED else ""
    return f'<table style="border-collapse:collapse;margin:0">{"".join(rows)}</table>{more}'


def _row(file: _File) -> str:
    types, sum_ = escape(_cut(", ".join(file.types))), "waits" if file.waits else escape(file.md5[:8])
    cells = (escape(_cut(file.name)), _faint(types), _size(file.size), _faint(sum_))
    return f'<tr style="background:none">{"".join(map(_cell, cells))}</tr>'


def _listed(lines: Iterable[str]) -> str:
    """Lines of HTML, the first ten of them."""
    given = list(lines)
    more = [_faint(f"and {len(given) - LISTED} more")] if len(given) > LISTED else []
    return "<br>".join([*given[:LISTED], *more]) or _faint("none")


def _image(content: bytes) -> str:
    from base64 import b64encode

    style = "max-width:100%;margin-top:8px;background:#fff;border-radius:4px"
    return f'<img alt="Training curves" style="{style}" src="data:image/png;base64,{b64encode(content).decode()}">'


def _linked(text: str, url: str) -> str:
    """A text, as a link where the URL is a page on the web."""
    if not url.startswith("https://"):
        return escape(text)
    return f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{escape(text)}</a>'


def _cell(html: str) -> str:
    return f'<td style="{CELL}">{html}</td>'


def _faint(html: str) -> str:
    return f'<span style="opacity:.65">{html}</span>' if html else ""


def _cut(text: str, most: int = LONGEST_NAME) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _size(size: int | None) -> str:
    """Bytes as people say them: ``12.3 MiB``."""
    if size is None:
        return _faint("not written")
    number, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1000 and len(units) > 1:
        number, units = number / 1024, units[1:]
    return f"{number:.1f} {units[0]}" if units[0] != "B" else f"{size} B"
