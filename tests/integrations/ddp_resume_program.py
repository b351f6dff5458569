"""Program of a test: a training in two processes that resumes from its own checkpoint."""

from __future__ import annotations

import importlib
import sys

from lightning_helpers import configuration, create_model, create_trainer, training_loader, validation_loader

from deriva_ml import DerivaML
from deriva_ml_lightning import DerivaMLCallback

lightning = importlib.import_module(sys.argv[1])

if __name__ == "__main__":
    ml = DerivaML()
    path, rids, folder = None, [], None
    for epochs in (2, 3):
        callback = DerivaMLCallback(ml=ml, configuration=configuration(), resume=sys.argv[2])
        trainer = create_trainer(
            lightning, callback, max_epochs=epochs, devices=2, strategy="ddp", enable_checkpointing=True
        )
        trainer.fit(create_model(lightning), training_loader(), validation_loader(), ckpt_path=path, weights_only=False)
        path, folder = trainer.checkpoint_callback.best_model_path, trainer.checkpoint_callback.dirpath
        rids.append(callback.execution.execution_rid)
    print(f"rank{trainer.global_rank}", *rids, folder, flush=True)
