"""Questions of pages run in a bounded number of threads, and equal ones only once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_ui.answers import MAX_WAITING, Answers, TooManyQuestions


@pytest.fixture
def answers(ml: DerivaML) -> Iterator[Answers]:
    """Return the answers of an empty catalog."""
    answers = Answers(ml)
    yield answers
    answers.close()


def test_slow_question(answers: Answers) -> None:
    """A question that waits for a slow catalog delays no other one."""
    released = threading.Event()

    async def ask() -> str:
        slow = asyncio.ensure_future(answers.ask("slow", lambda ml: released.wait()))
        quick = await answers.ask("quick", lambda ml: "answer")
        assert not slow.done()
        released.set()
        assert await slow is True
        return quick

    assert asyncio.run(ask()) == "answer"


def test_equal_questions(answers: Answers) -> None:
    """Pages that ask the same at the same time share one call; later ones share an answer that is young enough."""
    asked: list[int] = []

    def question(ml: DerivaML) -> int:
        asked.append(1)
        return len(asked)

    async def ask() -> list[int]:
        together = await asyncio.gather(*(answers.ask("same", question) for _ in range(5)))
        young = await answers.ask("same", question, max_age=1000)
        new = await answers.ask("same", question)
        return [*together, young, new]

    assert asyncio.run(ask()) == [1, 1, 1, 1, 1, 1, 2]


def test_failed_question(answers: Answers) -> None:
    """An error reaches each page that asked, and the next question is asked again."""

    def question(ml: DerivaML) -> None:
        raise OSError("gone")

    async def ask() -> list[BaseException | None]:
        failed = await asyncio.gather(*(answers.ask("same", question) for _ in range(2)), return_exceptions=True)
        return [*failed, await answers.ask("same", lambda ml: None)]

    *errors, last = asyncio.run(ask())
    assert [str(error) for error in errors] == ["gone", "gone"]
    assert last is None


def test_too_many_questions(answers: Answers) -> None:
    """A catalog that hangs fills no memory: further questions are refused."""
    released = threading.Event()

    async def ask() -> None:
        waiting = [
            asyncio.ensure_future(answers.ask(number, lambda ml: released.wait())) for number in range(MAX_WAITING)
        ]
        await asyncio.sleep(0)
        with pytest.raises(TooManyQuestions):
            await answers.ask("another", lambda ml: None)
        released.set()
        await asyncio.gather(*waiting)
        assert await answers.ask("another", lambda ml: "answer") == "answer"

    asyncio.run(ask())


def test_closed_page(answers: Answers) -> None:
    """A page that is closed while it waits ends no call that another page waits for."""
    released = threading.Event()

    def question(ml: DerivaML) -> str:
        released.wait()
        return "answer"

    async def ask() -> str:
        closed = asyncio.ensure_future(answers.ask("same", question))
        other = asyncio.ensure_future(answers.ask("same", question))
        await asyncio.sleep(0)
        closed.cancel()
        released.set()
        return await other

    assert asyncio.run(ask()) == "answer"
