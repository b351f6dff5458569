"""Public names of the client and of the package."""

from __future__ import annotations

import inspect

import deriva_ml_core
from deriva_ml_core import DerivaML, errors

CLIENT_NAMES = {
    *("close", "connection", "create"),
    *("create_workflow", "add_workflow", "lookup_workflow", "lookup_workflow_by_url", "find_workflows"),
    *("create_execution", "restore_execution", "resume_execution", "lookup_execution", "find_executions", "push"),
    *("correct_status", "correct_best_checkpoint", "execution_rows", "executions_dataframe"),
    *("set_baseline", "lookup_baseline", "list_baselines"),
    *("delete_execution", "list_deleted_executions", "restore_deleted_execution"),
    *("list_executions", "list_workflows", "list_datasets"),
    *("describe", "lineage", "compare", "verify", "reproduce", "export", "export_prov"),
    *("create_dataset", "lookup_dataset", "find_datasets", "delete_dataset", "add_dataset_element_type"),
    *("lookup_asset", "verify_asset", "download_asset"),
    *("create_asset", "create_vocabulary", "create_table", "add_term", "list_terms", "insert_rows", "select_rows"),
}

PACKAGE_NAMES = {
    # clients and what they return
    *("DerivaML", "Connection", "Execution", "RecordedExecution", "ExecutionConfiguration", "Workflow"),
    *("CatalogWorkflow", "Dataset", "DatasetBag", "DatasetVersion", "VersionPart"),
    # values
    *(
        "Address",
        "Asset",
        "AssetSpec",
        "BestCorrection",
        "DatasetSpec",
        "ExecutionInfo",
        "MediaFile",
        "MetricSummary",
        "MetricValue",
        "Progress",
        "SourceCode",
    ),
    *("StagedAsset", "StatusUpdate", "StoredObject", "UnsentAsset", "UploadOptions", "UploadProgress", "UploadReport"),
    # definitions
    *("MLAsset", "MLTable", "MLVocab", "RID", "Role", "Status", "TransferMode"),
    # tables
    *("Column", "ForeignKey", "Table"),
    # plugins and backends
    *("Backend", "Catalog", "ObjectStore", "hookimpl", "list_plugins", "load_plugins", "plugin_manager"),
    *errors.__all__,
}


def test_client_names() -> None:
    """Tab completion on a client shows the documented names and nothing else."""
    assert {name for name in dir(DerivaML()) if not name.startswith("_")} == CLIENT_NAMES


def test_client_names_are_documented() -> None:
    """Every public name of the client has a docstring, and every parameter of a method is described in it."""
    for name in CLIENT_NAMES:
        member = inspect.getattr_static(DerivaML, name)
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        text = inspect.getdoc(function) or ""
        parameters = [
            parameter for parameter in inspect.signature(function).parameters if parameter not in ("self", "cls")
        ]
        assert text, name
        assert [parameter for parameter in parameters if f"{parameter}:" not in text] == [], name


def test_package_names() -> None:
    """The package exports what users and plugin authors need, and nothing else."""
    assert set(deriva_ml_core.__all__) == PACKAGE_NAMES
    assert all(hasattr(deriva_ml_core, name) for name in PACKAGE_NAMES)
