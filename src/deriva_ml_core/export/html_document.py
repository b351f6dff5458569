"""A page of HTML in one file, without scripts and references. A text is escaped unless it is `Html`."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from html import escape

from deriva_ml_core._text import escape_control_characters, escape_surrogates, format_number, sanitize_line
from deriva_ml_core.definitions import status_traits

__all__ = [
    "Html",
    "render_badge",
    "render_details",
    "render_document",
    "render_image",
    "render_link",
    "render_preformatted",
    "render_section",
    "render_table",
    "render_text",
]

MAX_CELL_LENGTH = 400
"""Maximum characters of a cell."""

STYLE = """
:root{color-scheme:light dark;--line:#8883;--faint:#8881}
body{font:14px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1080px;padding:16px 20px;overflow-wrap:break-word}
h1{font-size:22px;margin:8px 0}h2{font-size:17px;margin:28px 0 8px;border-bottom:1px solid var(--line)}
h3{font-size:14px;margin:16px 0 4px}
table{border-collapse:collapse;margin:4px 0;max-width:100%}
td,th{text-align:left;vertical-align:top;padding:3px 14px 3px 0;border-bottom:1px solid var(--line)}
th{font-weight:600;white-space:nowrap}td{max-width:36em}td.number{font-variant-numeric:tabular-nums}
tbody th{font-weight:400;opacity:.7}
.wide{overflow-x:auto}.note{opacity:.7}
.badge{color:#fff;white-space:nowrap;border-radius:10px;padding:1px 9px;font-size:13px}
.grid{display:flex;flex-wrap:wrap;gap:12px}.grid figure{margin:0;max-width:320px}
figure img{max-width:320px;max-height:320px;border:1px solid var(--line);background:#fff;image-rendering:auto}
figcaption{font-size:12px;opacity:.7}
svg{max-width:100%;height:auto}
pre{background:var(--faint);padding:10px;overflow-x:auto;font:12px/1.45 ui-monospace,monospace;overflow-wrap:normal}
details{margin:8px 0;border:1px solid var(--line);border-radius:6px;padding:6px 12px}summary{cursor:pointer}
@media print{details{break-inside:avoid}body{max-width:none}}
""" + "\n".join(
    f".status-{name}{{background:{status_traits(name).html_colour}}}"
    for name in ("Created", "Initializing", "Pending", "Running", "Completed", "Failed", "Aborted")
)

POLICY = "default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
"""What the page may do: show images that are part of it, and use its own style sheet."""


class Html(str):
    """HTML whose texts are escaped."""

    __slots__ = ()


def render_text(value: object) -> Html:
    """Return a value as one line of text; `Html` stays as it is."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html("")
    text = format_number(value) if isinstance(value, float) else sanitize_line(value)
    text = text if len(text) <= MAX_CELL_LENGTH else f"{text[: MAX_CELL_LENGTH - 1]}…"
    return Html(escape(escape_surrogates(text)))


def render_link(text: object, url: str) -> Html:
    """Return a text that leads to a web page, or the text alone if the URL is none."""
    if not url.startswith("https://"):
        return render_text(text)
    return Html(f'<a href="{escape(sanitize_line(url))}" rel="noopener noreferrer">{render_text(text)}</a>')


def render_badge(status: object) -> Html:
    """Return a status in its colour."""
    text = render_text(str(status))
    name = text if text.isalpha() else ""
    return Html(f'<span class="badge status-{name}">{text}</span>')


def render_preformatted(text: str) -> Html:
    """Return a text of several lines as it is."""
    return Html(f"<pre>{escape(escape_surrogates(escape_control_characters(text)))}</pre>")


def render_image(content: bytes, media_type: str, name: object, caption: object = "") -> Html:
    """Return an image that is part of the page."""
    source = f"data:{media_type};base64,{b64encode(content).decode()}"
    image = f'<img src="{source}" alt="{render_text(name)}">'
    return Html(f"<figure>{image}<figcaption>{render_text(caption)}</figcaption></figure>")


def render_table(rows: Iterable[Sequence[object]], header: Sequence[object] = ()) -> Html:
    """Return a table. Without a header, the first cell of each row names the row.

    Args:
        rows: The cells of each row.
        header: Names of the columns.
    """
    lines = []
    for row in rows:
        cells = [_render_cell(cell, "td" if header or number else "th") for number, cell in enumerate(row)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    if not lines:
        return Html("")
    head = "".join(f"<th>{render_text(name)}</th>" for name in header)
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    return Html(f'<div class="wide"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>')


def _render_cell(cell: object, tag: str) -> str:
    is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
    attribute = ' class="number"' if is_number else ""
    return f"<{tag}{attribute}>{render_text(cell)}</{tag}>"


def render_section(title: str, parts: Iterable[Html], level: int = 2) -> Html:
    """Return parts below a heading; nothing if all of them are empty."""
    content = "".join(parts)
    return Html(f"<h{level}>{render_text(title)}</h{level}>{content}" if content else "")


def render_details(summary: object, content: Html, *, is_open: bool = False) -> Html:
    """Return content that a reader can open; nothing if it is empty."""
    opened = " open" if is_open else ""
    return Html(f"<details{opened}><summary>{render_text(summary)}</summary>{content}</details>" if content else "")


def render_document(title: str, body: Iterable[Html], attributes: Mapping[str, str] | None = None) -> str:
    """Return the page.

    Args:
        title: Title of the page.
        body: Its parts.
        attributes: Names and contents of further meta elements.
    """
    policy = POLICY.format(digest=b64encode(sha256(STYLE.encode()).digest()).decode())
    metas = "".join(
        f'<meta name="{render_text(name)}" content="{render_text(content)}">'
        for name, content in (attributes or {}).items()
    )
    content = "\n".join(part for part in body if part)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="referrer" content="no-referrer">{metas}<title>{render_text(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{content}\n</body></html>\n"
    )
