"""The addresses of the pages."""

from __future__ import annotations

from nicegui import ui
from starlette.requests import Request

from deriva_ml_core.errors import DerivaMLException
from deriva_ml_ui.answers import Answers
from deriva_ml_ui.comparison_page import ComparisonPage, add_run_choice, parse_rids
from deriva_ml_ui.dataset_pages import add_dataset_list, add_dataset_page, add_workflow_list, add_workflow_page
from deriva_ml_ui.file_list import add_asset_page
from deriva_ml_ui.lineage_graph import LineageGraph
from deriva_ml_ui.page_parts import add_frame, node
from deriva_ml_ui.run_list import RunFilters, add_run_list
from deriva_ml_ui.run_page import RunPage

__all__ = ["register_pages"]


def register_pages(answers: Answers) -> None:
    """Register all pages.

    Args:
        answers: The catalog that they show.
    """
    _register_run_pages(answers)
    _register_catalog_pages(answers)


def _register_run_pages(answers: Answers) -> None:
    """Register the pages of runs."""
    catalog = answers.ml.connection.catalog.name

    @ui.page("/")
    async def show_runs(request: Request) -> None:
        add_frame("Runs", catalog, "Runs")
        await add_run_list(answers, RunFilters.from_query(request.query_params)).start()

    @ui.page("/runs/{rid}")
    async def show_run(rid: str) -> None:
        add_frame(f"Run {rid}", catalog, "Runs")
        await RunPage(answers, rid).start()

    @ui.page("/compare")
    async def show_comparison(request: Request) -> None:
        add_frame("Compare runs", catalog, "Compare")
        try:
            rids = parse_rids(request.query_params.get("runs", ""))
        except DerivaMLException as error:
            node("p", error, "message", role="alert")
            rids = []
        if len(rids) < 2:
            add_run_choice()
        else:
            await ComparisonPage(answers, rids).start()


def _register_catalog_pages(answers: Answers) -> None:
    """Register the pages of datasets, workflows, files and lineages."""
    catalog = answers.ml.connection.catalog.name

    @ui.page("/datasets")
    async def show_datasets(request: Request) -> None:
        add_frame("Datasets", catalog, "Datasets")
        await add_dataset_list(answers, request.query_params).start()

    @ui.page("/datasets/{rid}")
    async def show_dataset(rid: str, request: Request) -> None:
        add_frame(f"Dataset {rid}", catalog, "Datasets")
        await add_dataset_page(answers, rid, request.query_params.get("version") or None).start()

    @ui.page("/workflows")
    async def show_workflows(request: Request) -> None:
        add_frame("Workflows", catalog, "Workflows")
        await add_workflow_list(answers, request.query_params).start()

    @ui.page("/workflows/{rid}")
    async def show_workflow(rid: str) -> None:
        add_frame(f"Workflow {rid}", catalog, "Workflows")
        await add_workflow_page(answers, rid).start()

    @ui.page("/assets/{rid}")
    async def show_asset(rid: str) -> None:
        add_frame(f"File {rid}", catalog, "")
        await add_asset_page(answers, rid).start()

    @ui.page("/lineage/{rid}")
    async def show_lineage(rid: str) -> None:
        add_frame(f"Lineage of {rid}", catalog, "")
        LineageGraph(answers, rid, depth=10)
