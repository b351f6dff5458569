"""Standard tables and terms of a new catalog, for every backend."""

from __future__ import annotations

from collections.abc import Mapping

from deriva_ml_core.definitions import MLAsset, MLTable, MLVocab, Role
from deriva_ml_core.schema import (
    DOMAIN_SCHEMA,
    ML_SCHEMA,
    Column,
    ForeignKey,
    Table,
    asset_tables,
    association_table,
    dataset_element_table_name,
    vocabulary_table,
)

__all__ = [
    "ADDED_COLUMNS",
    "SCHEMA_VERSION",
    "DEFAULT_TERMS",
    "metrics_table",
    "parameters_table",
    "tags_table",
    "default_tables",
]

SCHEMA_VERSION = 5
"""Version of `default_tables`. An embedded catalog of an older version is migrated when it is opened."""

ADDED_COLUMNS: frozenset[tuple[str, str]] = frozenset()
"""Columns, as table and name, that a version after 1 added to a table of an earlier one.

To add a column: append it to its table in `default_tables`, name it here, and increase `SCHEMA_VERSION`. An embedded
catalog gets it when it is opened, a catalog on a server by ``DerivaML.create(hostname, project_name, catalog_id=...)``,
and a catalog without it is read with empty values. It must allow nulls and belong to no key.
"""

_DATASET_KEY = ForeignKey("Dataset", MLTable.dataset)
_EXECUTION_KEY = ForeignKey("Execution", MLTable.execution)


def default_tables() -> tuple[Table, ...]:
    """Return all tables of a new catalog, each after the tables that it refers to.

    Dataset and Dataset_Version are the exception: they refer to each other.
    """
    return (
        *(vocabulary_table(name) for name in MLVocab),
        *_execution_tables(),
        *_dataset_tables(),
        *(table for name in MLAsset for table in asset_tables(name, schema=ML_SCHEMA)),
        *(table for name in ("Model", "Image") for table in asset_tables(name)),
        _element_table(MLAsset.file, ML_SCHEMA),
        *(_element_table(name, DOMAIN_SCHEMA) for name in ("Model", "Image")),
    )


def _execution_tables() -> tuple[Table, ...]:
    return (
        Table(
            MLTable.workflow,
            (
                Column("Name"),
                Column("Description", "markdown"),
                Column("URL", "ermrest_uri"),
                Column("Checksum"),
                Column("Version"),
                Column("Workflow_Type", nullok=False),
            ),
            foreign_keys=(ForeignKey("Workflow_Type", MLVocab.workflow_type, "Name"),),
        ),
        Table(
            MLTable.execution,
            (
                Column("Workflow"),
                Column("Description", "markdown"),
                Column("Duration"),
                Column("Status"),
                Column("Status_Detail"),
            ),
            foreign_keys=(ForeignKey("Workflow", MLTable.workflow),),
        ),
        association_table(
            MLTable.nested_execution,
            _EXECUTION_KEY,
            ForeignKey("Nested_Execution", MLTable.execution),
            Column("Sequence", "int4"),
        ),
        metrics_table(),
        parameters_table(),
        tags_table(),
    )


def metrics_table() -> Table:
    """Return the table of the latest and best values of each execution's metrics."""
    return Table(
        MLTable.execution_metric,
        (
            Column("Execution", nullok=False),
            Column("Stage", nullok=False, comment="fit, validate, test or predict"),
            Column("Name", nullok=False),
            Column("Last", "float8", comment="The newest value; empty where that is no finite number"),
            Column("Best", "float8", comment="The best finite value"),
            Column("Best_At", "int4", comment="The epoch of the best value, from 1"),
            Column("Larger_Is_Better", "boolean", nullok=False),
        ),
        keys=(("Execution", "Stage", "Name"),),
        foreign_keys=(ForeignKey("Execution", MLTable.execution, cascade=True),),
        comment="Where each metric of an execution stands, so that executions can be ordered by it",
    )


def parameters_table() -> Table:
    """Return the table of each execution's parameters."""
    return Table(
        MLTable.execution_parameter,
        (
            Column("Execution", nullok=False),
            Column("Name", nullok=False, comment="Nested settings are joined with dots, as in optimizer.lr"),
            Column("Value", nullok=False, comment="A text as it is, any other value as JSON; cut at 500 characters"),
            Column("Number", "float8", comment="The value if it is a finite number"),
        ),
        keys=(("Execution", "Name"),),
        foreign_keys=(ForeignKey("Execution", MLTable.execution, cascade=True),),
        comment="The settings of each execution, so that executions can be found and compared by them",
    )


def tags_table() -> Table:
    """Return the table of each execution's tags."""
    return Table(
        MLTable.execution_tag,
        (
            Column("Execution", nullok=False),
            Column("Tag", nullok=False, comment="One line without commas, of at most 100 characters"),
        ),
        keys=(("Execution", "Tag"),),
        foreign_keys=(ForeignKey("Execution", MLTable.execution, cascade=True),),
        comment="Words that users attach to executions, so that these can be found by them",
    )


def _dataset_tables() -> tuple[Table, ...]:
    return (
        Table(
            MLTable.dataset,
            (Column("Description", "markdown"), Column("Deleted", "boolean"), Column("Version")),
            foreign_keys=(ForeignKey("Version", MLTable.dataset_version),),
        ),
        Table(
            MLTable.dataset_version,
            (
                Column("Version", nullok=False, default="0.1.0"),
                Column("Description", "markdown"),
                Column("Dataset", nullok=False),
                Column("Execution"),
                Column("Minid"),
                Column("Snapshot"),
            ),
            keys=(("Dataset", "Version"),),
            foreign_keys=(_DATASET_KEY, _EXECUTION_KEY),
        ),
        association_table(
            MLTable.dataset_dataset_type, _DATASET_KEY, ForeignKey("Dataset_Type", MLVocab.dataset_type, "Name")
        ),
        association_table(MLTable.nested_dataset, _DATASET_KEY, ForeignKey("Nested_Dataset", MLTable.dataset)),
        association_table(
            MLTable.dataset_execution,
            _DATASET_KEY,
            _EXECUTION_KEY,
            Column("Dataset_Version"),
            key=("Dataset", "Execution", "Dataset_Version"),
            extra_foreign_keys=(ForeignKey("Dataset_Version", MLTable.dataset_version),),
        ),
    )


def _element_table(name: str, schema: str) -> Table:
    return association_table(dataset_element_table_name(name), _DATASET_KEY, ForeignKey(name, name), schema=schema)


DEFAULT_TERMS: Mapping[str, Mapping[str, str]] = {
    MLVocab.asset_type: {
        "Execution_Config": "The configuration of an execution",
        "Runtime_Env": "The environment that an execution ran in",
        "Hydra_Config": "What hydra composed for an execution",
        "Deriva_Config": "The DerivaML configuration of an execution",
        "Execution_Metadata": "What describes an execution",
        "Execution_Asset": "What an execution made, of no further kind",
        "File": "A file",
        "Input_File": "A file that went into an execution",
        "Output_File": "A file that came out of an execution",
        "Model_File": "A trained model",
        "Notebook_Output": "A notebook as executed",
        "Metrics_File": "Metrics by epoch or step",
        "Best_Checkpoint": "The best checkpoint of a training, by the metric that it watched",
        "Last_Checkpoint": "The last checkpoint of a training",
        "Training_Curves": "A picture of a training's metrics by epoch",
        "Model": "A row of the asset table Model",
        "Image": "A row of the asset table Image",
        "Segmentation_Mask": "A mask of regions of an image",
        "Derived": "Made from another asset",
    },
    MLVocab.asset_role: {
        Role.input: "The execution read it",
        Role.output: "The execution made it",
    },
    MLVocab.dataset_type: {
        "File": "A dataset of files",
        "Training": "To train with",
        "Testing": "To test with",
        "Validation": "To validate with while training",
        "Augmented": "With members made from others",
    },
    MLVocab.workflow_type: {
        "Training": "Model training workflows",
        "Inference": "Running predictions on new data",
        "Preprocessing": "Data cleaning and transformation",
        "Evaluation": "Model evaluation and metrics",
        "Annotation": "Adding labels or features",
    },
}
"""Terms of a new catalog with their descriptions, by vocabulary."""
