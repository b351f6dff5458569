"""Name and type of the runs in the catalog; the source of the code is detected when a run starts."""

from hydra_zen import builds, store

from deriva_ml.execution import Workflow

workflow_store = store(group="workflow")

workflow_store(
    builds(
        Workflow,
        name="Digits CNN",
        workflow_type="Training",
        description="Train a small network on images of handwritten digits",
        populate_full_signature=True,
    ),
    name="digits",
)
