"""Answers of the catalog for all open pages: a bounded number of threads, and one call for equal questions."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from deriva_ml_core.client import DerivaML

__all__ = ["Answers", "TooManyQuestions"]

T = TypeVar("T")

THREADS = 6
FILE_THREADS = 4
MAX_WAITING = 60
"""Calls that run or wait; further ones are refused, so that a catalog that hangs does not fill the memory."""

MAX_KEPT = 40
"""Answers that are kept for pages that ask the same shortly after."""


class TooManyQuestions(Exception):
    """The catalog answers too slowly for the number of open pages."""


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: Any
    time: float
    seconds: float


class Answers:
    """Asks a catalog in threads, so that no page waits for the question of another.

    Args:
        ml: The client.
    """

    def __init__(self, ml: DerivaML) -> None:
        self.ml = ml
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="catalog")
        self._file_pool = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="file")
        self._running: dict[Hashable, asyncio.Future[Any]] = {}
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    async def ask(self, key: Hashable, question: Callable[[DerivaML], T], *, max_age: float = 0.0) -> T:
        """Return the answer to a question.

        Args:
            key: What the question is; an equal key is the same question.
            question: The call, which runs in a thread.
            max_age: How old a kept answer may be, in seconds. An answer that took longer may be as old as it took.

        Raises:
            TooManyQuestions: Too many other questions wait.
        """
        kept = self._kept.get(key)
        if kept is not None and time.monotonic() - kept.time <= max(max_age, kept.seconds if max_age else 0.0):
            self._kept.move_to_end(key)
            return kept.answer  # type: ignore[no-any-return]
        running = self._running.get(key)
        if running is None:
            if len(self._running) >= MAX_WAITING:
                raise TooManyQuestions("The catalog answers too slowly. Close some pages, or wait.")
            running = asyncio.ensure_future(self._call(key, question))
            self._running[key] = running
            running.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(running)

    async def fetch(self, function: Callable[[DerivaML], T]) -> T:
        """Return what a function of the client returns that moves the bytes of a file, which may take long."""
        return await asyncio.get_running_loop().run_in_executor(self._file_pool, function, self.ml)

    async def _call(self, key: Hashable, question: Callable[[DerivaML], T]) -> T:
        began = time.monotonic()
        answer = await asyncio.get_running_loop().run_in_executor(self._pool, question, self.ml)
        ended = time.monotonic()
        self._kept[key] = _Kept(answer, ended, ended - began)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return answer

    def _forget(self, key: Hashable, done: asyncio.Future[Any]) -> None:
        self._running.pop(key, None)
        if not done.cancelled():
            done.exception()  # a page that was closed meanwhile does not fetch it

    def close(self) -> None:
        """Let running calls end, and start no waiting one."""
        for pool in (self._pool, self._file_pool):
            pool.shutdown(wait=False, cancel_futures=True)
