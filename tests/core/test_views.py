"""What answers show: escaped and bounded HTML in notebooks, and escaped text on terminals."""

from __future__ import annotations

from deriva_ml_core._views import Badge, Grid, Link, Picture, Presentable, View, image_html
from html_reader import text_of

EVIL = "<script>alert('x')</script>\x1b[31m"
SHOWN = "<script>alert('x')</script>\\x1b[31m"


class Answer(Presentable):
    """An answer with a fixed view."""

    def __init__(self, view: View) -> None:
        self.view = view

    def _view(self) -> View:
        return self.view


def terminal_text(answer: object, width: int = 400) -> str:
    """Return what rich prints on a terminal with colours."""
    from io import StringIO

    from rich.console import Console

    screen = StringIO()
    Console(file=screen, width=width, force_terminal=True, color_system=None, legacy_windows=False).print(answer)
    return screen.getvalue()


def test_texts_are_escaped() -> None:
    """Markup, control characters and rich's markup are shown as text, wherever they are."""
    answer = Answer(View(EVIL, [EVIL, Grid([[EVIL, Link(EVIL, EVIL), Badge(EVIL)]], (EVIL, "", ""), EVIL)], note=EVIL))
    html = answer._repr_html_()
    texts = text_of(html)
    assert texts.count(SHOWN) == 8
    assert "<script" not in html and "href" not in html and "\x1b" not in html
    printed = terminal_text(answer)
    assert printed.count(SHOWN) == 8
    assert "\x1b[31m" not in printed
    assert "[bold]x" in terminal_text(Answer(View("[bold]x", [Grid([["[red]y"]])])))


def test_links_lead_to_web_pages_only() -> None:
    """Only an https URL is a link, and it opens another page."""
    html = Answer(View(Link("page", 'https://example.org/?a="b"')))._repr_html_()
    assert 'href="https://example.org/?a=&quot;b&quot;" target="_blank" rel="noopener noreferrer"' in html
    for url in ("javascript:alert(1)", "http://example.org", "data:text/html,x", ""):
        assert "href" not in Answer(View(Link("page", url)))._repr_html_()


def test_tables_are_bounded() -> None:
    """Rows beyond 100 and columns beyond 30 are counted, and long texts are cut."""
    rows = [["x" * 300, *("y" for _ in range(99))] for _ in range(250)]
    html = Answer(View("t", [Grid(rows, omitted=50)]))._repr_html_()
    texts = text_of(html)
    assert texts.count("x" * 99 + "…") == 100
    assert texts.count("y") == 100 * 29
    assert "and 200 more, 70 more columns" in texts
    assert "and 200 more, 70 more columns" in terminal_text(Answer(View("t", [Grid(rows, omitted=50)])))


def test_values() -> None:
    """Numbers have four digits, and nothing is an empty cell."""
    assert text_of(Answer(View("t", [Grid([[0.123456, None, 3, True]])]))._repr_html_()) == [
        "t",
        "0.1235",
        "3",
        "True",
    ]


class Failing(Presentable):
    """An answer that cannot be read."""

    def _view(self) -> View:
        raise OSError("<b>gone</b>")


def test_failure_is_shown() -> None:
    """A representation never raises; it says what is wrong."""
    assert text_of(Failing()._repr_html_()) == ["Failing", "OSError: <b>gone</b>"]
    assert "OSError: <b>gone</b>" in terminal_text(Failing())


def test_images() -> None:
    """Raster images are embedded with the type of their bytes; SVG and others are not."""
    assert 'src="data:image/png;base64,iVBORw0KGgp4"' in image_html(b"\x89PNG\r\n\x1a\nx", "a")
    assert "image/jpeg" in image_html(b"\xff\xd8\xffx", "a")
    assert "image/webp" in image_html(b"RIFF0000WEBP", "a")
    assert 'alt="&quot;onerror=1"' in image_html(b"GIF89a", '"onerror=1')
    assert image_html(b"<svg onload=alert(1)>", "a") == image_html(b"", "a") == ""


def test_picture_on_a_terminal() -> None:
    """A terminal shows the text of a picture, not its HTML."""
    printed = terminal_text(Answer(View("t", [Picture("<svg></svg>", "a -> b")])))
    assert "a -> b" in printed
    assert "svg" not in printed
