"""Workflows: the code that runs, found by itself, registered once, and changed in the catalog by assignment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pluggy
from pydantic import ConfigDict, PrivateAttr

from deriva_ml_core.backend import AnyOf
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable, MLVocab, split_rid
from deriva_ml_core.errors import CatalogReadOnly, ConfigurationError, PluginError, UnknownRID, UnknownWorkflow
from deriva_ml_core.models import CheckedRID, FrozenModel, SourceCode
from deriva_ml_core.plugins import plugin_manager
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
"""Beside a URL, the notebook whose URL that is: a script that the notebook begins is not meant by it."""


@dataclass(frozen=True, slots=True)
class _DetectionContext:
    """Whom to ask where the code is, and under which environment variables."""

    plugins: pluggy.PluginManager = field(default_factory=plugin_manager)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class Workflow(FrozenModel):
    """The code that an execution runs; where that code is, it finds out when it is made.

    A URL that is given, or a record id, ends the search; else the variables ``DERIVA_ML_WORKFLOW_URL`` and
    ``DERIVA_ML_WORKFLOW_CHECKSUM`` count, then what the plugins say: container, notebook, script.

    Args:
        name: What to call it.
        workflow_type: A term of the vocabulary Workflow_Type.
        description: What it does.
        url: Where the code is.
        checksum: What tells this code from another: git's blob hash of the file, or an image's digest.
        version: The version of the project that the code belongs to.
        script: The file to look at, instead of the one that runs.
        rid: Its record id, once it has one.

    Raises:
        ConfigurationError: `script` is no file.
        NotReproducible: The code cannot be rebuilt, and ``DERIVA_ML_REQUIRE_CLEAN=1`` asks for that.
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
        """Find the code; pydantic calls it last."""
        self._source = self._find_source(context)
        for name in ("url", "checksum", "version"):
            object.__setattr__(self, name, getattr(self._source, name))

    @property
    def source(self) -> SourceCode:
        """Where the code is, and what is known of its repository."""
        return self._source

    def _find_source(self, context: object) -> SourceCode:
        if self.url or self.rid:
            return SourceCode(url=self.url, checksum=self.checksum, version=self.version, path=self.script)
        surroundings = context if isinstance(context, _DetectionContext) else _DetectionContext()
        source = _detect_source(self.script, surroundings)
        given = {"checksum": self.checksum, "version": self.version}
        return source.model_copy(update={name: value for name, value in given.items() if value})


def _detect_source(script: Path | None, context: _DetectionContext) -> SourceCode:
    environ = context.environ
    file = script.expanduser().absolute() if script else None
    if (told := _source_from_environ(file, environ)) is not None:
        return told
    file = file or running_script(environ)
    if file and not file.is_file():
        raise ConfigurationError(f"{file} is no file; give the script or notebook that runs as Workflow(script=…).")
    source = context.plugins.hook.detect_source(script=file, environ=environ)
    if not isinstance(source, SourceCode):
        raise PluginError(f"detect_source was answered by {source!r}, which is no SourceCode; see list_plugins().")
    checksum = "" if environ.get(URL_VARIABLE) else environ.get(CHECKSUM_VARIABLE)  # which is the URL's
    return source.model_copy(update={"checksum": checksum}) if checksum else source


def _source_from_environ(script: Path | None, environ: Mapping[str, str]) -> SourceCode | None:
    """What the variables say; a URL that is told beside a notebook says nothing of another file."""
    url, checksum = environ.get(URL_VARIABLE), environ.get(CHECKSUM_VARIABLE, "")
    if not url:
        return None
    notebook = Path(environ.get(NOTEBOOK_VARIABLE, ""))
    if notebook.suffix != ".ipynb" or not notebook.is_file():
        return SourceCode(url=url, checksum=checksum, kind="environment")
    file = script or running_script(environ)
    if file is not None and file.resolve() != notebook.resolve():
        return None
    from deriva_ml_core.git import file_source_with_url  # which begins processes

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
    """Make a `Workflow`, asking these plugins where the code is.

    Args:
        name: What to call it.
        workflow_type: A term of the vocabulary Workflow_Type.
        description: What it does.
        script: The file to look at, instead of the one that runs.
        plugins: Whom to ask; the process's own plugins by default.
        environ: The environment variables; the process's own by default.
    """
    given: dict[str, Any] = {"plugins": plugins, "environ": environ}
    surroundings = _DetectionContext(**{name: value for name, value in given.items() if value is not None})
    fields = {"name": name, "workflow_type": workflow_type, "description": description, "script": script}
    return Workflow.model_validate(fields, context=surroundings)


class CatalogWorkflow(Workflow):
    """A workflow of the catalog: assigning its ``description`` or ``workflow_type`` writes there at once."""

    model_config = ConfigDict(frozen=False)

    _connection: Connection = PrivateAttr()

    def __setattr__(self, name: str, value: Any) -> None:
        """Write an attribute to the catalog.

        Raises:
            CatalogReadOnly: Another attribute than those two: it says what was run, which does not change.
            UnknownTerm: The catalog has no such workflow type.
        """
        if name.startswith("_"):
            super().__setattr__(name, value)
            return
        if name not in _WRITABLE_COLUMNS or not isinstance(value, str):
            raise CatalogReadOnly(
                f"{name} = {value!r} cannot be written to workflow {self.rid}: what can be assigned are texts, "
                "to its description and its workflow_type; the rest says what was run."
            )
        value = _redact(value)
        if name == "workflow_type":
            self._connection.terms.require(MLVocab.workflow_type, [value])
        if not self._connection.catalog.update(MLTable.workflow, [{"RID": self.rid, _WRITABLE_COLUMNS[name]: value}]):
            raise UnknownRID(f"The workflow {self.rid} is no longer in {self._connection.catalog.name}.")
        object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # no connection crosses into another process
        return Workflow.model_validate, (self.model_dump(),)


_WRITABLE_COLUMNS: Mapping[str, str] = {"description": "Description", "workflow_type": "Workflow_Type"}


def _from_row(connection: Connection, row: Mapping[str, Any]) -> CatalogWorkflow:
    workflow = CatalogWorkflow(
        name=row["Name"] or "",
        workflow_type=row["Workflow_Type"],
        description=row["Description"] or "",
        url=row["URL"] or "",
        checksum=row["Checksum"] or "",
        version=row["Version"],
        rid=row["RID"],
    )
    workflow._connection = connection
    return workflow


def register_workflow(connection: Connection, workflow: Workflow) -> RID:
    """Find a workflow's row by its URL or checksum, or add one.

    If both match different rows the checksum's counts; a ``file:`` URL matches by its checksum only; a workflow with
    neither is always new. A row that is found is not changed: another name or type is warned about.

    Args:
        connection: Where it is registered.
        workflow: What is registered.

    Returns:
        The row's id.

    Raises:
        UnknownTerm: The catalog has no such workflow type.
        UnknownRID, WrongTable: The workflow has a record id, which names no workflow here.
    """
    if workflow.rid:
        return str(connection.require_row(MLTable.workflow, workflow.rid)["RID"])
    types = connection.catalog.model.table(MLTable.workflow).foreign_keys
    if not any(key.column == "Workflow_Type" for key in types):  # nothing else would refuse an unknown one
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
    same = tuple(condition for condition in (by_checksum, by_url) if condition)
    if not same:
        (rid,) = connection.catalog.reserve(1)
        connection.catalog.insert(MLTable.workflow, [{**row, "RID": rid}])
        return rid
    found, new = connection.catalog.insert_unless(MLTable.workflow, AnyOf(same), row)
    if not new:
        found = _prefer_checksum_match(connection, by_checksum, found)
        if found["Workflow_Type"] != workflow.workflow_type:
            _require_type(connection, workflow)
        _warn_if_different(found, workflow)
    return str(found["RID"])


def _redact(text: str) -> str:
    from deriva_ml_core.redaction import redact_text  # many patterns to compile

    return redact_text(text)


def _prefer_checksum_match(
    connection: Connection, by_checksum: Mapping[str, str] | None, found: dict[str, Any]
) -> dict[str, Any]:
    """The oldest row with that checksum, where the row that was found has only the URL in common."""
    if by_checksum is None or found["Checksum"] == by_checksum["Checksum"]:
        return found
    return next(iter(connection.catalog.select(MLTable.workflow, by_checksum, order=("RCT",), limit=1)), found)


def _warn_if_different(found: Mapping[str, Any], workflow: Workflow) -> None:
    if (found["Name"], found["Workflow_Type"]) != (workflow.name, workflow.workflow_type):
        warn(
            f"The catalog knows this code as workflow {found['RID']}, {found['Name']!r} ({found['Workflow_Type']}), "
            f"which is used, and not as {workflow.name!r} ({workflow.workflow_type}). To change the type, assign "
            "workflow_type to what ml.lookup_workflow returns."
        )


def lookup_workflow(connection: Connection, rid: RID) -> CatalogWorkflow:
    """The workflow of a record id, bound to the catalog, as it was at a snapshot where the id names one.

    Raises:
        UnknownRID, WrongTable: The id names no workflow.
    """
    rid, snapshot = split_rid(rid)
    if snapshot:
        past = replace(connection.backend, catalog=connection.catalog.at(snapshot))
        connection = replace(connection, backend=past)
    return _from_row(connection, connection.require_row(MLTable.workflow, rid))


def lookup_workflow_by_url(connection: Connection, url_or_checksum: str) -> CatalogWorkflow:
    """The oldest workflow with that URL or checksum, bound to the catalog.

    Raises:
        UnknownWorkflow: There is none.
    """
    url = _redact(url_or_checksum)
    either = AnyOf(({"URL": url}, {"Checksum": url_or_checksum})) if url_or_checksum else None
    rows = connection.catalog.select(MLTable.workflow, either, order=("RCT",), limit=1) if either else []
    if not rows:
        raise UnknownWorkflow(
            f"No workflow of {connection.catalog.name} has the URL or checksum {url_or_checksum!r}; "
            "ml.find_workflows() lists those it has, ml.add_workflow(workflow) registers one."
        )
    return _from_row(connection, rows[0])


def find_workflows(connection: Connection) -> list[CatalogWorkflow]:
    """All workflows, bound to the catalog, the oldest first."""
    return [_from_row(connection, row) for row in connection.catalog.select(MLTable.workflow, {}, order=("RCT",))]
