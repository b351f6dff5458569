"""What the runs are called in the catalog; where the code is, is found out when one begins."""

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
