"""A training in two processes that goes on from its own checkpoint, for a test to run."""

from __future__ import annotations

import importlib
import sys

from lightnings import configuration, held_out, loader, model_of, trainer_of

from deriva_ml import DerivaML
from deriva_ml_lightning import DerivaMLCallback

lightning = importlib.import_module(sys.argv[1])

if __name__ == "__main__":
    ml = DerivaML()
    path, rids, folder = None, [], None
    for epochs in (2, 3):
        callback = DerivaMLCallback(ml=ml, configuration=configuration(), resume=sys.argv[2])
        own = lightning.callbacks.ModelCheckpoint(monitor="val_loss", save_last=True)
        trainer = trainer_of(
            lightning, callback, own, max_epochs=epochs, devices=2, strategy="ddp", enable_checkpointing=True
        )
        trainer.fit(model_of(lightning), loader(), held_out(), ckpt_path=path, weights_only=False)
        path, folder = own.last_model_path, own.dirpath
        rids.append(callback.execution.execution_rid)
    print(f"rank{trainer.global_rank}", *rids, folder, flush=True)
