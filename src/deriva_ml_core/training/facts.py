"""What a training was set to do and how it ended, fit by fit: ``training.json``."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["TRAINING_SUMMARY_FILE", "TrainingSummary", "to_json_value"]

TRAINING_SUMMARY_FILE = "training.json"
"""The file's name: an object with ``fits``, a list of objects, each with the fit's number, its settings (whatever the
framework tells of model, optimizer and the like), the input datasets, when it began and ended, and how."""

MAX_DEPTH = 12
MAX_LENGTH = 1000
"""How deep settings may be nested, and how many of a list or letters of a text's representation are kept."""

log = logging.getLogger(__name__)


def to_json_value(value: object, depth: int = 0) -> JsonValue:
    """Turn settings of any kind into what JSON can hold; what it cannot is told by its representation, cut if long."""
    if value is None:
        return None
    if isinstance(value, (str, bool, int, float)):
        return value if type(value) in (str, bool, int, float) else _builtin_value(value)
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            return {str(name): to_json_value(part, depth + 1) for name, part in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [to_json_value(part, depth + 1) for part in list(value)[:MAX_LENGTH]]
    if isinstance(value, Path):
        return os.fspath(value)
    return _scalar_value(value) if hasattr(value, "item") and not isinstance(value, type) else repr(value)[:MAX_LENGTH]


def _scalar_value(value: object) -> JsonValue:
    """The number that a tensor or an array of one element holds; of several, how it is shown."""
    try:
        return to_json_value(value.item(), MAX_DEPTH)  # type: ignore[attr-defined]
    except Exception:
        return repr(value)[:MAX_LENGTH]


def _builtin_value(value: str | bool | int | float) -> JsonValue:
    """The plain value of a subclass, such as numpy's floats or an enumeration's strings."""
    return next(kind(value) for kind in (bool, int, float, str) if isinstance(value, kind))


class TrainingSummary:
    """The file of one execution; secrets are redacted.

    Args:
        path: The file; its folder must be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fits: list[dict[str, JsonValue]] = []

    def last_fit(self) -> int:
        """The number of the last fit that is told of; 0 where none is."""
        self._reload()
        return max((number for each in self._fits if isinstance(number := each.get("fit"), int)), default=0)

    def update(self, fit: int, fields: Mapping[str, object]) -> None:
        """Add to what is known of a fit, and write the file anew.

        Raises:
            OSError: It cannot be written.
        """
        from deriva_ml_core.redaction import redact

        self._reload()
        known = next((each for each in self._fits if each.get("fit") == fit), None)
        if known is None:
            known = {"fit": fit}
            self._fits.append(known)
        told = redact(to_json_value(fields))
        known.update(told if isinstance(told, dict) else {})
        text = json.dumps({"fits": self._fits}, indent=1, ensure_ascii=False) + "\n"
        partial = self.path.with_name(f".writing-{self.path.name}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.path)

    def _reload(self) -> None:
        """Take up what is there by now: of an earlier process, or of another reporter of the same execution."""
        self._fits = _read_fits(self.path) or self._fits


def _read_fits(path: Path) -> list[dict[str, JsonValue]]:
    try:
        text = path.read_text(encoding="utf-8")
        return [dict(fit) for fit in json.loads(text)["fits"]] if text else []
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s cannot be read, and is begun anew.", path, exc_info=True)
        return []
