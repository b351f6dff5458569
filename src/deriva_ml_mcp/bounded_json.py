"""Values as JSON of a bounded size: what is left out is named."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import JsonValue

from deriva_ml_core._text import escape_control_characters, escape_surrogates
from deriva_ml_mcp.answer_models import Cut

__all__ = ["MAX_ANSWER_CHARACTERS", "fit", "take"]

MAX_ANSWER_CHARACTERS = 30_000
"""Characters of an answer's data as JSON: what a model reads at once, and remembers what it asked for."""

LEVELS = ((50, 1000), (20, 300), (8, 120), (3, 60), (1, 30))
"""Maximum items of a list or object and maximum characters of a text, the next pair if an answer is still too long."""

MAX_DEPTH = 12
MAX_CUTS = 20
"""Maximum number of places that an answer names as cut; the others are counted."""

MAX_INTEGER = 2**53
"""Integers beyond this are texts, since JSON of other languages loses their digits."""


def fit(value: object, max_characters: int = MAX_ANSWER_CHARACTERS) -> tuple[JsonValue, list[Cut]]:
    """Return a value as JSON of at most this many characters, and what was left out of it."""
    result: tuple[JsonValue, list[Cut]] = None, []
    for max_items, max_text in LEVELS:
        places: list[Cut] = []
        result = _bound(value, "", max_items, max_text, places), places
        if _size(result[0]) <= max_characters:
            break
    cuts = sorted(result[1], key=lambda cut: cut.path.count(".") + cut.path.count("["))  # the outer places first
    if len(cuts) > MAX_CUTS:
        cuts = [*cuts[:MAX_CUTS], Cut(path="and more places", left_out=len(cuts) - MAX_CUTS)]
    return result[0], cuts


def take(
    items: Sequence[object], offset: int, max_characters: int = MAX_ANSWER_CHARACTERS, max_items: int = 500
) -> tuple[list[JsonValue], int | None]:
    """Return the items from an offset that have room, at least one, and the offset of the next; None after the last.

    Args:
        items: All items.
        offset: The first item, from 0.
        max_characters: Maximum characters of the items as JSON.
        max_items: Maximum number of items.
    """
    shown: list[JsonValue] = []
    left = max_characters
    for item in items[offset : offset + max_items]:
        bounded, _ = fit(item, max(max_characters // 8, 200))
        left -= _size(bounded) + 2
        if shown and left < 0:
            break
        shown.append(bounded)
    end = offset + len(shown)
    return shown, end if shown and end < len(items) else None


def _size(value: JsonValue) -> int:
    return len(json.dumps(value, ensure_ascii=False))


def _bound(value: Any, path: str, max_items: int, max_text: int, cuts: list[Cut], depth: int = 0) -> JsonValue:
    if depth > MAX_DEPTH:
        cuts.append(Cut(path=path, left_out=1))
        return None
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < MAX_INTEGER else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))  # JSON has no NaN
    if isinstance(value, Mapping):
        names = list(value)
        if len(names) > max_items:
            cuts.append(Cut(path=path, left_out=len(names) - max_items))
        texts = {str(name): name for name in names[:max_items]}
        return {
            _bound_text(text, f"{path}.*", 200, cuts): _bound(
                value[name], _join(path, text), max_items, max_text, cuts, depth + 1
            )
            for text, name in texts.items()
        }
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        listed = list(value)
        if len(listed) > max_items:
            cuts.append(Cut(path=path, left_out=len(listed) - max_items))
        return [
            _bound(each, f"{path}[{number}]", max_items, max_text, cuts, depth + 1)
            for number, each in enumerate(listed[:max_items])
        ]
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return _bound_text(text, path, max_text, cuts)


def _join(path: str, name: str) -> str:
    short = escape_surrogates(escape_control_characters(name[:60]))
    return f"{path}.{short}" if path else short


def _bound_text(text: str, path: str, max_text: int, cuts: list[Cut]) -> str:
    clean = escape_surrogates(escape_control_characters(text[: max_text + 1]))
    if len(text) <= max_text:
        return clean
    cuts.append(Cut(path=path, left_out=len(text) - max_text))
    return f"{clean[:max_text]}…"
