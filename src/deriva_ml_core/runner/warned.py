"""How the runners' programs show warnings: ours in one line, those of others with their place."""

from __future__ import annotations

import sys
import warnings

from deriva_ml_core.errors import DerivaMLWarning

__all__ = ["install_warning_format"]


def install_warning_format() -> None:
    """Have this process, which is a program of ours, say warnings of ours in one line."""
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    text = f"warning: {message}\n"
    if not issubclass(category, DerivaMLWarning):
        text = warnings.formatwarning(message, category, filename, lineno, line)
    sys.stderr.write(text)
