"""The code blocks of a page written in Markdown."""

from __future__ import annotations

import re
from pathlib import Path

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


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
    return [code for found, code in _BLOCK.findall(text) if found == language]


def _hidden(text: str) -> str:
    """The page with the ``#`` of its code blocks out of the way of its headings."""
    return _BLOCK.sub(lambda block: block[0].replace("#", "\0"), text)
