"""The code blocks of a page written in Markdown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r'^```(\w*)(?: title="([^"\n]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """What stands between two lines of three backquotes.

    Args:
        language: What stands after the first three; empty for what is only shown.
        title: The file that it is; empty for most.
        code: The lines between.
    """

    language: str
    title: str
    code: str


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    return [Block(*found) for found in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def code_blocks(page: Path, language: str, section: str | None = None) -> list[str]:
    """The blocks of one language in a page, in order.

    Args:
        page: The page.
        language: What stands after the three backquotes.
        section: Only those under this heading, given without its ``#``.
    """
    text = page.read_text(encoding="utf-8")
    if section is not None:
        (text,) = re.findall(rf"^#+ {re.escape(section)}\n(.*?)(?=^#+ |\Z)", _hidden(text), re.MULTILINE | re.DOTALL)
        text = text.replace("\0", "#")
    return [code for found, _, code in _BLOCK.findall(text) if found == language]


def _hidden(text: str) -> str:
    """The page with the ``#`` of its code blocks out of the way of its headings."""
    return _BLOCK.sub(lambda block: block[0].replace("#", "\0"), text)
