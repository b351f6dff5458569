from deriva_ml_core.datasets.bag import DatasetBag
from deriva_ml_core.datasets.dataset import (
    Dataset,
    add_dataset_element_type,
    create_dataset,
    delete_dataset,
    find_datasets,
    list_input_datasets,
    lookup_dataset,
    record_input,
)
from deriva_ml_core.datasets.versions import DatasetVersion, VersionPart, resolve_version

__all__ = [
    "add_dataset_element_type",
    "create_dataset",
    "Dataset",
    "DatasetBag",
    "DatasetVersion",
    "delete_dataset",
    "find_datasets",
    "list_input_datasets",
    "lookup_dataset",
    "record_input",
    "resolve_version",
    "VersionPart",
]
