"""A training that ends an epoch for each line of its standard input."""

import sys

from deriva_ml import DerivaML, ExecutionConfiguration
from deriva_ml_core.training import TrainingReporter
from deriva_ml_core.workflow import Workflow

EPOCHS = 5

workflow = Workflow(name="Watched", workflow_type="Training", url="https://example.org/blob/a/w.py", checksum="2" * 40)
with DerivaML().create_execution(ExecutionConfiguration(workflow=workflow, description="Watched"), console=True) as exe:
    reporter = TrainingReporter(exe, checkpoints="none", curves=False)
    reporter.begin_fit(epochs=EPOCHS, settings={"lr": 0.5})
    print(exe.execution_rid, flush=True)
    for epoch, _ in zip(range(1, EPOCHS + 1), sys.stdin, strict=False):
        reporter.end_epoch(epoch, {"loss": 1 / epoch, "val_loss": 1.5 / epoch})
        print(f"epoch {epoch}", flush=True)
    reporter.end_fit()
