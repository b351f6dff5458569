"""Datasets: named sets of rows from several tables, with immutable versions."""

from __future__ import annotations

from deriva_ml_core._lazy import lazy_names

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "deriva_ml_core.datasets.bag": ("DatasetBag",),
        "deriva_ml_core.datasets.dataset": (
            "Dataset",
            "add_dataset_element_type",
            "create_dataset",
            "delete_dataset",
            "find_datasets",
            "list_input_datasets",
            "lookup_dataset",
            "record_input",
        ),
        "deriva_ml_core.datasets.versions": (
            "DatasetVersion",
            "VersionPart",
            "resolve_version",
        ),
    },
)
