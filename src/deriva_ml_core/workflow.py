"""Workflows: the code of an execution, its detection, and its registration in the catalog."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pluggy
from pydantic import ConfigDict, PrivateAttr

from deriva_ml_core._views import Grid, Link, Presentable, View
from deriva_ml_core.backend import AnyOf
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable, MLVocab, split_rid
from deriva_ml_core.errors import CatalogReadOnly, ConfigurationError, PluginError, UnknownRID, UnknownWorkflow
from deriva_ml_core.models import CheckedRID, FrozenModel, SourceCode
from deriva_ml_core.paths import expand_home, to_absolute_path
from deriva_ml_core.plugins import plugin_manager
from deriva_ml_core.row_values import check_row, convert_rows, convert_values
from deriva_ml_core.script_detection import running_script
from deriva_ml_core.user_warnings import warn

__all__ = [
    "CatalogWorkflow",
    "Workflow",
    "create_workflow",
    "find_workflows",
    "lookup_workflow",
    "lookup_workflow_by_url",
    "register_workflow",
]

URL_VARIABLE = "DERIVA_ML_WORKFLOW_URL"
CHECKSUM_VARIABLE = "DERIVA_ML_WORKFLOW_CHECKSUM"
NOTEBOOK_VARIABLE = "DERIVA_ML_NOTEBOOK_PATH"
"""The notebook that the URL belongs to; a script that the notebook starts has another source."""


@dataclass(frozen=True, slots=True)
class _DetectionContext:
    """The plugins and the environment variables for detecting the source."""

    plugins: pluggy.PluginManager = field(default_factory=plugin_manager)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class Workflow(Presentable, FrozenModel):
    """The code that an execution runs. The constructor detects where that code is.

    An explicit `url` or `rid` disables detection. Otherwise the variables ``DERIVA_ML_WORKFLOW_URL`` and
    ``DERIVA_ML_WORKFLOW_CHECKSUM`` are used, then the plugins in this order: container, notebook, script.

    Args:
        name: The workflow's name.
        workflow_type: A term of the vocabulary Workflow_Type.
        description: What the workflow does.
        url: The URL of the code.
        checksum: Identifies the code: git's blob hash of the file, or the digest of an image.
        version: The version of the project that contains the code.
        script: The file to record instead of the running one.
        rid: The RID of an existing workflow.

    Raises:
        ConfigurationError: `script` is not a file.
        NotReproducible: The code cannot be rebuilt, and ``DERIVA_ML_REQUIRE_CLEAN=1`` is set.
    """

    name: str
    workflow_type: str
    description: str = ""
    url: str = ""
    checksum: str = ""
    version: str | None = None
    script: Path | None = None
    rid: CheckedRID | None = None
    _source: SourceCode = PrivateAttr(default_factory=SourceCode)

    def model_post_init(self, context: object) -> None:
        """Detect the source; pydantic calls this after validation."""
        self._source = self._find_source(context)
        for name in ("url", "checksum", "version"):
            object.__setattr__(self, name, getattr(self._source, name))

    def _view(self) -> View:
        title = f"Workflow {self.rid}: {self.name}" if self.rid else f"Workflow {self.name}"
        fields = [("type", self.workflow_type), ("version", self.version), ("checksum", self.checksum)]
        if not self.url.startswith("https://"):
            fields.insert(0, ("source", self.url))
        if self.rid is None:
            fields.append(("catalog", "not registered yet"))
        return View(Link(title, self.url), [self.description, Grid([field for field in fields if field[1]])])

    @property
    def source(self) -> SourceCode:
        """The location of the code and the state of its repository."""
        return self._source

    def _find_source(self, context: object) -> SourceCode:
        if self.url or self.rid:
            return SourceCode(url=self.url, checksum=self.checksum, version=self.version, path=self.script)
        detection = context if isinstance(context, _DetectionContext) else _DetectionContext()
        source = _detect_source(self.script, detection)
        explicit = {"checksum": self.checksum, "version": self.version}
        return source.model_copy(update={name: value for name, value in explicit.items() if value})


def _detect_source(script: Path | None, context: _DetectionContext) -> SourceCode:
    environ = context.environ
    file = to_absolute_path(expand_home(script)) if script else None
    if (source := _source_from_environ(file, environ)) is not None:
        return source
    file = file or running_script(environ)
    if file and not file.is_file():
        raise ConfigurationError(f"{file} is not a file. Pass the running script or notebook as Workflow(script=…).")
    source = context.plugins.hook.detect_source(script=file, environ=environ)
    if not isinstance(source, SourceCode):
        raise PluginError(
            f"The hook detect_source returned {source!r}, not a SourceCode. list_plugins() shows the plugins."
        )
    checksum = "" if environ.get(URL_VARIABLE) else environ.get(CHECKSUM_VARIABLE)  # else it belongs to the URL
    return source.model_copy(update={"checksum": checksum}) if checksum else source


def _source_from_environ(script: Path | None, environ: Mapping[str, str]) -> SourceCode | None:
    """Return the source that the variables name; the URL of a notebook does not apply to another file."""
    url, checksum = environ.get(URL_VARIABLE), environ.get(CHECKSUM_VARIABLE, "")
    if not url:
        return None
    notebook = Path(environ.get(NOTEBOOK_VARIABLE, ""))
    if notebook.suffix != ".ipynb" or not notebook.is_file():
        return SourceCode(url=url, checksum=checksum, kind="environment")
    file = script or running_script(environ)
    if file is not None and file.resolve() != notebook.resolve():
        return None
    from deriva_ml_core.git import file_source_with_url  # starts processes

    return file_source_with_url(notebook.absolute(), url, checksum)


def create_workflow(
    name: str,
    workflow_type: str,
    description: str = "",
    *,
    script: Path | None = None,
    plugins: pluggy.PluginManager | None = None,
    environ: Mapping[str, str] | None = None,
) -> Workflow:
    """Create a `Workflow`, with these plugins for detecting the source.

    Args:
        name: The workflow's name.
        workflow_type: A term of the vocabulary Workflow_Type.
        description: What the workflow does.
        script: The file to record instead of the running one.
        plugins: The plugins to use; those of the process by default.
        environ: The environment variables; those of the process by default.
    """
    options: dict[str, Any] = {"plugins": plugins, "environ": environ}
    context = _DetectionContext(**{name: value for name, value in options.items() if value is not None})
    fields = {"name": name, "workflow_type": workflow_type, "description": description, "script": script}
    return Workflow.model_validate(fields, context=context)


class CatalogWorkflow(Workflow):
    """A workflow in a catalog. Assigning ``description`` or ``workflow_type`` updates the catalog at once."""

    model_config = ConfigDict(frozen=False)

    _connection: Connection = PrivateAttr()

    def __setattr__(self, name: str, value: Any) -> None:
        """Update an attribute in the catalog.

        Raises:
            CatalogReadOnly: The attribute is neither of the two; the others record what was run.
            UnknownTerm: The catalog has no such workflow type.
        """
        if name.startswith("_"):
            super().__setattr__(name, value)
            return
        if name not in _WRITABLE_COLUMNS or not isinstance(value, str):
            raise CatalogReadOnly(
                f"Cannot assign {name} = {value!r} to workflow {self.rid}. Only description and workflow_type can be "
                "assigned, each a text; the other attributes record what was run."
            )
        value = _redact(value)
        if name == "workflow_type":
            self._connection.terms.require(MLVocab.workflow_type, [value])
        if not self._connection.catalog.update(MLTable.workflow, [{"RID": self.rid, _WRITABLE_COLUMNS[name]: value}]):
            raise UnknownRID(f"Workflow {self.rid} was deleted from {self._connection.catalog.name}.")
        object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # a connection cannot be pickled
        return Workflow.model_validate, (self.model_dump(),)


_WRITABLE_COLUMNS: Mapping[str, str] = {"description": "Description", "workflow_type": "Workflow_Type"}


def _from_row(connection: Connection, row: Mapping[str, Any]) -> CatalogWorkflow:
    """Return the workflow of a row; raise `MalformedData` if a value has an unexpected form."""
    values = {
        "name": row["Name"] or "",
        "workflow_type": row["Workflow_Type"] or "",  # newer catalogs have workflows without a type
        "description": row["Description"] or "",
        "url": row["URL"] or "",
        "checksum": row["Checksum"] or "",
        "version": row["Version"],
        "rid": check_row(MLTable.workflow, row)["RID"],
    }
    workflow = convert_values(MLTable.workflow, row["RID"], lambda: CatalogWorkflow.model_validate(values))
    workflow._connection = connection
    return workflow


def register_workflow(connection: Connection, workflow: Workflow) -> RID:
    """Find a workflow's row by its URL or checksum, or insert one.

    If URL and checksum match different rows, the checksum decides. A workflow with a ``file:`` URL is matched by its
    checksum only. A workflow with neither is always new. An existing row is not changed; if its name or type differs, a
    warning says so.

    Args:
        connection: The catalog.
        workflow: The workflow to register.

    Returns:
        The row's RID.

    Raises:
        UnknownTerm: The catalog has no such workflow type.
        UnknownRID, WrongTable: The workflow's RID names no workflow in this catalog.
    """
    if workflow.rid:
        return str(connection.require_row(MLTable.workflow, workflow.rid)["RID"])
    types = connection.catalog.model.table(MLTable.workflow).foreign_keys
    if not any(key.column == "Workflow_Type" for key in types):  # otherwise the catalog itself refuses an unknown type
        _require_type(connection, workflow)
    try:
        return _find_or_insert(connection, workflow)
    except UnknownRID:
        _require_type(connection, workflow)
        raise


def _require_type(connection: Connection, workflow: Workflow) -> None:
    connection.terms.require(MLVocab.workflow_type, [workflow.workflow_type])


def _find_or_insert(connection: Connection, workflow: Workflow) -> RID:
    url = _redact(workflow.url)
    row = {
        "Name": _redact(workflow.name),
        "Description": _redact(workflow.description),
        "URL": url or None,
        "Checksum": workflow.checksum or None,
        "Version": workflow.version,
        "Workflow_Type": workflow.workflow_type,
    }
    by_checksum = {"Checksum": workflow.checksum} if workflow.checksum else None
    by_url = {"URL": url} if url and not url.startswith("file:") else None
    conditions = tuple(condition for condition in (by_checksum, by_url) if condition)
    if not conditions:
        (rid,) = connection.catalog.reserve(1)
        connection.catalog.insert(MLTable.workflow, [{**row, "RID": rid}])
        return rid
    stored, is_new = connection.catalog.insert_unless(MLTable.workflow, AnyOf(conditions), row)
    if not is_new:
        stored = _prefer_checksum_match(connection, by_checksum, stored)
        if stored["Workflow_Type"] != workflow.workflow_type:
            _require_type(connection, workflow)
        _warn_if_different(stored, workflow)
    return str(stored["RID"])


def _redact(text: str) -> str:
    from deriva_ml_core.redaction import redact_text  # compiles many patterns

    return redact_text(text)


def _prefer_checksum_match(
    connection: Connection, by_checksum: Mapping[str, str] | None, row: dict[str, Any]
) -> dict[str, Any]:
    """Return the oldest row with the checksum, if the given row matches by its URL only; else the given row."""
    if by_checksum is None or row["Checksum"] == by_checksum["Checksum"]:
        return row
    return next(iter(connection.catalog.select(MLTable.workflow, by_checksum, order=("RCT",), limit=1)), row)


def _warn_if_different(row: Mapping[str, Any], workflow: Workflow) -> None:
    if (row["Name"], row["Workflow_Type"]) != (workflow.name, workflow.workflow_type):
        warn(
            f"This code is already registered as workflow {row['RID']}, {row['Name']!r} ({row['Workflow_Type']}), "
            f"which is used instead of {workflow.name!r} ({workflow.workflow_type}). To change its type, assign "
            f"workflow_type to the result of ml.lookup_workflow({row['RID']!r})."
        )


def lookup_workflow(connection: Connection, rid: RID) -> CatalogWorkflow:
    """Look up a workflow by its RID; a RID with ``@<snapshot>`` returns the workflow at that snapshot.

    Raises:
        UnknownRID, WrongTable: The RID names no workflow.
    """
    rid, snapshot = split_rid(rid)
    if snapshot:
        past = replace(connection.backend, catalog=connection.catalog.at(snapshot))
        connection = replace(connection, backend=past)
    return _from_row(connection, connection.require_row(MLTable.workflow, rid))


def lookup_workflow_by_url(connection: Connection, url_or_checksum: str) -> CatalogWorkflow:
    """Look up the oldest workflow with a URL or checksum.

    Raises:
        UnknownWorkflow: No workflow has it.
    """
    url = _redact(url_or_checksum)
    condition = AnyOf(({"URL": url}, {"Checksum": url_or_checksum})) if url_or_checksum else None
    rows = connection.catalog.select(MLTable.workflow, condition, order=("RCT",), limit=1) if condition else []
    if not rows:
        raise UnknownWorkflow(
            f"No workflow in {connection.catalog.name} has the URL or checksum {url_or_checksum!r}. "
            "ml.find_workflows() lists the workflows; ml.add_workflow(workflow) registers one."
        )
    return _from_row(connection, rows[0])


def find_workflows(connection: Connection) -> list[CatalogWorkflow]:
    """Return all workflows, the oldest first. A malformed row is left out, and a warning names it."""
    rows = connection.catalog.select(MLTable.workflow, {}, order=("RCT",))
    return list(convert_rows(lambda row: _from_row(connection, row), rows))
