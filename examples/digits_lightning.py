"""Train a small network on images of digits with Lightning, and print the recorded run."""

from __future__ import annotations

import logging
import sys
import warnings

import torch
from digits_data import digits_dataset, read_images
from pytorch_lightning import LightningModule, Trainer
from show_run import arguments, show_run
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from deriva_ml import DatasetSpec, DerivaML, ExecutionConfiguration
from deriva_ml_core import DatasetBag
from deriva_ml_lightning import DerivaMLCallback

Batch = tuple[Tensor, Tensor]


class DigitClassifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 3 * 3, 10),
        )  # fmt: skip

    def training_step(self, batch: Batch) -> Tensor:
        loss = nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Batch) -> None:
        scores = self.layers(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(scores, batch[1]))
        self.log("val_accuracy", (scores.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.002)


def load(bag: DatasetBag, purpose: str) -> DataLoader[Batch]:
    images, labels = read_images(bag, purpose)
    tensors = TensorDataset(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels))
    return DataLoader(tensors, batch_size=32, shuffle=purpose == "Training")


def train(ml: DerivaML, epochs: int) -> str:
    digits = DatasetSpec(rid=digits_dataset(ml).rid)
    workflow = ml.create_workflow("Digit classifier", "Training", "A small CNN, trained with Lightning")
    config = ExecutionConfiguration(workflow=workflow, description=f"Adam, 0.002, epochs: {epochs}", datasets=[digits])
    with ml.create_execution(config) as exe:
        bag = exe.download_dataset_bag(digits)
        trainer = Trainer(
            max_epochs=epochs,
            callbacks=[DerivaMLCallback(exe)],
            enable_checkpointing=False,  # the callback keeps the best and the last
            enable_model_summary=False,
            enable_progress_bar=sys.stdout.isatty(),
            logger=False,
        )
        trainer.fit(DigitClassifier(), load(bag, "Training"), load(bag, "Testing"))
    exe.upload_execution_outputs()
    return exe.execution_rid


if __name__ == "__main__":
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec")  # Lightning 2.6 with torch 2.13
    catalog, epochs = arguments(__doc__ or "")
    show_run(catalog, train(catalog, epochs))
