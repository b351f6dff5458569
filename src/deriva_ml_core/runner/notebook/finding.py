"""The executions that a notebook has made itself, opened by the process that ran it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deriva_ml_core.client import DerivaML
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import DRY_RUN_RID, MLTable
from deriva_ml_core.execution import Execution
from deriva_ml_core.execution.made import KernelExecution, read_registry
from deriva_ml_core.runner.notebook.document import Notebook

__all__ = ["find_notebook_executions"]


def find_notebook_executions(ml: DerivaML, executions_file: Path, notebook: Notebook) -> Iterator[Execution]:
    """The executions of a notebook's own code that its kernel noted; those of another file's code are not meant.

    They are opened as they are, and not restored: the kernel is gone by now, and how they ended is for the one who ran
    it to say.

    Args:
        ml: The catalog, which is taken where it is the same.
        executions_file: The file in which the kernel noted them.
        notebook: The notebook.

    Raises:
        UnknownAddress, CatalogUnavailable: One is in another catalog, which cannot be reached.
    """
    for each in read_registry(executions_file):
        if each.rid != DRY_RUN_RID and (each.code is None or each.code.resolve() == notebook.path.resolve()):
            connection = _open_connection(ml, each)
            yield Execution(connection, connection.require_row(MLTable.execution, each.rid), each.folder, restored=True)


def _open_connection(ml: DerivaML, created: KernelExecution) -> Connection:
    present, address = ml.connection.address, created.address
    here = f"file:{ml.connection.folder}" if present.is_embedded else present.hostname
    if (here, present.catalog_id, present.working_dir) == (address.hostname, address.catalog_id, address.working_dir):
        return ml.connection
    return DerivaML(address.hostname, address.catalog_id, working_dir=address.working_dir).connection
