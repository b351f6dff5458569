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
        language: The language after the opening fence; empty for a block that is only displayed.
        title: The file that the block shows; empty for most blocks.
        code: The lines between the fences.
    """

    language: str
    title: str
    code: str


def blocks(page: Path) -> list[Block]:
    """Return all blocks of a page, in order."""
    return [Block(*match) for match in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def code_blocks(page: Path, language: str, section: str | None = None) -> list[str]:
    """Return the code of a page's blocks in one language, in order.

    Args:
        page: The page.
        language: The language after the opening fence.
        section: Return only the blocks under this heading, which is passed without its ``#``.
    """
    text = page.read_text(encoding="utf-8")
    if section is not None:
        masked = _mask_comments(text)
        (text,) = re.findall(rf"^#+ {re.escape(section)}\n(.*?)(?=^#+ |\Z)", masked, re.MULTILINE | re.DOTALL)
        text = text.replace("\0", "#")
    return [code for block_language, _, code in _BLOCK.findall(text) if block_language == language]


def split_console(code: str) -> tuple[list[str], str]:
    """Split a ``console`` block into its commands and the output that it shows.

    A command follows ``$ ``; every other line is output.
    """
    lines = code.splitlines()
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return commands, "\n".join(line for line in lines if not line.startswith("$ "))


def _mask_comments(text: str) -> str:
    """Replace ``#`` in code blocks, so that a comment does not look like a heading."""
    return _BLOCK.sub(lambda match: match[0].replace("#", "\0"), text)
