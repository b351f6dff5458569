"""Code blocks of a Markdown page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r'^```(\w*)(?: title="([^"\n]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Args:
        language: Language after the opening fence. Empty for output.
        title: File name of the block. Empty for most blocks.
        code: The lines of the block.
    """

    language: str
    title: str
    code: str


def blocks(page: Path) -> list[Block]:
    """Return all blocks of a page, in order."""
    return [Block(*groups) for groups in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def code_blocks(page: Path, language: str, section: str | None = None) -> list[str]:
    """Return the blocks of one language, in order.

    Args:
        page: The page.
        language: Language after the opening fence.
        section: Heading without its ``#``, to return only the blocks below it.
    """
    text = page.read_text(encoding="utf-8")
    if section is not None:
        (text,) = re.findall(
            rf"^#+ {re.escape(section)}\n(.*?)(?=^#+ |\Z)", _mask_hashes(text), re.MULTILINE | re.DOTALL
        )
        text = text.replace("\0", "#")
    return [code for found_language, _, code in _BLOCK.findall(text) if found_language == language]


def _mask_hashes(text: str) -> str:
    """Replace the ``#`` in code blocks, which would look like headings."""
    return _BLOCK.sub(lambda block: block[0].replace("#", "\0"), text)
