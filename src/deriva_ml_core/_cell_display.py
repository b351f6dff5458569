"""An output of a notebook's cell that can be replaced, for progress and curves."""

from __future__ import annotations

from typing import Any

__all__ = ["CellDisplay"]


class CellDisplay:
    """HTML in the output of the running cell, which `show` replaces. It may be called from any thread.

    A failure, such as a front end that is gone, is ignored after the first one.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._has_failed = False

    def show(self, html: str, text: str) -> None:
        """Show HTML, or a text where the front end shows no HTML.

        Args:
            html: The HTML, with all untrusted texts escaped.
            text: The same as text.
        """
        if self._has_failed:
            return
        content = {"text/html": html, "text/plain": text}
        try:
            if self._handle is None:
                from IPython.display import display  # type: ignore[import-not-found, unused-ignore]

                self._handle = display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call, unused-ignore]
            else:
                self._handle.update(content, raw=True)
        except Exception:  # noqa: BLE001 - the kernel's connection may be closed
            self._has_failed = True
