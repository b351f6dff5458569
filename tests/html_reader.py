"""Reads the HTML of representations: the texts, and whether it is well-formed and harmless."""

from __future__ import annotations

from html.parser import HTMLParser

__all__ = ["text_of"]

HTML_TAGS = {"div", "b", "span", "table", "tr", "td", "br", "a", "img"}
SVG_TAGS = {"svg", "g", "title", "rect", "circle", "path", "polyline", "line", "text", "tspan"}
EMPTY_TAGS = {"br", "img"}


class _Reader(HTMLParser):
    """Collects the text of a page; every tag must be closed."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in EMPTY_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.parts.append(data.strip())


def text_of(html: str, *, allow_svg: bool = False) -> list[str]:
    """Return the texts of the HTML, and check that it is well-formed and has no scripts and style sheets."""
    reader = _Reader()
    reader.feed(html)
    assert reader.open == []
    assert reader.tags <= HTML_TAGS | (SVG_TAGS if allow_svg else set())
    return [part for part in reader.parts if part]
