"""A part of a page that shows one answer of the catalog, and asks again while the page is open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from nicegui import ui

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import CatalogUnavailable, DerivaMLException
from deriva_ml_ui.answers import Answers, TooManyQuestions
from deriva_ml_ui.page_parts import clean, node

__all__ = ["LiveView"]

T = TypeVar("T")

log = logging.getLogger(__name__)

FIRST_ANSWER_SECONDS = 1.0
"""How long a page waits for its first answer before it is sent without one."""

REFRESH_SECONDS = 2.0
SHARE_SECONDS = 1.0
"""How old the answer to another page's question may be."""

SLOW_SECONDS = 4.0
"""Time after which a page says that the catalog has not answered yet."""

AGES_SECONDS = 20.0
"""Time after which an equal answer is shown again, for the texts that say how long ago something was."""

BUSY_FACTOR = 5
"""A catalog is asked again after this many times as long as it needed to answer."""


class LiveView(Generic[T]):
    """One answer, which is shown again when it changes. While the catalog fails, the last answer stays.

    Args:
        answers: The catalog.
        key: What the question is; equal questions of other pages share the answer.
        question: The question.
        is_live: Returns whether the question is asked again after an answer; None for always.
    """

    def __init__(
        self,
        answers: Answers,
        key: Hashable,
        question: Callable[[DerivaML], T],
        *,
        is_live: Callable[[T], bool] | None = None,
    ) -> None:
        self._answers = answers
        self._key = key
        self._question = question
        self._is_live = is_live
        self._show: Callable[[T], Any] | None = None
        self._shown: T | None = None
        self._has_answer = False
        self._shown_at = 0.0
        self._timer: ui.timer | None = None
        self.actions = node("div", None, "actions")
        self._message: Any = node("p", "", "message", role="alert")
        self._message.set_visibility(False)
        self._waiting: Any = node("p", "Loading…", "waiting", role="status")
        self.content = node("div", None, "view")
        self.content.set_visibility(False)
        self.actions.set_visibility(False)

    def on_answer(self, show: Callable[[T], Any]) -> None:
        """Set what shows an answer; it may be a coroutine."""
        self._show = show

    async def start(self) -> None:
        """Show the first answer if it comes soon, and keep on asking once the browser is connected."""
        first = asyncio.ensure_future(self._refresh())
        await asyncio.wait([first], timeout=FIRST_ANSWER_SECONDS)
        self._timer = ui.timer(REFRESH_SECONDS, lambda: self._continue(first), immediate=not first.done())

    async def ask_other(self, key: Hashable, question: Callable[[DerivaML], T]) -> None:
        """Ask another question in place of the first, and show its answer."""
        self._key, self._question = key, question
        await self._refresh()
        if self._timer is not None:
            self._timer.activate()

    async def _continue(self, first: asyncio.Future[None]) -> None:
        if first.done():
            await self._refresh()
        else:
            await first

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        slow = loop.call_later(SLOW_SECONDS, self._report_slow)
        asked = self._key
        try:
            answer = await self._answers.ask(asked, self._question, max_age=SHARE_SECONDS)
        except asyncio.CancelledError:
            raise
        except (DerivaMLException, TooManyQuestions, OSError) as error:
            self._report(error)
            return
        except Exception:
            log.exception("The page cannot be shown")
            self._report(RuntimeError("This part of the page cannot be shown. The terminal has the details."))
            return
        finally:
            slow.cancel()
        if asked != self._key:  # another question was asked meanwhile
            return
        await self._present(answer)
        if (timer := self._timer) is not None:
            timer.interval = max(REFRESH_SECONDS, BUSY_FACTOR * (loop.time() - began))
            if self._is_live is not None and not self._is_live(answer):
                timer.deactivate()

    async def _present(self, answer: T) -> None:
        self._message.set_visibility(False)
        now = asyncio.get_running_loop().time()
        if self._has_answer and answer == self._shown and now - self._shown_at < AGES_SECONDS:
            return
        if self._show is not None:
            with self.content:
                shown = self._show(answer)
                if asyncio.iscoroutine(shown):
                    await shown
        self._shown, self._has_answer, self._shown_at = answer, True, now
        for element in (self.content, self.actions):
            element.set_visibility(True)
        self._waiting.set_visibility(False)

    def _report(self, error: Exception) -> None:
        self._waiting.set_visibility(False)
        again = " The page shows what it had before, and tries again." if self._has_answer else ""
        if not self._has_answer and isinstance(error, CatalogUnavailable | OSError | TooManyQuestions):
            again = " The page tries again."
        self._message.text = clean(error) + again
        self._message.set_visibility(True)

    def _report_slow(self) -> None:
        self._waiting.text = "The catalog has not answered yet. The page waits for it."
        self._waiting.set_visibility(True)
