"""The addresses of the pages."""

from __future__ import annotations

from nicegui import ui
from starlette.requests import Request

from deriva_ml_ui.answers import Answers
from deriva_ml_ui.page_parts import add_frame
from deriva_ml_ui.run_list import RunFilters, add_run_list

__all__ = ["register_pages"]


def register_pages(answers: Answers) -> None:
    """Register all pages.

    Args:
        answers: The catalog that they show.
    """
    catalog = answers.ml.connection.catalog.name

    @ui.page("/")
    async def show_runs(request: Request) -> None:
        add_frame("Runs", catalog, "Runs")
        await add_run_list(answers, RunFilters.from_query(request.query_params)).start()
