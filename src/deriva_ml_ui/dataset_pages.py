"""The pages of datasets and of workflows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from deriva_ml_core._text import format_age, format_time, parse_time
from deriva_ml_core.analysis.describe import DatasetDescription, WorkflowDescription
from deriva_ml_core.analysis.runs import DatasetPage, DatasetSummary, ExecutionSummary, WorkflowPage, WorkflowSummary
from deriva_ml_core.client import DerivaML
from deriva_ml_core.datasets.versions import DatasetVersion
from deriva_ml_core.errors import WrongTable
from deriva_ml_core.schema import SYSTEM_COLUMNS
from deriva_ml_ui.answers import Answers
from deriva_ml_ui.file_list import add_command, add_thumbnails, asset_address, looks_like_image
from deriva_ml_ui.lineage_graph import LineageGraph
from deriva_ml_ui.live_view import LiveView
from deriva_ml_ui.page_parts import (
    Cell,
    Column,
    LiveTable,
    TableRow,
    add_link,
    add_rid,
    add_section,
    address,
    clean,
    is_web_address,
    node,
)
from deriva_ml_ui.run_list import RunTable, run_address

__all__ = ["add_dataset_list", "add_dataset_page", "add_workflow_list", "add_workflow_page"]

ROWS_PER_PAGE = 50
MEMBERS_SHOWN = 24
RUNS_SHOWN = 20
MAX_COLUMNS = 6
HIDDEN_COLUMNS = frozenset({*SYSTEM_COLUMNS, "URL", "MD5"})


def dataset_address(rid: str, version: str | None = None) -> str:
    """Return the address of a dataset's page, or of one version of it."""
    return address(f"/datasets/{rid}", {"version": version})


def workflow_address(rid: str) -> str:
    """Return the address of a workflow's page."""
    return address(f"/workflows/{rid}")


def _read_page(query: QueryParams) -> tuple[str, int]:
    """Return the text and the number of the page in an address."""
    number = query.get("page", "1")
    page = int(number) if number.isascii() and number.isdecimal() and len(number) < 6 else 1
    return query.get("text", "").strip(), max(page, 1)


def _add_search(path: str, text: str, what: str) -> None:
    with node("form", None, "filters", method="get", action=path, role="search", aria_label=f"Search {what}"):
        with node("label", None, "wide"):
            node("span", "Text")
            node("input", type="search", name="text", value=text, autocomplete="off")
        node("button", "Search", type="submit")
        node("a", "Clear", href=path)


class _PageLinks:
    """The links to the pages before and after this one."""

    def __init__(self, path: str, text: str, page: int) -> None:
        with node("nav", None, "pages", aria_label="Pages"):
            self._newer = node("a", "Newer", href=address(path, {"text": text, "page": page - 1}))
            self._older = node("a", "Older", href=address(path, {"text": text, "page": page + 1}))
        self._newer.set_visibility(page > 1)

    def show(self, *, has_more: bool) -> None:
        self._older.set_visibility(has_more)


def add_dataset_list(answers: Answers, query: QueryParams) -> LiveView[DatasetPage]:
    """Add the list of datasets, and return what loads it."""
    text, page = _read_page(query)
    _add_search("/datasets", text, "datasets")
    view: LiveView[DatasetPage] = LiveView(
        answers,
        ("datasets", text, page),
        lambda ml: ml.list_datasets(text=text or None, limit=ROWS_PER_PAGE, page=page),
    )
    with view.content:
        note: Any = node("p", "", "note", role="status")
        table = LiveTable("Datasets")
        links = _PageLinks("/datasets", text, page)

    def show(answer: DatasetPage) -> None:
        titles = ("RID", "Version", "Types", "Changed", "Description")
        table.show([Column(title, title) for title in titles], list(map(_dataset_row, answer.datasets)))
        note.text = "" if answer.datasets else "No dataset matches." if text else "This catalog has no datasets yet."
        links.show(has_more=answer.has_more)

    view.on_answer(show)
    return view


def _dataset_row(dataset: DatasetSummary) -> TableRow:
    changed = parse_time(dataset.changed)
    cells = (
        Cell(dataset.rid, dataset_address(dataset.rid), copied=dataset.rid),
        Cell(dataset.version or ""),
        Cell(", ".join(dataset.types)),
        Cell(format_age(changed), title=f"{format_time(changed)} UTC" if changed else None),
        Cell(dataset.description),
    )
    return TableRow(dataset.rid, cells)


@dataclass(frozen=True, slots=True)
class DatasetAnswer:
    """What the page of a dataset shows.

    Args:
        description: What is recorded.
        version: The version whose members these are.
        members: The first members, by table.
        users: The newest runs that used it.
    """

    description: DatasetDescription
    version: str | None
    members: Mapping[str, Sequence[Mapping[str, Any]]]
    users: tuple[ExecutionSummary, ...]


def load_dataset(ml: DerivaML, rid: str, version: str | None) -> DatasetAnswer:
    """Return what the page of a dataset shows.

    Raises:
        DerivaMLException: There is no such dataset or version.
    """
    description = ml.describe(rid)
    if not isinstance(description, DatasetDescription):
        raise WrongTable(f"{rid} is not the RID of a dataset.")
    dataset = ml.lookup_dataset(rid)
    shown = version or description.version
    members = dataset.list_dataset_members(version, limit=MEMBERS_SHOWN) if shown else {}
    users = ml.list_executions(dataset=rid, limit=RUNS_SHOWN).executions
    return DatasetAnswer(description, shown, {table: rows for table, rows in members.items() if rows}, users)


def add_dataset_page(answers: Answers, rid: str, version: str | None) -> LiveView[DatasetAnswer]:
    """Add everything that is recorded about a dataset, and return what loads it."""
    view: LiveView[DatasetAnswer] = LiveView(
        answers, ("dataset", rid, version), lambda ml: load_dataset(ml, rid, version), is_live=lambda _: False
    )

    def show(answer: DatasetAnswer) -> None:
        view.content.clear()
        description = answer.description
        _add_dataset_facts(description)
        with add_section(f"Members of version {answer.version or 'none'}", "members"):
            _add_members(answer)
        with add_section("Versions", "versions"):
            _add_versions(description.versions, description.rid, answer.version)
        with add_section("Used by", "users"):
            if answer.users:
                RunTable().show(answer.users)
            if len(answer.users) == RUNS_SHOWN:
                node("a", "All runs that used it", href=address("/", {"dataset": description.rid}))
            if not answer.users:
                node("p", "No run used it.", "note")
        with add_section("Lineage", "lineage"):
            LineageGraph(answers, description.rid)

    view.on_answer(show)
    return view


def _add_dataset_facts(description: DatasetDescription) -> None:
    with node("dl", None, "facts"):
        node("dt", "RID")
        with node("dd"):
            add_rid(description.rid)
        for name, value in (
            ("Description", description.description),
            ("Types", ", ".join(description.types)),
            ("Version", description.version),
            ("State", "deleted" if description.deleted else ""),
        ):
            if value:
                node("dt", name)
                node("dd", value)
        if description.parents:
            node("dt", "Member of")
            with node("dd"):
                for parent in description.parents:
                    add_link(parent, dataset_address(parent))
        node("dt", "Shell")
        with node("dd"):
            add_command(f"deriva-ml download {description.rid}")


def _add_versions(versions: Sequence[DatasetVersion], rid: str, shown: str | None) -> None:
    table = LiveTable("Versions")
    columns = [Column(title, title) for title in ("Version", "Created", "Made by", "Description")]
    rows = []
    for version in reversed(versions):
        maker = Cell("") if version.execution is None else Cell(version.execution, run_address(version.execution))
        text = f"{version.version} (shown)" if version.version == shown else version.version
        cells = (
            Cell(text, dataset_address(rid, version.version)),
            Cell(format_age(version.created), title=f"{format_time(version.created)} UTC"),
            maker,
            Cell(version.description),
        )
        rows.append(TableRow(version.rid, cells))
    table.show(columns, rows)


def _add_members(answer: DatasetAnswer) -> None:
    if not answer.members:
        node("p", "It has no members.", "note")
    is_current = answer.version == answer.description.version
    for table, rows in answer.members.items():
        count = answer.description.members.get(table) if is_current else None
        node("h3", table if count is None else f"{table}: {count:,}")
        images = [
            (str(row["RID"]), str(row["Filename"]))
            for row in rows
            if looks_like_image(str(row.get("Filename") or ""), row.get("Length") or 0)
        ]
        if images:
            with node("div", None, "thumbnails"):
                add_thumbnails(images)
        _add_member_table(table, rows)
        if len(rows) == MEMBERS_SHOWN and (count is None or count > MEMBERS_SHOWN):
            node("p", f"The first {MEMBERS_SHOWN} are shown.", "note")


def _add_member_table(table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    names = [
        name for name in rows[0] if name not in HIDDEN_COLUMNS and any(row.get(name) not in (None, "") for row in rows)
    ][:MAX_COLUMNS]
    columns = [Column("RID", "RID"), *(Column(name, name) for name in names)]
    LiveTable(f"Members: {table}").show(columns, [_member_row(table, row, names) for row in rows])


def _member_row(table: str, row: Mapping[str, Any], names: Sequence[str]) -> TableRow:
    rid = str(row["RID"])
    target = dataset_address(rid) if table == "Dataset" else asset_address(rid) if "Filename" in row else None
    values = (clean("" if row.get(name) is None else row[name])[:120] for name in names)
    return TableRow(rid, (Cell(rid, target, copied=rid), *map(Cell, values)))


def add_workflow_list(answers: Answers, query: QueryParams) -> LiveView[WorkflowPage]:
    """Add the list of workflows, and return what loads it."""
    text, page = _read_page(query)
    _add_search("/workflows", text, "workflows")
    view: LiveView[WorkflowPage] = LiveView(
        answers,
        ("workflows", text, page),
        lambda ml: ml.list_workflows(text=text or None, limit=ROWS_PER_PAGE, page=page),
    )
    with view.content:
        note: Any = node("p", "", "note", role="status")
        table = LiveTable("Workflows")
        links = _PageLinks("/workflows", text, page)

    def show(answer: WorkflowPage) -> None:
        titles = ("RID", "Name", "Type", "Version", "Created", "Code")
        table.show([Column(title, title) for title in titles], list(map(_workflow_row, answer.workflows)))
        note.text = "" if answer.workflows else "No workflow matches." if text else "This catalog has no workflows yet."
        links.show(has_more=answer.has_more)

    view.on_answer(show)
    return view


def _workflow_row(workflow: WorkflowSummary) -> TableRow:
    created = parse_time(workflow.created)
    cells = (
        Cell(workflow.rid, workflow_address(workflow.rid), copied=workflow.rid),
        Cell(workflow.name or ""),
        Cell(workflow.workflow_type or ""),
        Cell(workflow.version or ""),
        Cell(format_age(created), title=f"{format_time(created)} UTC" if created else None),
        Cell(workflow.url or ""),
    )
    return TableRow(workflow.rid, cells)


@dataclass(frozen=True, slots=True)
class WorkflowAnswer:
    """What the page of a workflow shows.

    Args:
        description: What is recorded.
        runs: Its newest runs, with parameters and metrics.
    """

    description: WorkflowDescription
    runs: tuple[ExecutionSummary, ...]


def load_workflow(ml: DerivaML, rid: str) -> WorkflowAnswer:
    """Return what the page of a workflow shows.

    Raises:
        DerivaMLException: There is no such workflow.
    """
    description = ml.describe(rid)
    if not isinstance(description, WorkflowDescription):
        raise WrongTable(f"{rid} is not the RID of a workflow.")
    return WorkflowAnswer(description, ml.list_executions(workflow=rid, limit=RUNS_SHOWN).executions)


def add_workflow_page(answers: Answers, rid: str) -> LiveView[WorkflowAnswer]:
    """Add everything that is recorded about a workflow, and return what loads it."""
    view: LiveView[WorkflowAnswer] = LiveView(answers, ("workflow", rid), lambda ml: load_workflow(ml, rid))
    with view.content:
        facts = node("dl", None, "facts")
        with add_section("Runs", "runs"):
            note: Any = node("p", "", "note")
            table = RunTable()
            node("a", "All its runs, with filters", href=address("/", {"workflow": rid}))
    shown: list[WorkflowSummary] = []

    def show(answer: WorkflowAnswer) -> None:
        workflow = answer.description.workflow
        if shown != [workflow]:
            shown[:] = [workflow]
            facts.clear()
            with facts:
                _add_workflow_facts(workflow)
        note.text = "" if answer.runs else "No run of it is recorded yet."
        table.show(answer.runs)

    view.on_answer(show)
    return view


def _add_workflow_facts(workflow: WorkflowSummary) -> None:
    node("dt", "RID")
    with node("dd"):
        add_rid(workflow.rid)
    for name, value in (
        ("Name", workflow.name),
        ("Type", workflow.workflow_type),
        ("Description", workflow.description),
        ("Version", workflow.version),
        ("Checksum", workflow.checksum),
    ):
        if value:
            node("dt", name)
            node("dd", value)
    if workflow.url:
        node("dt", "Code")
        with node("dd"):
            if is_web_address(workflow.url):
                node("a", workflow.url, href=workflow.url, rel="noopener noreferrer", target="_blank")
            else:
                node("span", workflow.url)
